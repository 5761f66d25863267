"""The losses of the validation set: of its images, without augmentation, each time of the same batches."""
import json
from pathlib import Path

import numpy as np
import pytest

from faster_rcnn.src.dataset import prepare_data
from faster_rcnn.src.model_utils.config import load_config
from faster_rcnn.src.model_utils.data.preprocess import build_preprocess
from faster_rcnn.src.model_utils.data.transforms import decode_image
from faster_rcnn.src.model_utils.evaluation import plots
from faster_rcnn.src.model_utils.training import validation
from tests import toy_data
from tests.toy_network import LOSS_NAMES, ToyDetector
from tests.toy_run import ToyRun, lines, metrics

LOSSES = {"rpn_cls_loss": 0.5, "rpn_reg_loss": 0.25, "rcnn_cls_loss": 2.0, "rcnn_reg_loss": 1.0}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """3 images for validation, in batches of 2; what augments images is all set to do so."""
    root = toy_data.write_noise(tmp_path_factory.mktemp("coco"))
    return load_config(overrides={
        "coco_root": str(root), "val_image_dir": str(root / "val2017"),
        "val_anno_path": str(root / "annotations" / "instances_val2017.json"), "mindrecord_dir": str(root / "records"),
        "num_classes": 4, "coco_classes": ["background", "thing 1", "thing 2", "thing 3"], "img_height": 64, "img_width": 96,
        "num_gts": 4, "batch_size": 2, "accumulate_steps": 2, "num_parallel_workers": 1, "flip_ratio": 1.0, "expand_ratio": 1.0,
        "photo_ratio": 1.0, "multi_scale": [0.5], "val_loss": True})


class Recorder(ToyDetector):
    """Keeps what it is called with."""

    def __init__(self):
        super().__init__(4)
        self.seen = []

    def construct(self, *inputs):
        self.seen.append([item.asnumpy() for item in inputs])
        return super().construct(*inputs)


def test_losses_of_the_validation_set(config, eager, monkeypatch):
    monkeypatch.setattr(validation.network_define, "LOSS_NAMES", LOSS_NAMES)
    net = Recorder()
    loss = validation.ValidationLoss(net, prepare_data(config, train=False, in_training=True), config)
    monkeypatch.setattr(loss, "_losses", lambda *inputs: validation.ops.stack(net(*inputs)))
    before = []
    got = loss(lambda: before.append(len(net.seen)))
    assert not net.training and before == [0, 1] and len(net.seen) == 2
    # Each image once, and one again that fills the second batch; as it comes, but for its size.
    root = config.val_image_dir
    truth = json.loads(Path(config.val_anno_path).read_text())
    rows = [[column[i] for column in inputs] for inputs in net.seen for i in range(2)]
    preprocess, found = build_preprocess(config), []
    for image, info, boxes, labels, valid, *_ in rows:
        for item, annotation in zip(truth["images"], truth["annotations"]):
            wanted = preprocess(decode_image(np.fromfile(f"{root}/{item['file_name']}", np.uint8)))
            if np.array_equal(wanted.image, image):
                found.append(item["id"])
                x, y, w, h = np.array(annotation["bbox"]) * info[[3, 2, 3, 2]]
                np.testing.assert_allclose(boxes[valid], [[x, y, x + w, y + h]], rtol=1e-6)
                assert labels[valid].tolist() == [annotation["category_id"]]
                np.testing.assert_array_equal(info, wanted.info)
    assert sorted(set(found)) == [10, 11, 12] and len(found) == 4 and found[3] == found[0]
    # The mean of both batches, of the same batches and random numbers each time.
    by_hand = [[float(value) for value in ToyDetector.construct(net, *map(validation.Tensor, inputs))] for inputs in net.seen]
    assert list(got) == list(LOSS_NAMES)
    np.testing.assert_allclose(list(got.values()), np.mean(by_hand, 0), rtol=1e-6)
    first = net.seen.copy()
    assert loss() == got
    for one, other in zip(first, net.seen[-2:]):
        assert all(np.array_equal(a, b) for a, b in zip(one, other))


def test_losses_are_logged_with_each_evaluation(tmp_path, eager):
    run = ToyRun(tmp_path, aps=(0.1, 0.2, 0.3))
    run.loop.val_loss = lambda between: between() or {name: value / run.loop.step for name, value in LOSSES.items()}
    run.run()
    assert [line for line in lines(tmp_path) if "val_" in line] == [
        f"epoch: {epoch} val_rpn_loss: {0.75 / step:.5f}, val_rcnn_loss: {3 / step:.5f}, "
        + "".join(f"val_{name}: {value / step:.5f}, " for name, value in LOSSES.items())
        + f"val_total_loss: {3.75 / step:.5f}" for epoch, step in ((1, 4), (2, 8), (3, 12))]
    assert [row["val_total_loss"] for row in metrics(tmp_path, "eval")] == [3.75 / step for step in (4, 8, 12)]
    assert all("val_total_loss" not in row for row in metrics(tmp_path, "train"))


def test_curves_show_them_beside_those_of_training(tmp_path, monkeypatch):
    """Dashed, in the colour of the loss in training; sums are not drawn."""
    rows = [{"kind": "train", "step": step, **{name: value / step for name, value in LOSSES.items()}, "total_loss": 3.75 / step}
            for step in range(1, 9)]
    rows += [{"kind": "eval", "step": step, "val_rpn_loss": 1, "val_total_loss": 4 / step,
              **{f"val_{name}": value for name, value in LOSSES.items()}} for step in (4, 8)]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    drawn = []
    monkeypatch.setattr(plots, "_save", lambda figure, png: drawn.extend(figure.axes[0].lines))
    plots.plot_training(path, tmp_path / "curves.png")
    styles = {line.get_label().split("   ")[0]: (line.get_linestyle(), line.get_color()) for line in drawn}
    names = [name.replace("_", " ") for name in ("total_loss", *LOSSES)]
    assert set(styles) == {*names, *(f"val {name}" for name in names)}
    for name in names:
        assert styles[name][0] == "-" and styles[f"val {name}"] == ("--", styles[name][1]), name
    assert len({styles[name][1] for name in names}) == 5


def test_without_an_evaluation_there_are_none(message):
    assert message(load_config, overrides={"val_loss": True, "run_eval": False}) == (
        "val_loss: needs run_eval: True, otherwise nothing is evaluated")
