"""Wrap the network for inference, and describe the networks to export."""
from typing import NamedTuple

from mindspore import Tensor, nn


class InferenceNet(nn.Cell):
    """The network with `predict` as its call, which graph mode compiles and export writes.

    Args:
        net: a network with predict(image (N, 3, H, W), image_info (N, 6)). It returns a fixed number of detections per image, with
            a column that says which of them are valid.
    """

    def __init__(self, net: nn.Cell):
        super().__init__(auto_prefix=False)  # a prefix would rename the parameters
        self.net = net

    def construct(self, image: Tensor, image_info: Tensor) -> tuple[Tensor, ...]:
        return self.net.predict(image, image_info)


class ExportedNetwork(NamedTuple):
    """One network to export, in its own file."""

    suffix: str                     # appended to the file's stem; "" for a whole network
    network: nn.Cell
    inputs: dict[str, tuple[int, ...]]      # {name: shape}
    outputs: tuple[str, ...]        # names, in order
