"""Batch norm that normalises with the statistics of the batch, over all devices (Ioffe and Szegedy, 2015).

Shapes: N images per device, C channels, H x W pixels.
"""
from mindspore import nn, ops

from ..model_utils.layers.convolution import ConvNorm
from ..model_utils.training.ranks import device_count

MOMENTUM = 0.1  # weight of a batch in the running statistics


class BatchNorm(nn.Cell):
    """Normalise with the statistics of the batch, and update the running statistics that inference uses.

    The parameters are those of the caller. With several devices the statistics cover the images of all devices, so that a step
    equals a step of one device on the whole batch. MindSpore's `nn.SyncBatchNorm` only runs on Ascend.
    """

    def __init__(self, eps: float):
        super().__init__()
        self.eps, self.norm = eps, ops.BatchNorm(is_training=True, epsilon=eps, momentum=MOMENTUM)

    def construct(self, x, gamma, beta, moving_mean, moving_variance):
        """Return the normalised x. x: (N, C, H, W); the other arguments: (C,)."""
        if device_count() == 1:
            return self.norm(x, gamma, beta, moving_mean, moving_variance)[0]
        n, c, height, width = x.shape
        count = n * height * width * device_count()
        mean = ops.AllReduce()(x.sum((0, 2, 3))) / count
        centred = x - mean.reshape(1, c, 1, 1)
        variance = ops.AllReduce()((centred * centred).sum((0, 2, 3))) / count
        scale = gamma / ops.sqrt(variance + self.eps)
        # ops.BatchNorm stores the unbiased estimate of the variance; so does this path.
        kept = ops.stop_gradient(mean), ops.stop_gradient(variance) * (count / max(count - 1, 1))
        moved = ops.assign(moving_mean, (1 - MOMENTUM) * moving_mean + MOMENTUM * kept[0])
        other = ops.assign(moving_variance, (1 - MOMENTUM) * moving_variance + MOMENTUM * kept[1])
        return ops.depend(centred * scale.reshape(1, c, 1, 1) + beta.reshape(1, c, 1, 1), (moved, other))


def use_batch_statistics(net: nn.Cell) -> None:
    """Make the norms behind a network's convolutions train with the statistics of the batch."""
    for _, cell in net.cells_and_names():
        if isinstance(cell, ConvNorm):
            cell.batch_norm, cell.learns_statistics = BatchNorm(cell.eps), True
