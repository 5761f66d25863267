"""Greedy non-maximum suppression of sets of fixed size.

Shapes: N images, K boxes per image, best first. Boxes are (x1, y1, x2, y2), width = x2 - x1. A box is suppressed if a
better box that is kept overlaps it with IoU > threshold (strictly). Boxes that are not valid are not kept, and suppress
nothing.
"""

import math

import numpy as np
from mindspore import Tensor, nn, ops

from .boxes import spread


class Nms(nn.Cell):
    """Keep flags (N, K) of boxes that are sorted best first.

    `ops.NMSWithMask` takes one set, so there is a loop over images with one operator for each. On 2 threads of a CPU it
    takes 7 ms for 1000 boxes, 8 ms for 2000, 40 ms for 4000, 0.12 s for 8000. A batched alternative (compute the IoU
    matrix and repeat keep <- valid and not suppressed by kept boxes until nothing changes, 3 to 6 rounds) gives the same
    result, but takes 2.6 times as long for 2 x 2000 boxes and does not export. One set of all images and levels, with
    offset boxes, would square the number of boxes and round their coordinates.
    """

    def __init__(self, iou_thr: float):
        super().__init__()
        self.nms = ops.NMSWithMask(iou_thr)

    def construct(self, boxes: Tensor, valid: Tensor) -> Tensor:
        """Return which boxes are kept: boxes (N, K, 4), valid bool (N, K) -> bool (N, K)."""
        n, k, _ = boxes.shape
        # Empty boxes overlap nothing. The operator sorts, but not stably; with ranks as scores it keeps the order.
        boxes = ops.select(spread(valid.expand_dims(-1), boxes.shape), boxes, ops.zeros_like(boxes))
        ranks = Tensor(np.arange(k, 0, -1, dtype=np.float32).reshape(k, 1))
        keep = []
        for i in range(n):
            _, _, mask = self.nms(ops.cat((boxes[i], ranks), -1))
            keep.append(mask.reshape(1, k))
        return ops.logical_and(ops.cat(keep) if n > 1 else keep[0], valid)


class ClassNms(nn.Cell):
    """`Nms` within each class.

    Boxes are offset by class, so that one operator per image suffices. The classes are laid out in a square around the
    origin: 80 classes of 1333 pixels reach +-6000, which rounds coordinates by 2e-4 pixels at most; in one row they would
    reach 107000 and round by 4e-3.

    Args:
        num_classes: labels are 0..num_classes - 1.
        max_side: bound of all coordinates, in pixels, for boxes that are clipped to images of at most this side. None: boxes are
            not clipped, and the offset between classes follows from the valid boxes.
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
        """Return which boxes are kept: boxes (N, K, 4), valid bool (N, K), labels int32 (N, K) -> bool (N, K)."""
        offsets = ops.gather(self.offsets, labels, 0)
        if not self.clipped:
            boxes = ops.select(spread(valid.expand_dims(-1), boxes.shape), boxes, ops.zeros_like(boxes))
            # ReduceMax of the absolute values, because neither `boxes.max()` nor a minimum exports to ONNX.
            offsets = offsets * (2 * ops.ReduceMax()(ops.maximum(boxes, -boxes)) + 1)
        return self.nms(boxes + offsets, valid)
