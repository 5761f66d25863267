# Same as faster_rcnn/src/model_utils/layers/named_losses.py
"""Losses by name: a network computes {name: loss}, and its table LOSSES maps each name to the configuration key of its weight."""
from collections.abc import Mapping

from mindspore import Tensor

from ..configuration.values import Config


def weights_of(losses: Mapping[str, str], config: Config) -> dict[str, float]:
    """Return {name: weight}. losses: {name: configuration key of its weight}."""
    return {name: config[key] for name, key in losses.items()}


def weighted(losses: Mapping[str, Tensor], names: tuple[str, ...], weights: tuple[float, ...]) -> tuple[Tensor, ...]:
    """Return the losses in the order of `names`, each times its weight; usable in graphs.

    losses: {name: scalar}; names, weights: tuples, since graphs need constants.
    """
    result: tuple[Tensor, ...] = ()
    for name, weight in zip(names, weights):
        result += (losses[name] * weight,)
    return result
