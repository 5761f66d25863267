"""Mask loss of the positive slots only, in chunks: the time depends on their number, and the memory on the size of a chunk.

Shapes: N images, G ground-truth slots, Q slots per image that may be positive, M = N * Q, T RoIs per chunk, C channels of the
pyramid, s side of the pooled features, S = 2s of a mask. Boxes are (x1, y1, x2, y2) in input-image pixels, width = x2 - x1.

The number of positive slots is only known during the step, while graphs have fixed shapes; hence a loop over chunks of fixed shape.
The mask loss is a sum over RoIs that enters the total with one factor. Up to that factor, a chunk therefore knows its gradients as
soon as it has its features. It computes and accumulates them at once, so that nothing is kept for the backward pass or computed
twice.

T = 32 takes the least CPU time for 64 RoIs: 3.2 s with gradients, against 4.0 for T = 16 and 3.6 for T = 64 (2 x 384 x 640).
"""
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from .losses import binary_cross_entropy
from .rcnn_mask import MaskHead
from .roi_align import RoiAlign
from .target_rules import MaskTargets

ROIS_AT_ONCE = 32   # T


def positive_slots(rois, labels, positive, matched, g: int):
    """List the slots of all images, the positive ones first.

    Args:
        rois: (N, Q, 4); labels: int32 (N, Q); positive: bool (N, Q); matched: int32 (N, Q), the object of each slot; g: G.

    Returns:
        (rois (M', 4), labels (M',), objects (M',), images float32 (M', 1)), and the number of positive slots, int32. M' is M
        rounded up to a multiple of T; objects are numbered over all images: image * G + object.
    """
    n, q = labels.shape
    image = np.repeat(np.arange(n, dtype=np.int32), q)
    key = positive.reshape(n * q).astype(mstype.float32) * (n * q) - Tensor(np.arange(n * q, dtype=np.float32))
    _, order = ops.topk(key, n * q)
    if n * q % ROIS_AT_ONCE:
        order = ops.cat((order.astype(mstype.int32), Tensor(np.zeros(-(n * q) % ROIS_AT_ONCE, np.int32))))
    objects = matched.reshape(n * q) + Tensor(image * g)
    columns = rois.reshape(n * q, 4), labels.reshape(n * q), objects, Tensor(image.astype(np.float32).reshape(-1, 1))
    slots = ()
    for column in columns:
        slots += (ops.gather(column, order, 0),)
    return slots, positive.astype(mstype.float32).sum().astype(mstype.int32)


class MaskLossSum(nn.Cell):
    """Binary cross entropy of the positive slots, summed over all their pixels.

    `construct` also returns the gradients, because `bprop` receives what it returned. Operators are attributes: `ops.zeros_like`
    and other functions in Python do not compile within a cell that has a `bprop`. Devices take different numbers of chunks, so
    this cell must not communicate.
    """

    def __init__(self, mask_align: RoiAlign, rcnn_mask: MaskHead, targets: MaskTargets):
        super().__init__()
        self.mask_align, self.targets = mask_align, targets
        self.with_weights = rcnn_mask.with_weights      # a function: a layer as attribute would rename its weights
        self.loss_and_gradients = ops.value_and_grad(self.loss_of_turn, (0, 1))
        self.zeros_like, self.mul, self.gather = ops.ZerosLike(), ops.Mul(), ops.Gather()

    def construct(self, table, weights, edges, slots, count, shapes):
        """Return the loss and, for `bprop`, its gradients of the table and of the weights.

        Args:
            table, shapes: see RoiAlign.table_of; weights: see MaskHead.weights; edges: (N, G, E, 5), see mask_targets.
            slots, count: see positive_slots.
        """
        rois, labels, objects, images = slots
        n, size = edges.shape[0], 2 * self.mask_align.out_size
        outlines = edges.reshape(1, -1, *edges.shape[2:])
        pooling = self.mask_align.pooling(shapes)
        start, loss, dtable = Tensor(0, mstype.int32), Tensor(0, mstype.float32), self.zeros_like(table)
        dweights = ()
        for weight in weights:
            dweights += (self.zeros_like(weight),)
        while start < count:
            places = start + Tensor(np.arange(ROIS_AT_ONCE, dtype=np.int32))
            own = self.gather(rois, places, 0)                                 # (T, 4)
            matched = self.gather(objects, places, 0).expand_dims(0)
            targets = self.targets(outlines, matched, own.expand_dims(0), size, shapes)[0]
            reads = self.mask_align.reads(shapes, own, self.gather(images, places, 0), n)
            positive = (places < count).astype(mstype.float32)
            turn, (dpooled, more) = self.loss_and_gradients(pooling(table, *reads), weights, self.gather(labels, places, 0),
                                                            targets, positive)
            loss, dtable = loss + turn, pooling.add_gradient(dtable, table.shape[0], *reads, dpooled)
            total = ()
            for i in range(len(more)):
                total += (dweights[i] + more[i],)
            dweights = total
            start = start + ROIS_AT_ONCE
        return loss, dtable, dweights

    def bprop(self, table, weights, edges, slots, count, shapes, out, dout):
        factor, (_, dtable, dweights) = dout[0], out
        scaled = ()
        for dweight in dweights:
            scaled += (self.mul(dweight, factor),)
        return self.mul(dtable, factor), scaled, edges, slots, count, shapes

    def loss_of_turn(self, pooled, weights, labels, targets, positive):
        """Sum the loss over positive RoIs. pooled: features (T, s*s, C); targets: (T, S, S); the others: (T,)."""
        t, _, channels = pooled.shape
        side = self.mask_align.out_size
        logits = self.with_weights(pooled.swapaxes(1, 2).reshape(t, channels, side, side), labels, weights)
        return (binary_cross_entropy(logits, targets).reshape(t, -1).sum(-1) * positive).sum()
