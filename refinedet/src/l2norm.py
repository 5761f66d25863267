"""L2 normalisation over the channels of a feature map (Liu et al., "ParseNet", 2015, section 3.3)."""

from mindspore import Parameter, nn, ops
from mindspore.common.initializer import Constant, initializer

from .model_utils.layers.boxes import spread

EPSILON = 1e-10  # inside the root; outside, the gradient of an all-zero pixel would be NaN


class L2Norm(nn.Cell):
    """Normalise each pixel of x (N, C, H, W) to length 1 over its channels, then scale by a learnt factor per channel.

    Written out because the gradient of `ops.L2Normalize` takes seconds on the CPU.
    """

    def __init__(self, channels: int, scale: float):
        super().__init__()
        self.scale = Parameter(initializer(Constant(scale), (channels,)), name="scale")

    def construct(self, x):
        length = ops.sqrt((x * x).sum(1, keepdims=True) + EPSILON)             # (N, 1, H, W)
        return x / spread(length, x.shape) * spread(self.scale.reshape(1, -1, 1, 1), x.shape)
