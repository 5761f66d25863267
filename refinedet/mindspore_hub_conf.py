# Same as mask_rcnn/mindspore_hub_conf.py with maskrcnn -> refinedet, resnet50 -> vgg16, MaskRcnn.mask_rcnn -> refinedet
"""What MindSpore Hub calls to make the network: `mindspore_hub.load("refinedet_vgg16", ...)` ends in `create_network`."""
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))       # src/

NAMES = ("refinedet_vgg16", "refinedet")


def create_network(name, *args, **kwargs):
    """The network named `name`, without trained weights; its `predict(image, image_info)` gives the detections.

    kwargs: config_path, a variant of default_config.yaml, and any of its keys: num_classes=4, coco_classes=[...].
    """
    if name not in NAMES:
        raise NotImplementedError(f"{name} is not in this model's directory: expected one of {', '.join(NAMES)}")
    if args:
        raise TypeError(f"create_network takes keys of the configuration by name, got {args}")
    from src.model_utils.config import DEFAULT_CONFIG, load_config

    config = load_config(kwargs.pop("config_path", DEFAULT_CONFIG), kwargs)
    from src.refinedet import build_network  # MindSpore takes seconds

    return build_network(config)
