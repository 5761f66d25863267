"""Detectors on the other backbones: a training step, inference, and an exported file with the same detections."""
import importlib

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from faster_rcnn.src.model_utils.training.step import TrainStep
from faster_rcnn.src.network_define import InferenceNet
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

pytestmark = pytest.mark.slow

# Other tests use resnet_v1.5_50; test_network_parity.py uses resnet_v1_50.
CASES = [("faster_rcnn", "inception_resnet_v2"), ("faster_rcnn", "resnet_v1_152"), ("mask_rcnn", "resnet_v1_101")]
MODULES = {"faster_rcnn": "FasterRcnn.faster_rcnn", "mask_rcnn": "MaskRcnn.mask_rcnn"}
BOXES = [[(1, 8, 8, 60, 40), (2, 40, 10, 90, 60)], [(3, 4, 20, 50, 44)]]
SMALLER = {"img_height": 64, "img_width": 96, "frozen_stages": 1, "rpn_nms_pre": 40, "rpn_nms_post": 40, "rpn_max_num": 40,
           "test_max_per_img": 10}


class Many(nn.Cell):
    """Weights w_i = i (2,). The loss is half the sum of their squares, times the input."""

    def __init__(self, count: int):
        super().__init__()
        self.weights = ParameterTuple([Parameter(Tensor(np.full(2, i, np.float32)), name=f"{i}.weight") for i in range(count)])

    def construct(self, factor):
        return (ops.addn(ops.HyperMap()(ops.L2Loss(), self.weights)) * factor,)


def test_a_step_of_many_parameters():
    """MindSpore's compiler allows 1000 nested calls; Inception-ResNet-v2 has up to 692 trainable parameters."""
    net = Many(400)
    step = TrainStep(net, ("loss",), momentum=0.9, weight_decay=0.1, ema_decay=0.5)
    result = step((Tensor(1.0, ms.float32),), 0.5)
    numbers = np.arange(400.0)
    assert result.losses["loss"] == pytest.approx((numbers ** 2).sum(), rel=1e-5)
    assert result.grad_norm == pytest.approx(np.sqrt(2 * (numbers ** 2).sum()), rel=1e-5)
    after = np.array([weight.asnumpy()[0] for weight in net.weights])
    np.testing.assert_allclose(after, numbers - 0.5 * 1.1 * numbers, rtol=1e-5)
    average = np.array([value.asnumpy()[0] for value in step.weights().values()])
    np.testing.assert_allclose(average, numbers + (after - numbers) * (1 - 2 / 11), rtol=1e-5)


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
    if config.backbone != "inception_resnet_v2":        # the deeper ResNets have no operator that ResNet-50 lacks
        return
    monkeypatch.chdir(tmp_path)
    ms.export(infer, image, info, file_name="network", file_format="MINDIR")
    reloaded = nn.GraphCell(ms.load("network.mindir"))
    for again, part in zip(reloaded(image, info), wanted):
        np.testing.assert_array_equal(again.asnumpy(), part)


@pytest.mark.parametrize("case", CASES, ids=" on ".join, indirect=True)
def test_training_step(case, monkeypatch):
    """A step changes all stages except the frozen stem, gives no nan, and lowers the loss of the same batch."""
    model, config, net = case
    monkeypatch.setenv("MS_JIT", "0")
    inputs = *pictures(config, 2), *objects(config, BOXES)
    if model == "mask_rcnn":
        inputs += (outlines(config, BOXES),)
    inputs += tuple(noise(net, 2))
    names = importlib.import_module(f"{model}.src.network_define").LOSS_NAMES
    before = {param.name: param.asnumpy().copy() for param in net.get_parameters()}
    step = TrainStep(net, names, momentum=0.9, weight_decay=0.0, clip_grad_norm=1.0)
    losses = [sum(step(inputs, 0.01).losses.values()) for _ in range(2)]
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    changed = {name for name, value in before.items() if not np.array_equal(value, net.parameters_dict()[name].asnumpy())}
    stages = {name.split(".")[1] for name in before if name.startswith("backbone.")}
    frozen = {"conv2d_1a", "conv2d_2a", "conv2d_2b"} if config.backbone == "inception_resnet_v2" else {"conv1"}
    assert {name.split(".")[1] for name in changed if name.startswith("backbone.")} == stages - frozen
    assert not any(name.endswith(("moving_mean", "moving_variance")) for name in changed)
