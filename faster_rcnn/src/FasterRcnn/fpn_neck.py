"""Feature pyramid network (Lin et al., "Feature Pyramid Networks for Object Detection", 2017)."""

from collections.abc import Sequence

import numpy as np
from mindspore import Tensor, nn, ops

from ..model_utils.layers.convolution import Conv2d


class FeaturePyramid(nn.Cell):
    """C2..C5 -> P2..P6 with `out_channels` channels each, strides 4 to 64.

    Each level is the sum of a lateral 1x1 convolution and the upsampled coarser level, then a 3x3 convolution. P6 is every second
    pixel of P5 (a max pool of size 1).

    upsample: "nearest", or "bilinear" with pixel centres at half a pixel.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int, num_outs: int = 5, fast: bool = False,
                 upsample: str = "nearest"):
        super().__init__()
        self.bilinear = upsample == "bilinear"
        self.laterals = nn.CellList([Conv2d(channels, out_channels, 1, fast=fast) for channels in in_channels])
        self.outputs = nn.CellList([Conv2d(out_channels, out_channels, 3, fast=fast) for _ in in_channels])
        self.extra = num_outs - len(in_channels)
        self.upsample_twice = UpsampleTwice() if fast else None

    def construct(self, features):
        merged, outputs = None, ()
        for level in range(len(features) - 1, -1, -1):                         # from the coarsest
            lateral = self.laterals[level](features[level])
            merged = lateral if merged is None else lateral + self.upsample(merged, lateral.shape[2:])
            outputs = (self.outputs[level](merged), *outputs)
        for _ in range(self.extra):
            outputs = (*outputs, ops.MaxPool(1, 2)(outputs[-1]))               # ops.max_pool2d does not export to ONNX
        return outputs

    def upsample(self, x, size):
        if self.bilinear:
            return upsample_bilinear(x)
        if self.upsample_twice is not None and size == (2 * x.shape[2], 2 * x.shape[3]):
            return self.upsample_twice(x)
        return upsample_nearest(x, size)


def upsample_nearest(x, size):
    """Upsample (N, C, h, w) to `size` = (H, W) by nearest neighbour; each pixel is repeated exactly twice where H = 2h."""
    return ops.ResizeNearestNeighbor(size)(x)


def upsample_bilinear(x):
    """Upsample (N, C, h, w) bilinearly to twice the side.

    A pixel of the result lies a quarter of a pixel from its nearest input pixel, whose weight is 3/4; that of the next one is 1/4.
    Written out because `ops.interpolate` does not export to ONNX.
    """
    n, c, height, width = x.shape
    above, below = x, x
    if height > 1:
        above, below = ops.cat((x[:, :, :1], x[:, :, :-1]), 2), ops.cat((x[:, :, 1:], x[:, :, -1:]), 2)
    rows = n, c, height, 1, width
    x = ops.cat(((0.75 * x + 0.25 * above).reshape(rows), (0.75 * x + 0.25 * below).reshape(rows)), 3)
    x = x.reshape(n, c, 2 * height, width)
    left, right = x, x
    if width > 1:
        left, right = ops.cat((x[..., :1], x[..., :-1]), 3), ops.cat((x[..., 1:], x[..., -1:]), 3)
    columns = n, c, 2 * height, width, 1
    x = ops.cat(((0.75 * x + 0.25 * left).reshape(columns), (0.75 * x + 0.25 * right).reshape(columns)), 4)
    return x.reshape(n, c, 2 * height, 2 * width)


class UpsampleTwice(nn.Cell):
    """(N, C, H, W) -> (N, C, 2H, 2W): a faster `upsample_nearest` for the CPU.

    The CPU's resizing uses one thread and takes 171 ms to double 1x256x96x160; a depthwise transposed convolution with a 2x2
    kernel of ones takes 13 ms.
    """

    def __init__(self):
        super().__init__()
        self.ones = Tensor(np.ones((1, 1, 2, 2), np.float32))

    def construct(self, x):
        n, c, height, width = x.shape
        size = (n * c, 1, 2 * height, 2 * width)
        y = ops.Conv2DTranspose(1, 2, pad_mode="valid", stride=2)(x.reshape(n * c, 1, height, width), self.ones, size)
        return y.reshape(n, c, 2 * height, 2 * width)

    def bprop(self, x, out, dout):
        """Sum the gradients of the copies; the operator's own gradient would keep more memory."""
        n, c, height, width = x.shape
        y = ops.Conv2D(1, (2, 2), pad_mode="valid", stride=2)(dout.reshape(n * c, 1, 2 * height, 2 * width), self.ones)
        return (y.reshape(n, c, height, width),)
