"""Detections -> COCO results -> COCO AP: coordinates, files, the published figures, and what a user may get wrong."""
import io
import json
import re

import numpy as np
import pytest

from faster_rcnn.src.model_utils.config import InputError
from faster_rcnn.src.util import (
    Predictions,
    Progress,
    ResultsWriter,
    coco_ap,
    evaluate,
    format_seconds,
    run_inference,
    to_results,
    write_metrics,
)

SCORERS = ("faster", "pycocotools")
NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
PUBLISHED = {
    "bbox": (0.504581, 0.696973, 0.572982, 0.585626, 0.519400, 0.501398,
             0.386813, 0.593680, 0.595353, 0.639811, 0.566421, 0.564291),
    "segm": (0.319545, 0.562288, 0.298927, 0.387374, 0.310183, 0.326934,
             0.268230, 0.415449, 0.416839, 0.469450, 0.376759, 0.381472),
}
CATEGORIES = [{"id": 7, "name": "cat", "label": 1}, {"id": 3, "name": "dog", "label": 2}]
# A 200 x 100 (w x h) picture that was resized to 400 x 300: factors 2 and 3.
INFO = np.array([[300, 400, 3, 2, 100, 200]], np.float32)


def ground_truth(boxes=((10, 10, 50, 40),), **changes) -> dict:
    """Picture 1 with a cat at each box (x, y, w, h), picture 2 empty."""
    annotations = [{"id": i, "image_id": 1, "category_id": 7, "bbox": list(box), "area": box[2] * box[3], "iscrowd": 0}
                   for i, box in enumerate(boxes)]
    images = [{"id": i, "width": 200, "height": 100, "file_name": f"{i}.jpg"} for i in (1, 2)]
    return {"images": images, "annotations": annotations, "categories": CATEGORIES, **changes}


def found(box=(10, 10, 50, 40), **changes) -> dict:
    return {"image_id": 1, "category_id": 7, "bbox": list(box), "score": 0.9, **changes}


# Detections -> results

def test_to_results_scales_each_axis_clips_and_maps_ids():
    boxes = np.array([[[20, 30, 120, 150], [-50, 30, 500, 290], [0, 0, 2, 3]]], np.float32)
    got = to_results(boxes, np.array([[0.75, 0.5, 0.25]], np.float32), np.array([[2, 1, 1]]),
                     np.array([[1, 1, 0]], bool), INFO, [42], CATEGORIES)
    assert got == [{"image_id": 42, "category_id": 3, "bbox": [10, 10, 50, 40], "score": 0.75},
                   {"image_id": 42, "category_id": 7, "bbox": [0, 10, 200, 86.6667], "score": 0.5}]
    assert json.loads(json.dumps(got)) == got


def test_to_results_matches_a_loop():
    rng = np.random.default_rng(0)
    n, d = 3, 20
    boxes = rng.uniform(-40, 420, (n, d, 4)).astype(np.float32)     # about half of them inside out, so empty
    scores, labels = rng.random((n, d), np.float32), rng.integers(1, 3, (n, d))
    valid, ids = rng.random((n, d)) < 0.7, [5, 900000000001, 2]
    info = np.stack([[300, 400, 300 / h, 400 / w, h, w] for h, w in ((100, 200), (480, 333), (77, 91))])
    want = []
    for i in range(n):
        for j in range(d):
            height, width = info[i, 4:]
            x1, x2 = (min(max(boxes[i, j, k] / info[i, 3], 0), width) for k in (0, 2))
            y1, y2 = (min(max(boxes[i, j, k] / info[i, 2], 0), height) for k in (1, 3))
            if valid[i, j] and x2 > x1 and y2 > y1:
                want.append((ids[i], {1: 7, 2: 3}[labels[i, j]], scores[i, j], x1, y1, x2 - x1, y2 - y1))
    got = [(r["image_id"], r["category_id"], r["score"], *r["bbox"])
           for r in to_results(boxes, scores, labels, valid, info, ids, CATEGORIES)]
    assert 10 < len(want) < n * d
    np.testing.assert_allclose(got, want, rtol=0, atol=6e-5)


def test_scores_that_differ_stay_different():
    scores = np.float32([[0.99999994, 0.9999999, 0.9999998]])
    boxes = np.tile(np.float32([20, 30, 120, 150]), (1, 3, 1))
    got = to_results(boxes, scores, np.ones((1, 3), int), np.ones((1, 3), bool), INFO, [1], CATEGORIES)
    assert np.array_equal(np.float32([r["score"] for r in got]), scores[0])


