"""Box operations: encoding relative to anchors, clipping, overlap.

Shapes: N images, P boxes per image, A and B boxes of two sets; "..." stands for any leading dimensions. Boxes are
(x1, y1, x2, y2) in input-image pixels, width = x2 - x1 + offset. `offset` is 1 for weights of the old zoo, whose boxes
include their last pixel, else 0. Deltas are (dx, dy, dw, dh). No function has parameters.
"""

import math
from collections.abc import Sequence

import numpy as np
from mindspore import Tensor, ops

MAX_LOG_RATIO = math.log(1000 / 16)     # detectron2's and torchvision's limit of dw and dh
UNIT_STDS, ZERO_MEANS = (1.0, 1.0, 1.0, 1.0), (0.0, 0.0, 0.0, 0.0)
_tile = ops.Tile()
SMALLEST = 1e-6  # pixels or square pixels: keeps padding (width 0) finite; far below any real box


def encode(anchors: Tensor, boxes: Tensor, stds: Sequence[float] = UNIT_STDS, means: Sequence[float] = ZERO_MEANS,
           offset: int = 0) -> Tensor:
    """Return the normalised deltas (..., 4) from `anchors` (..., 4) to `boxes` (..., 4). Inverse of `decode`.

    Ren et al., "Towards Real-Time Object Detection with Region Proposal Networks", 2015, eq. 2: dx = (x - x_a) / w_a,
    dw = log(w / w_a). The deltas of empty boxes are finite.
    """
    anchor_size = ops.maximum(anchors[..., 2:] - anchors[..., :2] + offset, SMALLEST)
    box_size = ops.maximum(boxes[..., 2:] - boxes[..., :2] + offset, SMALLEST)
    # Halve the size, not the sum of the corners, to round like the frameworks whose weights are loaded.
    shift = (boxes[..., :2] + 0.5 * box_size) - (anchors[..., :2] + 0.5 * anchor_size)
    deltas = ops.cat((shift / anchor_size, ops.log(box_size / anchor_size)), -1)
    return (deltas - Tensor(means, deltas.dtype)) / Tensor(stds, deltas.dtype)


def decode(anchors: Tensor, deltas: Tensor, stds: Sequence[float] = UNIT_STDS, means: Sequence[float] = ZERO_MEANS,
           max_log_ratio: float = MAX_LOG_RATIO, clamp_both: bool = False, offset: int = 0) -> Tensor:
    """Apply `deltas` (..., 4) to `anchors` (..., 4): boxes (..., 4). Ren et al., 2015, eq. 2.

    Args:
        max_log_ratio: upper limit of dw and dh, so that exp stays finite.
        clamp_both: also limit dw and dh to at least -max_log_ratio.
    """
    deltas = deltas * Tensor(stds, deltas.dtype) + Tensor(means, deltas.dtype)
    size = anchors[..., 2:] - anchors[..., :2] + offset
    ratio = ops.minimum(deltas[..., 2:], max_log_ratio)
    if clamp_both:
        ratio = ops.maximum(ratio, -max_log_ratio)
    centre = deltas[..., :2] * size + (anchors[..., :2] + 0.5 * size)
    half = 0.5 * (ops.exp(ratio) * size)
    if offset:
        # The old coder takes the mean of the corners as the centre, half a pixel left of the middle of its inclusive box.
        centre, half = centre - 0.5 * offset, half - 0.5 * offset
    return ops.cat((centre - half, centre + half), -1)


def clip_boxes(boxes: Tensor, sizes: Tensor, offset: int = 0) -> Tensor:
    """Clip boxes (N, P, 4) to image sizes (N, 2) = (height, width): 0 <= x <= width - offset, likewise y."""
    sizes = sizes.astype(boxes.dtype) - offset
    limits = ops.stack((sizes[:, 1], sizes[:, 0], sizes[:, 1], sizes[:, 0]), -1).expand_dims(1)    # (N, 1, 4)
    return ops.minimum(ops.relu(boxes), limits)


def area(boxes: Tensor, offset: int = 0) -> Tensor:
    """Return the area of boxes, (..., 4) -> (...)."""
    size = boxes[..., 2:] - boxes[..., :2] + offset
    return size[..., 0] * size[..., 1]


def pairwise_iou(a: Tensor, b: Tensor, offset: int = 0) -> Tensor:
    """Return the intersection over union of all pairs: a (..., A, 4), b (..., B, 4) -> (..., A, B); 0 if both are empty."""
    shape = (*a.shape[:-1], b.shape[-2])
    ax1, ay1, ax2, ay2 = (spread(a[..., i:i + 1], shape) for i in range(4))
    bx1, by1, bx2, by2 = (spread(b[..., i].expand_dims(-2), shape) for i in range(4))
    width = ops.relu(ops.minimum(ax2, bx2) - ops.maximum(ax1, bx1) + offset)
    height = ops.relu(ops.minimum(ay2, by2) - ops.maximum(ay1, by1) + offset)
    inter = width * height
    union = spread(area(a, offset).expand_dims(-1), shape) + spread(area(b, offset).expand_dims(-2), shape) - inter
    return inter / ops.maximum(union, SMALLEST)


def spread(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Repeat x to `shape`, which has the same rank.

    On the CPU of MindSpore 2.10, "+" and "*" of large tensors of unequal shapes keep a workspace of 16 bytes per element of
    the result for the lifetime of the graph, and min and max take 30 times as long. Repeating first avoids both.
    """
    return _tile(x, _multiples(x.shape, shape))


@ops.constexpr
def _multiples(shape: tuple[int, ...], result: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(b // a for a, b in zip(shape, result))


def take_rows(table: Tensor, index: Tensor) -> Tensor:
    """Gather rows: table (N, A, C) at index (N, K) -> (N, K, C)."""
    n, rows, width = table.shape
    first = Tensor(np.arange(n, dtype=np.int32).reshape(n, 1) * rows)
    return ops.gather(table.reshape(n * rows, width), index + first, 0)
