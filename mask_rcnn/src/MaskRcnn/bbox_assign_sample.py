# Same as faster_rcnn/src/FasterRcnn/bbox_assign_sample.py
"""First stage: match anchors to ground truth, and sample the anchors that enter the loss.

Shapes: N images, A anchors of all levels, G ground-truth slots, T sampled anchors per image, of which the first Q may
be positive. Boxes are (x1, y1, x2, y2) in input-image pixels, width = x2 - x1 + offset. Labels: 1 object, 0
background, -1 ignored. No gradient passes: every result is a target.
"""

import numpy as np
from mindspore import Tensor, ops
from mindspore import dtype as mstype

from ..model_utils.layers.boxes import UNIT_STDS, ZERO_MEANS, area, encode, spread, take_rows


def match_anchors(anchors, gt_boxes, gt_valid, pos_thr: float = 0.7, neg_thr: float = 0.3, min_pos_iou: float = 0.0,
                  low_quality: bool = True, low_quality_takes_gt: bool = False, anchor_valid=None, offset: int = 0):
    """Match anchors to ground truth (Ren et al., "Faster R-CNN", 2015, section 3.1.2).

    An anchor is positive if its best IoU is at least `pos_thr`, and background if it is below `neg_thr`. Its target is
    the object that it overlaps most; the first one wins a tie.

    The loop runs over the slots up to the last object of the batch and holds one IoU per anchor. For 2 images with
    245520 anchors it takes 0.04 s plus 5 ms per object on 2 threads: 0.08 s for 8 objects, 0.6 s for 128. All 128 slots
    at once would need 251 MB per intermediate tensor, and 0.6 s however few objects there are.

    Args:
        anchors: (A, 4); gt_boxes: (N, G, 4); gt_valid: bool (N, G).
        low_quality: also make the best anchors of every object positive, including ties, if their IoU is above 0 and at
            least `min_pos_iou`.
        low_quality_takes_gt: match such an anchor to that object (the last one, if several apply) instead of to the
            object that it overlaps most (mmdet).
        anchor_valid: bool (N, A); an anchor that is not valid gets label -1 and is no object's best. None: all are valid.

    Returns:
        Labels int32 (N, A); index of the matched object int32 (N, A), 0 if there is none.
    """
    anchors, gt_boxes = ops.stop_gradient(anchors), ops.stop_gradient(gt_boxes)
    shape = (gt_boxes.shape[0], anchors.shape[0])
    usable = ops.ones(shape, anchors.dtype) if anchor_valid is None else anchor_valid.astype(anchors.dtype)
    zero = ops.zeros_like(usable)                                              # (N, A)
    x1, y1, x2, y2 = (spread(anchors[:, i].expand_dims(0), shape) for i in range(4))
    anchor_area = spread(area(anchors, offset).expand_dims(0), shape)
    gt_valid = gt_valid.astype(anchors.dtype)
    slots = Tensor(np.arange(1, gt_valid.shape[1] + 1, dtype=np.float32).reshape(1, -1))
    count = (gt_valid * slots).max().astype(mstype.int32)

    best, best_gt, forced, forced_gt = zero, zero, zero, zero
    slot = Tensor(0, mstype.int32)
    while slot < count:
        iou = slot_iou(x1, y1, x2, y2, anchor_area, gt_boxes, slot, offset)    # (N, A)
        iou = iou * usable * spread(ops.gather(gt_valid, slot, 1).expand_dims(1), shape)
        number = slot.astype(zero.dtype)
        better = (iou > best).astype(zero.dtype)
        best_gt = best_gt + better * (number - best_gt)
        best = ops.maximum(best, iou)
        if low_quality:
            top = iou.max(axis=1, keepdims=True)                               # (N, 1)
            enough = ops.logical_and(top > 0, top >= min_pos_iou)
            top = ops.select(enough, top, ops.zeros_like(top) + 2)             # above any IoU: chooses no anchor
            chosen = (iou >= spread(top, shape)).astype(zero.dtype)
            forced = ops.maximum(forced, chosen)
            forced_gt = forced_gt + chosen * (number - forced_gt)
        slot = slot + 1

    positive = ops.maximum((best >= pos_thr).astype(zero.dtype), forced)
    negative = (best < neg_thr).astype(zero.dtype) * (1 - positive)
    labels = usable * (2 * positive + negative) - 1                            # 1, 0 or -1
    matched = best_gt + forced * (forced_gt - best_gt) if low_quality_takes_gt else best_gt
    return ops.stop_gradient(labels.astype(mstype.int32)), ops.stop_gradient(matched.astype(mstype.int32))


