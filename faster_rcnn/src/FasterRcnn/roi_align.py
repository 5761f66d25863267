"""RoIAlign on a feature pyramid: each RoI is pooled from the one level that its size asks for.

Shapes: N images, R RoIs a picture, M = N * R, C channels, S output side, K feature cells that a RoI reads; level l has
H_l x W_l cells. Boxes are (x1, y1, x2, y2) in input-image pixels, width = x2 - x1; inside, coordinates are in cells
of the RoI's own level.

RoIAlign (He et al., "Mask R-CNN", 2017, section 3) is linear in the features, and its weights are products of one
along y and one along x: out = Wy F Wx'. So the cells that a RoI reads are gathered from a (cell, channel) table of all
levels, and matrix products pool them; the gradient is the transposed products and a scatter-add. For 2 x 512 RoIs of
7x7 on 256 channels of a 768x1280 picture that takes 0.33 s of CPU time forward and 0.8 s with the gradient, change of
layout included. `ops.ROIAlign` takes four times that for one call on the finest level alone. Nor is it exact on the CPU
of MindSpore 2.10: its gradient counts the RoI 1 pixel wider and higher whatever `roi_end_mode` says, `sample_num=0`
rounds the number of samples down where other frameworks round up (nan for RoIs below S cells), and a RoI with
x1 = x2 = 0 leaves its output unwritten.
"""

import math
from collections.abc import Sequence

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from ..model_utils.layers.boxes import spread
from .roi_pool import PoolGrid, PoolWindow

# level = floor(first + log2(side / (finest_scale * size) + inside) + outside), within the pyramid; side is the square
# root of the RoI's area, with width = x2 - x1 + offset.
LEVEL_RULES = {
    "mmdet": {"first": 0, "size": 1, "inside": 1e-6, "outside": 0.0, "offset": 0},
    "detectron2": {"first": 2, "size": 4, "inside": 1e-8, "outside": 0.0, "offset": 0},
    "torchvision": {"first": 2, "size": 4, "inside": 0.0, "outside": 1e-6, "offset": 0},
    "zoo": {"first": 0, "size": 1, "inside": 1e-6, "outside": 0.0, "offset": 1},
    "mslab": {"first": 0, "size": 1, "inside": 1e-6 + 1e-4, "outside": 0.0, "offset": 0},
}
GATHER = 30  # multiplications that take as long as to gather and to scatter a number; 10 to 60 choose alike for 7x7 and 14x14


