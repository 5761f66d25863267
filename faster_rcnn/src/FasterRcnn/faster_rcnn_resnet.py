"""The network under the old zoo's name, for programs that import it; the configuration chooses the backbone."""
from .faster_rcnn import FasterRcnn, build_network


def Faster_Rcnn_Resnet(config) -> FasterRcnn:
    """Return the network that `config`, a result of `load_config`, describes."""
    return build_network(config)
