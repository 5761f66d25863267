"""The weights that training begins with."""

import logging

import mindspore as ms
import numpy as np
from mindspore import Tensor

from .convolution import Conv2d
from .network_define import load_pretrained

# Pictures that the scale of fresh convolutions is taken from.
CALIBRATION_PICTURES = 8
log = logging.getLogger(__name__)


def set_first_weights(net, config, batches) -> None:
    """Those of pre_trained; the trunk's convolutions that it did not fill are scaled by the first pictures, as configured.

    batches(epoch, start): training batches, the picture first.
    """
    names = [param.name for param in net.get_parameters()]
    missing = load_pretrained(net, config.pre_trained) if config.pre_trained else names
    wanted = set({"never": [], "auto": missing, "always": names}[config.calibrate_init])
    fresh = [cell for _, cell in net.backbone.cells_and_names() if isinstance(cell, Conv2d) and cell.weight.name in wanted]
    if not fresh:
        return
    images, count = [], 0
    for image, *_ in batches(0, 0):
        images.append(image)
        count += image.shape[0]
        if count >= CALIBRATION_PICTURES:
            break
    scale_to_unit_variance(net.backbone, fresh, ms.ops.concat(images)[:CALIBRATION_PICTURES])
    log.info("calibrate_init: %d convolutions scaled by %d pictures", len(fresh), min(count, CALIBRATION_PICTURES))


def scale_to_unit_variance(backbone, convolutions, images) -> None:
    """Divide the weights of each, from the input on, by what makes its output on `images` (N, 3, H, W), pooled or not, of variance 1.

    Mishkin and Matas, "All you need is a good init", 2016, algorithm 1, with the initial weights as they are. VGG has no norms:
    activations of other sizes would stay with it through all of its layers.
    """
    handles = [conv.register_forward_hook(_scale) for conv in convolutions]
    mode = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)       # hooks are for this mode alone
    try:
        backbone(images)
    finally:
        ms.set_context(mode=mode)
        for handle in handles:
            handle.remove()


def _scale(conv, _, output):
    """Hook of a convolution: new weights, and the output that they give (its bias is 0)."""
    deviation = max(float(output.asnumpy().astype(np.float64).std()), 1e-6)
    conv.weight.set_data(Tensor((conv.weight.asnumpy() / deviation).astype(np.float32)))
    return output / deviation
