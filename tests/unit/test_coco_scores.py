"""COCO AP by both scorers against published figures and cases by hand. test_coco_inputs.py covers faulty inputs."""
import json
import re

import numpy as np
import pytest

from faster_rcnn.src.model_utils.config import InputError
from faster_rcnn.src.model_utils.evaluation import coco_scores
from faster_rcnn.src.model_utils.evaluation.coco_scores import class_table, coco_ap
from faster_rcnn.src.model_utils.evaluation.detections import Collector
from faster_rcnn.src.model_utils.evaluation.report import write_metrics

SCORERS = ("faster", "pycocotools")
NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
PUBLISHED = {
    "bbox": (0.504581, 0.696973, 0.572982, 0.585626, 0.519400, 0.501398,
             0.386813, 0.593680, 0.595353, 0.639811, 0.566421, 0.564291),
    "segm": (0.319545, 0.562288, 0.298927, 0.387374, 0.310183, 0.326934,
             0.268230, 0.415449, 0.416839, 0.469450, 0.376759, 0.381472),
}
CATEGORIES = [{"id": 7, "name": "cat", "label": 1}, {"id": 3, "name": "dog", "label": 2}]


def ground_truth(boxes=((10, 10, 50, 40),), **changes) -> dict:
    """Return ground truth with a cat at each box (x, y, w, h) of image 1; image 2 is empty."""
    annotations = [{"id": i, "image_id": 1, "category_id": 7, "bbox": list(box), "area": box[2] * box[3], "iscrowd": 0}
                   for i, box in enumerate(boxes)]
    images = [{"id": i, "width": 200, "height": 100, "file_name": f"{i}.jpg"} for i in (1, 2)]
    return {"images": images, "annotations": annotations, "categories": CATEGORIES, **changes}


def found(box=(10, 10, 50, 40), **changes) -> dict:
    return {"image_id": 1, "category_id": 7, "bbox": list(box), "score": 0.9, **changes}


def encoded(rows, columns) -> dict:
    from pycocotools import mask as mask_utils

    mask = np.zeros((100, 200), np.uint8, order="F")
    mask[rows, columns] = 1
    rle = mask_utils.encode(mask)
    return {"size": rle["size"], "counts": rle["counts"].decode()}


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_published_figures(data_dir, scorer, iou_type):
    folder = data_dir / "coco_known_answer"
    results = folder / f"instances_val2014_fake{iou_type}100_results.json"
    scores = coco_ap(folder / "instances_val2014_100.json", results, iou_type, scorer)
    assert tuple(scores.figures) == NAMES
    np.testing.assert_allclose(list(scores.figures.values()), PUBLISHED[iou_type], rtol=0, atol=5.1e-7)
    printed = (folder / "val2014_fake_eval_res.txt").read_text().split(f"type={iou_type}")[1].splitlines()
    wanted = [line.replace("Precision (AP)", "Precision  (AP)").replace("Recall    (AR)", "Recall     (AR)")
              for line in printed if line.startswith(" Average")][:12]
    assert scores.lines() == wanted
    assert (scores.images, scores.detections, scores.notes) == (100, 734, [])
    per_class = [row["AP"] for row in scores.per_class.values() if row["AP"] >= 0]
    assert np.mean(per_class) == pytest.approx(scores["AP"], abs=1e-9)


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_a_few_classes_at_a_time_give_the_same(data_dir, monkeypatch, scorer, iou_type):
    folder = data_dir / "coco_known_answer"
    paths = folder / "instances_val2014_100.json", folder / f"instances_val2014_fake{iou_type}100_results.json"
    whole = coco_ap(*paths, iou_type, scorer)
    calls, run_part = [], coco_scores._run_part
    monkeypatch.setattr(coco_scores, "PART", 50)
    monkeypatch.setattr(coco_scores, "_run_part", lambda *args: calls.append(len(args[2])) or run_part(*args))
    parts = coco_ap(*paths, iou_type, scorer)
    assert len(calls) > 8 and sum(calls) == 734
    assert parts.figures == whole.figures and parts.per_class == whole.per_class
    np.testing.assert_array_equal(parts.precision, whole.precision)


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_predictions_score_like_the_dicts_they_yield(iou_type):
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 60, (2, 5, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(10, 40, (2, 5, 2))], 2)
    info = np.array([[100, 200, 1, 1, 100, 200]] * 2)
    collector = Collector(CATEGORIES, lambda masks, boxes, *_: [
        encoded(slice(int(y1), int(y2) + 1), slice(int(x1), int(x2) + 1)) for x1, y1, x2, y2 in boxes.tolist()])
    for image in (0, 1):
        collector.add(boxes[image:image + 1], rng.random((1, 5)), [[1, 2, 1, 2, 1]], np.ones((1, 5), bool),
                      info[:1], [image + 1], np.zeros((1, 5, 1)))
    predictions = collector.detections()
    gt = ground_truth([(x1, y1, x2 - x1, y2 - y1) for x1, y1, x2, y2 in boxes[0].tolist()])
    for item, (x, y, width, height) in zip(gt["annotations"], [item["bbox"] for item in gt["annotations"]]):
        item["segmentation"] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    got, want = coco_ap(gt, predictions, iou_type), coco_ap(gt, list(predictions), iou_type)
    assert got.to_dict() == want.to_dict() and got.detections == 10 and got["AP"] > 0.1
    np.testing.assert_array_equal(got.precision, want.precision)


