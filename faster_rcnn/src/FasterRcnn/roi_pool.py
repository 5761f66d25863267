"""Pool the cells that RoIs read by matrix products, in chunks of RoIs to bound the memory. See roi_align.py.

Shapes: M RoIs, C channels, S output side, K feature cells that a RoI reads; a table has a row of C channels for each cell.
"""
import math

import numpy as np
from mindspore import Tensor, nn, ops

BYTES_AT_ONCE = 128 << 20  # limit of the gathered features; 64 to 200 MB are equally fast, 800 MB slower


@ops.constexpr
def parts_of(rois: int, cells: int, channels: int):
    """Return (start, stop) of chunks of RoIs whose gathered features fit into BYTES_AT_ONCE."""
    count = min(rois, math.ceil(rois * cells * channels * 4 / BYTES_AT_ONCE))
    size = math.ceil(rois / count)    # equal chunks reuse each other's memory
    return tuple((start, min(start + size, rois)) for start in range(0, rois, size))


class _Pool(nn.Cell):
    """Gather and pool in chunks of RoIs. `bprop` gathers again, so that no gathered features are kept for it.

    Operators are attributes because `ops.tile`, `ops.zeros_like` and other functions in Python do not compile within `bprop`.
    """

    def __init__(self):
        super().__init__()
        self.product, self.transposed = ops.BatchMatMul(), ops.BatchMatMul(transpose_a=True)
        self.gather, self.depend, self.zeros_like = ops.Gather(), ops.Depend(), ops.ZerosLike()
        self.sum_rows, self.add_rows = ops.UnsortedSegmentSum(), ops.TensorScatterAdd()

    def construct(self, table, cells, wy, wx):
        """Pool a table (cells, C) at cells int32 (M, K) with weights along y and x -> (M, S*S, C)."""
        parts = []
        for start, stop in parts_of(*cells.shape, table.shape[1]):
            if parts:    # `depend` runs the chunks one after the other, in the memory of one
                cells, wy, wx = self.depend(cells, parts[-1]), self.depend(wy, parts[-1]), self.depend(wx, parts[-1])
            taken = self.gather(table, cells[start:stop], 0)                   # (m, K, C)
            parts.append(self.forward(taken, wy[start:stop].astype(table.dtype), wx[start:stop].astype(table.dtype)))
        return ops.cat(parts) if len(parts) > 1 else parts[0]

    def bprop(self, table, cells, wy, wx, out, dout):
        """Return the gradient of the table; cells and weights get none."""
        dtable = self.add_gradient(None, table.shape[0], cells, wy, wx, dout)
        return dtable, self.zeros_like(cells), self.zeros_like(wy), self.zeros_like(wx)

    def add_gradient(self, dtable, rows: int, cells, wy, wx, dout):
        """Return dtable (rows, C), None = 0, plus the gradient that dout (M, S*S, C) sends to the table."""
        channels, dtype = dout.shape[2], dout.dtype
        for start, stop in parts_of(*cells.shape, channels):
            if dtable is not None:
                dout, wy, wx = self.depend(dout, dtable), self.depend(wy, dtable), self.depend(wx, dtable)
            weights = wy[start:stop].astype(dtype), wx[start:stop].astype(dtype)
            grad = self.backward(dout[start:stop], *weights).reshape(-1, channels)
            chosen = cells[start:stop].reshape(-1)
            dtable = self.sum_rows(grad, chosen, rows) if dtable is None else self.add_rows(dtable, chosen.reshape(-1, 1), grad)
        return dtable


class PoolGrid(_Pool):
    """The cells of a RoI are a grid of L x L, K = L * L; weights are (M, S, L). Pool along y, then along x."""

    def __init__(self):
        super().__init__()
        self.tile = ops.Tile()

    def forward(self, taken, wy, wx):
        m, s, length = wy.shape
        channels = taken.shape[2]
        rows = self.product(wy, taken.reshape(m, length, length * channels))             # (m, S, L*C)
        return self.product(self.each_row(wx), rows.reshape(m, s, length, channels)).reshape(m, s * s, channels)

    def backward(self, dout, wy, wx):
        m, s, length = wy.shape
        channels = dout.shape[2]
        rows = self.transposed(self.each_row(wx), dout.reshape(m, s, s, channels))       # (m, S, L, C)
        return self.transposed(wy, rows.reshape(m, s, length * channels))                # (m, L, L*C)

    def each_row(self, wx):
        m, s, length = wx.shape
        return self.tile(wx.reshape(m, 1, s, length), (1, s, 1, 1))                      # (m, S, S, L)


class PoolWindow(_Pool):
    """The K cells of a RoI are a window of any shape; weights are (M, K, S). Pool with the product of both weights."""

    def __init__(self, out_size: int):
        super().__init__()
        one, ones = np.eye(out_size, dtype=np.float32), np.ones((1, out_size), np.float32)
        self.matmul = ops.MatMul()
        self.rows, self.columns = Tensor(np.kron(one, ones)), Tensor(np.kron(ones, one))           # (S, S*S)

    def forward(self, taken, wy, wx):
        return self.transposed(self.both(wy, wx), taken)                                 # (m, S*S, C)

    def backward(self, dout, wy, wx):
        return self.product(self.both(wy, wx), dout)                                     # (m, K, C)

    def both(self, wy, wx):
        """Return the products of all pairs, (m, K, S) twice -> (m, K, S*S). The matrices repeat columns, faster than `spread`."""
        m, k, s = wy.shape
        wy = self.matmul(wy.reshape(m * k, s), self.rows.astype(wy.dtype))
        wx = self.matmul(wx.reshape(m * k, s), self.columns.astype(wx.dtype))
        return (wy * wx).reshape(m, k, s * s)
