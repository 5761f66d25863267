"""The network of this model as training, inference and export call it.

training   `net(image, image_info, gt_boxes, gt_labels, gt_valid)` returns the losses of LOSS_NAMES;
           model_utils/training/step.py adds gradients and the update
inference  `InferenceNet(net)(image, image_info)` returns the OUTPUTS of model.py
export     the same as a file, with or without the last step, which is otherwise done on the host
"""
import functools

from mindspore import nn

from .host_nms import detections_of
from .init_params import set_first_weights
from .model import OUTPUTS, RAW_OUTPUTS
from .model_utils.inference.network import ExportedNetwork, InferenceNet
from .refinedet import LOSS_NAMES, build_network

__all__ = ["LOSS_NAMES", "DecodingNet", "InferenceNet", "build_network", "exported", "host_steps", "masks_network",
           "set_first_weights"]


class DecodingNet(nn.Cell):
    """The network with `decode` as its call: (image, image_info) -> all boxes (N, A, 4) and scores (N, A, K)."""

    def __init__(self, net: nn.Cell):
        super().__init__(auto_prefix=False)  # the parameters keep their names
        self.net = net

    def construct(self, image, image_info):
        return self.net.decode(image)


def exported(net: nn.Cell, config, inputs: dict[str, tuple]) -> list[ExportedNetwork]:
    """Return the networks that export.py writes: one, with or without the last step (with_nms).

    inputs: {input: shape} of the network.
    """
    network, outputs = (InferenceNet(net), OUTPUTS) if config.with_nms else (DecodingNet(net), RAW_OUTPUTS)
    return [ExportedNetwork("", network, inputs, outputs)]


def host_steps(config) -> dict:
    """Return {number of outputs of an exported file: function that computes OUTPUTS from them on the host}."""
    return {len(RAW_OUTPUTS): functools.partial(
        detections_of, score_thr=config.test_score_thr, iou_thr=config.test_iou_thr, per_class=config.test_nms_pre,
        total=config.test_nms_total, max_per_img=config.test_max_per_img)}


def masks_network(net: nn.Cell) -> nn.Cell | None:
    """Return the network that predicts masks for given boxes: None, since this model has no masks."""
    return None
