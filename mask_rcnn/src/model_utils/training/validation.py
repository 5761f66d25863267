# Same as faster_rcnn/src/model_utils/training/validation.py
"""The losses on the validation set, which reveal overfitting earlier than AP."""
from collections.abc import Callable

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from ... import dataset, network_define
from ..config import Config
from ..data.loading import TrainBatches
from ..data.source import DataInfo
from .noise import SamplingNoise
from .ranks import exchange


class ValidationLoss:
    """Computes the network's losses on a data set, weighted as in training, without gradients: `loss() -> {name: value}`.

    The losses are means over batches of batch_size images without augmentation. Each call uses the same batches, sampling noise
    and, for images with more than num_gts objects, the same objects. The last batch is filled up with the first images.

    Args:
        net: the network in training.
        data: the data set, with everything that the network's losses need.
        config: see default_config.yaml.
        rank, ranks: rank of this process, and number of ranks. All ranks must call this; each gets the mean over all ranks.
    """

    def __init__(self, net: nn.Cell, data: DataInfo, config: Config, rank: int = 0, ranks: int = 1):
        plain = Config({**config.to_dict(), "augmentations": [], "accumulate_steps": 1})
        self.net, self.ranks, self.loss_names = net, ranks, tuple(network_define.LOSS_NAMES)
        self.batches = TrainBatches(data, dataset.build_train_transform(plain), plain, rank, ranks)
        self.noise = SamplingNoise(net.noise_shapes(plain.batch_size), plain, rank)

        @ms.jit
        def losses(*inputs: Tensor) -> Tensor:
            return ops.stack(net(*inputs))

        self._losses = losses

    def __call__(self, between: Callable[[], None] = lambda: None) -> dict[str, float]:
        """Return the losses by name. between: called before each batch, for example to check for a stop request."""
        self.net.set_train(False)
        rows = []
        for number, (*inputs, _) in enumerate(self.batches(0, 0)):
            between()
            rows.append(self._losses(*inputs, *self.noise(number)).asnumpy())
        mean = np.mean(rows, 0, np.float64)
        means = [np.frombuffer(item, np.float64) for item in exchange(mean.tobytes(), self.ranks)]
        return {name: float(value) for name, value in zip(self.loss_names, np.mean(means, 0))}
