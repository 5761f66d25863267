"""Initial weights of a training run."""

import logging

import mindspore as ms
import numpy as np
from mindspore import Tensor

from .model_utils.layers.convolution import Conv2d
from .model_utils.local_adapter import pynative
from .model_utils.weights.loading import load_pretrained
from .model_utils.weights.named import pretrained_file
from .norm_conv import NormConv2d
from .util import counted

# Number of images from which scales of new convolutions and statistics of folded norms are computed.
CALIBRATION_IMAGES = 8
log = logging.getLogger(__name__)


def set_first_weights(net, config, batches) -> None:
    """Load pre_trained, then calibrate new convolutions and folded norms as calibrate_init says: see standardise and unfold.

    Args:
        net: the network.
        config: reads pre_trained and calibrate_init, among others.
        batches: function (epoch, start) -> training batches; images come first in a batch.
    """
    names = [param.name for param in net.get_parameters()]
    missing = load_pretrained(net, pretrained_file(config), config.coco_classes) if config.pre_trained else names
    wanted = set({"never": [], "auto": missing, "always": names}[config.calibrate_init])
    fresh = [cell for part in (net.backbone, net.tcb) for _, cell in part.cells_and_names()
             if isinstance(cell, Conv2d) and cell.weight.name in wanted]
    folded = find_folded(net.backbone, missing) if config.calibrate_init != "never" else []
    if not fresh and not folded:
        return
    images, count = [], 0
    for image, *_ in batches(0, 0):
        images.append(image)
        count += image.shape[0]
        if count >= CALIBRATION_IMAGES:
            break
    images, count = ms.ops.concat(images)[:CALIBRATION_IMAGES], min(count, CALIBRATION_IMAGES)
    if fresh:
        standardise(net, fresh, images)
        log.info("calibrate_init: scaled %s on %s", counted(len(fresh), "convolution"), counted(count, "image"))
    if folded:
        unfold(net.backbone, folded, images)
        log.info("calibrate_init: computed the statistics of %s from %s", counted(len(folded), "folded norm"),
                 counted(count, "image"))


def find_folded(backbone, missing) -> list:
    """Return norms whose file held scales and shifts only, like Caffe2's: mean 0 and variance 1 - eps in all channels.

    missing: names of parameters that were not loaded.
    """
    missing = set(missing)
    norms = [cell for _, cell in backbone.cells_and_names() if isinstance(cell, NormConv2d) and cell.weight.name not in missing]
    return [cell for cell in norms if not cell.moving_mean.asnumpy().any()
            and np.abs(cell.moving_variance.asnumpy().astype(np.float64) + cell.eps - 1).max() < 1e-6]


def unfold(backbone, norms, images) -> None:
    """Give norms the statistics of `images`, with scales and shifts that keep the result of inference.

    Training normalises with the statistics of the batch; otherwise it would start from another function than the file's.
    """
    for norm in norms:
        norm.calibrating = True
    try:
        with pynative():
            backbone(images)
    finally:
        for norm in norms:
            norm.calibrating = False


def standardise(net, convolutions, images) -> None:
    """Scale and shift convolutions, in order, so that each output channel has mean 0 and variance 1 on `images`.

    Kraehenbuehl et al., "Data-dependent Initializations of Convolutional Neural Networks", 2016, section 3.1: what batch norm
    would do in the first step. VGG has no norms, and a dozen layers of random weights give nearly the same for every pixel.
    """
    handles = [conv.register_forward_hook(_standardise) for conv in convolutions]
    try:
        with pynative():        # hooks only work in this mode
            net.tcb(net.backbone(images))
    finally:
        for handle in handles:
            handle.remove()


def _standardise(conv, _, output):
    """Rescale the hooked convolution, and return the output that it then gives."""
    y = output.asnumpy().astype(np.float64)
    mean, deviation = y.mean((0, 2, 3)), np.maximum(y.std((0, 2, 3)), 1e-6)
    conv.weight.set_data(_tensor(conv.weight.asnumpy() / deviation[:, None, None, None]))
    conv.bias.set_data(_tensor((conv.bias.asnumpy() - mean) / deviation))
    return _tensor((y - mean[:, None, None]) / deviation[:, None, None])


def _tensor(array) -> Tensor:
    return Tensor(np.ascontiguousarray(array, np.float32))
