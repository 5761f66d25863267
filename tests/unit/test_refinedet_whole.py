"""Both trunks and sizes, narrow: a training step, inference, and a MINDIR file that gives the same detections.

The networks run operator by operator, except for the export. test_refinedet_parity.py compiles a step, and
test_refinedet_norm.py compiles one with learnt statistics.
"""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from refinedet.src.model_utils.config import DEFAULT_CONFIG, load_config
from refinedet.src.model_utils.inference.predictors import load_predictor, predictor_of
from refinedet.src.model_utils.training.step import TrainStep
from refinedet.src.network_define import InferenceNet
from refinedet.src.refinedet import LOSS_NAMES
from tests.narrow_refinedet import NARROW, NARROW_RESNET, narrow_network
from tests.numpy_layers import convolve

NOT_WIDTHS = ("img_height", "img_width", "image_std", "backbone")
STATISTICS = (".moving_mean", ".moving_variance")
CASES = {"VGG 320": "default_config.yaml", "VGG 512": "default_config_512.yaml", "ResNet 320": "default_config_resnet101.yaml"}


def targets() -> tuple:
    """gt_boxes (2, G, 4), gt_labels, gt_valid of two images: one object per level, as large as its anchors."""
    boxes, labels = np.zeros((2, 8, 4), np.float32), np.zeros((2, 8), np.int32)
    for slot, side in enumerate((32, 64, 128, 256)):
        centre = 160 + side / 8
        boxes[:, slot] = [centre - side / 2, centre - side / 2, centre + side / 2, centre + side / 2]
        labels[:, slot] = slot % 3 + 1
    labels[1, 0] = 0
    return boxes, labels, labels > 0


class Run:
    """Outputs and parameters of a network after a training step, after inference, and from an exported file."""

    def __init__(self, name: str, folder):
        widths = {key: value for key, value in {**NARROW, **NARROW_RESNET}.items() if key not in NOT_WIDTHS}
        widths["resnet_block"] = [1, 1, 1, 1]
        self.config = config = load_config(DEFAULT_CONFIG.parent / name, widths)
        net = narrow_network(config)
        rng, side = np.random.default_rng(1), config.img_width
        self.image = rng.normal(0, 1, (2, 3, side, side)).astype(np.float32)
        self.before = values_of(net)
        step = TrainStep(net, LOSS_NAMES, momentum=0.9, weight_decay=0.0)
        self.result = step(tuple(map(Tensor, (self.image, np.zeros((2, 6), np.float32), *targets()))), 1e-3)
        self.trained = values_of(net)
        self.learning = {param.name for param in net.trainable_params()}

        one, info = self.image[:1], np.float32([[side, side, 1, 1, side, side]])
        self.found = predictor_of(net)(one, info)
        self.inferred = values_of(net)
        path = folder / "net.mindir"
        ms.export(InferenceNet(net).set_train(False), Tensor(one), Tensor(info), file_name=str(path.with_suffix("")),
                  file_format="MINDIR")
        exported = load_config(DEFAULT_CONFIG.parent / name, {**widths, "mindir_path": str(path)})
        self.reloaded = load_predictor(exported, "CPU")(one, info)


def values_of(net) -> dict:
    return {param.name: param.asnumpy().copy() for param in net.get_parameters()}


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def run(request, tmp_path_factory, eager):
    return Run(request.param, tmp_path_factory.mktemp("network"))


def test_a_step_of_training(run):
    losses = run.result.losses
    assert run.result.applied and np.isfinite(list(losses.values())).all() and min(losses.values()) > 0
    assert 0 < run.result.grad_norm < np.inf
    for name in run.learning:
        assert not np.array_equal(run.trained[name], run.before[name]), name
        assert np.isfinite(run.trained[name]).all(), name


def test_kept_statistics_follow_the_batch(run):
    """They move by a tenth towards the batch's statistics; VGG-16 has none."""
    kept = [name for name in run.before if name.endswith(STATISTICS)]
    assert len(kept) == 2 * (1 + 4 * 4 + 4 + 15 + 8 * 4 if run.config.backbone == "resnet101" else 0)
    assert run.learning.isdisjoint(kept) and run.learning | set(kept) == set(run.before)
    for name in kept:
        assert not np.array_equal(run.trained[name], run.before[name]), name
    if kept:
        y = convolve(run.image, run.before["backbone.conv1.weight"], stride=2)
        np.testing.assert_allclose(run.trained["backbone.conv1.moving_mean"], 0.1 * y.mean((0, 2, 3)), atol=1e-4)
        np.testing.assert_allclose(run.trained["backbone.conv1.moving_variance"], 0.9 + 0.1 * y.var((0, 2, 3)), rtol=1e-3)


def test_inference_finds_and_changes_nothing(run):
    boxes, scores, labels, valid = (output[0] for output in run.found)
    assert valid.sum() > 5 and np.isfinite(boxes).all()
    assert (scores[valid] > run.config.test_score_thr).all() and set(labels[valid]) <= {1, 2, 3}
    for name, value in run.trained.items():
        np.testing.assert_array_equal(run.inferred[name], value, name)


def test_a_mindir_file_gives_the_same_detections(run):
    valid = run.found[3]
    for got, want in zip(run.reloaded[2:], run.found[2:]):
        np.testing.assert_array_equal(np.where(valid, got, 0), np.where(valid, want, 0))
    np.testing.assert_allclose(run.reloaded[1][valid], run.found[1][valid], atol=1e-5)
    np.testing.assert_allclose(run.reloaded[0][valid], run.found[0][valid], atol=0.01)
