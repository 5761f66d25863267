"""A plain convolutional backbone: two 3x3 convolutions per stage, the first of which halves the resolution."""
from mindspore import nn, ops

from ..model_utils.layers.convolution import ConvNorm
from .resnet import cut, freeze, learning


class PlainConvNet(nn.Cell):
    """(N, 3, H, W) -> C2..C5, strides 4 to 32. channels: of the stem, then of C2..C5."""

    def __init__(self, channels, frozen_stages: int, train_norm: bool, eps: float, fast: bool):
        super().__init__()
        self.stem = ConvNorm(3, channels[0], 3, 2, eps=eps)
        self.halving = nn.CellList([ConvNorm(a, b, 3, 2, eps=eps) for a, b in zip(channels, channels[1:])])
        self.refining = nn.CellList([ConvNorm(b, b, 3, eps=eps, fast=fast) for b in channels[1:]])
        self.frozen_stages = frozen_stages
        stages = zip(self.halving, self.refining)
        freeze([[self.stem], *map(list, stages)], frozen_stages, train_norm)

    def construct(self, x):
        x, outputs = ops.relu(self.stem(x)), ()
        for i in range(len(self.halving)):
            x = ops.relu(self.halving[i](cut(x, i + 1, self.frozen_stages)))
            x = ops.relu(self.refining[i](x))
            outputs += (cut(x, i + 2, self.frozen_stages),)
        return outputs


def build_plain_convnet(config, fast: bool = False) -> PlainConvNet:
    """Return the backbone with the widths that the feature pyramid expects."""
    return PlainConvNet((config.fpn_in_channels[0] // 2, *config.fpn_in_channels), **learning(config, fast))
