"""A narrow real network in the training step: it learns one image, and a resumed run equals an uninterrupted one."""
import contextlib
import json
import sys
from pathlib import Path

import cv2
import mindspore as ms
import numpy as np
import pytest
import yaml
from mindspore import Tensor

from faster_rcnn.src.FasterRcnn.faster_rcnn import LOSS_NAMES, build_network
from faster_rcnn.src.FasterRcnn.resnet import calibrate_norms
from faster_rcnn.src.model_utils.training.step import TrainStep
from faster_rcnn.src.network_define import InferenceNet
from tests import commands, platform_docs
from tests.narrow_network import SMALL, WIDTHS, narrow_config, noise, objects
from tests.primitives import recorded
from tests.toy_network import ToyDetector, toy_batch

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
OBJECTS = [(1, 12, 16, 60, 52), (2, 70, 20, 112, 80), (3, 24, 76, 88, 112)]     # label, x1, y1, x2, y2


@pytest.fixture
def graph_mode():
    """Graph mode, as in train.py: cells compile when called."""
    before = ms.get_context("mode")
    ms.set_context(mode=ms.GRAPH_MODE)
    yield
    ms.set_context(mode=before)


def picture():
    """A normalised image (3, 128, 128): red, green and blue rectangles by label, on dark noise."""
    rng = np.random.default_rng(0)
    image = 0.2 * rng.standard_normal((3, 128, 128))
    for label, x1, y1, x2, y2 in OBJECTS:
        image[:, y1:y2, x1:x2] += 4 * np.eye(3)[label - 1][:, None, None] - 2
    return image.astype(np.float32)


def iou(p, q):
    w, h = np.maximum(np.minimum(p[2:], q[2:]) - np.maximum(p[:2], q[:2]), 0)
    return w * h / (np.prod(p[2:] - p[:2]) + np.prod(q[2:] - q[:2]) - w * h)


def test_it_learns_an_image(graph_mode, monkeypatch):
    """After 100 steps from random weights, the rectangles are the best detections. Half-way, averaged weights infer once.

    The first step equals that of the same network run operator by operator, which test_network_parity.py compares with other
    frameworks; docs/platforms.md lists its primitives.
    """
    config = narrow_config(img_width=128)
    image, info = Tensor(picture()[None]), Tensor(np.array([[128, 128, 1, 1, 128, 128]], np.float32))
    ms.set_seed(3)      # ends far from the limits below; with 1, the last box depends on how the processor rounds
    net, twin = build_network(config), build_network(config)
    ms.set_context(mode=ms.PYNATIVE_MODE)
    calibrate_norms(net.backbone, image, [param.name for param in net.get_parameters()])
    for param, other in zip(net.get_parameters(), twin.get_parameters()):
        other.set_data(Tensor(param.asnumpy()))
    one_by_one = TrainStep(twin, LOSS_NAMES, momentum=0.9, weight_decay=1e-4, clip_grad_norm=2.0, ema_decay=0.9)
    with monkeypatch.context() as patch:
        patch.setenv("MS_JIT", "0")
        one_by_one((image, info, *objects(config, [OBJECTS]), *noise(net, 1, 0)), 0.001)
    ms.set_context(mode=ms.GRAPH_MODE)
    step = TrainStep(net, LOSS_NAMES, momentum=0.9, weight_decay=1e-4, clip_grad_norm=2.0, ema_decay=0.9)
    infer = InferenceNet(net)

    def predict():
        ms.set_context(mode=ms.PYNATIVE_MODE)       # runs only twice: not worth compiling
        with step.averaged():
            outputs = [part.asnumpy()[0] for part in infer(image, info)]
        ms.set_context(mode=ms.GRAPH_MODE)
        return outputs

    totals = []
    for i in range(100):
        rate = 0.001 if i == 0 or i >= 80 else 0.001 * min(10, i + 1)
        with recorded() if i == 0 else contextlib.nullcontext() as primitives:
            totals.append(sum(step((image, info, *objects(config, [OBJECTS]), *noise(net, 1, i)), rate).losses.values()))
        if i == 0:
            assert len(primitives) > 60 and platform_docs.unlisted(primitives, "faster_rcnn", "training") == []
            for param, other in zip(net.trainable_params(), twin.trainable_params()):
                np.testing.assert_allclose(param.asnumpy(), other.asnumpy(), atol=1e-6, rtol=0, err_msg=param.name)
        if i == 50:
            predict()
    assert np.mean(totals[-5:]) < 0.3 * np.mean(totals[:5])
    boxes, scores, labels, valid = predict()
    assert valid[:3].all() and scores[2] > 0.6
    assert sorted(labels[:3]) == [1, 2, 3]
    for box, label in zip(boxes[:3], labels[:3]):
        assert iou(box, np.array(OBJECTS[label - 1][1:], float)) > 0.5


