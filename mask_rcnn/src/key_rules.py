"""Constraints between keys: those of box detectors (MaskRcnn/key_rules.py), and those of the mask branch."""
from .MaskRcnn import key_rules as box_rules
from .MaskRcnn.key_rules import ALIASES, PRESETS, RETIRED, SEVERAL
from .model_utils.own_utils import own_utils

__all__ = ["ALIASES", "PRESETS", "RETIRED", "SEVERAL", "check_config"]


def check_config(config):
    """Return the first (key, fault) of keys that contradict each other, or None."""
    return box_rules.check_config(config) or next(_masks(config), None)


def _masks(config):
    formats = _formats_with_masks()
    if formats and config.dataset not in formats:
        titles = " or ".join(dict.fromkeys(entry.title.split()[0] for entry in formats.values()))      # "COCO JSON": COCO
        yield "dataset", f"{config.dataset!r} has no masks; Mask R-CNN takes {titles} annotations (dataset: {', '.join(formats)})"
    if config.mask_slots == "positive" and config.mask_target == "bitmap":
        yield "mask_slots", "positive needs mask_target: outline; set auto or all"
    side, shape = config.roi_layer.mask_out_size, list(config.mask_shape)
    if side < 1:
        yield "roi_layer", f"expected mask_out_size >= 1, got {side}"
    if shape != [2 * side, 2 * side]:     # the deconvolution of the mask head doubles the side
        yield "mask_shape", f"expected twice mask_out_size of roi_layer, {[2 * side, 2 * side]}, got {shape}"


def _formats_with_masks() -> dict:
    """Return {name: entry} of the annotation formats with masks; {} if utils/ is missing, which data/source.py reports."""
    try:
        formats = own_utils("mindrecord").all_formats()
    except ImportError:
        return {}
    return {name: entry for name, entry in formats.items() if entry.masks}
