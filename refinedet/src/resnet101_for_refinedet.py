"""ResNet-101 (He et al., "Deep Residual Learning for Image Recognition", 2016), and the blocks that RefineDet adds to it.

It follows the authors' Caffe code, which uses MSRA's ResNet: batch norms behind all convolutions, which train with the statistics
of the batch and infer with the running ones (norm_conv.py).

Shapes: N images of H x W pixels, both multiples of 64. The maps have strides 8, 16, 32, 64.
"""

from mindspore import nn, ops
from mindspore.common.initializer import HeNormal, Normal

from .freezing import freeze
from .norm_conv import NormConv2d

# Standard deviation of new weights in convolutions without ImageNet weights.
FRESH_STD = 0.01
# Prefixes of the layers that each further value of frozen_stages freezes.
STAGES = ("conv1", "layer1.", "layer2.", "layer3.", "layer4.")


class Bottleneck(nn.Cell):
    """1x1 to a quarter of the output channels, 3x3, 1x1, plus the identity or, with `project`, its 1x1 projection."""

    def __init__(self, in_channels: int, out_channels: int, weight_init, stride: int = 1, project: bool = False,
                 stride_in_1x1: bool = True, fast: bool = False):
        super().__init__()
        width = out_channels // 4
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = NormConv2d(in_channels, width, 1, weight_init, fast, first)
        self.conv2 = NormConv2d(width, width, 3, weight_init, fast, second)
        self.conv3 = NormConv2d(width, out_channels, 1, weight_init, fast)
        self.downsample = NormConv2d(in_channels, out_channels, 1, weight_init, fast, stride) if project else None

    def construct(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        y = ops.relu(self.conv2(ops.relu(self.conv1(x))))
        return ops.relu(self.conv3(y) + identity)


class ResNet101(nn.Cell):
    """Stem, four stages and res6, one more bottleneck; returns res3b3, res4b22, res5c and res6.

    Args:
        blocks: bottlenecks per stage, (3, 4, 23, 3) for ResNet-101.
        in_channels: channels that enter each stage; the first is the stem's width.
        out_channels: channels that leave each stage, four times the width of its bottlenecks; extra_channels: those of res6.
        stride_in_1x1: put a stage's stride into its first 1x1 convolution (MSRA) or into the 3x3 (torchvision). In res6: the 1x1.
        pool_ceil: see stem_pool.
    """

    residual = True

    def __init__(self, blocks, in_channels, out_channels, extra_channels: int, stride_in_1x1: bool = True,
                 pool_ceil: bool = True, fast: bool = False):
        super().__init__()
        weight_init = HeNormal(mode="fan_out", nonlinearity="relu")
        self.pool_ceil = pool_ceil
        self.conv1 = NormConv2d(3, in_channels[0], 7, weight_init, fast, 2)
        stages = []
        for index, (count, entering, leaving) in enumerate(zip(blocks, in_channels, out_channels)):
            first = Bottleneck(entering, leaving, weight_init, 1 if index == 0 else 2, True, stride_in_1x1, fast)
            others = [Bottleneck(leaving, leaving, weight_init, fast=fast) for _ in range(count - 1)]
            stages.append(nn.SequentialCell(first, *others))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.res6 = Bottleneck(out_channels[-1], extra_channels, Normal(FRESH_STD), 2, True, fast=fast)
        self.out_channels = (*out_channels[1:], extra_channels)

    def construct(self, image):
        """Map (N, 3, H, W) to the four source maps."""
        x = stem_pool(ops.relu(self.conv1(image)), self.pool_ceil)             # (N, 64, H/4, W/4)
        res3 = self.layer2(self.layer1(x))                                     # (N, 512, H/8, W/8)
        res4 = self.layer3(res3)                                               # (N, 1024, H/16, W/16)
        res5 = self.layer4(res4)                                               # (N, 2048, H/32, W/32)
        return res3, res4, res5, self.res6(res5)                               # (N, 512, H/64, W/64)


def head_blocks(in_channels, out_channels: int, fast: bool = False) -> nn.CellList:
    """Return a bottleneck per map that precedes its pair of heads; in the authors' code, but not in the paper."""
    return nn.CellList([Bottleneck(channels, out_channels, Normal(FRESH_STD), project=True, fast=fast) for channels in in_channels])


def stem_pool(x, ceil: bool):
    """Max pool of 3x3 windows with stride 2: (N, C, H, W) >= 0, H and W even -> (N, C, H/2, W/2).

    ceil: windows begin at pixel 0 and the last one extends beyond the end, as Caffe rounds; else they begin at pixel -1, PyTorch's
    padding of 1. Since x >= 0, padding with 0 does not change the maximum.
    """
    n, c, height, width = x.shape
    row = ops.zeros((n, c, 1, width), x.dtype)
    x = ops.cat((x, row) if ceil else (row, x), 2)
    column = ops.zeros((n, c, height + 1, 1), x.dtype)
    x = ops.cat((x, column) if ceil else (column, x), 3)
    return ops.MaxPool(3, 2)(x)


def build_resnet101(config, fast: bool = False) -> ResNet101:
    """Return the trunk that the configuration describes."""
    backbone = ResNet101(config.resnet_block, config.resnet_in_channels, config.resnet_out_channels, config.resnet_extra_channels,
                         config.stride_in_1x1, config.stem_pool == "ceil", fast)
    freeze(backbone, STAGES[:config.frozen_stages])
    return backbone
