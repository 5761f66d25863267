"""Batch norm with the statistics of the batch (Ioffe and Szegedy, "Batch Normalization", 2015), over all devices.

Shapes: N images of a device, C channels, H x W pixels.
"""
from mindspore import nn, ops

from ..model_utils.layers.convolution import ConvNorm
from ..model_utils.training.ranks import device_count

MOMENTUM = 0.1  # part that a batch has in the running statistics


class BatchNorm(nn.Cell):
    """Normalise with the statistics of the batch, and move those that inference takes. No parameters of its own.

    With several devices the statistics are those of all of their images, so that a step is that of one device with the whole
    batch. `nn.SyncBatchNorm` exists on Ascend only.
    """

    def __init__(self, eps: float):
        super().__init__()
        self.eps, self.norm = eps, ops.BatchNorm(is_training=True, epsilon=eps, momentum=MOMENTUM)

    def construct(self, x, gamma, beta, moving_mean, moving_variance):
        """x (N, C, H, W), the others (C,) -> (N, C, H, W)."""
        if device_count() == 1:
            return self.norm(x, gamma, beta, moving_mean, moving_variance)[0]
        n, c, height, width = x.shape
        count = n * height * width * device_count()
        mean = ops.AllReduce()(x.sum((0, 2, 3))) / count
        centred = x - mean.reshape(1, c, 1, 1)
        variance = ops.AllReduce()((centred * centred).sum((0, 2, 3))) / count
        scale = gamma / ops.sqrt(variance + self.eps)
        # As the operator does it: the running variance is that of the population.
        kept = ops.stop_gradient(mean), ops.stop_gradient(variance) * (count / max(count - 1, 1))
        moved = ops.assign(moving_mean, (1 - MOMENTUM) * moving_mean + MOMENTUM * kept[0])
        other = ops.assign(moving_variance, (1 - MOMENTUM) * moving_variance + MOMENTUM * kept[1])
        return ops.depend(centred * scale.reshape(1, c, 1, 1) + beta.reshape(1, c, 1, 1), (moved, other))


def take_batch_statistics(net: nn.Cell) -> None:
    """Let the norms behind a network's convolutions train with the statistics of the batch."""
    for _, cell in net.cells_and_names():
        if isinstance(cell, ConvNorm):
            cell.batch_norm, cell.learns_statistics = BatchNorm(cell.eps), True
