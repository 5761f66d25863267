"""What RefineDet asks of boxes beyond model_utils/layers/boxes.py: their overlap with objects, and the scale of their deltas.

Shapes: N images, G ground-truth slots, A anchors. Boxes are (x1, y1, x2, y2) in input-image pixels, width = x2 - x1.
"""
from mindspore import ops

from .model_utils.layers.boxes import pairwise_iou, spread


def overlaps(anchors, gt_boxes, gt_valid):
    """IoU (N, G, A) of anchors (N, A, 4) and gt_boxes (N, G, 4); -1 for slots that are not valid."""
    iou = pairwise_iou(gt_boxes, anchors)
    return ops.select(spread(gt_valid.expand_dims(2), iou.shape), iou, -ops.ones_like(iou))


def deltas_stds(scaling) -> tuple:
    """(centre, size) -> of dx, dy, dw, dh."""
    centre, size = scaling
    return (centre, centre, size, size)
