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
    """Those of pre_trained; what it did not fill of trunk and transfer connections is scaled by the first pictures, as configured.

    batches(epoch, start): training batches, the picture first.
    """
    names = [param.name for param in net.get_parameters()]
    missing = load_pretrained(net, config.pre_trained) if config.pre_trained else names
    wanted = set({"never": [], "auto": missing, "always": names}[config.calibrate_init])
    fresh = [cell for part in (net.backbone, net.tcb) for _, cell in part.cells_and_names()
             if isinstance(cell, Conv2d) and cell.weight.name in wanted]
    if not fresh:
        return
    images, count = [], 0
    for image, *_ in batches(0, 0):
        images.append(image)
        count += image.shape[0]
        if count >= CALIBRATION_PICTURES:
            break
    standardise(net, fresh, ms.ops.concat(images)[:CALIBRATION_PICTURES])
    log.info("calibrate_init: %d convolutions scaled by %d pictures", len(fresh), min(count, CALIBRATION_PICTURES))


def standardise(net, convolutions, images) -> None:
    """Scale and shift each, from the input on, so that every channel of its output on `images` has mean 0 and variance 1.

    Kraehenbuehl et al., "Data-dependent Initializations of Convolutional Neural Networks", 2016, section 3.1: what batch norm
    would do in the first step. VGG has none, and behind a dozen ReLUs random weights give nearly the same for every pixel.
    """
    handles = [conv.register_forward_hook(_standardise) for conv in convolutions]
    mode = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)       # hooks are for this mode alone
    try:
        net.tcb(net.backbone(images))
    finally:
        ms.set_context(mode=mode)
        for handle in handles:
            handle.remove()


def _standardise(conv, _, output):
    """Hook of a convolution: new weights and bias, and the output that they give."""
    y = output.asnumpy().astype(np.float64)
    mean, deviation = y.mean((0, 2, 3)), np.maximum(y.std((0, 2, 3)), 1e-6)
    conv.weight.set_data(_tensor(conv.weight.asnumpy() / deviation[:, None, None, None]))
    conv.bias.set_data(_tensor((conv.bias.asnumpy() - mean) / deviation))
    return _tensor((y - mean[:, None, None]) / deviation[:, None, None])


def _tensor(array) -> Tensor:
    return Tensor(np.ascontiguousarray(array, np.float32))
