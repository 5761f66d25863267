"""The Python interface as a user calls it: training, evaluation and detection with toy networks that find quarters of images."""
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import faster_rcnn
import mask_rcnn
from tests.toy_data import SIZES, export_toy, left_half, quarters

KEYS = {"num_classes": 4, "coco_classes": ["background", "cat", "dog", "bird"], "img_height": 96, "img_width": 128,
        "device_target": "CPU", "num_parallel_workers": 1}
KINDS = ("onnx", "mindir")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """{package: folder with toy.mindir, toy.onnx and toy.yaml, the configuration of both}."""
    from tests.toy_network import ToyDetector, ToyMaskDetector

    folders = {}
    for package, network in ((faster_rcnn, ToyDetector), (mask_rcnn, ToyMaskDetector)):
        folder = export_toy(network(4), tmp_path_factory.mktemp("export"), tmp_path_factory.mktemp("toy net"))
        (folder / "toy.yaml").write_text(json.dumps(KEYS))
        folders[package] = folder
    return folders


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("package", [faster_rcnn, mask_rcnn])
def test_detector_finds_every_quarter(package, kind, exported, pictures):
    detector = package.Detector(exported[package] / f"toy.{kind}")
    assert detector.classes == KEYS["coco_classes"]
    found = list(detector(pictures / "val2017", score_thr=0))
    assert [item.name for item in found] == [f"{31 + i:012d}.png" for i in range(3)]
    for item, (height, width) in zip(found, SIZES):
        x, y, w, h = np.array(quarters(height, width)).T
        np.testing.assert_allclose(item.boxes, np.stack([x, y, x + w, y + h], -1), atol=0.01)
        assert item.names == ["cat", "dog", "bird", "cat"] and item.image.shape == (height, width, 3)
        if package is mask_rcnn:
            masks = item.masks
            assert masks.shape == (4, height, width) and masks.dtype == bool
            for mask, box in zip(masks, quarters(height, width)):
                left, top, right, _, _, bottom = left_half(*box)[:6]
                wanted = np.zeros((height, width), bool)
                wanted[round(top):round(bottom), round(left):round(right)] = True
                assert (mask & wanted).sum() > 0.94 * (mask | wanted).sum()


def corners_of(boxes) -> list:
    """Return [(x1, y1, x2, y2)] of boxes (x, y, width, height), rounded to tenths of a pixel."""
    return [tuple(round(float(side), 1) for side in (x, y, x + w, y + h)) for x, y, w, h in boxes]


@pytest.mark.parametrize("package", [faster_rcnn, mask_rcnn])
def test_views_of_an_image(package, exported, pictures, tmp_path):
    """The toy finds the quarters of each view, as cat, dog, bird, cat. Tiles lose detections that touch a border inside the image,
    so only the quarters in the image's corners stay."""
    file, folder = exported[package] / "toy.onnx", pictures / "val2017"
    mirrored = ["dog", "cat", "cat", "bird"]
    for item, size in zip(package.Detector(file, tta="flip")(folder, score_thr=0), SIZES):
        boxes = corners_of(quarters(*size))
        wanted = sorted([*zip(["cat", "dog", "bird", "cat"], boxes), *zip(mirrored, boxes)])
        found = [tuple(round(side, 1) for side in box) for box in item.boxes.tolist()]
        assert sorted(zip(item.names, found)) == wanted
        if package is mask_rcnn:    # a mask covers the left half of its box, a mirrored one the right half
            for mask, name, box in zip(item.masks, item.names, item.boxes):
                plain = dict(zip(boxes, mirrored))[tuple(round(side, 1) for side in box.tolist())] != name
                columns = np.flatnonzero(mask.any(0))
                middle = (box[0] + box[2]) / 2
                assert abs(columns[-1] + 1 - middle) < 3 if plain else abs(columns[0] - middle) < 3
    for item, (height, width) in zip(package.Detector(file, tile="90x90")(folder, score_thr=0), SIZES):
        wanted = list(zip(["cat", "dog", "bird", "cat"], corners_of(quarters(height, width))))
        if (height, width) != (90, 90):
            corners = [(x, y, 45, 45) for y in (0, height - 45) for x in (0, width - 45)]
            wanted += zip(["cat", "dog", "bird", "cat"], corners_of(corners))
        found = [tuple(round(side, 1) for side in box) for box in item.boxes.tolist()]
        assert sorted(zip(item.names, found)) == sorted(wanted)
    scores = package.evaluate(file, coco_root=pictures, output_path=tmp_path, tta="flip", tile="90x90")
    assert scores.detections == 2 * 16 + 8 and json.loads((tmp_path / "metrics.json").read_text())["config"]["tta"] == "flip"
    assert "<dd>90x90</dd>" in (tmp_path / "report.html").read_text(encoding="utf-8")
    with pytest.raises(package.InputError, match="tta: a scale of 2 needs a larger input"):
        package.Detector(file, tta="scales=1,2")


def test_evaluate_gives_the_scores_that_it_writes(exported, pictures, tmp_path, capsys):
    scores = mask_rcnn.evaluate(exported[mask_rcnn] / "toy.onnx", coco_root=pictures, output_path=tmp_path)
    assert scores["AP"] == pytest.approx(1) and scores.others["segm"]["AP"] > 0.8
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (scores.figures, scores.others["segm"].figures) == (metrics["bbox"], metrics["segm"])
    assert scores.per_class["cat"]["objects"] == 6 and scores.precision.shape == (10, 101, 3)
    assert "Average Precision" in capsys.readouterr().out
    again = mask_rcnn.evaluate(**{**KEYS, "output_path": tmp_path / "again"}, detections=tmp_path / "detections.json",
                               coco_root=pictures)
    assert (again.figures, again.others["segm"].figures) == (scores.figures, scores.others["segm"].figures)


def test_a_run_with_its_scores_and_detections(pictures, tmp_path, toy_interface):
    """Training runs in a thread, as in a server, and does not change where the toy finds objects. Evaluation and detection find the
    configuration beside the run's weights."""
    keys = {**KEYS, "num_gts": 4, "batch_size": 1, "warmup_step": 0, "epoch_size": 1, "eval_start_epoch": 1, "backend": "mindspore"}
    images, annotations = pictures / "val2017", pictures / "annotations" / "instances_val2017.json"
    data = {"image_dir": images, "anno_path": annotations, "val_image_dir": images, "val_anno_path": annotations}
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(faster_rcnn.train, **data, output_path=tmp_path / "a run", **keys).result()
    assert (run.status, run.steps, run.best_epoch) == (0, 3, 1) and run.output_path == tmp_path / "a run"
    assert run.checkpoint == tmp_path / "a run" / "checkpoint" / "best.ckpt"
    assert run.metrics()[-1]["kind"] == "eval" and run.best_ap == pytest.approx(1)
    scores = faster_rcnn.evaluate(run.checkpoint, output_path=tmp_path / "scores")
    assert scores["AP"] == pytest.approx(1) and scores.others == {}
    found = list(faster_rcnn.Detector(run.checkpoint)(images, score_thr=0))
    assert [item.names for item in found] == [["cat", "dog", "bird", "cat"]] * 3
    with pytest.raises(faster_rcnn.InputError, match="epoch_size: expected a whole number, got 'many'"):
        faster_rcnn.train(**data, output_path=tmp_path / "none", epoch_size="many")
    other = {**keys, "coco_classes": ["background", "a", "b", "c"]}
    with pytest.raises(faster_rcnn.InputError, match="none of the classes"):     # raised by utils/
        faster_rcnn.train(**data, output_path=tmp_path / "other", **other)
    assert not (tmp_path / "none").exists()
