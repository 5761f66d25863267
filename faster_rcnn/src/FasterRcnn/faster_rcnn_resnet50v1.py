"""The network under the old zoo's name for the backbone resnet_v1_50; faster_rcnn_resnet.py has the others."""
from ..model_utils.config import InputError
from .faster_rcnn import FasterRcnn, build_network


def Faster_Rcnn_Resnet(config) -> FasterRcnn:
    """Return the network that `load_config` describes. Raises InputError unless its backbone is resnet_v1_50."""
    if config.backbone != "resnet_v1_50":
        raise InputError(f"backbone: {config.backbone}: src.FasterRcnn.faster_rcnn_resnet has this network")
    return build_network(config)