def test_predictions_with_a_nan_score_are_named():
    collector = Collector(CATEGORIES)
    collector.add([[[1, 1, 5, 5], [2, 2, 9, 9]]], [[0.5, np.nan]], [[1, 1]], [[True, True]],
                  [[100, 200, 1, 1, 100, 200]], [1])
    with pytest.raises(InputError, match="result 1: score: expected a finite number, got nan"):
        coco_ap(ground_truth(), collector.detections())


@pytest.mark.parametrize("scorer", SCORERS)
def test_half_right_by_hand(scorer):
    # 2 objects, an exact detection (0.9) and a wrong one (0.8): precision is 1 up to recall 0.5, at 51 of 101 points.
    scores = coco_ap(ground_truth([(10, 10, 50, 40), (100, 10, 50, 40)]), [found(), found((60, 60, 9, 9), score=0.8)],
                     scorer=scorer)
    assert scores["AP"] == scores["AP50"] == scores["APm"] == pytest.approx(51 / 101)
    assert scores["AR100"] == 0.5
    assert (scores["APs"], scores["APl"], scores["ARl"]) == (-1, -1, -1)
    assert scores.per_class["cat"] == {"AP": pytest.approx(51 / 101), "AP50": pytest.approx(51 / 101), "objects": 2}
    assert scores.per_class["dog"] == {"AP": -1, "AP50": -1, "objects": 0}
    assert re.match(r"dog +- +- +0$", class_table([scores])[1])      # rows follow the category ids, 3 before 7
    curve = scores.precision[0, :, 1]
    assert (curve[:51] == pytest.approx(1)) and not curve[51:].any()


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_no_detections_gives_zeros_and_says_so(scorer, iou_type):
    gt = ground_truth()
    gt["annotations"][0]["segmentation"] = [[10, 10, 60, 10, 60, 50, 10, 50]]
    scores = coco_ap(gt, [], iou_type, scorer)
    assert {name for name, value in scores.figures.items() if value == 0} == set(NAMES) - {"APs", "APl", "ARs", "ARl"}
    assert scores.detections == 0 and "no detections" in scores.notes[0]
    json.dumps(scores.to_dict(), allow_nan=False)