def test_padding_images_and_broken_boxes_are_left_out():
    boxes = np.float32([[[20, 30, 120, 150]], [[20, 30, 120, 150]], [[np.nan, 30, 120, 150]], [[-9, 30, -1, 150]]])
    ones = np.ones((4, 1))
    got = to_results(boxes, ones, ones.astype(int), ones.astype(bool), np.repeat(INFO, 4, 0), [1, -1, 3, 4], CATEGORIES)
    assert [r["image_id"] for r in got] == [1]


def test_label_outside_of_the_classes_is_an_error():
    for label in (0, 3, -1):
        with pytest.raises(ValueError, match=f"label {label}"):
            to_results(np.float32([[[0, 0, 9, 9]]]), [[0.5]], [[label]], [[True]], INFO, [1], CATEGORIES)


def test_masks_go_along_with_their_detections():
    masks = [[{"size": np.array([100, 200]), "counts": b"a"}, {"size": [100, 200], "counts": "b"}]]
    boxes = np.float32([[[0, 0, 0, 9], [0, 0, 9, 9]]])
    got = to_results(boxes, [[0.9, 0.8]], [[1, 1]], [[True, True]], INFO, [1], CATEGORIES, masks)
    assert [r["segmentation"] for r in got] == [{"size": [100, 200], "counts": "b"}]
    json.dumps(got)


def test_predictions_collect_batches_and_save(tmp_path):
    predictions = Predictions(CATEGORIES)
    for image_id in (4, 5):
        predictions.add(np.float32([[[20, 30, 120, 150]]]), [[0.5]], [[1]], [[True]], INFO, [image_id])
    predictions.save(tmp_path / "d.json")
    assert len(predictions) == 2
    assert json.loads((tmp_path / "d.json").read_text()) == list(predictions) == list(predictions)
    assert [r["image_id"] for r in predictions] == [4, 5]


def test_results_file_is_whole_after_every_step(tmp_path):
    path, want = tmp_path / "a b.json", []
    with ResultsWriter(path) as writer:
        assert json.loads(path.read_bytes()) == []
        for batch in ([], [{"file_name": "ü.jpg"}], [], [{"b": 1}, {"c": [2.5]}]):
            writer.add(batch)
            want += batch
            assert json.loads(path.read_bytes()) == want
    assert writer.count == 3


# Results -> AP

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
def test_half_right_by_hand(scorer):
    # 2 objects; found: one exactly (0.9), one wrong (0.8). Precision 1 up to recall 0.5, so 51 of 101 points.
    scores = coco_ap(ground_truth([(10, 10, 50, 40), (100, 10, 50, 40)]), [found(), found((60, 60, 9, 9), score=0.8)],
                     scorer=scorer)
    assert scores["AP"] == scores["AP50"] == scores["APm"] == pytest.approx(51 / 101)
    assert scores["AR100"] == 0.5
    assert (scores["APs"], scores["APl"], scores["ARl"]) == (-1, -1, -1)
    assert scores.per_class["cat"] == {"AP": pytest.approx(51 / 101), "AP50": pytest.approx(51 / 101), "objects": 2}
    assert scores.per_class["dog"] == {"AP": -1, "AP50": -1, "objects": 0}
    assert re.match(r"dog +- +- +0$", scores.class_table()[1])       # in the order of category ids, 3 before 7
    curve = scores.precision[0, :, 1]
    assert (curve[:51] == pytest.approx(1)) and not curve[51:].any()


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_no_detections_gives_zeros_and_says_so(scorer, iou_type):
    truth = ground_truth()
    truth["annotations"][0]["segmentation"] = [[10, 10, 60, 10, 60, 50, 10, 50]]
    scores = coco_ap(truth, [], iou_type, scorer)
    assert {name for name, value in scores.figures.items() if value == 0} == set(NAMES) - {"APs", "APl", "ARs", "ARl"}
    assert scores.detections == 0 and "no detections" in scores.notes[0]
    json.dumps(scores.to_dict(), allow_nan=False)


@pytest.mark.parametrize("scorer", SCORERS)
def test_no_objects_gives_minus_one(scorer):
    scores = coco_ap(ground_truth([]), [found()], scorer=scorer)
    assert set(scores.figures.values()) == {-1.0} and "no objects" in scores.notes[0]


