# Same as faster_rcnn/src/FasterRcnn/bbox_assign_sample_stage2.py
"""Second stage: match proposals to ground truth, and sample the RoIs that the heads train on.

Shapes: N images, P proposals, G ground-truth slots, M = P + G candidates, S sampled RoIs per image, of which the first
Q may be positive. Boxes are (x1, y1, x2, y2) in input-image pixels, width = x2 - x1 + offset; label 0 is background.
No gradient passes: every result is a target.
"""

import numpy as np
from mindspore import Tensor, ops
from mindspore import dtype as mstype

from ..model_utils.layers.boxes import encode, pairwise_iou, spread, take_rows
from .bbox_assign_sample import first_positive


def match_rois(boxes, valid, gt_boxes, gt_valid, low_quality: bool = False, min_pos_iou: float = 0.5, offset: int = 0):
    """Match each box to the object that it overlaps most.

    Args:
        boxes: (N, M, 4), valid: bool (N, M); gt_boxes: (N, G, 4), gt_valid: bool (N, G).
        low_quality: match a box that is the best one of some object, with an IoU of at least `min_pos_iou`, to that object
            (the last one, if several apply), even if it overlaps another one more (mmdet's mask models, the old zoo).

    Returns:
        IoU (N, M), 0 where there is no object; index of the object int32 (N, M); the first one wins a tie.
    """
    iou = pairwise_iou(boxes, gt_boxes, offset)                                # (N, M, G)
    shape = iou.shape
    usable, there = valid.astype(iou.dtype).expand_dims(2), gt_valid.astype(iou.dtype).expand_dims(1)
    iou = iou * spread(usable, shape) * spread(there, shape)
    numbers = spread(Tensor(np.arange(shape[2], dtype=np.float32).reshape(1, 1, -1)), shape)
    best = iou.max(axis=2, keepdims=True)
    # The first of equal values: argmax does not guarantee it.
    matched = ops.select(iou >= spread(best, shape), numbers, ops.zeros_like(iou) + shape[2]).min(axis=2)       # (N, M)
    if low_quality:
        top = iou.max(axis=1, keepdims=True)                                   # (N, 1, G)
        top = ops.select(ops.logical_and(top > 0, top >= min_pos_iou), top, ops.zeros_like(top) + 2)
        taken = ops.select(iou >= spread(top, shape), numbers, ops.zeros_like(iou) - 1)
        taken = taken.max(axis=2)                                              # the last one; -1: none
        matched = ops.select(taken >= 0, taken, matched)
    return best.squeeze(2), matched.astype(mstype.int32)


def sample_rois(proposals, valid, gt_boxes, gt_labels, gt_valid, noise, num_pos: int, num_total: int,
                pos_thr: float = 0.5, neg_thr: float = 0.5, neg_low: float = 0.0,
                stds=(0.1, 0.1, 0.2, 0.2), means=(0.0, 0.0, 0.0, 0.0),
                add_gt: bool = True, low_quality: bool = False, min_pos_iou: float = 0.5, offset: int = 0, num_neg: int = None,
                iou_offset: int = None):
    """Sample up to `num_pos` positive RoIs at random, and fill up to `num_total` with at most `num_neg` background RoIs.

    Args:
        proposals: (N, P, 4), valid: bool (N, P); gt_boxes: (N, G, 4), gt_labels: int32 (N, G), gt_valid: bool (N, G).
        noise: (N, P + G), uniform in [0, 1); (N, P) without `add_gt`.
        pos_thr: a RoI with at least this IoU is positive; neg_low <= IoU < neg_thr is background.
        add_gt: append the ground-truth boxes to the candidates.
        iou_offset: box offset in the IoU, if it differs from `offset`, which the box coder uses. None: the same.
        num_neg: most background RoIs; None = limited by `num_total` only. Does not change S: the remaining slots are padding.

    Returns:
        rois (N, S, 4), labels int32 (N, S), targets (N, S, 4), positive bool (N, S), valid bool (N, S), index of the
        object int32 (N, S); S = min(num_total, candidates). Positive RoIs fill the first slots, `num_pos` at most; then
        comes background, then padding: box and target 0, label 0, not valid.
    """
    if add_gt:
        proposals, valid = ops.cat((proposals, gt_boxes), 1), ops.cat((valid, gt_valid), 1)        # (N, M, 4), (N, M)
    proposals, gt_boxes = ops.stop_gradient(proposals), ops.stop_gradient(gt_boxes)
    num_total, num_pos = min(num_total, valid.shape[1]), min(num_pos, valid.shape[1])
    iou_offset = offset if iou_offset is None else iou_offset
    iou, matched = match_rois(proposals, valid, gt_boxes, gt_valid, low_quality, min_pos_iou, iou_offset)
    positive = ops.logical_and(valid, iou >= pos_thr)
    negative = ops.logical_and(ops.logical_and(valid, iou < min(neg_thr, pos_thr)), iou >= neg_low)
    none = ops.zeros_like(noise) - 1
    pos_key, pos_index = ops.topk(ops.select(positive, noise, none), num_pos)
    neg_key, neg_index = ops.topk(ops.select(negative, noise, none), num_total)
    if num_neg is not None and num_neg < num_total:     # keys are sorted in descending order
        neg_key = ops.cat((neg_key[:, :num_neg], none[:, num_neg:num_total]), 1)
    index, positive, negative = first_positive(pos_key, pos_index, neg_key, neg_index, num_total)

    sampled = ops.logical_or(positive, negative)
    matched = ops.gather_d(matched, 1, index)                                  # (N, S)
    rois = take_rows(proposals, index) * sampled.astype(proposals.dtype).expand_dims(-1)
    targets = encode(rois, take_rows(gt_boxes, matched), stds, means, offset)
    targets = targets * positive.astype(rois.dtype).expand_dims(-1)
    labels = ops.gather_d(gt_labels.astype(mstype.int32), 1, matched) * positive.astype(mstype.int32)
    return (ops.stop_gradient(rois), labels, ops.stop_gradient(targets), positive, sampled,
            matched * positive.astype(mstype.int32))
