"""What MindSpore Hub calls to make the network: `mindspore_hub.load("refinedet_vgg16", ...)` ends in `create_network`.

Not a copy of another model's file: the names stand for a configuration each.
"""
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))       # src/

# Name -> its configuration.
NAMES = {
    "refinedet_vgg16": "default_config.yaml",
    "refinedet_vgg16_320": "default_config.yaml",
    "refinedet_vgg16_512": "default_config_512.yaml",
    "refinedet_resnet101": "default_config_resnet101.yaml",
    "refinedet_resnet101_320": "default_config_resnet101.yaml",
    "refinedet_resnet101_512": "default_config_resnet101_512.yaml",
    "refinedet": "default_config.yaml",
}


def create_network(name, *args, **kwargs):
    """The network named `name`, without trained weights; its `predict(image, image_info)` gives the detections.

    kwargs: config_path, a variant of the name's own YAML file in its place, and any key of it: num_classes=4, coco_classes=[...].
    """
    if name not in NAMES:
        raise NotImplementedError(f"{name} is not in this model's directory: expected one of {', '.join(NAMES)}")
    if args:
        raise TypeError(f"create_network takes keys of the configuration by name, got {args}")
    from src.model_utils.config import load_config

    config = load_config(kwargs.pop("config_path", HERE / NAMES[name]), kwargs)
    from src.refinedet import build_network  # MindSpore takes seconds

    return build_network(config)
