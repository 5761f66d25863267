# Same as faster_rcnn/src/model_utils/inference/network.py
"""The network as inference calls it, and as a file holds it."""
from typing import NamedTuple

from mindspore import Tensor, nn


class InferenceNet(nn.Cell):
    """The network with `predict` as its call: (image, image_info) -> detections, fixed in number, and which are valid."""

    def __init__(self, net: nn.Cell):
        super().__init__(auto_prefix=False)  # the parameters keep their names
        self.net = net

    def construct(self, image: Tensor, image_info: Tensor) -> tuple[Tensor, ...]:
        return self.net.predict(image, image_info)


class ExportedNetwork(NamedTuple):
    """A network that export.py writes to a file of its own."""

    suffix: str                     # is added to the file's name
    network: nn.Cell
    inputs: dict[str, tuple[int, ...]]      # name -> shape
    outputs: tuple[str, ...]        # names
