"""The network with backbone resnet_v1_50 under the old zoo's name; faster_rcnn_resnet.py has the other backbones."""
from ..model_utils.config import InputError
from .faster_rcnn import FasterRcnn, build_network


def Faster_Rcnn_Resnet(config) -> FasterRcnn:
    """Return the network that `config`, a result of `load_config`, describes.

    Raises:
        InputError: if the backbone is not resnet_v1_50.
    """
    if config.backbone != "resnet_v1_50":
        raise InputError(f"backbone: expected resnet_v1_50, got {config.backbone}; for other backbones import "
                         "src.FasterRcnn.faster_rcnn_resnet")
    return build_network(config)
