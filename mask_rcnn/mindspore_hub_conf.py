"""Entry point for MindSpore Hub: `mindspore_hub.load("maskrcnn_resnet50", ...)` calls `create_network`."""
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))       # src/

NAMES = ("maskrcnn_resnet50", "maskrcnn")


def create_network(name, *args, **kwargs):
    """Return the network `name`, without trained weights; its `predict(image, image_info)` returns the detections.

    kwargs: config_path, a variant of default_config.yaml, and any configuration keys, such as num_classes=4, coco_classes=[...].
    """
    if name not in NAMES:
        raise NotImplementedError(f"{name}: expected one of {', '.join(NAMES)}")
    if args:
        raise TypeError(f"create_network takes configuration keys by name only, got {args}")
    from src.model_utils.config import DEFAULT_CONFIG, load_config

    config = load_config(kwargs.pop("config_path", DEFAULT_CONFIG), kwargs)
    from src.MaskRcnn.mask_rcnn import build_network  # MindSpore takes seconds

    return build_network(config)
