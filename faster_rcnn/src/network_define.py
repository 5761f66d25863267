"""The network of this model, as training, inference and export call it.

training   `net(image, image_info, gt_boxes, gt_labels, gt_valid, *noise)` gives the weighted losses of LOSS_NAMES;
           model_utils/training/step.py puts gradients and update around it
inference  `InferenceNet(net)(image, image_info)` gives OUTPUTS of model.py
export     the same as files, whole or in parts
"""
from mindspore import nn

from .FasterRcnn.faster_rcnn import LOSS_NAMES, build_network
from .FasterRcnn.init_params import set_first_weights
from .FasterRcnn.parts import network_parts
from .model import OUTPUTS
from .model_utils.inference.network import ExportedNetwork, InferenceNet

__all__ = ["LOSS_NAMES", "InferenceNet", "build_network", "exported", "host_steps", "masks_network", "set_first_weights"]


def exported(net: nn.Cell, config, inputs: dict[str, tuple]) -> list[ExportedNetwork]:
    """Return the networks that export.py writes: one, or with `split` the parts that the C++ program takes.

    inputs: {input: shape} of the whole network.
    """
    if config.split:
        return [ExportedNetwork(*part) for part in network_parts(net, config, inputs)]
    return [ExportedNetwork("", InferenceNet(net), inputs, OUTPUTS)]


def host_steps(config) -> dict:
    """Return {number of outputs of an exported file: function that makes OUTPUTS of them on the host}: none is needed."""
    return {}


def masks_network(net: nn.Cell) -> nn.Cell | None:
    """Return the network that gives the masks of given boxes: None, there are no masks."""
    return None
