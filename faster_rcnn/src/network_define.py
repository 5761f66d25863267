"""The network of this model as training, inference and export call it.

training   `net(image, image_info, gt_boxes, gt_labels, gt_valid, *noise)` returns the weighted losses of LOSS_NAMES;
           model_utils/training/step.py adds gradients and the update
inference  `InferenceNet(net)(image, image_info)` returns the OUTPUTS of model.py
export     the same as files, in one part or several
"""
from mindspore import nn

from .FasterRcnn.faster_rcnn import LOSS_NAMES, build_network
from .FasterRcnn.init_params import set_first_weights
from .FasterRcnn.parts import network_parts
from .model import OUTPUTS
from .model_utils.inference.network import ExportedNetwork, InferenceNet

__all__ = ["LOSS_NAMES", "InferenceNet", "build_network", "exported", "host_steps", "masks_network", "set_first_weights"]


def exported(net: nn.Cell, config, inputs: dict[str, tuple]) -> list[ExportedNetwork]:
    """Return the networks that export.py writes: one, or with `split` the parts for the C++ program.

    inputs: {input: shape} of the whole network.
    """
    if config.split:
        return [ExportedNetwork(*part) for part in network_parts(net, config, inputs)]
    return [ExportedNetwork("", InferenceNet(net), inputs, OUTPUTS)]


def host_steps(config) -> dict:
    """Return {number of outputs of an exported file: function that computes OUTPUTS from them on the host}: none is needed."""
    return {}


def masks_network(net: nn.Cell) -> nn.Cell | None:
    """Return the network that predicts masks for given boxes: None, since this model has no masks."""
    return None
