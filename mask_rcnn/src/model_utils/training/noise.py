# Same as faster_rcnn/src/model_utils/training/noise.py
"""The random numbers by which networks sample anchors and boxes in a training step."""
from collections.abc import Mapping

import numpy as np
from mindspore import Tensor

from ..config import Config


class SamplingNoise:
    """Makes the network's noise inputs for a step: `noise(step, part)`, uniform in [0, 1).

    An image's numbers depend on the seed, the step and its position in the step over all ranks and accumulated batches, so neither
    the number of devices nor resuming changes what is sampled.

    Args:
        shapes: {input: shape}, batch dimension first; empty if the network samples nothing.
        config: seed, batch_size and accumulate_steps.
        rank: rank of this process.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], config: Config, rank: int = 0):
        self.shapes, self.seed, self.batch_size, self.accumulate = shapes, config.seed, config.batch_size, config.accumulate_steps
        self.rank = rank

    def __call__(self, step: int, part: int = 0) -> list[Tensor]:
        """Return the noise inputs for batch `part` of a step."""
        shapes = list(self.shapes.values())
        if not shapes:
            return []
        first = (self.rank * self.accumulate + part) * self.batch_size
        rows = [np.random.default_rng([self.seed, step, first + i]) for i in range(self.batch_size)]
        return [Tensor(np.stack([rng.random(shape[1:], np.float32) for rng in rows])) for shape in shapes]
