"""Mask head (He et al., "Mask R-CNN", 2017, figure 4 right), and its loss.

Shapes: N images, Q slots for objects a picture, M RoIs in the batch, C channels of the pyramid, O of the head, K foreground
classes, s side of the pooled features, S = 2s of a mask. Label 0 is background.
"""

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import HeNormal, Normal, initializer

from ..model_utils.layers.boxes import spread
from ..model_utils.layers.convolution import Conv2d
from ..model_utils.training.ranks import shared_count
from .losses import binary_cross_entropy

SUB_PIXELS = 4  # that a 2x2 kernel of stride 2 makes of each pixel
ROIS_AT_ONCE = 64  # whose doubled features stand in memory, 0.8 MB each with 256 channels


class MaskHead(nn.Cell):
    """3x3 convolutions, a transposed convolution to twice the side, one logit per class and pixel.

    Only the logits of each RoI's own class are computed: the others enter neither the loss nor a detection.
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
        """roi_feats (M, C, s, s), labels int32 (M,) in 1..K, or anything where the answer will not be used -> (M, S, S)."""
        return self.with_weights(roi_feats, labels, self.weights())

    def weights(self):
        """Weight and bias of each layer in turn."""
        weights = ()
        for conv in self.convs:
            weights += (conv.weight, conv.bias)
        return (*weights, self.deconv.weight, self.deconv.bias, self.logits.weight, self.logits.bias)

    def with_weights(self, roi_feats, labels, weights):
        """The same as `construct`, with these values of `weights`: a `bprop` gives the gradients of what it is handed alone."""
        weight, bias = rows_of_classes(weights[-2], weights[-1], labels)
        return self.of_classes(roi_feats, weight, bias, weights)

    def of_classes(self, roi_feats, weight, bias, weights):
        """The same with the last layer's weights of each RoI, (M, O) and (M,)."""
        x = roi_feats
        for i, conv in enumerate(self.convs):
            x = ops.relu(ops.bias_add(conv.conv(x, weights[2 * i]), weights[2 * i + 1]))
        y = self.double(x, *kernel_of(weights[-4], weights[-3]), weight)       # (M, 4, s*s)
        m, _, s, _ = x.shape
        y = y.reshape(m, 2, 2, s, s).transpose(0, 3, 1, 4, 2).reshape(m, 4 * s * s)
        return (y + spread(bias.expand_dims(1), y.shape)).reshape(m, 2 * s, 2 * s)


class Deconvolution(nn.Cell):
    """Weights of a transposed convolution, 2x2, stride 2, as other frameworks have them."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        init = HeNormal(mode="fan_in", nonlinearity="relu")
        self.weight = Parameter(initializer(init, (in_channels, out_channels, 2, 2)), name="weight")
        self.bias = Parameter(initializer("zeros", (out_channels,)), name="bias")


def kernel_of(weight, bias):
    """A Deconvolution's weights as a 1x1 convolution to O channels of each sub-pixel in turn: (4 * O, C, 1, 1), (4 * O,)."""
    entering, leaving, _, _ = weight.shape
    kernel = weight.reshape(entering, leaving, SUB_PIXELS).transpose(2, 1, 0)
    return kernel.reshape(SUB_PIXELS * leaving, entering, 1, 1), ops.tile(bias, (SUB_PIXELS,))


class ClassLogits(nn.Cell):
    """Weights of a 1x1 convolution to K classes.

    All classes begin with the same random weights, so the head learns at first what objects have in common, from all of them. With
    small weights of its own (detectron2's) each class must lift itself on its own objects: of 80 classes on 80 pictures the loss
    was 0.63 after 240 steps, of one class 0.29 after 400.
    """

    def __init__(self, in_channels: int, num_classes: int):
        super().__init__()
        one = initializer(Normal(in_channels ** -0.5), (1, in_channels, 1, 1)).init_data().asnumpy()
        self.weight = Parameter(Tensor(np.repeat(one, num_classes, 0)), name="weight")
        self.bias = Parameter(initializer("zeros", (num_classes,)), name="bias")


def rows_of_classes(weight, bias, labels):
    """Weights of ClassLogits for each RoI's class: (M, O), (M,)."""
    classes, channels, _, _ = weight.shape
    index = ops.clamp(labels.astype(mstype.float32) - 1, 0, classes - 1).astype(mstype.int32)      # ONNX 11 clips floats alone
    return ops.gather(weight.reshape(classes, channels), index, 0), ops.gather(bias, index, 0)


class DoubledLogits(nn.Cell):
    """Transposed convolution, ReLU, one logit, some RoIs at a time.

    Sub-pixels take their places when one channel is left, not O of them. The gradient computes the doubled features again: kept
    for 256 RoIs of 256 channels, they and their gradient would take 0.4 GB; CPU time is the same. Operators are attributes:
    `ops.tile` and others that are Python inside do not compile within `bprop`.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.part = DoubledPart(channels)
        self.grad = ops.GradOperation(get_all=True, sens_param=True)
        self.depend = ops.Depend()

    def construct(self, x, kernel, bias, own):
        """x (M, C, s, s), kernel (4 * O, C, 1, 1), bias (4 * O,), weights of the own class (M, O) -> (M, 4, s*s)."""
        parts = []
        for start in range(0, x.shape[0], ROIS_AT_ONCE):
            if parts:    # one after the other: side by side they would need the memory of all
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
    """DoubledLogits of some RoIs."""

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
    """Binary cross entropy, the mean over all pixels of the positive slots of all devices (see shared_count); 0 without any.

    Args:
        logits: of each slot's own class, targets: 0 or 1, (N, Q, S, S) both; positive: bool (N, Q); added: see shared_count.
    """
    n, q, height, width = logits.shape
    positive = positive.astype(logits.dtype)
    count = shared_count(positive.sum(), added) * (height * width)
    loss = binary_cross_entropy(logits, targets).reshape(n, q, -1).sum(-1)     # (N, Q)
    return (loss * positive).sum() / count
