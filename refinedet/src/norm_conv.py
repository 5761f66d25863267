"""Convolution and batch norm (Ioffe and Szegedy, "Batch Normalization", 2015) with learnt statistics.

ResNet-101 uses them everywhere. VGG-16 has none and starts from trained weights; from scratch, a single-stage detector needs them
(Zhu et al., "ScratchDet", 2019, section 3.2).
"""

import math

import numpy as np
from mindspore import Tensor, ops
from mindspore.common.initializer import Uniform

from .model_utils.layers.convolution import ConvNorm

# Added to the variance.
EPS = 1e-5


class NormConv2d(ConvNorm):
    """Convolution without bias, "same" padding, and batch norm, folded into one convolution in inference. Args: see Conv2d."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, weight_init=None, fast: bool = False,
                 stride: int = 1, dilation: int = 1, eps: float = EPS, momentum: float = 0.1):
        weight_init = weight_init or Uniform(math.sqrt(3 / (in_channels * kernel_size * kernel_size)))
        super().__init__(in_channels, out_channels, kernel_size, stride, eps, fast, dilation, weight_init)
        self.norm = ops.BatchNorm(is_training=True, epsilon=eps, momentum=momentum)
        self.learns_statistics = True   # False: training uses the running statistics and does not update them

    def construct(self, x):
        """Map (N, C, H, W) to (N, O, H', W'). Training uses the statistics of the batch, and updates the running ones."""
        if self.training and self.learns_statistics:
            return self.norm(self.conv(x, self.weight), self.gamma, self.beta, self.moving_mean, self.moving_variance)[0]
        # Not `super()`: in a graph, it resolves to this method again if this method was itself called through `super()`.
        return ConvNorm.construct(self, x)

    def set_statistics(self, y):
        """Set the running statistics to those of y (N, O, H', W'), and adapt gamma and beta so that inference stays the same.

        Training uses the statistics of the batch, which would otherwise undo what a norm with folded statistics computes.
        """
        scale, shift = self._scale_and_shift()
        super().set_statistics(y)
        gamma = scale * np.sqrt(self.moving_variance.asnumpy().astype(np.float64) + self.eps)
        self.gamma.set_data(Tensor(gamma.astype(np.float32)))
        self.beta.set_data(Tensor((shift + scale * self.moving_mean.asnumpy()).astype(np.float32)))

    def _scale_and_shift(self) -> tuple:
        """Return scale and shift that inference applies to each channel behind the convolution: float64 (O,)."""
        gamma, beta, mean, variance = (param.asnumpy().astype(np.float64) for param in (
            self.gamma, self.beta, self.moving_mean, self.moving_variance))
        scale = gamma / np.sqrt(variance + self.eps)
        return scale, beta - mean * scale


class PooledNormConv2d(NormConv2d):
    """NormConv2d and a 2x2 max pool: (N, O, H/2, W/2)."""

    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.pool = ops.MaxPool((2, 2), (2, 2))

    def construct(self, x):
        return self.pool(super().construct(x))
