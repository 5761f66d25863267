"""Transfer connection blocks (Zhang et al., "RefineDet", 2018, section 3 and figure 2): turn ARM features into ODM features.

Shapes: N images, L levels, fine to coarse, each with half the side of the level before.
"""

from mindspore import Parameter, nn, ops
from mindspore.common.initializer import Uniform, initializer

from .model_utils.layers.convolution import Conv2d, Convolution
from .norm_conv import NormConv2d


class TransferConnections(nn.Cell):
    """The blocks of all levels; each adds the upsampled output of the coarser level to its map.

    Level l: P_l = relu(last(relu(second(relu(first(source_l))) + up(P_{l+1})))), the coarsest without the sum.

    Args:
        batch_norm: norms behind first, second and last, instead of biases; norm_up: also behind up.
        weight_init: initializer of new weights; None: uniform with variance 1 / fan_in.
    """

    def __init__(self, in_channels, out_channels: int, batch_norm: bool = False, fast: bool = False, norm_up: bool = False,
                 weight_init=None):
        super().__init__()
        conv, up = NormConv2d if batch_norm else Conv2d, NormDoubled if norm_up else Doubled
        self.first = nn.CellList([conv(channels, out_channels, 3, weight_init, fast) for channels in in_channels])
        self.second = nn.CellList([conv(out_channels, out_channels, 3, weight_init, fast) for _ in in_channels])
        self.last = nn.CellList([conv(out_channels, out_channels, 3, weight_init, fast) for _ in in_channels])
        self.up = nn.CellList([up(out_channels, fast, weight_init) for _ in in_channels[1:]])

    def construct(self, sources):
        """Map source maps (N, C_l, H_l, W_l), fine to coarse, to ODM maps (N, C, H_l, W_l)."""
        outputs = ()
        above = None
        for i in range(len(sources)):
            level = len(sources) - 1 - i
            x = self.second[level](ops.relu(self.first[level](sources[level])))
            if above is not None:
                x = x + self.up[level](above)
            above = ops.relu(self.last[level](ops.relu(x)))
            outputs = (above,) + outputs
        return outputs


class Doubling(nn.Cell):
    """The operator of a 2x2 transposed convolution: x (N, C, H, W), weight (in, out, 2, 2), bias (C,) or None -> (N, C, 2H, 2W).

    Unless `fast`, it is computed as a 1x1 convolution to the four sub-pixels, because onnxruntime refuses MindSpore 2.10's export
    of the transposed convolution.
    """

    def __init__(self, channels: int, fast: bool = False):
        super().__init__()
        self.fast = fast
        self.deconv = ops.Conv2DTranspose(channels, (2, 2), pad_mode="valid", stride=2)
        self.conv = Convolution(channels, 4 * channels, 1)

    def construct(self, x, weight, bias=None):
        n, channels, height, width = x.shape
        if self.fast:
            y = self.deconv(x, weight, (n, channels, 2 * height, 2 * width))
            return y if bias is None else ops.bias_add(y, bias)
        weight = weight.reshape(channels, channels, 4).transpose(2, 1, 0).reshape(4 * channels, channels, 1, 1)
        y = self.conv(x, weight)                                               # (N, 2*2*C, H, W)
        if bias is not None:
            y = ops.bias_add(y, ops.tile(bias, (4,)))
        y = y.reshape(n, 2, 2, channels, height, width).transpose(0, 3, 4, 1, 5, 2)
        return y.reshape(n, channels, 2 * height, 2 * width)


class Doubled(nn.Cell):
    """2x2 transposed convolution with stride 2: (N, C, H, W) -> (N, C, 2H, 2W). Its weight is (in, out, 2, 2)."""

    def __init__(self, channels: int, fast: bool = False, weight_init=None):
        super().__init__()
        weight_init = weight_init or Uniform((3 / (4 * channels)) ** 0.5)
        self.weight = Parameter(initializer(weight_init, (channels, channels, 2, 2)), name="weight")
        self.bias = Parameter(initializer("zeros", (channels,)), name="bias")
        self.double = Doubling(channels, fast)

    def construct(self, x):
        return self.double(x, self.weight, self.bias)


class NormDoubled(NormConv2d):
    """`Doubled` with a batch norm instead of a bias. Its weight is (out, in, 2, 2), as in other convolutions with a norm."""

    def __init__(self, channels: int, fast: bool = False, weight_init=None):
        super().__init__(channels, channels, 2, weight_init)
        self.conv = DoublingByOutputs(channels, fast)

    def construct(self, x):
        if self.training:
            return super().construct(x)
        # Folded as in ConvNorm, but with the shift before the sub-pixels are moved: MindSpore 2.10 only exports a bias to ONNX
        # that directly follows its convolution.
        scale = self.gamma / ops.sqrt(self.moving_variance + self.eps)
        shift = self.beta - self.moving_mean * scale
        scale = ops.tile(scale.reshape(-1, 1, 1, 1), (1, *self.weight.shape[1:]))
        return self.conv(x, self.weight * scale, shift)


class DoublingByOutputs(Doubling):
    """`Doubling` with a weight (out, in, 2, 2)."""

    def construct(self, x, weight, bias=None):
        return super().construct(x, ops.transpose(weight, (1, 0, 2, 3)), bias)
