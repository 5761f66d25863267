"""Box functions of RefineDet beyond model_utils/layers/boxes.py: overlap with objects, and the scale of deltas.

Shapes: N images, G ground-truth slots, A anchors. Boxes are (x1, y1, x2, y2) in input-image pixels, width = x2 - x1.
"""
from mindspore import ops

from .model_utils.layers.boxes import pairwise_iou, spread


def overlaps(anchors, gt_boxes, gt_valid):
    """Return the IoU (N, G, A) of anchors (N, A, 4) and gt_boxes (N, G, 4), or -1 for slots that are not valid."""
    iou = pairwise_iou(gt_boxes, anchors)
    return ops.select(spread(gt_valid.expand_dims(2), iou.shape), iou, -ops.ones_like(iou))


def deltas_stds(scaling) -> tuple:
    """Expand (centre, size) to the scale of (dx, dy, dw, dh)."""
    centre, size = scaling
    return (centre, centre, size, size)
