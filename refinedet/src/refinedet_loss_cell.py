"""Matching, hard negative mining and losses of RefineDet (Zhang et al., 2018, section 3; Liu et al., "SSD", 2016, section 2.2).

Shapes: N images, G ground-truth slots, A anchors, K classes including the background. Boxes are (x1, y1, x2, y2) in input-image
pixels, width = x2 - x1; label 0 is background. Where the paper leaves a choice, this follows the authors' code.
"""

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from .box_utils import deltas_stds
from .model_utils.layers.boxes import encode, spread, take_rows
from .model_utils.training.ranks import shared_count

LEAST_IOU = 1e-6  # smallest IoU of a match


class Matcher(nn.Cell):
    """Match anchors to ground truth.

    1. Every object gets one anchor, regardless of their IoU: see Bipartite.
    2. Every other anchor is matched to the object that it overlaps most, if their IoU is at least `pos_iou_thr`.
    """

    def __init__(self, pos_iou_thr: float):
        super().__init__()
        self.pos_iou_thr = pos_iou_thr
        self.bipartite = Bipartite()
        self.nearest = ops.ArgMaxWithValue(axis=1)

    def construct(self, iou):
        """Return the matched slot, or -1: iou (N, G, A), -1 for empty slots -> int32 (N, A)."""
        own = self.bipartite(iou)
        nearest, value = self.nearest(iou)
        nearest = ops.select(value >= self.pos_iou_thr, nearest.astype(mstype.int32), -ops.ones_like(own))
        return ops.select(own >= 0, own, nearest)


class Bipartite(nn.Cell):
    """Match objects and anchors one to one: the pair with the largest IoU, then the largest among the rest, until none overlaps.

    Each round matches all pairs that are each other's best, which include the largest of all. The number of rounds is therefore
    the number of objects that compete for one anchor, not the number of objects. MindSpore 2.10 cannot differentiate cells with
    loops, so `bprop` returns zeros. Operators are attributes: beside a loop, functions such as `ops.gather` do not compile within
    the `bprop` of any cell.
    """

    def __init__(self):
        super().__init__()
        self.zeros, self.tile, self.gather, self.select = ops.ZerosLike(), ops.Tile(), ops.GatherD(), ops.Select()
        self.best_anchor, self.best_object = ops.ArgMaxWithValue(axis=2), ops.ArgMaxWithValue(axis=1)
        self.sum, self.both = ops.ReduceSum(), ops.LogicalAnd()

    def construct(self, iou):
        """Return the matched object, or -1: iou (N, G, A) -> int32 (N, A)."""
        n, g, a = iou.shape
        slots, places = arange(g), arange(a)
        own = self.zeros(iou[:, 0]).astype(mstype.int32) - 1                   # (N, A)
        waiting = self.zeros(iou[:, :, 0]) + 1                                 # (N, G)
        left = self.sum(waiting)
        while left > 0:
            free = (own < 0).astype(mstype.float32)
            pairs = iou * self.tile(free.reshape(n, 1, a), (1, g, 1)) * self.tile(waiting.reshape(n, g, 1), (1, 1, a))
            place, value = self.best_anchor(pairs)                             # (N, G)
            place = place.astype(mstype.int32)
            rivals = self.gather(pairs, 2, self.tile(place.reshape(n, 1, g), (1, g, 1)))       # (N, G, G): IoU with each one's best
            winner, _ = self.best_object(rivals)
            agreed = self.both(winner.astype(mstype.int32) == slots, value > LEAST_IOU)
            hit = self.both(self.tile(place.reshape(n, g, 1), (1, 1, a)) == places, self.tile(agreed.reshape(n, g, 1), (1, 1, a)))
            slot, hits = self.best_object(hit.astype(mstype.float32))
            own = self.select(hits > 0, slot.astype(mstype.int32), own)
            agreed = agreed.astype(mstype.float32)
            waiting, left = waiting - agreed, self.sum(agreed)
        return own

    def bprop(self, iou, out, dout):
        return (self.zeros(iou),)


@ops.constexpr
def arange(count):
    return Tensor(np.arange(count, dtype=np.int32))


def hard_negatives(loss, candidates, positives, ratio: int):
    """Select the min(ratio * positives, candidates) candidates per image with the largest loss (Liu et al., "SSD", 2016).

    loss: (N, A); candidates: bool (N, A); positives: int32 (N,), their number per image. Returns bool (N, A).
    """
    n, a = loss.shape
    _, order = ops.sort(ops.select(candidates, loss, -ops.ones_like(loss)), axis=1, descending=True)
    _, rank = ops.sort(order.astype(mstype.float32), axis=1)                   # rank of each anchor
    wanted = spread((ratio * positives).expand_dims(1), (n, a))
    return ops.logical_and(rank.astype(mstype.int32) < wanted, candidates)


def multibox_losses(deltas, logits, anchors, gt_boxes, labels, matched, candidates, ratio: int, scaling):
    """Return (box loss, class loss) of one stage, divided by the number of matched anchors, at least 1.

    The number counts the batch over all devices (see shared_count); the authors' Caffe code counts each device separately.

    Smooth L1 (beta 1) over the four deltas of the matched anchors; cross entropy over these and the hardest negatives, `ratio`
    for each of them.

    Args:
        deltas (N, A, 4), logits (N, A, K): predictions. anchors: (N, A, 4), the reference of the deltas.
        gt_boxes: (N, G, 4); labels: int32 (N, A), 0 if not matched; matched: int32 (N, A), slot or -1.
        candidates: bool (N, A), anchors that may be mined as negatives. scaling: scale of the deltas, (centre, size).
    """
    positive = matched >= 0
    weight = positive.astype(deltas.dtype)
    count = shared_count(weight.sum())
    boxes = take_rows(gt_boxes, ops.maximum(matched, 0))
    targets = ops.stop_gradient(encode(anchors, boxes, deltas_stds(scaling)))
    box_loss = (smooth_l1(deltas - targets).sum(-1) * weight).sum() / count

    entropy, background = cross_entropy(logits, labels)
    negative = hard_negatives(ops.stop_gradient(background), candidates, positive.astype(mstype.int32).sum(-1), ratio)
    class_loss = (entropy * (weight + negative.astype(deltas.dtype))).sum() / count
    return box_loss, class_loss


def smooth_l1(x):
    size = ops.abs(x)
    return ops.select(size < 1, 0.5 * x * x, size - 0.5)


def cross_entropy(logits, labels):
    """Return the cross entropy of `labels` int32 (N, A) and of background, (N, A) each, for logits (N, A, K)."""
    log_probabilities = ops.log_softmax(logits, -1)
    chosen = ops.gather_elements(log_probabilities, 2, labels.expand_dims(-1))[..., 0]
    return -chosen, -log_probabilities[..., 0]
