"""Ground truth and results as users supply them: other notations, other encodings and faults."""
import json

import pytest

from faster_rcnn.src.model_utils.config import InputError
from faster_rcnn.src.model_utils.evaluation.coco_scores import coco_ap
from tests.unit.test_coco_scores import SCORERS, SQUARE, encoded, found, ground_truth


def test_bad_public_ground_truth_is_scored(data_dir):
    # 13 people and a crowd; some ids are strings, and there are no segmentations.
    gt = data_dir / "coco_known_answer" / "gt_ignore_test.json"
    result = {"image_id": 2299, "category_id": 1, "bbox": [70.18, 189.51, 64.2, 112.04], "score": 0.5}
    for scorer in SCORERS:
        assert coco_ap(gt, [result], scorer=scorer)["AR100"] == pytest.approx(1 / 13)


def test_bad_objects_of_the_ground_truth_are_dropped_and_reported():
    good, sides = (10, 10, 50, 40), ((float("nan"), 1, 2, 3), (30, 30, -20, -20), (1, 1, 0, 5))
    gt = ground_truth([good, *sides])
    gt["annotations"].append({"id": 9, "image_id": 1, "category_id": 7})
    scores = coco_ap(gt, [found()])
    assert scores["AP"] == pytest.approx(1) and scores.per_class["cat"]["objects"] == 1
    assert [note.partition(";")[0] for note in scores.notes] == [
        "1 x box with a non-finite number in the ground truth, dropped",
        "2 x box without area in the ground truth, dropped", "1 x object not usable in the ground truth, dropped"]
    assert scores.notes[2].endswith("annotation 9: has no bbox")


@pytest.mark.parametrize("change", [
    {"iscrowd": "0"}, {"iscrowd": False}, {"area": "2000"}, {"area": "x"}, {"bbox": ["10", "10.0", 50, 40.0]}, {"image_id": "1"},
    {"image_id": 1.0}, {"category_id": "7"}, {"category_id": 7.0},
])
def test_values_are_read_in_any_notation(change):
    gt = ground_truth()
    gt["annotations"][0].update(change)
    scores = coco_ap(gt, [found()])
    assert scores["AP"] == scores["APm"] == pytest.approx(1) and scores.per_class["cat"]["objects"] == 1
    assert bool(scores.notes) == (change == {"area": "x"})


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_files_in_other_encodings(tmp_path, encoding):
    paths = []
    for name, content in (("truth", ground_truth()), ("results", [found()])):
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_bytes(json.dumps(content).encode(encoding))
    assert coco_ap(*paths)["AP"] == pytest.approx(1)


def test_unknown_categories_are_reported():
    scores = coco_ap(ground_truth(), [found(), found(category_id=91), found(category_id=12)])
    assert scores["AP"] == pytest.approx(1) and scores.detections == 1
    assert scores.notes == ["2 detections dropped: category_id 12, 91 is not in the ground truth"]


@pytest.mark.parametrize(("result", "message"), [
    (found(image_id=5), r"result 1: image_id 5 is not in the ground truth \(2 images\)"),
    ({"image_id": 1, "category_id": 7, "score": 1}, "result 1: bbox: expected"),
    (found((1, 2, 3)), r"result 1: bbox: expected \[x, y, width, height\], got \[1, 2, 3\]"),
    (found((1, 2, float("nan"), 4)), "result 1: bbox"),
    (found(score=None), "result 1: score: expected a finite number, got None"),
    (found(image_id=1.5), "result 1: image_id: expected an integer, got 1.5"),
    (found(image_id=10 ** 20), "result 1: "),
    ("text", "result 1: image_id"),
])
def test_bad_results_are_named(result, message):
    with pytest.raises(InputError, match=message):
        coco_ap(ground_truth(), [found(), result])


@pytest.mark.parametrize(("gt", "message"), [
    ([], "expected an object with images"),
    ({"images": []}, "has no 'annotations'"),
    (ground_truth(images=[]), "no usable image"),
    (ground_truth(images=[{"id": 1}, {"id": "1"}]), r"images\[1\]: id 1 is given twice"),
    (ground_truth(images=[{"name": "a"}]), r"images\[0\]: has no id"),
    (ground_truth(categories=["cat"]), r"categories\[0\]"),
])
def test_bad_ground_truth_is_named(gt, message):
    with pytest.raises(InputError, match=message):
        coco_ap(gt, [])


@pytest.mark.parametrize(("size", "ap", "note"), [
    ({"width": 200, "height": 100}, 1, None),
    ({"width": 100, "height": 200}, 1, "1 image of the ground truth with height and width swapped compared to the masks of "
                                       "their detections, whose sizes are used; the first: image 1"),
    ({}, 1, "1 image of the ground truth without height and width; the sizes of their detections are used"),
    ({"width": "200", "height": 100.0}, 1, None),
    ({"width": 300, "height": 100}, 0, "1 detection dropped: mask and image differ in size; the first: result 0: "
                                       "[100, 200], expected [100, 300]"),
])
def test_size_of_an_image_for_masks(size, ap, note):
    """A wrong image size drops at most the masks of that image."""
    gt = ground_truth(images=[{"id": 1, **size}, {"id": 2, "width": 200, "height": 100}])
    gt["annotations"][0]["segmentation"] = SQUARE
    scores = coco_ap(gt, [found(segmentation=encoded(slice(10, 50), slice(10, 60)))], "segm")
    assert scores["AP"] == pytest.approx(ap)
    assert [text for text in scores.notes if not text.startswith("no detections")] == ([note] if note else [])


def test_sizes_that_are_not_swapped_stay():
    """If an object does not fit into the swapped image, the size of the mask is wrong, not that of the image."""
    gt = ground_truth([(10, 10, 50, 40), (120, 10, 50, 40)])
    for item, left in zip(gt["annotations"], (10, 120)):
        item["segmentation"] = [[left, 10, left + 50, 10, left + 50, 50, left, 50]]
    wrong = encoded(slice(10, 50), slice(10, 60))
    scores = coco_ap(gt, [found(segmentation={**wrong, "size": [200, 100]})], "segm")
    assert scores["AP"] == 0 and scores.notes[0].startswith("1 detection dropped: mask and image differ in size")
    gt["images"][0].update(height=None, width=None)      # no detection gives the size either
    assert coco_ap(gt, [], "segm").per_class["cat"]["objects"] == 2


def test_missing_files_and_files_that_are_not_json(tmp_path):
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
