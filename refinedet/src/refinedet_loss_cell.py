"""Matching, hard negative mining and the losses of RefineDet (Zhang et al., 2018, section 3; Liu et al., "SSD", 2016, section 2.2).

Shapes: N images, G ground-truth slots, A anchors, K classes with the background. Boxes are (x1, y1, x2, y2) in input-image
pixels, width = x2 - x1; label 0 is background. Where the paper leaves a choice it is that of the authors' own code.
"""

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from .box_utils import deltas_stds
from .model_utils.layers.boxes import encode, spread, take_rows
from .model_utils.training.ranks import shared_count

LEAST_IOU = 1e-6  # what overlaps less is never matched


class Matcher(nn.Cell):
    """Which ground truth each anchor belongs to.

    1. Every object gets an anchor of its own, whatever their IoU: see Bipartite.
    2. Every other anchor belongs to the object that it overlaps most, from an IoU of `pos_iou_thr` on.
    """

    def __init__(self, pos_iou_thr: float):
        super().__init__()
        self.pos_iou_thr = pos_iou_thr
        self.bipartite = Bipartite()
        self.nearest = ops.ArgMaxWithValue(axis=1)

    def construct(self, iou):
        """iou (N, G, A), -1 where a slot is empty -> int32 (N, A): the slot, -1 for none."""
        own = self.bipartite(iou)
        nearest, value = self.nearest(iou)
        nearest = ops.select(value >= self.pos_iou_thr, nearest.astype(mstype.int32), -ops.ones_like(own))
        return ops.select(own >= 0, own, nearest)


class Bipartite(nn.Cell):
    """Pairs of objects and anchors: the largest IoU of all makes a pair, and again of what is left, until nothing overlaps.

    In each round all those make a pair of which each is the other's best; the largest of all is one of them. So there are as
    many rounds as objects compete for one anchor, not as many as objects. There is no gradient: MindSpore 2.10 cannot
    differentiate what holds a loop, and is told by `bprop`. The operators are attributes: beside a loop, functions such as
    `ops.gather` no longer compile within the `bprop` of any cell.
    """

    def __init__(self):
        super().__init__()
        self.zeros, self.tile, self.gather, self.select = ops.ZerosLike(), ops.Tile(), ops.GatherD(), ops.Select()
        self.best_anchor, self.best_object = ops.ArgMaxWithValue(axis=2), ops.ArgMaxWithValue(axis=1)
        self.sum, self.both = ops.ReduceSum(), ops.LogicalAnd()

    def construct(self, iou):
        """iou (N, G, A) -> int32 (N, A): the object, -1 for none."""
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
            rivals = self.gather(pairs, 2, self.tile(place.reshape(n, 1, g), (1, g, 1)))       # (N, G, G): of each at its place
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
    """bool (N, A): of each image's candidates the min(ratio * positives, candidates) with the largest loss.

    loss: (N, A); candidates: bool (N, A); positives: int32 (N,), how many the image has.
    """
    n, a = loss.shape
    # `ops.sort` would do, but MindSpore's documentation warns that float32 may lose accuracy in it.
    _, order = ops.topk(ops.select(candidates, loss, -ops.ones_like(loss)), a)
    _, rank = ops.topk(-order.astype(mstype.float32), a)                       # where each stands in that order
    wanted = spread((ratio * positives).expand_dims(1), (n, a))
    return ops.logical_and(rank.astype(mstype.int32) < wanted, candidates)


def multibox_losses(deltas, logits, anchors, gt_boxes, labels, matched, candidates, ratio: int, scaling):
    """(box loss, class loss) of one of the two stages, each divided by the objects' anchors in the batch, at least 1.

    In the batch over all devices (see shared_count), where the authors' Caffe counts those of each device alone.

    Smooth L1 (beta 1) over the four deltas of the matched anchors; cross entropy over these and the hardest negatives, `ratio`
    for each.

    Args:
        deltas (N, A, 4), logits (N, A, K): predictions. anchors: (N, A, 4), what the deltas are against.
        gt_boxes: (N, G, 4); labels: int32 (N, A), 0 where not matched; matched: int32 (N, A), slots or -1.
        candidates: bool (N, A), which anchors may be mined as negatives. scaling: of the deltas, (centre, size).
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
    """(of the labels, of background): both (N, A), logits (N, A, K), labels int32 (N, A)."""
    log_probabilities = ops.log_softmax(logits, -1)
    chosen = ops.gather_elements(log_probabilities, 2, labels.expand_dims(-1))[..., 0]
    return -chosen, -log_probabilities[..., 0]
