"""Convolutions, including a fast 3x3 convolution for the CPU.

Shapes: N images, C input channels, O output channels, H x W pixels; T = tiles of 4 x 4 output pixels per image.

MindSpore's CPU backend computes a 3x3 convolution as im2col and a matrix product. Winograd's minimal filtering F(4x4, 3x3) (Lavin
and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016, eq. 8) needs a quarter of the multiplications for the output,
the input's gradient and the weight's gradient. Its transforms are strided convolutions of one channel, so that everything is a few
large operators. Measured at 2x256x192x320: forward takes 0.48 of the time of the direct convolution, forward and backward 0.44.
Rounding error: about 8e-5 for outputs of standard deviation 1 (direct: 1e-5).
"""

import math

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import HeNormal, Initializer, Uniform, initializer
from mindspore.ops import constexpr

from ..local_adapter import pynative

# Lavin and Gray, section 4.3: the matrices of F(4, 3). An output tile is A' [(G g G') * (B' d B)] A.
_B_T = np.array([
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
], np.float64)
_G = np.array([
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
], np.float64)
_A_T = np.array([
    [1, 1, 1, 1, 1, 0],
    [0, 1, -1, 2, -2, 0],
    [0, 1, 1, 4, 4, 0],
    [0, 1, -1, 8, -8, 1],
], np.float64)

_gather = ops.Gather()    # `ops.gather` is a Python function, which does not compile in a `bprop` within another one


def _two_dimensional(matrix: np.ndarray) -> np.ndarray:
    """Return the two-dimensional transform that applies `matrix` (a, r) along both axes: (a*a, r*r)."""
    return np.kron(matrix, matrix).astype(np.float32)