def slot_iou(x1, y1, x2, y2, anchor_area, gt_boxes, slot, offset):
    """Return the IoU (N, A) of anchors, given as coordinates (N, A), with the boxes in one slot of gt_boxes (N, G, 4)."""
    shape = x1.shape
    box = ops.gather(gt_boxes, slot, 1)                                        # (N, 4)
    gx1, gy1, gx2, gy2 = (spread(box[:, i:i + 1], shape) for i in range(4))
    width = ops.minimum(x2, gx2) - ops.maximum(x1, gx1) + offset
    height = ops.minimum(y2, gy2) - ops.maximum(y1, gy1) + offset
    inter = ops.relu(width) * ops.relu(height)
    return inter / (anchor_area + spread(area(box, offset).expand_dims(1), shape) - inter)


def anchors_in_padding(corners, padded_sizes):
    """Return which anchors belong to a cell within the padded size of their image: bool (N, A).

    Args:
        corners: (A, 2), the upper left corner (x, y) of each anchor's cell.
        padded_sizes: (N, 2), height and width, such as the image size rounded up to a multiple of 32 (mmdet).
    """
    sizes = padded_sizes.astype(corners.dtype).expand_dims(1)                  # (N, 1, 2)
    return ops.logical_and(corners[:, 0] < sizes[..., 1], corners[:, 1] < sizes[..., 0])


def anchors_in_image(anchors, image_sizes, border: float = 0.0):
    """Return which anchors lie within their image, or at most `border` pixels beyond it: bool (N, A).

    Args:
        anchors: (A, 4); image_sizes: (N, 2), height and width.
    """
    sizes = image_sizes.astype(anchors.dtype).expand_dims(1) + border          # (N, 1, 2)
    below = ops.logical_and(anchors[:, 2] <= sizes[..., 1], anchors[:, 3] <= sizes[..., 0])
    return ops.logical_and(below, ops.logical_and(anchors[:, 0] >= -border, anchors[:, 1] >= -border))


def sample_anchors(labels, noise, num_pos: int, num_total: int, num_neg: int = 0):
    """Sample up to `num_pos` positive anchors at random, and fill up to `num_total` with at most `num_neg` background anchors.

    Args:
        labels: int32 (N, A); noise: (N, A), uniform in [0, 1).
        num_neg: 0 = limited by `num_total` only.

    Returns:
        index int32 (N, T), positive bool (N, T), negative bool (N, T), T = min(num_total, A). Positive anchors fill the
        first slots, `num_pos` at most. A slot that is neither positive nor negative is padding; its index has no meaning.
    """
    num_pos, num_total = min(num_pos, labels.shape[1]), min(num_total, labels.shape[1])
    pos_key, pos_index = ops.topk(ops.select(labels == 1, noise, ops.zeros_like(noise) - 1), num_pos)
    neg_key, neg_index = ops.topk(ops.select(labels == 0, noise, ops.zeros_like(noise) - 1), num_total)
    if 0 < num_neg < num_total:     # keys are sorted in descending order
        neg_key = ops.cat((neg_key[:, :num_neg], ops.zeros_like(neg_key[:, num_neg:]) - 1), 1)
    return first_positive(pos_key, pos_index, neg_key, neg_index, num_total)


def first_positive(pos_key, pos_index, neg_key, neg_index, num_total: int):
    """Order the candidates, positive ones first, then negative ones, then padding; a key is in [0, 1), or -1 for padding."""
    keys = ops.cat((pos_key + 2 * (pos_key >= 0).astype(pos_key.dtype), neg_key), 1)
    keys, order = ops.topk(keys, num_total)                                    # (N, T)
    index = ops.gather_d(ops.cat((pos_index, neg_index), 1), 1, order)
    return index, keys >= 1.5, ops.logical_and(keys >= 0, keys < 1.5)


def anchor_targets(anchors, gt_boxes, matched, index, stds=UNIT_STDS, means=ZERO_MEANS, offset: int = 0):
    """Encode the matched boxes of the sampled anchors: (N, T, 4), finite but meaningless where a sample is not positive.

    Args:
        anchors: (A, 4); gt_boxes: (N, G, 4).
        matched: (N, A), index of each anchor's object; index: (N, T), the sampled anchors.
    """
    boxes = take_rows(gt_boxes, ops.gather_d(matched, 1, index))
    return ops.stop_gradient(encode(ops.gather(anchors, index, 0), boxes, stds, means, offset))
