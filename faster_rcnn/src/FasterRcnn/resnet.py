"""ResNet backbone (He et al., "Deep Residual Learning for Image Recognition", 2016), and what backbones have in common.

Shapes: N images of H x W pixels; stage l = 2..5 has stride 2^l.
"""

from collections.abc import Sequence

from mindspore import nn, ops

from ..model_utils.layers.convolution import ConvNorm


class Bottleneck(nn.Cell):
    """1x1 reduce, 3x3, 1x1 expand, plus the identity or its projection."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, stride_in_1x1: bool, eps: float, fast: bool):
        super().__init__()
        width = out_channels // 4
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = ConvNorm(in_channels, width, 1, first, eps=eps, fast=fast)
        self.conv2 = ConvNorm(width, width, 3, second, eps=eps, fast=fast)
        self.conv3 = ConvNorm(width, out_channels, 1, eps=eps, fast=fast)
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = ConvNorm(in_channels, out_channels, 1, stride, eps=eps, fast=fast)

    def construct(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        y = ops.relu(self.conv1(x))
        y = ops.relu(self.conv2(y))
        return ops.relu(self.conv3(y) + identity)

    def branch_end(self):
        """(parameter that silences what the block adds, weight that it is fresh with)."""
        return self.conv3.gamma, self.conv3.weight


class ResNet(nn.Cell):
    """Stem and four stages of bottlenecks; `construct(x (N, 3, H, W))` gives C2..C5, strides 4 to 32.

    Args:
        blocks: bottlenecks per stage, (3, 4, 6, 3) for ResNet-50.
        in_channels: channels that enter each stage; the first is the stem's width.
        out_channels: channels that leave each stage, four times the width inside.
        frozen_stages: stages without training, the stem counted first (2 = stem and layer1).
        train_norm: whether gamma and beta of the other stages learn (their statistics stay fixed).
        stride_in_1x1: a stage shrinks in its first 1x1 convolution (He et al., MSRA's weights), not in the 3x3 behind it.
        eps: of the batch norm.
        fast: the CPU's fast convolutions (see convolution.py).
        pool_padding: of the pool behind the stem, see `stem_pool`.
    """

    def __init__(self, blocks: Sequence[int], in_channels: Sequence[int], out_channels: Sequence[int], frozen_stages: int = 2,
                 train_norm: bool = False, stride_in_1x1: bool = False, eps: float = 1e-5, fast: bool = False,
                 pool_padding: str = "both"):
        super().__init__()
        self.frozen_stages, self.pool_padding = frozen_stages, pool_padding
        self.conv1 = ConvNorm(3, in_channels[0], 7, 2, eps=eps, fast=fast)
        layers = []
        for stage, (count, entering, leaving) in enumerate(zip(blocks, in_channels, out_channels)):
            stride = 1 if stage == 0 else 2
            first = Bottleneck(entering, leaving, stride, stride_in_1x1, eps, fast)
            others = (Bottleneck(leaving, leaving, 1, stride_in_1x1, eps, fast) for _ in range(count - 1))
            layers.append(nn.SequentialCell(first, *others))
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        freeze([[self.conv1], *([layer] for layer in layers)], frozen_stages, train_norm)

    def construct(self, x):
        x = stem_pool(ops.relu(self.conv1(x)), self.pool_padding)
        frozen = self.frozen_stages
        c2 = self.layer1(cut(x, 1, frozen))
        c3 = self.layer2(cut(c2, 2, frozen))
        c4 = self.layer3(cut(c3, 3, frozen))
        c5 = self.layer4(cut(c4, 4, frozen))
        return cut(c2, 2, frozen), cut(c3, 3, frozen), cut(c4, 4, frozen), cut(c5, 5, frozen)


def cut(x, stages_before: int, frozen_stages: int):
    """No gradient goes back into frozen stages."""
    return ops.stop_gradient(x) if stages_before <= frozen_stages else x


def freeze(stages: Sequence, frozen_stages: int, train_norm: bool) -> None:
    """Say of each parameter whether it learns; stages: lists of cells, the stem first."""
    leaves = {"weight", "bias"} | ({"gamma", "beta"} if train_norm else set())
    for index, cells in enumerate(stages):
        for parameter in (parameter for cell in cells for parameter in cell.get_parameters()):
            parameter.requires_grad = index >= frozen_stages and parameter.name.rsplit(".", 1)[-1] in leaves


def begin_as_identity(backbone: nn.Cell, missing: Sequence[str]) -> int:
    """Silence the residual branches that learn and whose last weight is in `missing` (parameter names).

    In a bottleneck gamma of the last norm becomes 0. A fresh branch then adds nothing until it has learnt to (Goyal et al.,
    "Accurate, Large Minibatch SGD", 2017, section 5.1). Call before `calibrate_norms`. Returns the number of blocks.
    """
    missing = set(missing)
    ends = [cell.branch_end() for _, cell in backbone.cells_and_names() if hasattr(cell, "branch_end")]
    fresh = [silenced for silenced, weight in ends if silenced.requires_grad and weight.name in missing]
    for parameter in fresh:
        parameter.set_data(ops.zeros_like(parameter))
    return len(fresh)


def stem_pool(x, padding: str = "both"):
    """The largest pixel of 3x3 windows, two pixels apart; x (N, C, H, W) >= 0, so that 0 pads as well as -inf.

    Odd sides get a pixel at both ends. Of even sides `padding` decides: "both" places the first window around the first pixel
    (PyTorch's padding of 1, whose last pixel no window reads), "same" around the second one (MindSpore's pad_mode "same").
    `nn.MaxPool2d` with padding is an operator that keeps the places of the largest, takes more than twice as long on the CPU,
    and does not export to ONNX.
    """
    n, c, height, width = x.shape
    x = padded_ends(x, ops.zeros((n, c, 1, width), x.dtype), 2, padding)
    x = padded_ends(x, ops.zeros((n, c, x.shape[2], 1), x.dtype), 3, padding)
    return ops.MaxPool(3, 2)(x)


def padded_ends(x, line, axis: int, padding: str):
    """x with `line` at the ends of an axis at which `stem_pool` needs it."""
    if x.shape[axis] % 2:
        return ops.cat((line, x, line), axis)
    return ops.cat((x, line) if padding == "same" else (line, x), axis)


def calibrate_norms(backbone: nn.Cell, images, missing: Sequence[str]) -> int:
    """Set the fixed statistics of the layers named in `missing` to those of `images`; call in PyNative mode.

    Args:
        backbone: the network whose layers are meant.
        images: Tensor (N, 3, H, W), normalised; a handful of training pictures.
        missing: parameter names; a layer is calibrated if its "moving_mean" or "weight" is among them.

    Returns:
        The number of layers calibrated.
    """
    missing = set(missing)
    layers = [cell for _, cell in backbone.cells_and_names() if isinstance(cell, ConvNorm)]
    chosen = [cell for cell in layers if cell.moving_mean.name in missing or cell.weight.name in missing]
    for cell in chosen:
        cell.calibrating = True
    try:
        backbone(images)
    finally:
        for cell in chosen:
            cell.calibrating = False
    return len(chosen)


def learning(config, fast: bool) -> dict:
    """Return the arguments that every backbone of this folder takes of the configuration."""
    return {"frozen_stages": config.frozen_stages, "train_norm": config.train_norm, "eps": config.norm_eps, "fast": fast}


def build_resnet(config, fast: bool = False) -> ResNet:
    """Return the ResNet that the configuration describes."""
    return ResNet(config.resnet_block, config.resnet_in_channels, config.resnet_out_channels, stride_in_1x1=config.stride_in_1x1,
                  pool_padding=config.stem_pool_padding, **learning(config, fast))
