"""Convolution and batch norm (Ioffe and Szegedy, "Batch Normalization", 2015), whose statistics are learnt.

VGG-16 has none, and starts from trained weights. From scratch a single-stage detector wants them (Zhu et al., "ScratchDet",
2019, section 3.2).
"""

import math

from mindspore import Parameter, nn, ops
from mindspore.common.initializer import Uniform, initializer

from .convolution import Convolution


class NormConv2d(nn.Cell):
    """Convolution without bias, "same" padding, and batch norm; in inference both are one convolution."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, weight_init=None, fast: bool = False,
                 stride: int = 1, dilation: int = 1, eps: float = 1e-5, momentum: float = 0.1):
        super().__init__()
        weight_init = weight_init or Uniform(math.sqrt(3 / (in_channels * kernel_size * kernel_size)))
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        self.weight = Parameter(initializer(weight_init, shape), name="weight")
        self.gamma = Parameter(initializer("ones", (out_channels,)), name="gamma")
        self.beta = Parameter(initializer("zeros", (out_channels,)), name="beta")
        self.moving_mean = Parameter(initializer("zeros", (out_channels,)), name="moving_mean", requires_grad=False)
        self.moving_variance = Parameter(initializer("ones", (out_channels,)), name="moving_variance", requires_grad=False)
        self.conv = Convolution(in_channels, out_channels, kernel_size, stride, fast, dilation)
        self.norm = ops.BatchNorm(is_training=True, epsilon=eps, momentum=momentum)
        self.eps = eps

    def construct(self, x):
        """(N, C, H, W) -> (N, O, H', W'); in training the statistics of the batch, which also move those that are kept."""
        if self.training:
            return self.norm(self.conv(x, self.weight), self.gamma, self.beta, self.moving_mean, self.moving_variance)[0]
        scale = self.gamma / ops.sqrt(self.moving_variance + self.eps)
        shift = self.beta - self.moving_mean * scale
        scale = ops.tile(scale.reshape(-1, 1, 1, 1), (1, *self.weight.shape[1:]))
        return ops.bias_add(self.conv(x, self.weight * scale), shift)


class PooledNormConv2d(NormConv2d):
    """As PooledConv2d: the largest of each 2x2 of what the norm gives, (N, O, H/2, W/2)."""

    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.pool = ops.MaxPool((2, 2), (2, 2))

    def construct(self, x):
        return self.pool(super().construct(x))
