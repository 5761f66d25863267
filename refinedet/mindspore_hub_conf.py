"""Entry point for MindSpore Hub: `mindspore_hub.load("refinedet_vgg16", ...)` calls `create_network`.

Not a copy of another model's file: each name has its own configuration.
"""
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))       # src/

# Name -> configuration file.
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
    """Return the network `name`, without trained weights; its `predict(image, image_info)` returns the detections.

    kwargs: config_path, which overrides the name's YAML file, and any configuration keys: num_classes=4, coco_classes=[...].
    """
    if name not in NAMES:
        raise NotImplementedError(f"{name}: expected one of {', '.join(NAMES)}")
    if args:
        raise TypeError(f"create_network takes configuration keys by name only, got {args}")
    from src.model_utils.config import load_config

    config = load_config(kwargs.pop("config_path", HERE / NAMES[name]), kwargs)
    from src.refinedet import build_network  # MindSpore takes seconds

    return build_network(config)
