"""Transfer connection blocks (Zhang et al., "RefineDet", 2018, section 3 and figure 2): ARM features become ODM features.

Shapes: N images, L levels, fine to coarse, each of half the side of the one before.
"""

from mindspore import Parameter, nn, ops
from mindspore.common.initializer import Uniform, initializer

from .convolution import Conv2d, Convolution
from .norm_conv import NormConv2d


class TransferConnections(nn.Cell):
    """The blocks of all levels; each adds what the coarser level made, enlarged, to its own map.

    Level l: P_l = relu(last(relu(second(relu(first(source_l))) + up(P_{l+1})))), the coarsest without the sum.
    """

    def __init__(self, in_channels, out_channels: int, batch_norm: bool = False, fast: bool = False):
        super().__init__()
        conv = NormConv2d if batch_norm else Conv2d
        self.first = nn.CellList([conv(channels, out_channels, 3, fast=fast) for channels in in_channels])
        self.second = nn.CellList([conv(out_channels, out_channels, 3, fast=fast) for _ in in_channels])
        self.last = nn.CellList([conv(out_channels, out_channels, 3, fast=fast) for _ in in_channels])
        self.up = nn.CellList([Doubled(out_channels, fast) for _ in in_channels[1:]])

    def construct(self, sources):
        """Maps (N, C_l, H_l, W_l), fine to coarse -> (N, C, H_l, W_l)."""
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


class Doubled(nn.Cell):
    """Transposed convolution 2x2 of stride 2: (N, C, H, W) -> (N, C, 2H, 2W). Its weight is (in, out, 2, 2).

    Unless `fast` it is written as a 1x1 convolution to the four sub-pixels: onnxruntime refuses what MindSpore 2.10 exports
    of the operator.
    """

    def __init__(self, channels: int, fast: bool = False):
        super().__init__()
        bound = (3 / (4 * channels)) ** 0.5
        self.weight = Parameter(initializer(Uniform(bound), (channels, channels, 2, 2)), name="weight")
        self.bias = Parameter(initializer("zeros", (channels,)), name="bias")
        self.fast = fast
        self.deconv = ops.Conv2DTranspose(channels, (2, 2), pad_mode="valid", stride=2)
        self.conv = Convolution(channels, 4 * channels, 1)

    def construct(self, x):
        n, channels, height, width = x.shape
        if self.fast:
            return ops.bias_add(self.deconv(x, self.weight, (n, channels, 2 * height, 2 * width)), self.bias)
        weight = self.weight.reshape(channels, channels, 4).transpose(2, 1, 0).reshape(4 * channels, channels, 1, 1)
        y = ops.bias_add(self.conv(x, weight), ops.tile(self.bias, (4,)))      # (N, 2*2*C, H, W)
        y = y.reshape(n, 2, 2, channels, height, width).transpose(0, 3, 4, 1, 5, 2)
        return y.reshape(n, channels, 2 * height, 2 * width)
