"""Random numbers that decide what a step samples, for networks that sample anchors and boxes."""
from collections.abc import Mapping

import numpy as np
from mindspore import Tensor

from ..config import Config


class SamplingNoise:
    """Gives the network's noise inputs of a step: `noise(step, part)`, uniform in [0, 1).

    The numbers of an image follow from the seed, the step and the image's place in it, over all ranks and accumulated
    batches: neither the number of devices nor a resumed run changes what is sampled.

    Args:
        shapes: {input: shape}, the batch first; empty where the network samples nothing.
        config: seed, batch_size and accumulate_steps.
        rank: number of this process.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], config: Config, rank: int = 0):
        self.shapes, self.seed, self.batch_size, self.accumulate = shapes, config.seed, config.batch_size, config.accumulate_steps
        self.rank = rank

    def __call__(self, step: int, part: int = 0) -> list[Tensor]:
        """Return the inputs of batch number `part` of a step."""
        shapes = list(self.shapes.values())
        if not shapes:
            return []
        first = (self.rank * self.accumulate + part) * self.batch_size
        rows = [np.random.default_rng([self.seed, step, first + i]) for i in range(self.batch_size)]
        return [Tensor(np.stack([rng.random(shape[1:], np.float32) for rng in rows])) for shape in shapes]