class RoiAlign(nn.Cell):
    """Features of RoIs.

    Args:
        out_size: S.
        sample_num: samples per bin and axis; 0 takes as many as the bin has cells, rounded up (detectron2, mmdet).
        strides: pixels per cell of each level.
        finest_scale: RoIs below twice this side go to the first level, below four times to the second, and so on.
        aligned: the centre of a cell is half a cell from its corner. False: the older convention without it, where a
            RoI is at least one cell wide and high.
        level_rule: how the level is rounded, a key of LEVEL_RULES.
        fast: for the CPU: the layout of the features changes by a product with the identity, which takes as long as a
            transposition and keeps nothing; the latter's operator and its gradient keep 1 GB at 2 x 768 x 1280.
    """

    def __init__(self, out_size: int, sample_num: int, strides: Sequence[int], finest_scale: float = 56.0,
                 aligned: bool = True, level_rule: str = "mmdet", fast: bool = False):
        super().__init__()
        self.fast = fast
        self.out_size, self.sample_num, self.aligned = out_size, sample_num, aligned
        self.strides, self.finest_scale = tuple(strides), finest_scale
        self.rule = LEVEL_RULES[level_rule]
        # The largest square RoI of each level, in its cells; the last level takes all that are larger.
        limits = [2.0 ** (i + 1) * finest_scale / stride for i, stride in enumerate(strides)]
        self.limits = (*limits[:-1], math.inf)
        # Compared with, in place of a logarithm: log2 on the CPU is just below 2 at 4.
        borders = 2.0 ** (np.arange(1, len(strides)) - self.rule["first"] - self.rule["outside"])
        self.borders = Tensor(borders.astype(np.float32))
        self.pool_grid, self.pool_window = PoolGrid(), PoolWindow(out_size)

    def construct(self, features: Sequence, rois):
        """features (N, C, H_l, W_l) per level, rois (N, R, 4) -> (N*R, C, S, S)."""
        table, shapes = self.table_of(features)
        return self.from_table(table, shapes, rois)

    def table_of(self, features: Sequence):
        """features (N, C, H_l, W_l) per level -> all cells (cells, C), ((H_l, W_l), ...): for layers of several sizes."""
        table = ops.cat([self.rows_of(level) for level in features])                     # (cells, C)
        return table, tuple((level.shape[2], level.shape[3]) for level in features)

    def from_table(self, table, shapes, rois):
        """What `table_of` gave and rois (N, R, 4) -> (N*R, C, S, S)."""
        out = self.pool(table, shapes, ops.stop_gradient(rois))                # (M, S*S, C)
        return out.swapaxes(1, 2).reshape(-1, table.shape[1], self.out_size, self.out_size)

    def rows_of(self, level):
        """(N, C, H, W) -> (N*H*W, C)."""
        n, c, height, width = level.shape
        if not self.fast:
            return level.transpose(0, 2, 3, 1).reshape(-1, c)
        one = Tensor(np.tile(np.eye(c, dtype=np.float32), (n, 1, 1)))
        return ops.BatchMatMul(transpose_a=True)(level.reshape(n, c, height * width), one).reshape(-1, c)

    def levels(self, rois):
        """Index of the level of each RoI (..., 4), int32."""
        if len(self.strides) == 1:
            return ops.zeros(rois.shape[:-1], mstype.int32)
        size = ops.relu(rois[..., 2:] - rois[..., :2] + self.rule["offset"])
        side = ops.sqrt(size[..., 0] * size[..., 1]).expand_dims(-1)
        ratio = side / (self.finest_scale * self.rule["size"]) + self.rule["inside"]
        return (ratio >= self.borders).astype(mstype.int32).sum(-1).astype(mstype.int32)

    def pool(self, table, shapes, rois):
        """(cells, C), ((H_l, W_l), ...), (N, R, 4) -> (M, S*S, C)."""
        n, r, _ = rois.shape
        reads = self.reads(shapes, rois.reshape(n * r, 4), picture_numbers(n, r), n)
        return self.pooling(shapes)(table, *reads)

    def pooling(self, shapes):
        """The layer that takes what `reads` gives."""
        return self.pool_grid if self.takes_grid(shapes) else self.pool_window

    def takes_grid(self, shapes) -> bool:
        return self.sample_num > 0 and grid_is_cheaper(self.out_size, self.sample_num, window_cells(shapes, self.limits))

    def reads(self, shapes, rois, pictures, n: int):
        """((H_l, W_l), ...), rois (M, 4), the number of each one's picture float32 (M, 1), how many pictures there are -> the cells
        that each RoI reads, rows of the table int32 (M, K), and their weights along y and x."""
        own = ops.gather(level_table(shapes, self.strides, n), self.levels(rois), 0)
        height, width, first, scale = own.split(1, 1)                          # (M, 1) each
        first = first + pictures * height * width                              # row of the table where the RoI's map begins
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
    """Height, width, first row in the table, cells per pixel of each level: float32 (L, 4)."""
    cells = [n * height * width for height, width in shapes]
    rows = [(*shape, sum(cells[:i]), 1 / strides[i]) for i, shape in enumerate(shapes)]
    return Tensor(np.array(rows, np.float32))


@ops.constexpr
def picture_numbers(n: int, r: int):
    return Tensor(np.repeat(np.arange(n, dtype=np.float32), r).reshape(n * r, 1))


@ops.constexpr
def longest(shapes):
    """Largest height, largest width."""
    return max(shape[0] for shape in shapes), max(shape[1] for shape in shapes)


@ops.constexpr
def window_cells(shapes, limits) -> int:
    """The most cells that a RoI can touch on its level: of any shape, as long as its area is below limit * limit."""
    most = 1
    for (height, width), limit in zip(shapes, limits):
        for rows in range(1, height + 1):
            # Samples that touch `rows` cells are spread over more than rows - 3; likewise for columns.
            free = rows <= 3 or limit == math.inf
            columns = width if free else min(width, max(4, int(limit * limit / (rows - 3)) + 3))
            most = max(most, rows * columns)
    return most


@ops.constexpr
def grid_is_cheaper(bins: int, samples: int, window: int) -> bool:
    """Whether the cells next to the samples, pooled along one axis, then the other, cost less than a window pooled at once.

    Per cell and channel: a multiplication for each bin or for each pair of bins, and the moving of the cell, worth GATHER of them.
    """
    return (2 * bins * samples) ** 2 * (bins + GATHER) <= window * (bins * bins + GATHER)


