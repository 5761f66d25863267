"""Mask head (He et al., "Mask R-CNN", 2017, figure 4 right), and its loss.

Shapes: N images, Q slots for objects a picture, M RoIs in the batch, C channels of the pyramid, O of the head, K foreground
classes, s side of the pooled features, S = 2s of a mask. Label 0 is background.
"""

from mindspore import Parameter, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import HeNormal, Normal, initializer

from .bbox_coder import spread
from .convolution import Conv2d
from .losses import binary_cross_entropy

SUB_PIXELS = 4  # that a 2x2 kernel of stride 2 makes of each pixel


class MaskHead(nn.Cell):
    """3x3 convolutions, a transposed convolution to twice the side, one logit per class and pixel.

    Only the logits of each RoI's own class are computed: the others enter neither the loss nor a detection. A transposed
    convolution of stride 2 with a 2x2 kernel is a 1x1 convolution to four times the channels, one quarter for each sub-pixel.
    These change places with pixels when one channel is left, not O of them.
    """

    def __init__(self, in_channels: int, channels: int, num_classes: int, num_convs: int = 4, fast: bool = False):
        super().__init__()
        init = HeNormal(mode="fan_out", nonlinearity="relu")
        widths = [in_channels] + [channels] * num_convs
        self.convs = nn.CellList([Conv2d(a, b, 3, init, fast=fast) for a, b in zip(widths, widths[1:])])
        self.deconv = Doubling(channels, channels)
        self.logits = ClassLogits(channels, num_classes)

    def construct(self, roi_feats, labels):
        """roi_feats (M, C, s, s), labels int32 (M,) in 1..K, or anything where the answer will not be used -> (M, S, S)."""
        x = roi_feats
        for conv in self.convs:
            x = ops.relu(conv(x))
        return self.logits(ops.relu(self.deconv(x)), labels)


class Doubling(nn.Cell):
    """A transposed convolution, 2x2, stride 2, with bias; sub-pixels stay apart. The weight is that of other frameworks."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        init = HeNormal(mode="fan_in", nonlinearity="relu")
        self.weight = Parameter(initializer(init, (in_channels, out_channels, 2, 2)), name="weight")
        self.bias = Parameter(initializer("zeros", (out_channels,)), name="bias")
        self.conv = ops.Conv2D(SUB_PIXELS * out_channels, (1, 1))

    def construct(self, x):
        """(M, C, s, s) -> (M, 4 * O, s, s): the sub-pixels upper left, upper right, lower left, lower right."""
        entering, leaving, _, _ = self.weight.shape
        weight = self.weight.reshape(entering, leaving, SUB_PIXELS).transpose(2, 1, 0)
        y = self.conv(x, weight.reshape(SUB_PIXELS * leaving, entering, 1, 1))
        return ops.bias_add(y, ops.tile(self.bias, (SUB_PIXELS,)))


class ClassLogits(nn.Cell):
    """A 1x1 convolution to K classes, of which each RoI gets its own."""

    def __init__(self, in_channels: int, num_classes: int):
        super().__init__()
        self.weight = Parameter(initializer(Normal(0.001), (num_classes, in_channels, 1, 1)), name="weight")
        self.bias = Parameter(initializer("zeros", (num_classes,)), name="bias")

    def construct(self, x, labels):
        """(M, 4 * O, s, s) as Doubling gives it, labels (M,) -> (M, 2s, 2s)."""
        m, wide, s, _ = x.shape
        classes, channels, _, _ = self.weight.shape
        own = ops.clamp(labels.astype(mstype.float32) - 1, 0, classes - 1).astype(mstype.int32)    # ONNX 11 clips floats alone
        weight = ops.gather(self.weight.reshape(classes, channels), own, 0)    # (M, O)
        weight = spread(weight.reshape(m, 1, 1, channels), (m, SUB_PIXELS, 1, channels))
        y = ops.BatchMatMul()(weight, x.reshape(m, SUB_PIXELS, wide // SUB_PIXELS, s * s))         # (M, 4, 1, s*s)
        y = y.reshape(m, 2, 2, s, s).transpose(0, 3, 1, 4, 2).reshape(m, 4 * s * s)
        bias = ops.gather(self.bias, own, 0).expand_dims(1)
        return (y + spread(bias, y.shape)).reshape(m, 2 * s, 2 * s)


def mask_head_loss(logits, targets, positive):
    """Binary cross entropy, the mean over all pixels of the positive slots; 0 without any.

    Args:
        logits: of each slot's own class, targets: 0 or 1, (N, Q, S, S) both; positive: bool (N, Q).
    """
    n, q, height, width = logits.shape
    positive = positive.astype(logits.dtype)
    count = ops.maximum(positive.sum(), 1.0) * (height * width)
    loss = binary_cross_entropy(logits, targets).reshape(n, q, -1).sum(-1)     # (N, Q)
    return (loss * positive).sum() / count
