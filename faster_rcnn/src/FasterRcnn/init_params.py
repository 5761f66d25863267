"""Initial weights of a training run."""
import logging
from pathlib import Path

import mindspore as ms
import yaml

from ..model_utils.local_adapter import pynative
from ..model_utils.weights.loading import load_pretrained
from ..model_utils.weights.named import pretrained_file
from ..util import counted
from .resnet import calibrate_norms, zero_init_residuals

# Number of images from which the statistics of norms without pretrained weights are computed.
CALIBRATION_IMAGES = 8
log = logging.getLogger(__name__)


def set_first_weights(net, config, batches) -> None:
    """Load pre_trained, then initialise bottlenecks and norm statistics that it does not cover, as the keys say.

    Args:
        net: the network.
        config: reads pre_trained, zero_init_residual and calibrate_norm, among others.
        batches: function (epoch, start) -> the batches of an epoch from batch `start` on; images come first in a batch.
    """
    names = [param.name for param in net.get_parameters()]
    missing = load_pretrained(net, pretrained_file(config), config.coco_classes) if config.pre_trained else names
    compare_pools(config)
    if config.zero_init_residual:
        log.info("zero_init_residual: blocks that start as the identity: %d", zero_init_residuals(net.backbone, missing))
    wanted = {"never": [], "auto": missing, "always": names}[config.calibrate_norm]
    if not any(name.startswith("backbone.") for name in wanted):
        return
    images, count = [], 0
    for image, *_ in batches(0, 0):
        images.append(image)
        count += image.shape[0]
        if count >= CALIBRATION_IMAGES:
            break
    with pynative():
        changed = calibrate_norms(net.backbone, ms.ops.concat(images), wanted)
    if changed:
        log.info("calibrate_norm: computed the statistics of %s from %s", counted(changed, "norm"), counted(count, "image"))


def compare_pools(config) -> None:
    """Warn if the YAML beside pre_trained has another stem_pool_padding than the configuration."""
    beside = Path(config.pre_trained).with_suffix(".yaml") if config.pre_trained else Path()
    try:
        keys = yaml.safe_load(beside.read_bytes())
    except (OSError, yaml.YAMLError):
        return
    wanted = keys.get("stem_pool_padding") if isinstance(keys, dict) else None
    if wanted not in (None, config.stem_pool_padding):
        log.warning("stem_pool_padding is %s, but the weights of pre_trained need %s, according to %s", config.stem_pool_padding,
                    wanted, beside)
