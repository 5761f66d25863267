# Same as faster_rcnn/src/FasterRcnn/roi_align.py
"""RoIAlign on a feature pyramid: each RoI is pooled from one level, which its size selects.

Shapes: N images, R RoIs per image, M = N * R, C channels, S output side, K feature cells that a RoI reads; level l has
H_l x W_l cells. Boxes are (x1, y1, x2, y2) in input-image pixels, width = x2 - x1; internal coordinates are in cells
of the RoI's level.

RoIAlign (He et al., "Mask R-CNN", 2017, section 3) is linear in the features, and its weights are products of one
along y and one along x: out = Wy F Wx'. Therefore the cells that a RoI reads are gathered from a (cell, channel) table
of all levels, and matrix products pool them; the gradient is the transposed products and a scatter-add. For 2 x 512 RoIs
of 7x7 on 256 channels of a 768x1280 image this takes 0.33 s of CPU time forward and 0.8 s with the gradient, including
the change of layout. `ops.ROIAlign` takes four times as long for a single call on the finest level. Nor is it exact on
the CPU of MindSpore 2.10: its gradient takes the RoI to be 1 pixel wider and higher regardless of `roi_end_mode`,
`sample_num=0` rounds the number of samples down where other frameworks round up (NaN for RoIs below S cells), and it
does not write the output of a RoI with x1 = x2 = 0.
"""

import math
from collections.abc import Sequence

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from ..model_utils.layers.boxes import spread
from .roi_pool import PoolGrid, PoolWindow

# level = floor(first + log2(side / (finest_scale * size) + inside) + outside), clamped to the pyramid; side is the square
# root of the RoI's area, with width = x2 - x1 + offset.
LEVEL_RULES = {
    "mmdet": {"first": 0, "size": 1, "inside": 1e-6, "outside": 0.0, "offset": 0},
    "detectron2": {"first": 2, "size": 4, "inside": 1e-8, "outside": 0.0, "offset": 0},
    "torchvision": {"first": 2, "size": 4, "inside": 0.0, "outside": 1e-6, "offset": 0},
    "zoo": {"first": 0, "size": 1, "inside": 1e-6, "outside": 0.0, "offset": 1},
    "mslab": {"first": 0, "size": 1, "inside": 1e-6 + 1e-4, "outside": 0.0, "offset": 0},
}
GATHER = 30  # cost to gather and scatter a number, in multiplications; 10 to 60 give the same choice for 7x7 and 14x14


