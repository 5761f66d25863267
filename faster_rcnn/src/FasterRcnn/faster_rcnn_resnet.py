"""The network under the old zoo's name, for programs that import it: the backbone is what the configuration says."""
from .faster_rcnn import FasterRcnn, build_network


def Faster_Rcnn_Resnet(config) -> FasterRcnn:
    """Return the network that `load_config` describes."""
    return build_network(config)
