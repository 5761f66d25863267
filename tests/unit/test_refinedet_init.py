"""Initial weights of RefineDet's trunk."""
import types

import numpy as np
import pytest
from mindspore import Tensor, ops

from refinedet.src import init_params
from refinedet.src.tcb import TransferConnections
from refinedet.src.vgg16_for_refinedet import Vgg16

WIDTHS = ((8, 8, 16, 16, 16), 32, (8, 16))


@pytest.fixture
def images():
    """Bytes less their mean (3, 3, 64, 64), as from the loader: the variance is far from 1."""
    return Tensor(np.random.default_rng(0).integers(-110, 140, (3, 3, 64, 64)).astype(np.float32))


def outputs_of(backbone, images) -> dict:
    """Output of each convolution by name, from a forward pass written out."""
    found, x = {}, images
    for name in ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3", "conv4_1", "conv4_2", "conv4_3",
                 "conv5_1", "conv5_2", "conv5_3", "fc6", "fc7", "conv6_1", "conv6_2"):
        if name in ("conv5_1", "fc6"):
            x = ops.max_pool2d(x, 2, 2)
        x = getattr(backbone, name)(x)
        found[name] = x.asnumpy().astype(np.float64)
        x = ops.relu(x)
    return found


def standardised(y) -> bool:
    """Whether every channel has mean 0 and variance 1, within float32's rounding."""
    return np.abs(y.mean((0, 2, 3))).max() < 1e-3 and np.abs(y.std((0, 2, 3)) - 1).max() < 1e-3


def config(**values):
    return types.SimpleNamespace(**{"pre_trained": "", "calibrate_init": "auto", "coco_classes": (), **values})


def set_weights(backbone, images, **values):
    net = types.SimpleNamespace(backbone=backbone, tcb=TransferConnections(backbone.out_channels, 8),
                                get_parameters=backbone.get_parameters)
    init_params.set_first_weights(net, config(**values), lambda epoch, start: iter([(images, None), (images, None)] * 9))


def test_every_channel_gets_mean_0_and_variance_1(images):
    """The statistics are those of all images seen; here a batch is repeated."""
    backbone = Vgg16(*WIDTHS)
    assert not standardised(outputs_of(backbone, images)["conv1_1"])
    set_weights(backbone, images)
    for name, y in outputs_of(backbone, Tensor(np.concatenate([images.asnumpy()] * 3)[:8])).items():
        assert standardised(y), name


def test_given_weights_stay(images, monkeypatch):
    backbone = Vgg16(*WIDTHS)
    given = {param.name: param.asnumpy().copy() for param in backbone.get_parameters() if param.name.startswith("conv1")}
    missing = [param.name for param in backbone.get_parameters() if param.name not in given]
    monkeypatch.setattr(init_params, "load_pretrained", lambda net, path, classes: missing)
    monkeypatch.setattr(init_params, "pretrained_file", lambda config: config.pre_trained)
    set_weights(backbone, images, pre_trained="some.ckpt")
    for param in backbone.get_parameters():
        if param.name in given:
            np.testing.assert_array_equal(param.asnumpy(), given[param.name])
    assert standardised(outputs_of(backbone, Tensor(np.concatenate([images.asnumpy()] * 3)[:8]))["conv5_3"])


def test_calibration_can_be_switched_off(images):
    backbone = Vgg16(*WIDTHS)
    before = {param.name: param.asnumpy().copy() for param in backbone.get_parameters()}
    set_weights(backbone, images, calibrate_init="never")
    for param in backbone.get_parameters():
        np.testing.assert_array_equal(param.asnumpy(), before[param.name])