class RoiAlign(nn.Cell):
    """Pool the features of RoIs (He et al., "Mask R-CNN", 2017, section 3; level: Lin et al., 2017, eq. 1).

    Args:
        out_size: output side S.
        sample_num: samples per bin and axis; 0 takes as many as the bin spans cells, rounded up (detectron2, mmdet).
        strides: pixels per cell of each level.
        finest_scale: RoIs below twice this side (pixels) go to the first level, below four times to the second, and so on.
        aligned: put the centre of a cell half a cell from its corner. False: the older convention without the half cell,
            where a RoI is at least one cell wide and high.
        level_rule: rounding of the level, a key of LEVEL_RULES.
        fast: for the CPU: change the layout of the features by a product with the identity, which takes as long as a
            transposition but keeps nothing; the transpose operator and its gradient keep 1 GB at 2 x 768 x 1280.
    """

    def __init__(self, out_size: int, sample_num: int, strides: Sequence[int], finest_scale: float = 56.0,
                 aligned: bool = True, level_rule: str = "mmdet", fast: bool = False):
        super().__init__()
        self.fast = fast
        self.out_size, self.sample_num, self.aligned = out_size, sample_num, aligned
        self.strides, self.finest_scale = tuple(strides), finest_scale
        self.rule = LEVEL_RULES[level_rule]
        # Side of the largest square RoI of each level, in its cells; the last level takes all larger ones.
        limits = [2.0 ** (i + 1) * finest_scale / stride for i, stride in enumerate(strides)]
        self.limits = (*limits[:-1], math.inf)
        # Compare with borders instead of taking a logarithm: on the CPU, log2(4) is just below 2.
        borders = 2.0 ** (np.arange(1, len(strides)) - self.rule["first"] - self.rule["outside"])
        self.borders = Tensor(borders.astype(np.float32))
        self.pool_grid, self.pool_window = PoolGrid(), PoolWindow(out_size)

    def construct(self, features: Sequence, rois):
        """Pool features (N, C, H_l, W_l) per level at rois (N, R, 4) -> (N*R, C, S, S)."""
        table, shapes = self.table_of(features)
        return self.from_table(table, shapes, rois)

    def table_of(self, features: Sequence):
        """Return all cells (cells, C) of features (N, C, H_l, W_l) per level, and the levels' (H_l, W_l).

        Layers of several output sizes share the table.
        """
        table = ops.cat([self.rows_of(level) for level in features])                     # (cells, C)
        return table, tuple((level.shape[2], level.shape[3]) for level in features)

    def from_table(self, table, shapes, rois):
        """Pool the result of `table_of` at rois (N, R, 4) -> (N*R, C, S, S)."""
        out = self.pool(table, shapes, ops.stop_gradient(rois))                # (M, S*S, C)
        return out.swapaxes(1, 2).reshape(-1, table.shape[1], self.out_size, self.out_size)

    def rows_of(self, level):
        """Reshape (N, C, H, W) -> (N*H*W, C)."""
        n, c, height, width = level.shape
        if not self.fast:
            return level.transpose(0, 2, 3, 1).reshape(-1, c)
        one = Tensor(np.tile(np.eye(c, dtype=np.float32), (n, 1, 1)))
        return ops.BatchMatMul(transpose_a=True)(level.reshape(n, c, height * width), one).reshape(-1, c)

    def levels(self, rois):
        """Return the level index of each RoI (..., 4), int32 (Lin et al., 2017, eq. 1)."""
        if len(self.strides) == 1:
            return ops.zeros(rois.shape[:-1], mstype.int32)
        size = ops.relu(rois[..., 2:] - rois[..., :2] + self.rule["offset"])
        side = ops.sqrt(size[..., 0] * size[..., 1]).expand_dims(-1)
        ratio = side / (self.finest_scale * self.rule["size"]) + self.rule["inside"]
        return (ratio >= self.borders).astype(mstype.int32).sum(-1).astype(mstype.int32)

    def pool(self, table, shapes, rois):
        """Pool a table (cells, C) of levels of `shapes` at rois (N, R, 4) -> (M, S*S, C)."""
        n, r, _ = rois.shape
        reads = self.reads(shapes, rois.reshape(n * r, 4), image_indices(n, r), n)
        return self.pooling(shapes)(table, *reads)

    def pooling(self, shapes):
        """Return the layer that takes the result of `reads`."""
        return self.pool_grid if self.takes_grid(shapes) else self.pool_window

    def takes_grid(self, shapes) -> bool:
        return self.sample_num > 0 and grid_is_cheaper(self.out_size, self.sample_num, window_cells(shapes, self.limits))

    def reads(self, shapes, rois, images, n: int):
        """Return the cells that each RoI reads, and their weights.

        Args:
            shapes: (H_l, W_l) per level; rois: (M, 4).
            images: float32 (M, 1), index of each RoI's image; n: number of images.

        Returns:
            Rows of the table int32 (M, K), weights along y, weights along x (shapes: see roi_pool.py).
        """
        own = ops.gather(level_table(shapes, self.strides, n), self.levels(rois), 0)
        height, width, first, scale = own.split(1, 1)                          # (M, 1) each
        first = first + images * height * width                              # row of the table where the RoI's map begins
        corners = rois * scale - (0.5 if self.aligned else 0.0)
        size = ops.maximum(corners[:, 2:] - corners[:, :2], 0.0 if self.aligned else 1.0)
        x, y = (corners[:, 0:1], size[:, 0:1], width), (corners[:, 1:2], size[:, 1:2], height)

        if self.takes_grid(shapes):
            rows, wy = sample_weights(*y, self.out_size, self.sample_num)
            columns, wx = sample_weights(*x, self.out_size, self.sample_num)
            shape = (rows.shape[0], rows.shape[1], columns.shape[1])
            cells = spread((first + rows * width).expand_dims(2), shape) + spread(columns.expand_dims(1), shape)
            return cells.reshape(shape[0], -1).astype(mstype.int32), wy, wx

        longest_y, longest_x = longest(shapes)
        y0, rows, wy = window_weights(*y, self.out_size, self.sample_num, longest_y)
        x0, columns, wx = window_weights(*x, self.out_size, self.sample_num, longest_x)
        i, j = window_places(rows, columns, window_cells(shapes, self.limits))           # (M, K) each
        start = spread(first + y0 * width + x0, i.shape)
        cells = start + ops.minimum(i, spread(rows - 1, i.shape)) * spread(width, i.shape) + j
        return cells.astype(mstype.int32), take(wy, i), take(wx, j)