@pytest.mark.parametrize("scorer", SCORERS)
def test_flaws_that_do_not_matter_do_not_change_the_figures(scorer):
    # Ids of 0 and given twice, no area, no iscrowd, ids as text, an unlisted image, `segmentation: null`.
    truth = ground_truth([(10, 10, 50, 40), (100, 10, 50, 40)])
    want = coco_ap(truth, [found()], scorer=scorer)
    for item in truth["annotations"]:
        item.update(id=0, image_id="1", segmentation=None)
        del item["area"], item["iscrowd"]
    truth["annotations"].append({**truth["annotations"][0], "image_id": 99})
    got = coco_ap(truth, [found(image_id="1")], scorer=scorer)
    assert got.figures == want.figures
    assert got.notes == ["1 annotations of the ground truth left out: image_id not listed"]


def test_bad_public_ground_truth_is_scored(data_dir):
    # String ids beside numbers, no segmentations: 13 people and a crowd.
    truth = data_dir / "coco_known_answer" / "gt_ignore_test.json"
    result = {"image_id": 2299, "category_id": 1, "bbox": [70.18, 189.51, 64.2, 112.04], "score": 0.5}
    for scorer in SCORERS:
        assert coco_ap(truth, [result], scorer=scorer)["AR100"] == pytest.approx(1 / 13)


def test_scoring_leaves_its_arguments_alone():
    truth, results = ground_truth(), [found()]
    before = json.dumps([truth, results])
    for scorer in SCORERS:
        coco_ap(truth, results, scorer=scorer)
    assert json.dumps([truth, results]) == before


@pytest.mark.parametrize("scorer", SCORERS)
def test_crowds_are_not_counted_against(scorer):
    truth = ground_truth([(10, 10, 50, 40), (100, 0, 100, 100)])
    truth["annotations"][1]["iscrowd"] = 1
    scores = coco_ap(truth, [found(), found((120, 20, 30, 30), score=0.95)], scorer=scorer)
    assert scores["AP"] == pytest.approx(1) and scores.per_class["cat"]["objects"] == 1


def test_unknown_categories_are_told():
    scores = coco_ap(ground_truth(), [found(), found(category_id=91), found(category_id=12)])
    assert scores["AP"] == pytest.approx(1) and scores.detections == 1
    assert scores.notes == ["2 detections not counted: category_id 12, 91 not in the ground truth"]


@pytest.mark.parametrize(("result", "message"), [
    (found(image_id=5), r"result 1: image_id 5 is not in the ground truth \(2 images\)"),
    ({"image_id": 1, "category_id": 7, "score": 1}, "result 1: bbox: expected"),
    (found((1, 2, -3, 4)), r"result 1: bbox: expected \[x, y, width, height\], got \[1, 2, -3, 4\]"),
    (found((1, 2, float("nan"), 4)), "result 1: bbox"),
    (found(score=None), "result 1: score: expected a number, got None"),
    (found(image_id=1.5), "result 1: image_id: expected a whole number, got 1.5"),
    ("text", "result 1: image_id"),
])
def test_bad_results_are_named(result, message):
    with pytest.raises(InputError, match=message):
        coco_ap(ground_truth(), [found(), result])


@pytest.mark.parametrize(("truth", "message"), [
    ([], "expected an object with images"),
    ({"images": []}, "no list 'annotations'"),
    (ground_truth(images=[]), "images is empty"),
    (ground_truth(images=[{"id": 1}, {"id": 1}]), "images: id 1 is given twice"),
    (ground_truth(images=[{"name": "a"}]), r"images\[0\]: id: expected a whole number, got None"),
    (ground_truth(annotations=[{"image_id": 1, "category_id": 7}]), r"annotations\[0\]: bbox"),
    (ground_truth(categories=["cat"]), r"categories\[0\]"),
])
def test_bad_ground_truth_is_named(truth, message):
    with pytest.raises(InputError, match=message):
        coco_ap(truth, [])


def test_masks_need_segmentations():
    with pytest.raises(InputError, match=r"annotations\[0\]: no segmentation"):
        coco_ap(ground_truth(), [], "segm")
    truth = ground_truth([])
    with pytest.raises(InputError, match="result 0: segmentation: expected a compressed RLE"):
        coco_ap(truth, [found()], "segm")


