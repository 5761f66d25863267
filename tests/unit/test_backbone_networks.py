"""Detectors on the other backbones: a training step, inference, and the exported file, which gives the same detections."""
import importlib

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from faster_rcnn.src.network_define import InferenceNet, TrainStep
from tests.narrow_network import (
    narrow_backbone,
    narrow_config,
    narrow_mask_config,
    narrow_network,
    noise,
    objects,
    outlines,
    pictures,
    spread_heads,
)

# resnet_v1.5_50 is everywhere else, and differs from resnet_v1_101 and resnet_v1_152 in its number of blocks alone. The first
# two are trained too.
CASES = [("faster_rcnn", "inception_resnet_v2"), ("mask_rcnn", "resnet_v1_50"), ("faster_rcnn", "resnet_v1_101")]
MODULES = {"faster_rcnn": "FasterRcnn.faster_rcnn", "mask_rcnn": "MaskRcnn.mask_rcnn"}
BOXES = [[(1, 8, 8, 60, 40), (2, 40, 10, 90, 60)], [(3, 4, 20, 50, 44)]]
SMALLER = {"img_height": 64, "img_width": 96, "frozen_stages": 1, "rpn_nms_pre": 40, "rpn_nms_post": 40, "rpn_max_num": 40,
           "test_max_per_img": 10}


@pytest.fixture(scope="module")
def case(request):
    """(model, config, network)."""
    model, backbone = request.param
    config = (narrow_mask_config if model == "mask_rcnn" else narrow_config)(**SMALLER, **narrow_backbone(backbone))
    net = narrow_network(config)
    spread_heads(net)
    return model, config, net


@pytest.mark.parametrize("case", CASES, ids=" on ".join, indirect=True)
def test_inference_and_export(case, tmp_path, monkeypatch):
    _, config, net = case
    infer = InferenceNet(net).set_train(False)
    image, info = pictures(config, 2)
    wanted = [part.asnumpy() for part in infer(image, info)]            # operator by operator
    assert wanted[3].sum() > 10 and np.isfinite(wanted[0]).all()
    monkeypatch.chdir(tmp_path)
    ms.export(infer, image, info, file_name="network", file_format="MINDIR")
    reloaded = nn.GraphCell(ms.load("network.mindir"))
    for again, part in zip(reloaded(image, info), wanted):
        np.testing.assert_array_equal(again.asnumpy(), part)


@pytest.mark.parametrize("case", CASES[:2], ids=" on ".join, indirect=True)
def test_training_step(case):
    """A step changes all stages but the frozen stem; nothing is nan; and the loss of the same batch falls."""
    model, config, net = case
    inputs = *pictures(config, 2), *objects(config, BOXES)
    if model == "mask_rcnn":
        inputs += (outlines(config, BOXES),)
    inputs += tuple(noise(net, 2))
    names = importlib.import_module(f"{model}.src.{MODULES[model]}").LOSS_NAMES
    before = {param.name: param.asnumpy().copy() for param in net.get_parameters()}
    step = TrainStep(net, names, momentum=0.9, weight_decay=0.0, clip_grad_norm=1.0)
    losses = [sum(step(inputs, 0.01).losses.values()) for _ in range(6)]
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    changed = {name for name, value in before.items() if not np.array_equal(value, net.parameters_dict()[name].asnumpy())}
    stages = {name.split(".")[1] for name in before if name.startswith("backbone.")}
    frozen = {"conv2d_1a", "conv2d_2a", "conv2d_2b"} if config.backbone == "inception_resnet_v2" else {"conv1"}
    assert {name.split(".")[1] for name in changed if name.startswith("backbone.")} == stages - frozen
    assert not any(name.endswith(("moving_mean", "moving_variance")) for name in changed)