@pytest.mark.parametrize("scorer", SCORERS)
def test_no_objects_gives_minus_one(scorer):
    scores = coco_ap(ground_truth([]), [found()], scorer=scorer)
    assert set(scores.figures.values()) == {-1.0} and "no objects" in scores.notes[0]


@pytest.mark.parametrize("scorer", SCORERS)
def test_flaws_that_do_not_matter_do_not_change_the_figures(scorer):
    # Id 0 twice, no area, no iscrowd, image ids as text, an unlisted image, `segmentation: null`.
    gt = ground_truth([(10, 10, 50, 40), (100, 10, 50, 40)])
    want = coco_ap(gt, [found()], scorer=scorer)
    for item in gt["annotations"]:
        item.update(id=0, image_id="1", segmentation=None)
        del item["area"], item["iscrowd"]
    gt["annotations"].append({**gt["annotations"][0], "image_id": 99})
    got = coco_ap(gt, [found(image_id="1")], scorer=scorer)
    assert got.figures == want.figures
    assert got.notes == ["1 x annotation of an unknown image in the ground truth, dropped; the first: annotation 0: "
                         "image_id 99 is the id of no image"]


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("box", [(30, 10, -20, 40), (30, 10, 20, -40), (30, 50, -20, -40)])
def test_negative_sides_of_results_count_as_in_pycocotools(scorer, box):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    gt = ground_truth([(10, 10, 50, 40), (100, 10, 50, 40)])
    results = [found(), found(box, score=0.95), found((100, 10, 50, 40), score=0.8)]
    for number, item in enumerate(gt["annotations"], 1):
        item["id"] = number         # pycocotools treats id 0 as no match
    scores = coco_ap(gt, results, scorer=scorer)
    whole = COCO()
    whole.dataset = {**gt, "info": {}}
    whole.createIndex()
    want = COCOeval(whole, whole.loadRes(results), "bbox")
    want.evaluate()
    want.accumulate()
    want.summarize()
    np.testing.assert_allclose([scores[name] for name in NAMES], want.stats)
    assert scores.notes == ["1 detection with a negative width or height, matching nothing; the first: result 1: bbox "
                            f"{list(map(float, box))}"]


def test_scoring_does_not_change_its_arguments():
    gt, results = ground_truth(), [found()]
    before = json.dumps([gt, results])
    for scorer in SCORERS:
        coco_ap(gt, results, scorer=scorer)
    assert json.dumps([gt, results]) == before


@pytest.mark.parametrize("scorer", SCORERS)
def test_detections_in_crowds_are_ignored(scorer):
    gt = ground_truth([(10, 10, 50, 40), (100, 0, 100, 100)])
    gt["annotations"][1]["iscrowd"] = 1
    scores = coco_ap(gt, [found(), found((120, 20, 30, 30), score=0.95)], scorer=scorer)
    assert scores["AP"] == pytest.approx(1) and scores.per_class["cat"]["objects"] == 1


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize(("mask", "expected"), [
    (None, "segmentation is null or missing"),
    ([], "segmentation is empty"),
    ([[10, 10, 60, 50]], "none of its polygons is usable"),
    ([[10, 10, 60, 10, 60, 50, 10]], "none of its polygons is usable"),
    ([["ten", 10, 60, 10, 60, 50]], "none of its polygons is usable"),
    ({"size": [100, 201], "counts": "PPYo0"}, "RLE size is 201x100, but the image is 200x100"),
    (7, "segmentation is neither polygons nor RLE: 7"),
])
def test_objects_without_a_usable_mask_are_left_out_of_mask_scores(scorer, mask, expected):
    gt = ground_truth([(10, 10, 50, 40), (100, 10, 50, 40)])
    square = [[10, 10, 60, 10, 60, 50, 10, 50]]
    gt["annotations"][0]["segmentation"] = [*square, [1, 2, 3]]      # a broken polygon beside a good one is ignored
    gt["annotations"][1]["segmentation"] = mask
    result = {**found(), "segmentation": encoded(slice(10, 50), slice(10, 60))}
    scores = coco_ap(gt, [result], "segm", scorer)
    assert scores["AP"] == pytest.approx(1) and scores.per_class["cat"]["objects"] == 1
    assert len(scores.notes) == 1
    assert re.match(r"1 annotation of the ground truth dropped: no mask; the first: an object of image 1: .*" + expected,
                    scores.notes[0])
    assert coco_ap(gt, [result], "bbox", scorer).per_class["cat"]["objects"] == 2


