"""Convolution and batch norm (Ioffe and Szegedy, "Batch Normalization", 2015), whose statistics are learnt.

VGG-16 has none, and starts from trained weights. From scratch a single-stage detector wants them (Zhu et al., "ScratchDet",
2019, section 3.2).
"""

import math

from mindspore import ops
from mindspore.common.initializer import Uniform

from .convolution import ConvNorm


class NormConv2d(ConvNorm):
    """Convolution without bias, "same" padding, and batch norm; in inference both are one convolution. Arguments as of Conv2d."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, weight_init=None, fast: bool = False,
                 stride: int = 1, dilation: int = 1, eps: float = 1e-5, momentum: float = 0.1):
        weight_init = weight_init or Uniform(math.sqrt(3 / (in_channels * kernel_size * kernel_size)))
        super().__init__(in_channels, out_channels, kernel_size, stride, eps, fast, dilation, weight_init)
        self.norm = ops.BatchNorm(is_training=True, epsilon=eps, momentum=momentum)

    def construct(self, x):
        """(N, C, H, W) -> (N, O, H', W'); in training the statistics of the batch, which also move those that are kept."""
        if self.training:
            return self.norm(self.conv(x, self.weight), self.gamma, self.beta, self.moving_mean, self.moving_variance)[0]
        return super().construct(x)


class PooledNormConv2d(NormConv2d):
    """As PooledConv2d: the largest of each 2x2 of what the norm gives, (N, O, H/2, W/2)."""

    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.pool = ops.MaxPool((2, 2), (2, 2))

    def construct(self, x):
        return self.pool(super().construct(x))