def test_files_that_are_not_there_or_not_json(tmp_path):
    with pytest.raises(InputError, match=r"gt\.json: no such file \(ground truth\)"):
        coco_ap(tmp_path / "gt.json", [])
    bad = tmp_path / "bad one.json"
    bad.write_text('[{"image_id": 1},\n nonsense]')
    with pytest.raises(InputError, match=r"bad one\.json: line 2: not JSON"):
        coco_ap(ground_truth(), bad)
    bad.write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(InputError, match=r"bad one\.json: not JSON"):
        coco_ap(ground_truth(), bad)
    with pytest.raises(InputError, match="scorer: expected one of faster, pycocotools"):
        coco_ap(ground_truth(), [], scorer="coco")


def test_metrics_file(tmp_path):
    truth = ground_truth()
    truth["annotations"][0]["segmentation"] = [[10, 10, 60, 10, 60, 50, 10, 50]]
    boxes = coco_ap(truth, [found()])
    content = write_metrics(tmp_path / "m.json", [boxes, coco_ap(truth, [], "segm")], config={"a": 1}, seconds=1.5)
    assert json.loads((tmp_path / "m.json").read_text()) == content
    assert set(content) == {"bbox", "segm", "per_class", "images", "detections", "notes", "config", "seconds"}
    assert content["bbox"] == boxes.figures and tuple(content["segm"]) == NAMES
    assert content["per_class"]["cat"] == {"AP": pytest.approx(1), "AP50": pytest.approx(1), "objects": 1,
                                           "segm_AP": 0, "segm_AP50": 0}


# The loop

class FakeTensor:
    """An array behind `asnumpy`, as a network returns it."""

    def __init__(self, array):
        self.array = np.asarray(array)

    def asnumpy(self):
        return self.array


def perfect_network(image, image_info):
    """One cat at 10, 10, 50 x 40 of the original picture, wherever it looks, and an invalid detection."""
    scale_y, scale_x = image_info[:, 2], image_info[:, 3]
    boxes = np.stack([10 * scale_x, 10 * scale_y, 60 * scale_x, 50 * scale_y], -1)[:, None].repeat(2, 1)
    n = len(image)
    return tuple(map(FakeTensor, (boxes, np.full((n, 2), 0.9), np.ones((n, 2), np.int32), [[True, False]] * n)))


def test_evaluate_runs_the_network_over_batches():
    image = np.zeros((2, 3, 8, 8), np.float32)
    info = np.array([[300, 400, 3, 2, 100, 200], [80, 100, 0.8, 0.5, 100, 200]], np.float32)
    # The second batch is filled up with an image of id -1, and has the columns of training in between.
    batches = [(image, info, np.array([1, 2])), (image, info, None, None, None, np.array([3, -1]))]
    images = [{"id": i, "width": 200, "height": 100} for i in (1, 2, 3)]
    truth = ground_truth(images=images)
    truth["annotations"] = [{**truth["annotations"][0], "image_id": i} for i in (1, 2, 3)]
    scores, predictions = evaluate(perfect_network, batches, truth, CATEGORIES, total=3)
    assert [r["image_id"] for r in predictions] == [1, 2, 3]
    assert scores["AP"] == pytest.approx(1)


def test_no_batches_give_no_predictions():
    assert len(run_inference(perfect_network, [], CATEGORIES)) == 0


def test_progress_prints_plain_lines_away_from_a_terminal():
    stream = io.StringIO()
    with Progress(4, "evaluate", every_s=0, stream=stream) as progress:
        progress.update(1)
        progress.note("a.jpg: not a picture")
        progress.update(3)
    lines = stream.getvalue().splitlines()
    assert re.fullmatch(r"evaluate: 1/4 img, [\d.]+ img/s, [\d:]+ left", lines[0])
    assert lines[1] == "a.jpg: not a picture"
    assert re.fullmatch(r"evaluate: 4/4 img, [\d.]+ img/s", lines[2]) and len(lines) == 3


def test_progress_of_unknown_length():
    stream = io.StringIO()
    with Progress(None, "infer", stream=stream) as progress:
        progress.update(2)
    assert stream.getvalue().startswith("infer: 2 img, ")


def test_format_seconds():
    assert [format_seconds(s) for s in (0, 59.6, 3725)] == ["0:00", "1:00", "1:02:05"]
