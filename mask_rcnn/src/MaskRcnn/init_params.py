# Same as faster_rcnn/src/FasterRcnn/init_params.py
"""The weights that training begins with."""
import logging
from pathlib import Path

import mindspore as ms
import yaml

from ..model_utils.local_adapter import pynative
from ..model_utils.weights.loading import load_pretrained
from ..model_utils.weights.named import pretrained_file
from .resnet import begin_as_identity, calibrate_norms

# Pictures that the statistics of norms without trained weights are taken from.
CALIBRATION_PICTURES = 8
log = logging.getLogger(__name__)


def set_first_weights(net, config, batches) -> None:
    """Those of pre_trained; fresh bottlenecks and the statistics of the norms that it did not fill as configured.

    batches(epoch, start): the batches of an epoch from batch `start` on, the pictures first.
    """
    names = [param.name for param in net.get_parameters()]
    missing = load_pretrained(net, pretrained_file(config), config.coco_classes) if config.pre_trained else names
    compare_pools(config)
    if config.zero_init_residual:
        log.info("zero_init_residual: %d blocks begin as the identity", begin_as_identity(net.backbone, missing))
    wanted = {"never": [], "auto": missing, "always": names}[config.calibrate_norm]
    if not any(name.startswith("backbone.") for name in wanted):
        return
    images, count = [], 0
    for image, *_ in batches(0, 0):
        images.append(image)
        count += image.shape[0]
        if count >= CALIBRATION_PICTURES:
            break
    with pynative():
        changed = calibrate_norms(net.backbone, ms.ops.concat(images), wanted)
    if changed:
        log.info("calibrate_norm: statistics of %d norms from %d pictures", changed, count)


def compare_pools(config) -> None:
    """Warn if the YAML beside pre_trained asks for another padding of the pool behind the stem."""
    beside = Path(config.pre_trained).with_suffix(".yaml") if config.pre_trained else Path()
    try:
        keys = yaml.safe_load(beside.read_bytes())
    except (OSError, yaml.YAMLError):
        return
    wanted = keys.get("stem_pool_padding") if isinstance(keys, dict) else None
    if wanted not in (None, config.stem_pool_padding):
        log.warning("stem_pool_padding is %s; the weights of pre_trained need %s, as %s says", config.stem_pool_padding, wanted,
                    beside)
