"""Convolution and batch norm (Ioffe and Szegedy, "Batch Normalization", 2015), whose statistics are learnt.

ResNet-101 has them everywhere. VGG-16 has none, and starts from trained weights; from scratch a single-stage detector wants them
(Zhu et al., "ScratchDet", 2019, section 3.2).
"""

import math

import numpy as np
from mindspore import Tensor, ops
from mindspore.common.initializer import Uniform

from .model_utils.layers.convolution import ConvNorm

# Added to variances.
EPS = 1e-5


class NormConv2d(ConvNorm):
    """Convolution without bias, "same" padding, and batch norm; in inference both are one convolution. Arguments as of Conv2d."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, weight_init=None, fast: bool = False,
                 stride: int = 1, dilation: int = 1, eps: float = EPS, momentum: float = 0.1):
        weight_init = weight_init or Uniform(math.sqrt(3 / (in_channels * kernel_size * kernel_size)))
        super().__init__(in_channels, out_channels, kernel_size, stride, eps, fast, dilation, weight_init)
        self.norm = ops.BatchNorm(is_training=True, epsilon=eps, momentum=momentum)
        self.learns_statistics = True   # False: training takes those that are kept, and leaves them

    def construct(self, x):
        """(N, C, H, W) -> (N, O, H', W'); in training the statistics of the batch, which also move those that are kept."""
        if self.training and self.learns_statistics:
            return self.norm(self.conv(x, self.weight), self.gamma, self.beta, self.moving_mean, self.moving_variance)[0]
        # By name: in a graph `super()` of a method that was itself called through `super()` is that method again.
        return ConvNorm.construct(self, x)

    def set_statistics(self, y):
        """Keep those of y (N, O, H', W'), and change gamma and beta along, so that inference gives what it gave.

        What a norm with folded statistics computes, training would otherwise lose: it takes the statistics of the batch.
        """
        scale, shift = self._scale_and_shift()
        super().set_statistics(y)
        gamma = scale * np.sqrt(self.moving_variance.asnumpy().astype(np.float64) + self.eps)
        self.gamma.set_data(Tensor(gamma.astype(np.float32)))
        self.beta.set_data(Tensor((shift + scale * self.moving_mean.asnumpy()).astype(np.float32)))

    def _scale_and_shift(self) -> tuple:
        """What inference does to each channel behind the convolution, float64 (O,)."""
        gamma, beta, mean, variance = (param.asnumpy().astype(np.float64) for param in (
            self.gamma, self.beta, self.moving_mean, self.moving_variance))
        scale = gamma / np.sqrt(variance + self.eps)
        return scale, beta - mean * scale


class PooledNormConv2d(NormConv2d):
    """As PooledConv2d: the largest of each 2x2 of what the norm gives, (N, O, H/2, W/2)."""

    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.pool = ops.MaxPool((2, 2), (2, 2))

    def construct(self, x):
        return self.pool(super().construct(x))
