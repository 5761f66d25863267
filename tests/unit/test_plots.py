"""Charts of a run: reading metrics.jsonl, which classes are shown, and a valid image in every case."""
import json

import cv2
import numpy as np
import pytest

from faster_rcnn.src.model_utils.config import InputError
from faster_rcnn.src.model_utils.evaluation import plots
from faster_rcnn.src.model_utils.evaluation.coco_scores import FIGURES, Scores
from faster_rcnn.src.model_utils.evaluation.plots import plot_pr_curves, plot_training, read_jsonl


def scores_of(classes: int, empty: int = 0) -> Scores:
    """Precision of class k is 1 up to a recall of (k + 1) / classes, then 0; the last `empty` classes have no objects."""
    precision = np.zeros((10, 101, classes))
    for k in range(classes):
        precision[:, :int(round(101 * (k + 1) / classes)), k] = 1
    precision[..., classes - empty:] = -1
    per_class = {f"class {k}": {"AP": 0.5, "AP50": 0.5, "objects": 3} for k in range(classes)}
    return Scores("bbox", {row[0]: 0.5 for row in FIGURES}, per_class, 5, 9, [], precision)


def is_image(path) -> bool:
    image = cv2.imread(str(path))
    return image is not None and image.shape[1] > 400 and image.std() > 5


@pytest.mark.parametrize(("classes", "empty"), [(1, 0), (3, 1), (80, 10), (2, 2)])
def test_pr_curves_of_any_number_of_classes(tmp_path, classes, empty):
    assert is_image(plot_pr_curves(scores_of(classes, empty), tmp_path / "new folder" / "pr.png"))


def test_only_the_best_and_worst_of_many_classes_are_shown():
    scores = scores_of(30, empty=2)
    picked = plots._pick(scores.precision[0], np.arange(28))
    assert picked == [(k, "-") for k in (27, 26, 25, 24, 23)] + [(k, ":") for k in (4, 3, 2, 1, 0)]
    assert plots._pick(scores.precision[0], np.arange(3)) == [(2, "-"), (1, "-"), (0, "-")]


def test_training_curves(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [{"step": s, "epoch": 1, "lr": 0.01, "rpn_cls_loss": 1 / s, "total_loss": 2 / s} for s in range(1, 600)]
    rows.append({"step": 600, "bbox": {"AP": 0.25, "AP50": 0.5}, "note": "text", "finished": True})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert is_image(plot_training(path, tmp_path / "t.png"))
    series = plots.read_series(read_jsonl(path), "step")
    assert series["AP50"] == ([600], [0.5]) and series["total_loss"][1][1] == 1
    assert "note" not in series and "finished" not in series


def test_losses_may_be_nested_and_epochs_may_replace_steps():
    series = plots.read_series([{"epoch": 2, "losses": {"total_loss": 1.5}, "segm": {"AP": 0.1}}], "epoch")
    assert series == {"total_loss": ([2], [1.5]), "segm AP": ([2], [0.1])}


def test_many_points_are_averaged_in_groups():
    x, y = plots.thin(np.arange(1000), np.arange(1000) * 2.0)
    assert len(x) <= plots.MOST_POINTS
    np.testing.assert_allclose(y, 2 * x)
    assert x[0] == 3 and plots.thin([5], [7])[1].tolist() == [7]


def test_a_killed_run_can_be_plotted_and_other_faults_are_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "total_loss": 1}\n\n{"step": 2, "tot')
    assert read_jsonl(path) == [{"step": 1, "total_loss": 1}]
    path.write_text('{"step": 1,\n{"step": 2}\n')
    with pytest.raises(InputError, match=r"metrics\.jsonl: line 1: not JSON"):
        read_jsonl(path)
    path.write_text("[1]\n")
    with pytest.raises(InputError, match="line 1: expected a JSON object, got list"):
        read_jsonl(path)
    path.write_text('{"step": 1}\n')
    with pytest.raises(InputError, match="no losses, learning rate or AP in 1 lines"):
        plot_training(path, tmp_path / "t.png")
    with pytest.raises(InputError, match="no such file"):
        plot_training(tmp_path / "absent.jsonl", tmp_path / "t.png")
