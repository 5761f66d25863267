"""Mask head (He et al., "Mask R-CNN", 2017, figure 4, right) and its loss.

Shapes: N images, Q slots per image that may be positive, M RoIs in the batch, C channels of the pyramid, O of the head, K
foreground classes, s side of the pooled features, S = 2s of a mask. Label 0 is background.
"""

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import HeNormal, Normal, initializer

from ..model_utils.layers.boxes import spread
from ..model_utils.layers.convolution import Conv2d
from ..model_utils.training.ranks import shared_count
from .losses import binary_cross_entropy

SUB_PIXELS = 4  # pixels that a 2x2 kernel with stride 2 makes of each pixel
ROIS_AT_ONCE = 64  # RoIs whose upsampled features are in memory at once, 0.8 MB each with 256 channels


class MaskHead(nn.Cell):
    """3x3 convolutions, a transposed convolution to twice the side, and one logit per class and pixel.

    Only the logits of each RoI's class are computed, since the other classes enter neither the loss nor a detection.
    """

    def __init__(self, in_channels: int, channels: int, num_classes: int, num_convs: int = 4, fast: bool = False):
        super().__init__()
        init = HeNormal(mode="fan_out", nonlinearity="relu")
        widths = [in_channels] + [channels] * num_convs
        self.convs = nn.CellList([Conv2d(a, b, 3, init, fast=fast) for a, b in zip(widths, widths[1:])])
        self.deconv = Deconvolution(channels, channels)
        self.logits = ClassLogits(channels, num_classes)
        self.double = DoubledLogits(channels)

    def construct(self, roi_feats, labels):
        """Return logits (M, S, S). roi_feats: (M, C, s, s); labels: int32 (M,) in 1..K; others give meaningless logits."""
        return self.with_weights(roi_feats, labels, self.weights())

    def weights(self):
        """Return weight and bias of each layer in turn."""
        weights = ()
        for conv in self.convs:
            weights += (conv.weight, conv.bias)
        return (*weights, self.deconv.weight, self.deconv.bias, self.logits.weight, self.logits.bias)

    def with_weights(self, roi_feats, labels, weights):
        """Compute `construct` with the given `weights`, because a `bprop` only yields gradients of its cell's arguments."""
        weight, bias = rows_of_classes(weights[-2], weights[-1], labels)
        return self.of_classes(roi_feats, weight, bias, weights)

    def of_classes(self, roi_feats, weight, bias, weights):
        """Compute `construct` with the last layer's weights (M, O) and bias (M,) for each RoI."""
        x = roi_feats
        for i, conv in enumerate(self.convs):
            x = ops.relu(ops.bias_add(conv.conv(x, weights[2 * i]), weights[2 * i + 1]))
        y = self.double(x, *kernel_of(weights[-4], weights[-3]), weight)       # (M, 4, s*s)
        m, _, s, _ = x.shape
        y = y.reshape(m, 2, 2, s, s).transpose(0, 3, 1, 4, 2).reshape(m, 4 * s * s)
        return (y + spread(bias.expand_dims(1), y.shape)).reshape(m, 2 * s, 2 * s)


class Deconvolution(nn.Cell):
    """Parameters of a 2x2 transposed convolution with stride 2, in the layout of other frameworks."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        init = HeNormal(mode="fan_in", nonlinearity="relu")
        self.weight = Parameter(initializer(init, (in_channels, out_channels, 2, 2)), name="weight")
        self.bias = Parameter(initializer("zeros", (out_channels,)), name="bias")


def kernel_of(weight, bias):
    """Return a Deconvolution's weights as a 1x1 convolution to O channels per sub-pixel: (4 * O, C, 1, 1), (4 * O,)."""
    entering, leaving, _, _ = weight.shape
    kernel = weight.reshape(entering, leaving, SUB_PIXELS).transpose(2, 1, 0)
    return kernel.reshape(SUB_PIXELS * leaving, entering, 1, 1), ops.tile(bias, (SUB_PIXELS,))