def test_lending_the_averaged_weights_does_not_disturb_training():
    """MindSpore's compiled graphs do not see `set_data`: gradients would stay those of the lent weights."""
    def losses(lend):
        net = ToyDetector()
        step = TrainStep(net, LOSS_NAMES, momentum=0.9, weight_decay=0.0, ema_decay=0.9)
        totals = []
        for i in range(5):
            totals.append(sum(step(toy_batch(), 0.01).losses.values()))
            if lend and i in (1, 2):
                with step.averaged():
                    pass
        return totals, {param.name: param.asnumpy().copy() for param in net.get_parameters()}

    totals, weights = losses(lend=False)
    lent, lent_weights = losses(lend=True)
    assert lent == totals and totals[-1] < 0.1 * totals[0]
    assert all(np.array_equal(weights[name], lent_weights[name]) for name in weights)


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """command(*flags) -> command line of train.py on 4 images with rectangles, 2 steps per epoch."""
    root = tmp_path_factory.mktemp("coco root")
    (root / "annotations").mkdir()
    (root / "train2017").mkdir()
    images, annotations = [], []
    for i in range(4):
        pixels = np.clip(128 + 40 * picture().transpose(1, 2, 0)[:, ::-1], 0, 255)
        cv2.imwrite(str(root / "train2017" / f"{i}.png"), np.roll(pixels, 4 * i, (0, 1)).astype(np.uint8))
        images.append({"id": i + 1, "file_name": f"{i}.png", "height": 128, "width": 128})
        for label, x1, y1, x2, y2 in OBJECTS[:i]:                       # the first image has none
            annotations.append({"id": len(annotations) + 1, "image_id": i + 1, "category_id": label, "iscrowd": 0,
                                "bbox": [x1 + 4 * i, y1 + 4 * i, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)})
    categories = [{"id": i, "name": name} for i, name in enumerate(SMALL["coco_classes"]) if i]
    (root / "annotations" / "instances_train2017.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    config = root / "narrow.yaml"
    config.write_text(yaml.safe_dump({
        **WIDTHS, **SMALL, "img_width": 128, "batch_size": 2, "epoch_size": 3, "base_lr": 0.005, "warmup_step": 2,
        "keep_empty": True, "clip_grad_norm": 5.0, "ema_decay": 0.9, "log_interval": 1, "run_eval": False,
        "photo_ratio": 0.5, "expand_ratio": 1.0, "expand_factor": 1.5, "num_parallel_workers": 1}))
    return lambda *flags: [sys.executable, str(ROOT / "faster_rcnn" / "train.py"), f"--config_path={config}",
                           f"--coco_root={root}", f"--mindrecord_dir={root / 'records'}", *flags]


def test_a_resumed_run_equals_an_uninterrupted_one(command, tmp_path):
    """6 steps at once, and 3 (to the middle of an epoch) plus 3: losses, weights and averages are bitwise equal.

    It runs operator by operator; test_train.py does the same with a compiled toy network.
    """
    def run(output, *flags):
        done = commands.run(command(f"--output_path={tmp_path / output}", *flags), tmp_path, env={"MS_JIT": "0"})
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stderr

    run("whole")
    run("parts", "--max_steps=3")
    assert "continuing after step 3" in run("parts", "--resume=auto")
    lines = [(tmp_path / name / "loss_0.log").read_text() for name in ("whole", "parts")]
    assert lines[0] == lines[1] and len(lines[0].splitlines()) == 6
    whole, parts = (ms.load_checkpoint(str(tmp_path / name / "checkpoint" / "state.ckpt")) for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    tensors = [name for name, value in whole.items() if isinstance(value, ms.Parameter)]
    assert {name.split(".")[0] for name in tensors} >= {"network", "momentum", "ema"} and len(tensors) > 200
    for name in tensors:
        np.testing.assert_array_equal(whole[name].asnumpy(), parts[name].asnumpy(), err_msg=name)