def test_results_without_boxes_get_the_boxes_of_their_masks():
    result = found(segmentation=encoded(slice(10, 50), slice(10, 60)))
    del result["bbox"]
    assert coco_ap(ground_truth(), [result])["AP"] == pytest.approx(1)


SQUARE = [[10, 10, 60, 10, 60, 50, 10, 50]]


def test_class_table_of_boxes_and_masks():
    gt = ground_truth()
    gt["annotations"][0]["segmentation"] = [[10, 10, 60, 10, 60, 50, 10, 50]]
    result = found(segmentation=encoded(slice(10, 50), slice(10, 36)))      # 26 of 50 columns: a match at IoU 0.5 only
    rows = class_table([coco_ap(gt, [result], kind) for kind in ("bbox", "segm")])
    assert [re.split("  +", row) for row in rows] == [
        ["class", "AP", "AP50", "segm AP", "segm AP50", "objects"], ["dog", "-", "-", "-", "-", "0"],
        ["cat", "1.000", "1.000", "0.100", "1.000", "1"]]
    assert len(set(map(len, rows))) == 1


def test_masks_need_segmentations():
    with pytest.raises(InputError, match="an object of image 1: segmentation is null or missing, so masks cannot be scored"):
        coco_ap(ground_truth(), [], "segm")
    gt = ground_truth([])
    with pytest.raises(InputError, match="result 0: segmentation: expected a compressed RLE"):
        coco_ap(gt, [found()], "segm")


def test_metrics_file(tmp_path):
    gt = ground_truth()
    gt["annotations"][0]["segmentation"] = [[10, 10, 60, 10, 60, 50, 10, 50]]
    boxes = coco_ap(gt, [found()])
    content = write_metrics(tmp_path / "m.json", [boxes, coco_ap(gt, [], "segm")], config={"a": 1}, seconds=1.5)
    assert json.loads((tmp_path / "m.json").read_text()) == content
    assert set(content) == {"bbox", "segm", "per_class", "images", "detections", "notes", "config", "seconds"}
    assert content["bbox"] == boxes.figures and tuple(content["segm"]) == NAMES
    assert content["per_class"]["cat"] == {"AP": pytest.approx(1), "AP50": pytest.approx(1), "objects": 1,
                                           "segm_AP": 0, "segm_AP50": 0}


@pytest.mark.parametrize("scorer", SCORERS)
def test_more_objects_than_coco_counts(scorer):
    """If an image has 150 objects of a class, recall counts 100 and a note says so. max_dets=150 counts all."""
    boxes = [(10 * (i % 15), 10 * (i // 15), 8, 8) for i in range(150)]
    gt, results = ground_truth(boxes), [found(box) for box in boxes]
    scores = coco_ap(gt, results, scorer=scorer)
    assert scores["AR100"] == pytest.approx(100 / 150) and scores["AP"] == pytest.approx(67 / 101)
    (note,) = scores.notes
    assert note.startswith("1 image with more than 100 objects of a class (image 1: 150 x cat)")
    more = coco_ap(gt, results, scorer=scorer, max_dets=150)
    assert more["AP"] == more["AR150"] == pytest.approx(1) and not more.notes and "AR100" not in more.figures
    assert "maxDets=150" in more.lines()[0] and "maxDets=100" in scores.lines()[0]
    assert coco_ap(ground_truth(boxes[:100]), results[:100], scorer=scorer).notes == []
