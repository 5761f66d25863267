"""Frozen parts of RefineDet's trunk, and learnt statistics after a skipped step."""
import numpy as np
import pytest

from refinedet.src.backbones import build_backbone
from refinedet.src.model_utils.config import load_config
from refinedet.src.model_utils.training.precision import LossScale
from refinedet.src.model_utils.training.step import TrainStep
from refinedet.src.refinedet import LOSS_NAMES
from tests import narrow_refinedet
from tests.narrow_network import objects, pictures

RESNET = {"backbone": "resnet101", "resnet_block": [1, 2, 1, 1], "resnet_in_channels": [8, 16, 16, 16],
          "resnet_out_channels": [16, 16, 16, 16], "resnet_extra_channels": 8, "resnet_head_channels": 8}


@pytest.mark.parametrize("overrides, stages, frozen", [
    ({}, 0, set()), ({}, 1, {"conv1_1", "conv1_2"}),
    ({}, 4, {f"conv{i}_{k}" for i, count in ((1, 2), (2, 2), (3, 3), (4, 3)) for k in range(1, count + 1)}),
    (RESNET, 1, {"conv1"}), (RESNET, 3, {"conv1", "layer1", "layer2"})])
def test_what_is_frozen(overrides, stages, frozen):
    config = load_config(overrides={**narrow_refinedet.NARROW, **overrides, "frozen_stages": stages})
    backbone = build_backbone(config)
    free = build_backbone(load_config(overrides={**config.to_dict(), "frozen_stages": 0}))
    every = {param.name for param in free.trainable_params()}
    still = every - {param.name for param in backbone.trainable_params()}
    assert {name.split(".")[0] for name in still} == frozen
    assert still == {name for name in every if name.split(".")[0] in frozen}


def test_frozen_parts_stay_and_a_skipped_step_changes_nothing(eager):
    config = narrow_refinedet.narrow_config(frozen_stages=2, batch_norm=True, num_gts=4, img_width=64)
    net = narrow_refinedet.narrow_network(config)
    step = TrainStep(net, LOSS_NAMES, momentum=0.9, weight_decay=1e-3, loss_scale=LossScale(64.0))

    def values():
        return {param.name: param.asnumpy().copy() for param in net.get_parameters()}

    image, info = pictures(config, 2)
    targets = objects(config, [[(1, 4, 4, 50, 60)], [(2, 10, 20, 40, 44)]])
    start = values()
    assert step((image, info, *targets), 0.01).applied
    after = values()
    moved = {name for name in start if not np.array_equal(start[name], after[name])}
    assert not [name for name in moved if name.startswith(("backbone.conv1_", "backbone.conv2_"))]
    assert {"backbone.conv3_1.weight", "backbone.conv3_1.moving_mean", "backbone.conv4_3_norm.scale"} <= moved
    step.loss_scale.value = 3e38        # the gradients overflow
    assert not step((image * 2, info, *targets), 0.01).applied
    assert all(np.array_equal(value, after[name]) for name, value in values().items())