@ops.constexpr
def level_table(shapes, strides, n: int):
    """Return height, width, first row in the table and cells per pixel of each level: float32 (L, 4)."""
    cells = [n * height * width for height, width in shapes]
    rows = [(*shape, sum(cells[:i]), 1 / strides[i]) for i, shape in enumerate(shapes)]
    return Tensor(np.array(rows, np.float32))


@ops.constexpr
def image_indices(n: int, r: int):
    return Tensor(np.repeat(np.arange(n, dtype=np.float32), r).reshape(n * r, 1))


@ops.constexpr
def longest(shapes):
    """Return the largest height and the largest width."""
    return max(shape[0] for shape in shapes), max(shape[1] for shape in shapes)


@ops.constexpr
def window_cells(shapes, limits) -> int:
    """Return the most cells that a RoI can touch on its level, over all shapes with an area below limit * limit."""
    most = 1
    for (height, width), limit in zip(shapes, limits):
        for rows in range(1, height + 1):
            # Samples that touch `rows` cells span more than rows - 3 cells; likewise for columns.
            free = rows <= 3 or limit == math.inf
            columns = width if free else min(width, max(4, int(limit * limit / (rows - 3)) + 3))
            most = max(most, rows * columns)
    return most


@ops.constexpr
def grid_is_cheaper(bins: int, samples: int, window: int) -> bool:
    """Return whether pooling a grid (the cells next to the samples, along y, then x) costs less than a window at once.

    Costs per cell and channel: a multiplication for each bin (grid) or pair of bins (window), plus GATHER for moving the cell.
    """
    return (2 * bins * samples) ** 2 * (bins + GATHER) <= window * (bins * bins + GATHER)


def sample_weights(start, size, length, bins: int, samples: int):
    """Return the cells next to the sampling points along one axis: indices (M, T), weights (M, bins, T), T = 2 * bins * samples.

    Args:
        start, size: of the RoI, in cells; length: of the map, in cells. (M, 1) each.
    """
    m = start.shape[0]
    steps = Tensor(((np.arange(bins * samples) + 0.5) / samples).astype(np.float32).reshape(1, -1))
    point = start + steps * (size / bins)                                      # (M, bins * samples)
    # A sample more than one cell outside the map counts 0; nearer ones take the value of the border cell.
    known = ops.logical_and(point >= -1, point <= length).astype(point.dtype) / samples
    last = length - 1
    point = ops.minimum(ops.relu(point), last)
    low = ops.floor(point)
    part = point - low
    index = ops.stack((low, ops.minimum(low + 1, last)), -1).reshape(m, -1)
    weight = ops.stack((known * (1 - part), known * part), -1).reshape(m, 1, bins, 2 * samples)
    own = Tensor(np.eye(bins, dtype=np.float32).reshape(1, bins, bins, 1))
    return index, (weight * own).reshape(m, bins, -1)