def sample_weights(start, size, length, bins: int, samples: int):
    """Cells next to the sampling points along one axis: indices (M, 2 * bins * samples), weights (M, bins, the same).

    Args:
        start, size: of the RoI, in cells; length: of the map. (M, 1) each.
    """
    m = start.shape[0]
    steps = Tensor(((np.arange(bins * samples) + 0.5) / samples).astype(np.float32).reshape(1, -1))
    point = start + steps * (size / bins)                                      # (M, bins * samples)
    # More than a cell outside of the map a sample is 0; between there and the first cell it is that cell.
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
    """Weights of all cells that a RoI touches along one axis, whatever number of samples it has.

    A sample between two cells counts for each by its distance from the other. The samples of a bin are equidistant, so
    those between two cells are a count and a mean, and need no loop.

    Args:
        start, size, length: as in `sample_weights`; samples 0: one for each cell or part of a cell that a bin has.
        longest: largest length.

    Returns:
        first cell (M, 1), number of cells (M, 1), weights (M, longest + 1, bins), 0 from that number on.
    """
    step = size / bins
    count = float(samples) + ops.zeros_like(step) if samples else -ops.floor(-step)
    gap = ops.maximum(step / ops.maximum(count, 1.0), 1e-6)
    last = length - 1
    first_cell = ops.minimum(ops.relu(ops.floor(start + 0.5 * gap)), last)
    last_cell = ops.minimum(ops.relu(ops.floor(start + size - 0.5 * gap) + 1), last)
    cells = ops.maximum(last_cell - first_cell, 0.0) + 1

    # From here on (M, t, bins): t is a cell, from the one before the first on.
    t = first_cell + Tensor(np.arange(-1, longest + 2, dtype=np.float32).reshape(1, -1))
    begin = start + Tensor(np.arange(bins, dtype=np.float32).reshape(1, -1)) * step
    shape = (t.shape[0], longest + 3, bins)
    limit = t + 1e-4 * (t > length - 0.5).astype(t.dtype)                     # a sample at `length` is still on the map
    begin, wide = spread(begin.expand_dims(1), shape), spread(gap.expand_dims(2), shape)
    before = ops.relu(-ops.floor((begin - spread(limit.expand_dims(2), shape)) / wide + 0.5))  # samples in front of t
    before = ops.minimum(before, spread(count.expand_dims(2), shape))
    # Now between t and t + 1.
    t, shape = t[:, :-1], (t.shape[0], longest + 2, bins)
    lower, upper = before[:, :-1], before[:, 1:]
    part = begin[:, 1:] - spread(t.expand_dims(2), shape) + 0.5 * wide[:, 1:] * (upper + lower)  # mean distance from t
    # Samples in front of the first cell of the map count for it alone, and those behind the last for that one.
    left = ops.maximum(part, spread((t < -0.5).astype(t.dtype).expand_dims(2), shape))
    right = ops.maximum(1 - part, spread((t > last - 0.5).astype(t.dtype).expand_dims(2), shape))
    weights = ((upper - lower) * left)[:, :-1] + ((upper - lower) * right)[:, 1:]
    inside = Tensor(np.arange(longest + 1, dtype=np.float32).reshape(1, -1)) < cells
    scale = inside.astype(t.dtype) / ops.maximum(count, 1.0)                   # (M, longest + 1)
    return first_cell, cells, weights * spread(scale.expand_dims(2), weights.shape)


def window_places(rows, columns, window: int):
    """Row and column of the K = `window` cells of windows of (M, 1) rows and columns; beyond their end row `rows`."""
    shape = (rows.shape[0], window)
    k = spread(Tensor(np.arange(window, dtype=np.float32).reshape(1, window)), shape)
    width = spread(columns, shape)
    i = ops.floor((k + 0.5) / width)
    return ops.minimum(i, spread(rows, shape)), k - i * width


def take(weights, index):
    """weights (M, L, S), index (M, K) float -> (M, K, S)."""
    m, length, bins = weights.shape
    index = index.astype(mstype.int32) + Tensor(np.arange(m, dtype=np.int32).reshape(m, 1) * length)
    return ops.gather(weights.reshape(m * length, bins), index, 0)
