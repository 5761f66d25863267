"""Mask targets as mindspore-lab computes them: crop a bitmap of the whole input, and resize the crop.

mask_targets.py rasterises the outline inside the box instead. mindspore-lab draws the polygons into a bitmap with pycocotools;
CropAndResize ("bilinear_v2") crops the pixels from int(x1) to int(x2), both included, and resizes them to S x S with pixel centres
at half a pixel; values above 0.5 belong to the object. This module never creates the bitmap: each pixel of a target reads four of
its pixels, in S columns and S rows each, and the crossings of the column (mask_targets.py) decide whether a pixel is inside.

Shapes: N images, G ground-truth slots, Q RoIs per image, M = N * Q, E edges of an outline, S side of a target, L = M * E. Boxes
are (x1, y1, x2, y2) in input-image pixels. No gradient passes: every result is a target.
"""

import numpy as np
from mindspore import Tensor, ops
from mindspore import dtype as mstype

from ..model_utils.layers.boxes import spread, take_rows
from .mask_targets import FINE, PARTS, count_crossings, crossings_of


def bitmap_targets(edges, matched, boxes, size: int, precise: bool, height: int, width: int):
    """Return the masks of the objects inside the boxes, 0 or 1: (N, Q, S, S) float32.

    height, width: size of the input, in pixels; other arguments: see `mask_targets`.
    """
    n, g, e, _ = edges.shape
    q = matched.shape[1]
    m = n * q
    dtype = mstype.float64 if precise else mstype.float32
    own = take_rows(ops.stop_gradient(edges).reshape(n, g, e * 5), matched).reshape(m, e, 5)
    corners = ()
    for i in range(4):
        # Truncate like C. First compute in float32, like the edges: 12.7 is stored as 12.6999998, but 5 times that is 63.5 again.
        corners += (whole(FINE * own[..., i] + 0.5).astype(dtype).reshape(1, m * e),)
    part = ops.clamp(own[..., 4], 0, PARTS - 1).reshape(1, -1)
    first = whole(ops.stop_gradient(boxes).reshape(m, 4).astype(dtype))
    count = ops.maximum(first[:, 2:] - first[:, :2] + 1, 1.0)                  # (M, 2)
    left, right, left_part, right_part = samples(first[:, 0:1], count[:, 0:1], size, width)
    _, _, upper_part, lower_part = samples(first[:, 1:2], count[:, 1:2], size, height)
    start = spread(spread(first[:, 1:2], (m, e)).reshape(1, m * e), (size, m * e))
    length = spread(spread(count[:, 1:2], (m, e)).reshape(1, m * e), (size, m * e))
    crosses, row = crossings_of(*corners, columns_of_edges(left, e))
    upper = rows_above(row, start, length, size, False, height)
    lower = rows_above(row, start, length, size, True, height)
    total = (weighted_insides(crosses, upper, part, left_part, upper_part)
             + weighted_insides(crosses, lower, part, left_part, lower_part))
    crosses, row = crossings_of(*corners, columns_of_edges(right, e))
    upper = rows_above(row, start, length, size, False, height)
    lower = rows_above(row, start, length, size, True, height)
    total = total + (weighted_insides(crosses, upper, part, right_part, upper_part)
                     + weighted_insides(crosses, lower, part, right_part, lower_part))
    # Sums of halves are often exactly 0.5 and must stay outside, so rounding errors must not lift them over the threshold.
    target = (total > 0.5 + 1e-6).astype(mstype.float32)
    return ops.stop_gradient(target.swapaxes(1, 2).reshape(n, q, size, size))


def whole(x):
    return x.astype(mstype.int32).astype(x.dtype)


def samples(start, count, size: int, limit: int):
    """Return, along an axis, the two pixels between which each of the S pixels of a target lies, and their weights: (M, S) each.

    Args:
        start, count: first pixel and number of pixels of the crop, (M, 1); limit: pixels of the input.
    """
    shape = (start.shape[0], size)
    steps = spread(Tensor((np.arange(size) + 0.5).reshape(1, size), start.dtype), shape)
    last = spread(count - 1, shape)
    # Divide by a tensor: division by a number becomes a product with its inverse, which turns whole results into fractions.
    sides = spread(Tensor(np.full((1, size), size), start.dtype), shape)
    place = ops.minimum(ops.relu(steps * spread(count, shape) / sides - 0.5), last)
    low, high = ops.floor(place), ops.minimum(-ops.floor(-place), last)
    part, start = place - low, spread(start, shape)
    return ops.minimum(low + start, limit - 1.0), ops.minimum(high + start, limit - 1.0), 1 - part, part


def rows_above(row, start, count, size: int, lower: bool, limit: int):
    """Return how many of the S upper (or lower) rows of `samples` lie above `row`: int32, 0..S, in the shape of `row`."""
    place = row - start
    rank = ops.floor((place - 0.5) * size / count - 0.5) + 1 if lower else -ops.floor(0.5 - (place + 0.5) * size / count)
    rank = ops.clamp(rank, 0, size) * (place > 0).astype(rank.dtype)
    beyond = ops.logical_or(place > count - 1, row > limit - 1).astype(rank.dtype)
    return (rank + beyond * (size - rank)).astype(mstype.int32)


def columns_of_edges(columns, edges: int):
    """Return the middles of columns (M, S), in fifths of a pixel, repeated for the E edges of each RoI: (S, L)."""
    m, size = columns.shape
    return spread((FINE * columns + FINE // 2).swapaxes(0, 1).expand_dims(2), (size, m, edges)).reshape(size, m * edges)


def weighted_insides(crosses, rank, part, across, down):
    """Return the weights (M, S, S) of pixels inside. crosses, rank: (S, L); part: (1, L); across, down: (M, S), weights."""
    rois, size = across.shape
    counts = count_crossings(crosses, rank, part, rois)                        # (M * PARTS * S, S + 1)
    above = ops.matmul(counts, Tensor(np.triu(np.ones((size + 1, size), np.float32))))
    inside = above - 2 * ops.floor(0.5 * above)
    return inside.reshape(rois, PARTS, size, size).max(axis=1) * (across.expand_dims(2) * down.expand_dims(1))
