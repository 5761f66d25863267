"""What must hold between the keys: the rules of box detectors (MaskRcnn/key_rules.py) and those of the mask branch."""
import itertools

from .MaskRcnn import key_rules as box_rules
from .MaskRcnn.key_rules import ALIASES, PRESETS, RETIRED, SEVERAL
from .model_utils.configuration.rules import check_ranges

__all__ = ["ALIASES", "PRESETS", "RETIRED", "SEVERAL", "check_config"]

# As in MaskRcnn/key_rules.py.
RANGES = {
    (1, None): "rcnn_mask_out_channels mask_shape",
    (4, None): "max_mask_edges",
    (0, None): "rcnn_loss_mask_fb_weight",
    (0, 1): "mask_thr_binary",
}


def check_config(config):
    """(key, what is wrong with it) where a value is out of range or keys contradict each other, else None."""
    own = itertools.chain(check_ranges(config, RANGES), _masks(config))
    return box_rules.check_config(config) or next(own, None)


def _masks(config):
    if config.dataset != "coco":
        yield "dataset", f"{config.dataset!r} has no masks: Mask R-CNN takes COCO annotations (dataset: coco)"
    side, shape = config.roi_layer.mask_out_size, list(config.mask_shape)
    if side < 1:
        yield "roi_layer", f"expected mask_out_size >= 1, got {side}"
    if shape != [2 * side, 2 * side]:     # the deconvolution of the mask head doubles the side
        yield "mask_shape", f"expected twice mask_out_size of roi_layer, {[2 * side, 2 * side]}, got {shape}"