class WinogradConv3x3(nn.Cell):
    """3x3 convolution with stride 1 and padding 1 by Winograd's F(4x4, 3x3), with its gradient.

    `construct` maps x (N, C, H, W) and weight (O, C, 3, 3) to (N, O, H, W). H and W may have any size; the transforms pad them to
    multiples of 4. The transforms work channel by channel, the matrix products one of 36 frequencies at a time; in between, rows of
    T numbers are permuted. A gather of rows does that twice as fast as a transposition, whose operator would also keep two copies
    of its input in memory permanently.
    """

    def __init__(self) -> None:
        super().__init__()
        self.to_tiles = Tensor(_two_dimensional(_B_T).reshape(36, 1, 6, 6))
        self.from_tiles = Tensor(_two_dimensional(_A_T).T.reshape(36, 1, 4, 4).copy())
        self.to_filter = Tensor(_two_dimensional(_G))                          # (36, 9)
        self.matmul_nt = ops.MatMul(transpose_b=True)
        self.matmul_tn = ops.MatMul(transpose_a=True)
        self.batch_matmul = ops.BatchMatMul()
        self.batch_matmul_nt, self.batch_matmul_tn = ops.BatchMatMul(transpose_b=True), ops.BatchMatMul(transpose_a=True)
        self.keeping = False                        # see keep_filters
        self.kept: Parameter | None = None

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        if self.kept is not None:
            return self.apply(self.kept, x)
        if self.keeping:
            self.kept = Parameter(self.filters_of(weight), name="filters", requires_grad=False)
        return self.filter(x, weight)

    def bprop(self, x: Tensor, weight: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        # Recompute the tiles of x here, after dout. Kept from the forward pass, they would take 2.25 times the memory of the
        # activation, and the filters four times that of the weight.
        x, weight = ops.depend(x, dout), ops.depend(weight, dout)
        dm = self.output_tiles_gradient(dout)
        dweight = self.weight_gradient(dm, x)
        dm = ops.depend(dm, dweight)                # one after the other: in parallel they would need the memory of both
        return self.input_gradient(dm, weight, x.shape), dweight

    def filter(self, x: Tensor, weight: Tensor) -> Tensor:
        return self.apply(self.filters_of(weight), x)

    def filters_of(self, weight: Tensor) -> Tensor:
        """Transform the weights: (O, C, 3, 3) -> (36, O, C)."""
        out_channels, channels, _, _ = weight.shape
        return self.matmul_nt(self.to_filter, weight.reshape(out_channels * channels, 9)).reshape(36, out_channels, channels)

    def apply(self, filters: Tensor, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        out_channels = filters.shape[1]
        rows, columns = (height + 3) // 4, (width + 3) // 4
        m = self.batch_matmul(filters, self.input_tiles(x))                    # (36, O, N*T)
        m = permute_rows(m, 36, out_channels, n)
        y = ops.Conv2DTranspose(1, 4, pad_mode="valid", stride=4)(
            m.reshape(n * out_channels, 36, rows, columns), self.from_tiles, (n * out_channels, 1, rows * 4, columns * 4))
        y = y.reshape(n, out_channels, rows * 4, columns * 4)
        if rows * 4 != height or columns * 4 != width:
            y = ops.slice(y, (0, 0, 0, 0), (n, out_channels, height, width))
        return y

    def output_tiles_gradient(self, dout: Tensor) -> Tensor:
        """Transform the output's gradient, (N, O, H, W) -> (36, O, N*T), from which both gradients start."""
        n, out_channels, height, width = dout.shape
        pad = (0, -height % 4, 0, -width % 4)
        dm = ops.Conv2D(36, 4, pad_mode="pad", pad=pad, stride=4)(
            dout.reshape(n * out_channels, 1, height, width), self.from_tiles)
        return permute_rows(dm, n, out_channels, 36).reshape(36, out_channels, -1)

    def input_gradient(self, dm: Tensor, weight: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Apply the transposed steps of `apply` in reverse; `input_tiles` becomes a sum of overlapping tiles.

        A Winograd convolution of dout with the flipped, transposed weights would give the same, but needs tiles of dout.
        """
        n, channels, height, width = shape
        dv = self.batch_matmul_tn(self.filters_of(weight), dm)                 # (36, C, N*T)
        dv = permute_rows(dv, 36, channels, n).reshape(n * channels, 36, (height + 3) // 4, (width + 3) // 4)
        dx = ops.Conv2DTranspose(1, 6, pad_mode="pad", pad=tile_padding(height, width), stride=4)(
            dv, self.to_tiles, (n * channels, 1, height, width))
        return dx.reshape(shape)

    def weight_gradient(self, dm: Tensor, x: Tensor) -> Tensor:
        out_channels, channels = dm.shape[1], x.shape[1]
        du = self.batch_matmul_nt(dm, self.input_tiles(x))                     # (36, O, C)
        dw = self.matmul_tn(du.reshape(36, out_channels * channels), self.to_filter)
        return dw.reshape(out_channels, channels, 3, 3)

    def input_tiles(self, x: Tensor) -> Tensor:
        """Transform x to overlapping 6x6 tiles: (36, C, N*T)."""
        n, channels, height, width = x.shape
        v = ops.Conv2D(36, 6, pad_mode="pad", pad=tile_padding(height, width), stride=4)(
            x.reshape(n * channels, 1, height, width), self.to_tiles)
        return permute_rows(v, n, channels, 36).reshape(36, channels, -1)


def tile_padding(height: int, width: int) -> tuple[int, int, int, int]:
    """Return the padding for 6x6 tiles, 4 pixels apart: the convolution's pixel, plus the padding to a multiple of 4."""
    return 1, 1 + -height % 4, 1, 1 + -width % 4


def keep_filters(net: nn.Cell, side: int = 64) -> int:
    """Transform the weights of a network's Winograd convolutions once for all later calls; for inference with constant weights.

    At 320x320, a VGG-16 spends a fifth of its time on these transforms. The transformed weights take four times the memory of the
    weights.

    Args:
        net: a network whose `dense(image)` calls the layers in question.
        side: of the image that it is called with, in pixels.

    Returns:
        The number of layers.
    """
    layers = [cell for _, cell in net.cells_and_names() if isinstance(cell, WinogradConv3x3)]
    for layer in layers:
        layer.keeping = True
    try:
        with pynative():
            net.dense(Tensor(np.zeros((1, 3, side, side), np.float32)))
    finally:
        for layer in layers:
            layer.keeping = False
    kept = [layer.kept for layer in layers if layer.kept is not None]
    for number, filters in enumerate(kept):
        filters.name = f"winograd.{number}.filters"
    return len(kept)


def permute_rows(x: Tensor, a: int, b: int, c: int) -> Tensor:
    """Permute the rows of T numbers of an (a, b, c, T) tensor to the order (c, b, a): (c * b * a, T)."""
    return _gather(x.reshape(a * b * c, -1), row_order(a, b, c), 0)


@constexpr
def row_order(a: int, b: int, c: int) -> Tensor:
    """Return the row indices of an (a, b, c) grid in the order (c, b, a); a constant of the graph."""
    return Tensor(np.arange(a * b * c, dtype=np.int32).reshape(a, b, c).transpose(2, 1, 0).ravel())


class Convolution(nn.Cell):
    """Convolution with a given weight and "same" padding. On the CPU, wide 3x3 convolutions with stride 1 use Winograd.

    kernel_size: a side, or (height, width), odd; if they differ, the stride must be 1.

    `fast` depends on the device: exported graphs and other devices use the plain operator.
    """

    # With fewer channels, the forward transforms cost more than they save. Time relative to the direct convolution: 64 channels
    # at 320x320 forward 0.8, with gradient 0.7; 32 channels at 256x256 1.4 and 0.7.
    WINOGRAD_CHANNELS = 64

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int], stride: int = 1, fast: bool = False,
                 dilation: int = 1):
        super().__init__()
        height, width = sides_of(kernel_size)
        wide = min(in_channels, out_channels) >= self.WINOGRAD_CHANNELS
        plain = (height, width, stride, dilation) == (3, 3, 1, 1)
        self.winograd = WinogradConv3x3() if fast and wide and plain else None
        # MindSpore 2.10 exports pads to ONNX in the wrong order, which matters if they are unequal. For stride 1, pad_mode "same"
        # is equivalent. A single number for the kernel does not export.
        padding = {"pad_mode": "pad", "pad": height // 2 * dilation} if height == width else {"pad_mode": "same"}
        if height != width and stride != 1:
            raise ValueError(f"kernel_size {kernel_size} needs stride 1, got {stride}")
        self.direct = ops.Conv2D(out_channels, (height, width), **padding, stride=stride, dilation=dilation)

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        if self.winograd is not None:
            return self.winograd(x, weight)
        return self.direct(x, weight)


def sides_of(kernel_size: int | tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of a kernel that is given by its side or by both."""
    return kernel_size if isinstance(kernel_size, tuple) else (kernel_size, kernel_size)


class Conv2d(nn.Cell):
    """Convolution with bias and "same" padding."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, weight_init: Initializer | str | None = None,
                 fast: bool = False, stride: int = 1, dilation: int = 1):
        super().__init__()
        # Uniform with variance 1 / fan_in, as in the feature pyramids of detectron2 and torchvision.
        weight_init = weight_init or Uniform(math.sqrt(3 / (in_channels * kernel_size * kernel_size)))
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        self.weight = Parameter(initializer(weight_init, shape), name="weight")
        self.bias = Parameter(initializer("zeros", (out_channels,)), name="bias")
        self.conv = Convolution(in_channels, out_channels, kernel_size, stride, fast, dilation)

    def construct(self, x: Tensor) -> Tensor:
        return ops.bias_add(self.conv(x, self.weight), self.bias)


class ScaledWeight(nn.Cell):
    """weight (O, C, h, w) times scale (O,). The gradient repeats the scale again; kept, it would be as large as the weight.

    Operators are attributes, because `ops.tile` does not compile within `bprop`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tile, self.sum = ops.Tile(), ops.ReduceSum()

    def construct(self, weight: Tensor, scale: Tensor) -> Tensor:
        return weight * self.repeat(scale, weight)

    def bprop(self, weight: Tensor, scale: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        return dout * self.repeat(ops.depend(scale, dout), weight), self.sum(dout * weight, (1, 2, 3))

    def repeat(self, scale: Tensor, weight: Tensor) -> Tensor:
        """Repeat scale to the weight's shape: on the CPU, a product of unequal shapes keeps 16 bytes per element permanently."""
        return self.tile(scale.reshape(-1, 1, 1, 1), (1, *weight.shape[1:]))


class ConvNorm(nn.Cell):
    """Convolution and batch norm with fixed statistics, folded into one convolution: conv(x, w * scale) + shift.

    A separate norm would read and write the activation once more in each direction. `calibrating` (PyNative mode only) sets the
    statistics to those of the current batch, for layers without pretrained weights: with statistics of 0 and 1 behind random
    weights, activations would grow without bound.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int], stride: int = 1, eps: float = 1e-5,
                 fast: bool = False, dilation: int = 1, weight_init: Initializer | str | None = None):
        super().__init__()
        weight_init = weight_init or HeNormal(mode="fan_out", nonlinearity="relu")
        shape = (out_channels, in_channels, *sides_of(kernel_size))
        self.weight = Parameter(initializer(weight_init, shape), name="weight")
        self.gamma = Parameter(initializer("ones", (out_channels,)), name="gamma")
        self.beta = Parameter(initializer("zeros", (out_channels,)), name="beta")
        self.moving_mean = Parameter(initializer("zeros", (out_channels,)), name="moving_mean", requires_grad=False)
        self.moving_variance = Parameter(initializer("ones", (out_channels,)), name="moving_variance", requires_grad=False)
        self.conv = Convolution(in_channels, out_channels, kernel_size, stride, fast, dilation)
        self.scaled = ScaledWeight()
        self.eps = eps
        self.calibrating = False
        self.batch_norm: nn.Cell | None = None      # if set, training uses it: a norm with the batch's statistics

    def construct(self, x: Tensor) -> Tensor:
        if self.training and self.batch_norm is not None:
            return self.batch_norm(self.conv(x, self.weight), self.gamma, self.beta, self.moving_mean, self.moving_variance)
        if self.calibrating:
            self.set_statistics(self.conv(x, self.weight))
        scale = self.gamma / ops.sqrt(self.moving_variance + self.eps)
        shift = self.beta - self.moving_mean * scale
        return ops.bias_add(self.conv(x, self.scaled(self.weight, scale)), shift)

    def set_statistics(self, y: Tensor) -> None:
        y = y.asnumpy().astype(np.float64)
        self.moving_mean.set_data(Tensor(y.mean((0, 2, 3)).astype(np.float32)))
        self.moving_variance.set_data(Tensor(y.var((0, 2, 3)).astype(np.float32)))
