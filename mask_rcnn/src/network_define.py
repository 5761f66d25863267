"""The network of this model as training, inference and export call it.

training   `net(image, image_info, gt_boxes, gt_labels, gt_valid, gt_edges, *noise)` returns the weighted losses of
           LOSS_NAMES; model_utils/training/step.py adds gradients and the update
inference  `InferenceNet(net)(image, image_info)` returns the OUTPUTS of model.py
export     the same as files, in one part or several
"""
from mindspore import nn

from .MaskRcnn.init_params import set_first_weights
from .MaskRcnn.mask_parts import mask_network_parts
from .MaskRcnn.mask_rcnn import LOSS_NAMES, build_network
from .model import OUTPUTS
from .model_utils.inference.network import ExportedNetwork, InferenceNet

__all__ = ["LOSS_NAMES", "InferenceNet", "build_network", "exported", "host_steps", "masks_network", "set_first_weights"]


def exported(net: nn.Cell, config, inputs: dict[str, tuple]) -> list[ExportedNetwork]:
    """Return the networks that export.py writes: one, or with `split` the parts for the C++ program.

    inputs: {input: shape} of the whole network.
    """
    if config.split:
        return [ExportedNetwork(*part) for part in mask_network_parts(net, config, inputs)]
    return [ExportedNetwork("", InferenceNet(net), inputs, OUTPUTS)]


def host_steps(config) -> dict:
    """Return {number of outputs of an exported file: function that computes OUTPUTS from them on the host}: none is needed."""
    return {}


class MasksNet(nn.Cell):
    """The network with `masks_of` as its call: (image, boxes, labels) -> the masks of these boxes."""

    def __init__(self, net: nn.Cell):
        super().__init__(auto_prefix=False)  # the parameters keep their names
        self.net = net

    def construct(self, image, boxes, labels):
        return self.net.masks_of(image, boxes, labels)


def masks_network(net: nn.Cell) -> nn.Cell:
    """Return the network that predicts masks for given boxes."""
    return MasksNet(net)