class ClassLogits(nn.Cell):
    """Parameters of a 1x1 convolution to K classes.

    All classes start from the same random weights, so that the head first learns from all objects what they have in common. With
    separate small weights (detectron2's), each class has to learn from its own objects: with 80 classes on 80 images, the loss was
    0.63 after 240 steps; with one class, 0.29 after 400.
    """

    def __init__(self, in_channels: int, num_classes: int):
        super().__init__()
        one = initializer(Normal(in_channels ** -0.5), (1, in_channels, 1, 1)).init_data().asnumpy()
        self.weight = Parameter(Tensor(np.repeat(one, num_classes, 0)), name="weight")
        self.bias = Parameter(initializer("zeros", (num_classes,)), name="bias")


def rows_of_classes(weight, bias, labels):
    """Return the weights (M, O) and biases (M,) of ClassLogits for each RoI's class."""
    classes, channels, _, _ = weight.shape
    index = ops.clamp(labels.astype(mstype.float32) - 1, 0, classes - 1).astype(mstype.int32)      # ONNX 11 only clips floats
    return ops.gather(weight.reshape(classes, channels), index, 0), ops.gather(bias, index, 0)


class DoubledLogits(nn.Cell):
    """Transposed convolution, ReLU and one logit, in chunks of RoIs.

    Sub-pixels are moved to their places when a single channel is left instead of O. The gradient recomputes the upsampled features:
    kept for 256 RoIs with 256 channels, they and their gradient would take 0.4 GB; the CPU time is the same. Operators are
    attributes, because `ops.tile` and other functions in Python do not compile within `bprop`.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.part = DoubledPart(channels)
        self.grad = ops.GradOperation(get_all=True, sens_param=True)
        self.depend = ops.Depend()

    def construct(self, x, kernel, bias, own):
        """Return logits (M, 4, s*s). x: (M, C, s, s); kernel: (4 * O, C, 1, 1); bias: (4 * O,); own: class weights (M, O)."""
        parts = []
        for start in range(0, x.shape[0], ROIS_AT_ONCE):
            if parts:    # `depend` runs the chunks one after the other, in the memory of one
                x = self.depend(x, parts[-1])
            stop = min(start + ROIS_AT_ONCE, x.shape[0])
            parts.append(self.part(x[start:stop], kernel, bias, own[start:stop]))
        return ops.cat(parts) if len(parts) > 1 else parts[0]

    def bprop(self, x, kernel, bias, own, out, dout):
        dx, down, dkernel, dbias = [], [], None, None
        for start in range(0, x.shape[0], ROIS_AT_ONCE):
            x = self.depend(x, dx[-1] if dx else dout)
            stop = start + ROIS_AT_ONCE
            grads = self.grad(self.part)(x[start:stop], kernel, bias, own[start:stop], dout[start:stop])
            dx.append(grads[0])
            down.append(grads[3])
            dkernel = grads[1] if dkernel is None else dkernel + grads[1]
            dbias = grads[2] if dbias is None else dbias + grads[2]
        return ops.cat(dx), dkernel, dbias, ops.cat(down)


class DoubledPart(nn.Cell):
    """DoubledLogits of one chunk of RoIs."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv, self.product = ops.Conv2D(SUB_PIXELS * channels, (1, 1)), ops.BatchMatMul()
        self.relu, self.bias_add, self.tile = ops.ReLU(), ops.BiasAdd(), ops.Tile()

    def construct(self, x, kernel, bias, own):
        m, channels = own.shape
        y = self.relu(self.bias_add(self.conv(x, kernel), bias)).reshape(m, SUB_PIXELS, channels, -1)
        own = self.tile(own.reshape(m, 1, 1, channels), (1, SUB_PIXELS, 1, 1))
        return self.product(own, y).reshape(m, SUB_PIXELS, -1)


def mask_head_loss(logits, targets, positive, added: float = 0.0):
    """Return the binary cross entropy, averaged over all pixels of the positive slots on all devices; 0 if there are none.

    Args:
        logits: of each slot's class, targets: 0 or 1, both (N, Q, S, S); positive: bool (N, Q); added: see shared_count.
    """
    n, q, height, width = logits.shape
    positive = positive.astype(logits.dtype)
    count = shared_count(positive.sum(), added) * (height * width)
    loss = binary_cross_entropy(logits, targets).reshape(n, q, -1).sum(-1)     # (N, Q)
    return (loss * positive).sum() / count