def window_weights(start, size, length, bins: int, samples: int, longest: int):
    """Return the weights of all cells that a RoI touches along one axis, for any number of samples.

    A sample between two cells counts for each by its distance from the other. The samples of a bin are equidistant, so
    their number and mean position between two cells are enough, without a loop over samples.

    Args:
        start, size, length: see `sample_weights`; samples: 0 = one for each cell or part of a cell that a bin spans.
        longest: largest length.

    Returns:
        First cell (M, 1), number of cells (M, 1), weights (M, longest + 1, bins), 0 beyond the number of cells.
    """
    step = size / bins
    count = float(samples) + ops.zeros_like(step) if samples else -ops.floor(-step)
    gap = ops.maximum(step / ops.maximum(count, 1.0), 1e-6)
    last = length - 1
    first_cell = ops.minimum(ops.relu(ops.floor(start + 0.5 * gap)), last)
    last_cell = ops.minimum(ops.relu(ops.floor(start + size - 0.5 * gap) + 1), last)
    cells = ops.maximum(last_cell - first_cell, 0.0) + 1

    # From here on (M, t, bins): t is a cell, starting one before the first.
    t = first_cell + Tensor(np.arange(-1, longest + 2, dtype=np.float32).reshape(1, -1))
    begin = start + Tensor(np.arange(bins, dtype=np.float32).reshape(1, -1)) * step
    shape = (t.shape[0], longest + 3, bins)
    limit = t + 1e-4 * (t > length - 0.5).astype(t.dtype)                     # a sample at `length` is still on the map
    begin, wide = spread(begin.expand_dims(1), shape), spread(gap.expand_dims(2), shape)
    before = ops.relu(-ops.floor((begin - spread(limit.expand_dims(2), shape)) / wide + 0.5))  # samples in front of t
    before = ops.minimum(before, spread(count.expand_dims(2), shape))
    # From here on, index t stands for the interval between cells t and t + 1.
    t, shape = t[:, :-1], (t.shape[0], longest + 2, bins)
    lower, upper = before[:, :-1], before[:, 1:]
    part = begin[:, 1:] - spread(t.expand_dims(2), shape) + 0.5 * wide[:, 1:] * (upper + lower)  # mean distance from t
    # Samples before the first cell of the map count for that cell only; likewise behind the last cell.
    left = ops.maximum(part, spread((t < -0.5).astype(t.dtype).expand_dims(2), shape))
    right = ops.maximum(1 - part, spread((t > last - 0.5).astype(t.dtype).expand_dims(2), shape))
    weights = ((upper - lower) * left)[:, :-1] + ((upper - lower) * right)[:, 1:]
    inside = Tensor(np.arange(longest + 1, dtype=np.float32).reshape(1, -1)) < cells
    scale = inside.astype(t.dtype) / ops.maximum(count, 1.0)                   # (M, longest + 1)
    return first_cell, cells, weights * spread(scale.expand_dims(2), weights.shape)


def window_places(rows, columns, window: int):
    """Return row and column (M, K) of the K = `window` cells of windows of (M, 1) rows and columns; row `rows` beyond the end."""
    shape = (rows.shape[0], window)
    k = spread(Tensor(np.arange(window, dtype=np.float32).reshape(1, window)), shape)
    width = spread(columns, shape)
    i = ops.floor((k + 0.5) / width)
    return ops.minimum(i, spread(rows, shape)), k - i * width


def take(weights, index):
    """Gather along L: weights (M, L, S), index (M, K) float -> (M, K, S)."""
    m, length, bins = weights.shape
    index = index.astype(mstype.int32) + Tensor(np.arange(m, dtype=np.int32).reshape(m, 1) * length)
    return ops.gather(weights.reshape(m * length, bins), index, 0)
