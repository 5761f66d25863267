"""Greedy non-maximum suppression of fixed-size sets.

Shapes: N images, K boxes a picture, best first. Boxes are (x1, y1, x2, y2), width = x2 - x1. A box falls if a better
one that stands overlaps it by IoU > threshold (strictly); boxes that are not valid neither fall nor suppress, and are
not kept.
"""

import math

import numpy as np
from mindspore import Tensor, nn, ops

from .boxes import spread


class Nms(nn.Cell):
    """(N, K) keep flags of boxes that are sorted best first.

    `ops.NMSWithMask` takes one set, hence the loop over pictures, one operator for each. On 2 threads of a CPU it needs
    7 ms for 1000 boxes, 8 ms for 2000, 40 ms for 4000, 0.12 s for 8000. The alternative that takes a batch (the IoU
    matrix, and keep <- valid and not suppressed by what is kept, repeated until nothing changes, 3 to 6 rounds) gives
    the same, takes 2.6 times as long at 2 x 2000 boxes, and does not export. One set of all pictures and levels, moved
    apart, would square the number of boxes and round their coordinates.
    """

    def __init__(self, iou_thr: float):
        super().__init__()
        self.nms = ops.NMSWithMask(iou_thr)

    def construct(self, boxes: Tensor, valid: Tensor) -> Tensor:
        """boxes (N, K, 4), valid bool (N, K) -> bool (N, K)."""
        n, k, _ = boxes.shape
        # Empty boxes overlap nothing. The operator sorts by itself, and not stably: ranks for scores keep the order.
        boxes = ops.select(spread(valid.expand_dims(-1), boxes.shape), boxes, ops.zeros_like(boxes))
        ranks = Tensor(np.arange(k, 0, -1, dtype=np.float32).reshape(k, 1))
        keep = []
        for i in range(n):
            _, _, mask = self.nms(ops.cat((boxes[i], ranks), -1))
            keep.append(mask.reshape(1, k))
        return ops.logical_and(ops.cat(keep) if n > 1 else keep[0], valid)


class ClassNms(nn.Cell):
    """The same within each class.

    Classes are moved apart, so that one operator a picture does. They are laid out in a square around the origin: 80
    classes of 1333 pixels reach to +-6000 and round a coordinate by 2e-4 pixels at most, in one row they would reach
    to 107000 and round by 4e-3.

    Args:
        num_classes: labels are 0..num_classes - 1.
        max_side: no coordinate is beyond it (boxes are clipped to pictures of at most this side). None: boxes are not clipped, and
            the room that a class takes is that of the valid boxes.
    """

    def __init__(self, iou_thr: float, num_classes: int, max_side: float | None):
        super().__init__()
        self.nms = Nms(iou_thr)
        side = math.ceil(math.sqrt(num_classes))
        place = np.arange(num_classes)
        offsets = (np.stack([place % side, place // side], 1) - side / 2) * (1 if max_side is None else max_side + 1)
        self.offsets = Tensor(np.tile(offsets, 2).astype(np.float32))                              # (classes, 4)
        self.clipped = max_side is not None

    def construct(self, boxes: Tensor, valid: Tensor, labels: Tensor) -> Tensor:
        """boxes (N, K, 4), valid bool (N, K), labels int32 (N, K) -> bool (N, K)."""
        offsets = ops.gather(self.offsets, labels, 0)
        if not self.clipped:
            boxes = ops.select(spread(valid.expand_dims(-1), boxes.shape), boxes, ops.zeros_like(boxes))
            # Neither `boxes.max()` nor the least of a tensor exports to ONNX.
            offsets = offsets * (2 * ops.ReduceMax()(ops.maximum(boxes, -boxes)) + 1)
        return self.nms(boxes + offsets, valid)
