# Same as faster_rcnn/src/FasterRcnn/inceptionresnetv2.py
"""Inception-ResNet-v2 backbone (Szegedy et al., 2016); inception_layout.py holds its widths.

Shapes: N images of H x W pixels; C2..C5 have strides 4, 8, 16, 32 and sides ceil(H / stride), ceil(W / stride).

The network was published for classification, with 3x3 convolutions and pools that are partly unpadded, so that its maps lose a
few rows at each border. Here all are padded, as in the ResNets: the sides are exact, and element i of a map lies at about pixel
i * stride. Away from the border, pretrained weights see what they were trained on. C2..C5 are the last maps of their strides:
behind conv2d_4a (192 channels), repeat (320), repeat_1 (1088), conv2d_7b (1536).
"""

from collections.abc import Sequence

from mindspore import nn, ops

from ..model_utils.layers.convolution import Conv2d, ConvNorm
from .inception_layout import AVERAGE, BLOCK8, CONVOLUTIONS, MIXED, REPEATS, leaving, scaled
from .resnet import cut, freeze, learning, stem_pool


class ConvRelu(ConvNorm):
    """Convolution, norm, ReLU."""

    def construct(self, x):
        return ops.relu(super().construct(x))


class AveragePool(nn.Cell):
    """Average over 3x3 pixels with stride 1; pixels outside the map do not count."""

    def construct(self, x):
        return ops.AvgPool(3, 1, "same")(x)


class Joined(nn.Cell):
    """Two to four parallel branches whose channels are concatenated. pool: append a 3x3 max pool of the input."""

    def __init__(self, entering: int, branches, width: float, eps: float, fast: bool, pool: bool = False):
        super().__init__()
        cells = [build_branch(entering, branch, width, eps, fast) for branch in branches]
        self.branch0, self.branch1 = cells[:2]
        self.branch2 = cells[2] if len(cells) > 2 else None
        self.branch3 = cells[3] if len(cells) > 3 else None
        self.pool = pool

    def join(self, x):
        joined = self.branch0(x), self.branch1(x)
        if self.branch2 is not None:
            joined += (self.branch2(x),)
        if self.branch3 is not None:
            joined += (self.branch3(x),)
        if self.pool:
            joined += (stem_pool(x),)
        return ops.cat(joined, 1)

    def construct(self, x):
        return self.join(x)


class Residual(Joined):
    """Input plus `scale` times the joined branches, which a 1x1 convolution with bias maps to the input's channels."""

    def __init__(self, channels: int, branches, scale: float, width: float, eps: float, fast: bool, relu: bool = True):
        super().__init__(channels, branches, width, eps, fast)
        self.conv2d = Conv2d(leaving(branches, width), channels, 1, fast=fast)
        self.scale, self.relu = scale, relu

    def construct(self, x):
        conv = self.conv2d
        y = ops.bias_add(conv.conv(self.join(x), conv.weight * self.scale), conv.bias * self.scale) + x
        return ops.relu(y) if self.relu else y

    def branch_end(self):
        """As in resnet.Bottleneck: with this weight 0, a block adds nothing."""
        return self.conv2d.weight, self.conv2d.weight


class InceptionResNetV2(nn.Cell):
    """Backbone: `construct` maps (N, 3, H, W) to C2..C5.

    Args:
        blocks: repeated blocks per stage, (10, 20, 9) as published.
        width: factor of all channels.
        frozen_stages: number of stages that do not train: the stem (up to conv2d_2b), then the stages that end in C2..C5.
        train_norm: train gamma and beta of the other stages (the statistics stay fixed).
        eps: added to the variance in batch norm.
        fast: use the CPU's fast convolutions (convolution.py).
    """

    def __init__(self, blocks: Sequence[int] = (10, 20, 9), width: float = 1.0, frozen_stages: int = 2, train_norm: bool = False,
                 eps: float = 1e-3, fast: bool = False):
        super().__init__()
        self.frozen_stages = frozen_stages
        channels = 3

        def convolution(name: str):
            nonlocal channels
            entering, (number, *kernel) = channels, CONVOLUTIONS[name]
            channels = scaled(number, width)
            return ConvRelu(entering, channels, *kernel, eps=eps, fast=fast)

        def mixed(name: str, pool: bool = False):
            nonlocal channels
            entering = channels
            channels = leaving(MIXED[name], width) + (entering if pool else 0)
            return Joined(entering, MIXED[name], width, eps, fast, pool)

        def repeat(name: str, count: int):
            branches, scale = REPEATS[name]
            return nn.SequentialCell(*(Residual(channels, branches, scale, width, eps, fast) for _ in range(count)))

        self.conv2d_1a, self.conv2d_2a, self.conv2d_2b = map(convolution, ("conv2d_1a", "conv2d_2a", "conv2d_2b"))
        self.conv2d_3b, self.conv2d_4a = map(convolution, ("conv2d_3b", "conv2d_4a"))
        self.mixed_5b, self.repeat = mixed("mixed_5b"), repeat("repeat", blocks[0])
        self.mixed_6a, self.repeat_1 = mixed("mixed_6a", pool=True), repeat("repeat_1", blocks[1])
        self.mixed_7a, self.repeat_2 = mixed("mixed_7a", pool=True), repeat("repeat_2", blocks[2])
        self.block8 = Residual(channels, BLOCK8, 1.0, width, eps, fast, relu=False)
        self.conv2d_7b = convolution("conv2d_7b")
        stages = ([self.conv2d_1a, self.conv2d_2a, self.conv2d_2b], [self.conv2d_3b, self.conv2d_4a], [self.mixed_5b, self.repeat],
                  [self.mixed_6a, self.repeat_1], [self.mixed_7a, self.repeat_2, self.block8, self.conv2d_7b])
        freeze(stages, frozen_stages, train_norm)

    def construct(self, x):
        frozen = self.frozen_stages
        x = stem_pool(self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x))))
        c2 = self.conv2d_4a(self.conv2d_3b(cut(x, 1, frozen)))
        c3 = self.repeat(self.mixed_5b(stem_pool(cut(c2, 2, frozen))))
        c4 = self.repeat_1(self.mixed_6a(cut(c3, 3, frozen)))
        x = self.block8(self.repeat_2(self.mixed_7a(cut(c4, 4, frozen))))
        c5 = self.conv2d_7b(x)
        return cut(c2, 2, frozen), cut(c3, 3, frozen), cut(c4, 4, frozen), cut(c5, 5, frozen)


def build_branch(entering: int, branch, width: float, eps: float, fast: bool):
    """Return the cell of a branch; a single convolution stays unwrapped, since its parameter name has no index."""
    cells = []
    for part in branch:
        if part == AVERAGE:
            cells.append(AveragePool())
            continue
        channels, *kernel = part
        cells.append(ConvRelu(entering, scaled(channels, width), *kernel, eps=eps, fast=fast))
        entering = scaled(channels, width)
    return cells[0] if len(cells) == 1 else nn.SequentialCell(*cells)


def build_inception_resnet_v2(config, fast: bool = False) -> InceptionResNetV2:
    """Return the network that the configuration describes."""
    return InceptionResNetV2(config.inception_block, config.inception_width, **learning(config, fast))
