"""Mask targets: rasterise the outlines of objects inside the boxes of RoIs, pixel by pixel like pycocotools does for polygons.

Shapes: N images, G ground-truth slots, Q RoIs per image, M = N * Q, E edges of an outline, S side of a target, L = M * E.
Outlines are edges (x0, y0, x1, y1, part) in input-image pixels, boxes (x1, y1, x2, y2). No gradient passes: every result is a
target.

pycocotools (rleFrPoly) rounds corners to fifths of a pixel and walks along each edge one step at a time on its longer axis.
Where x passes from 5c+2 to 5c+3, the walk crosses the middle of column c; pixels whose middle lies below an odd number of
crossings in their column are inside. This module does not walk: an edge crosses a column once or not at all, and its slope
determines where.
"""

import numpy as np
from mindspore import Tensor, ops
from mindspore import dtype as mstype

from ..model_utils.layers.boxes import spread, take_rows

FINE = 5  # steps per pixel
PARTS = 4  # polygons of an object that are filled separately
SMALLEST_SIDE = 0.1  # of a RoI, in pixels (detectron2)


def mask_targets(edges, matched, boxes, size: int = 28, precise: bool = False):
    """Return the masks of the objects inside the boxes, 0 or 1.

    Args:
        edges: (N, G, E, 5); edges of zero length, such as padding, are ignored.
        matched: int32 (N, Q), the object of each RoI; boxes: (N, Q, 4).
        precise: compute in float64, which equals pycocotools in every pixel. float32, for devices without float64, can differ
            where an edge passes exactly between two steps.

    Returns:
        (N, Q, S, S) float32, rows from the top.
    """
    n, g, e, _ = edges.shape
    q = matched.shape[1]
    dtype = mstype.float64 if precise else mstype.float32
    own = take_rows(ops.stop_gradient(edges).reshape(n, g, e * 5), matched).reshape(n * q, e, 5)
    corners = fine_corners(own, ops.stop_gradient(boxes).reshape(n * q, 4), size, dtype)           # 4 of (1, L)
    crosses, rows = crossings(*corners, size, dtype)                           # (S, L) each
    part = ops.clamp(own[..., 4], 0, PARTS - 1).reshape(1, -1)
    counts = count_crossings(crosses, rows, part, n * q)                       # (M * PARTS * S, S + 1)
    above = ops.matmul(counts, Tensor(np.triu(np.ones((size + 1, size), np.float32))))             # (M * PARTS * S, S)
    inside = above - 2 * ops.floor(0.5 * above)
    inside = inside.reshape(n * q, PARTS, size, size).max(axis=1)              # (M, column, row)
    return ops.stop_gradient(inside.swapaxes(1, 2).reshape(n, q, size, size))


def fine_corners(own, boxes, size: int, dtype):
    """Transform edges (M, E, 5) to their boxes (M, 4), in whole fifths of a target's pixel: x0, y0, x1, y1, (1, L) each."""
    m, e, _ = own.shape
    side = ops.maximum(boxes[:, 2:] - boxes[:, :2], SMALLEST_SIDE).astype(dtype)
    ratio = ops.full_like(side, size) / side     # (M, 2); number / tensor would round differently
    start = boxes[:, :2].astype(dtype)
    corners = ()
    for i in range(4):
        axis = i % 2
        shift, factor = (spread(x[:, axis:axis + 1], (m, e)) for x in (start, ratio))
        point = FINE * ((own[..., i].astype(dtype) - shift) * factor) + 0.5
        corners += (point.astype(mstype.int32).astype(dtype).reshape(1, m * e),)          # truncate like C
    return corners


def crossings(x0, y0, x1, y1, size: int, dtype):
    """Return which edges cross the middle of which column (0 or 1), and at the top of which row (0..S): (S, L) each."""
    shape = (size, x0.shape[1])
    column = spread(Tensor((FINE * np.arange(size) + FINE // 2).reshape(-1, 1), dtype), shape)
    crosses, row = crossings_of(x0, y0, x1, y1, column)
    return crosses, ops.clamp(row, 0, size).astype(mstype.int32)


def crossings_of(x0, y0, x1, y1, column):
    """Return the same for given columns (S, L), in fifths of a pixel, without limits on the rows."""
    dtype = column.dtype      # not in one tuple with the shape: it has no gradient in a graph
    shape = column.shape
    run, rise = x1 - x0, y1 - y0
    flat = ops.abs(run) >= ops.abs(rise)                                       # the walk is along x
    backwards = ops.select(flat, run, rise) < 0                                # the walk is always in ascending order
    xs, ys = ops.select(backwards, x1, x0), ops.select(backwards, y1, y0)
    run, rise = (ops.select(backwards, -x, x) for x in (run, rise))
    slope = ops.select(flat, rise / ops.maximum(run, 1.0), run / ops.maximum(rise, 1.0))
    climbs, falls = (slope > 0).astype(dtype), (slope < 0).astype(dtype)
    # The step that reaches the middle of the column: a whole number if the walk is along x, rounded if it is along y.
    steps = ops.select(flat, ops.ones_like(run), rise / ops.select(run == 0, ops.ones_like(run), run))
    offset = ops.select(flat, falls, ops.zeros_like(run) + 0.5) - xs
    base = ops.select(flat, ys, xs)
    low, high = ops.minimum(x0, x1), ops.maximum(x0, x1)

    crosses = ops.logical_and(spread(low, shape) <= column, spread(high, shape) > column).astype(mstype.float32)
    step = ops.floor((column + spread(offset, shape)) * spread(steps, shape) + 0.5)
    other = ops.floor(spread(base, shape) + spread(slope, shape) * step + 0.5)           # position on the shorter axis
    # Along y, `step` is the first one beyond the middle of the column or the last one before; the upper end counts.
    beyond = (other > column).astype(dtype)
    steep = spread(ys, shape) + step - 1 + ops.abs(beyond - spread(climbs, shape))
    y = ops.select(spread(flat, shape), other, steep)
    return crosses, -ops.floor((FINE / 2 - y) / FINE)


def count_crossings(crosses, rows, part, rois: int):
    """Count crossings per RoI, part, column and row: (M * PARTS * S, S + 1). crosses, rows: (S, L); part: (1, L)."""
    size, edges = crosses.shape
    first = np.repeat(np.arange(rois, dtype=np.int32), edges // rois).reshape(1, -1) * PARTS
    first = (Tensor(first) + part.astype(mstype.int32)) * (size * (size + 1))
    column = Tensor((np.arange(size, dtype=np.int32) * (size + 1)).reshape(-1, 1))
    index = spread(first, crosses.shape) + spread(column, crosses.shape) + rows
    counts = ops.unsorted_segment_sum(crosses.reshape(-1), index.reshape(-1), rois * PARTS * size * (size + 1))
    return counts.reshape(rois * PARTS * size, size + 1)
