"""ResNet backbone (He et al., "Deep Residual Learning for Image Recognition", 2016), and functions that all backbones share.

Shapes: N images of H x W pixels; C_l, l = 2..5, has stride 2^l.
"""

from collections.abc import Sequence

from mindspore import nn, ops

from ..model_utils.layers.convolution import ConvNorm


class Bottleneck(nn.Cell):
    """1x1 reduce, 3x3, 1x1 expand, plus the identity or its projection (He et al., 2016, figure 5)."""

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
        """Return (parameter that silences the residual branch when it is 0, weight that is new if the branch is untrained)."""
        return self.conv3.gamma, self.conv3.weight


class ResNet(nn.Cell):
    """Stem and four stages of bottlenecks; `construct` maps (N, 3, H, W) to C2..C5, strides 4 to 32.

    Args:
        blocks: bottlenecks per stage, (3, 4, 6, 3) for ResNet-50.
        in_channels: channels that enter each stage; the first is the stem's width.
        out_channels: channels that leave each stage, four times the width of its bottlenecks.
        frozen_stages: number of stages that do not train, the stem counted first (2 = stem and layer1).
        train_norm: train gamma and beta of the other stages (the statistics stay fixed).
        stride_in_1x1: put a stage's stride into its first 1x1 convolution (He et al., MSRA's weights), not into the 3x3.
        eps: added to the variance in batch norm.
        fast: use the CPU's fast convolutions (convolution.py).
        pool_padding: padding of the pool behind the stem, see `stem_pool`.
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
    """Stop the gradient of x if all `stages_before` it are frozen."""
    return ops.stop_gradient(x) if stages_before <= frozen_stages else x


def freeze(stages: Sequence, frozen_stages: int, train_norm: bool) -> None:
    """Set requires_grad of every parameter. stages: lists of cells, the stem first."""
    leaves = {"weight", "bias"} | ({"gamma", "beta"} if train_norm else set())
    for index, cells in enumerate(stages):
        for parameter in (parameter for cell in cells for parameter in cell.get_parameters()):
            parameter.requires_grad = index >= frozen_stages and parameter.name.rsplit(".", 1)[-1] in leaves


def zero_init_residuals(backbone: nn.Cell, missing: Sequence[str]) -> int:
    """Zero the residual branches that train and whose last weight is in `missing` (parameter names).

    In a bottleneck, gamma of the last norm becomes 0, so that a new block starts as the identity (Goyal et al., "Accurate, Large
    Minibatch SGD", 2017, section 5.1). Call before `calibrate_norms`. Returns the number of blocks.
    """
    missing = set(missing)
    ends = [cell.branch_end() for _, cell in backbone.cells_and_names() if hasattr(cell, "branch_end")]
    fresh = [silenced for silenced, weight in ends if silenced.requires_grad and weight.name in missing]
    for parameter in fresh:
        parameter.set_data(ops.zeros_like(parameter))
    return len(fresh)


def stem_pool(x, padding: str = "both"):
    """Max pool of 3x3 windows with stride 2. x: (N, C, H, W) >= 0, so that padding with 0 equals padding with -inf.

    Odd sides are padded at both ends. `padding` decides for even sides: "both" centres the first window on the first pixel
    (PyTorch's padding of 1, whose last row no window reads), "same" on the second one (MindSpore's pad_mode "same").
    `nn.MaxPool2d` with padding also returns the positions of the maxima: it takes more than twice as long on the CPU, and does
    not export to ONNX.
    """
    n, c, height, width = x.shape
    x = padded_ends(x, ops.zeros((n, c, 1, width), x.dtype), 2, padding)
    x = padded_ends(x, ops.zeros((n, c, x.shape[2], 1), x.dtype), 3, padding)
    return ops.MaxPool(3, 2)(x)


def padded_ends(x, line, axis: int, padding: str):
    """Return x with `line` at the ends of `axis` that `stem_pool` pads."""
    if x.shape[axis] % 2:
        return ops.cat((line, x, line), axis)
    return ops.cat((x, line) if padding == "same" else (line, x), axis)


def calibrate_norms(backbone: nn.Cell, images, missing: Sequence[str]) -> int:
    """Set the fixed statistics of the layers named in `missing` to those of `images`. Call in PyNative mode.

    Args:
        backbone: the network that holds the layers.
        images: Tensor (N, 3, H, W), normalised; a handful of training images.
        missing: parameter names; a layer is calibrated if its "moving_mean" or "weight" is among them.

    Returns:
        The number of calibrated layers.
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
    """Return the arguments that every backbone of this folder takes from the configuration."""
    return {"frozen_stages": config.frozen_stages, "train_norm": config.train_norm, "eps": config.norm_eps, "fast": fast}


def build_resnet(config, fast: bool = False) -> ResNet:
    """Return the ResNet that the configuration describes."""
    return ResNet(config.resnet_block, config.resnet_in_channels, config.resnet_out_channels, stride_in_1x1=config.stride_in_1x1,
                  pool_padding=config.stem_pool_padding, **learning(config, fast))
