"""Feature pyramid network (Lin et al., "Feature Pyramid Networks for Object Detection", 2017)."""

from collections.abc import Sequence

from mindspore import nn, ops

from .convolution import Conv2d


class FeaturePyramid(nn.Cell):
    """C2..C5 -> P2..P6, `out_channels` each; strides 4 to 64.

    Lateral 1x1, plus the coarser level enlarged by repetition, then 3x3. P6 is every second pixel of P5 (a max pool of size 1).
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int, num_outs: int = 5, fast: bool = False):
        super().__init__()
        self.laterals = nn.CellList([Conv2d(channels, out_channels, 1, fast=fast) for channels in in_channels])
        self.outputs = nn.CellList([Conv2d(out_channels, out_channels, 3, fast=fast) for _ in in_channels])
        self.extra = num_outs - len(in_channels)

    def construct(self, features):
        merged, outputs = None, ()
        for level in range(len(features) - 1, -1, -1):                         # from the coarsest
            lateral = self.laterals[level](features[level])
            merged = lateral if merged is None else lateral + enlarge(merged, lateral.shape[2:])
            outputs = (self.outputs[level](merged), *outputs)
        for _ in range(self.extra):
            outputs = (*outputs, ops.MaxPool(1, 2)(outputs[-1]))               # ops.max_pool2d does not export to ONNX
        return outputs


def enlarge(x, size):
    """Nearest-neighbour enlargement of (N, C, h, w) to `size` = (H, W); exact repetition where H = 2h."""
    return ops.ResizeNearestNeighbor(size)(x)
