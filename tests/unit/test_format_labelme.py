"""LabelMe's JSON files: shapes become boxes and masks, and each file finds its image."""
import base64
import json

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_utils

from tests.unit.format_samples import labelme_file, labelme_set, shape
from tests.unit.mindrecord_samples import draw, read_back
from utils.mindrecord import convert, read_annotations, read_ground_truth
from utils.mindrecord.readers import source_digest

SQUARE = [[5, 5], [15, 5], [15, 15], [5, 15]]


def read(folder, image_set=None, classes=None, image_dir=""):
    records, categories, problems = read_annotations("labelme", image_dir, folder, classes, image_set)
    return records, [item["name"] for item in categories], [str(problem) for problem in problems]


def one(tmp_path, *shapes, **more):
    records, _, problems = read(labelme_set(tmp_path, {"a": list(shapes)}, **more))
    return records[0], problems


def test_shapes(tmp_path):
    record, problems = one(
        tmp_path, shape("dog", SQUARE), shape("cat", [[20, 18], [10, 4]], "rectangle"),
        shape("cat", [[20, 15], [26, 15]], "circle"),
        shape("dog", [[1, 2], [9, 2], [9, 8], [1, 8]], "rectangle"), shape("dog", [[5, 1], [9, 5], [5, 9], [1, 5]], "rotation"))
    assert problems == [] and record.file_name == "a.jpg" and (record.height, record.width) == (30, 40)
    assert record.boxes.tolist() == [[5, 5, 15, 15], [10, 4, 20, 18], [14, 9, 26, 21], [1, 2, 9, 8], [1, 1, 9, 9]]
    assert record.labels.tolist() == [2, 1, 1, 2, 2]
    assert record.areas == pytest.approx((100, 140, np.pi * 36, 48, 32))
    assert record.segmentations[:2] == ([[5, 5, 15, 5, 15, 15, 5, 15]], [[10, 4, 20, 4, 20, 18, 10, 18]])
    circle = np.array(record.segmentations[2][0]).reshape(-1, 2)
    np.testing.assert_allclose(np.hypot(*(circle - (20, 15)).T), 6)
    assert len(circle) >= 12


def test_shapes_of_a_group_are_one_object(tmp_path):
    record, problems = one(
        tmp_path, shape("dog", SQUARE, group_id=3), shape("cat", SQUARE, group_id=3), shape("dog", SQUARE),
        shape("dog", [[20, 20], [30, 25]], "rectangle", group_id=3))
    assert problems == [] and record.labels.tolist() == [2, 1, 2]
    assert record.boxes.tolist() == [[5, 5, 30, 25], [5, 5, 15, 15], [5, 5, 15, 15]]
    assert len(record.segmentations[0]) == 2 and record.areas == pytest.approx((150, 100, 100))


def test_masks_of_pixels(tmp_path):
    pixels = np.zeros((6, 8), np.uint8)
    pixels[1:, :7] = 255
    text = base64.b64encode(cv2.imencode(".png", pixels)[1]).decode()
    record, problems = one(tmp_path, shape("dog", [[10, 4], [17, 9]], "mask", mask=text),
                           shape("dog", [[38, 4], [45, 9]], "mask", mask=text), shape("dog", [[1, 1], [2, 2]], "mask", mask="#"))
    assert record.boxes.tolist() == [[10, 5, 17, 10]] and record.areas == (35,)
    decoded = mask_utils.decode(record.segmentations[0])
    assert decoded.shape == (30, 40) and decoded[5:10, 10:17].all() and decoded.sum() == 35
    assert problems == [f"{tmp_path}/a.json: shapes[1]: mask of 8x6 at (38, 4) lies outside the image of 40x30",
                        f"{tmp_path}/a.json: shapes[2]: mask is not a PNG in base64"]


@pytest.mark.parametrize(("bad", "expected"), [
    (shape("dog", [[1, 2]], "point"), "a point has no area: expected polygon, rectangle, circle or mask"),
    (shape("dog", [[1, 2], [3, 4]], "line"), "a line has no area: expected polygon, rectangle, circle or mask"),
    (shape("dog", [[1, 2], [3, 4]]), "a polygon needs at least 3 points, got 2"),
    (shape("dog", [[1, 2]], "rectangle"), "a rectangle needs 2 or 4 corners, got 1"),
    (shape("dog", [[1, 2]], "circle"), "a circle needs 2 points, its centre and one on it, got 1"),
    (shape("dog", [[1, 2], [1, 2]], "circle"), "box (1, 2, 1, 2) has no area"),
    (shape("dog", [[1, 2], [1, 9]], "rectangle"), "box (1, 2, 1, 9) has no area"),
    (shape("dog", [[1, "x"], [3, 4]]), 'points are not a list of pairs of numbers: [[1, "x"], [3, 4]]'),
    (shape("dog", None), "points are not a list of pairs of numbers: null"), (shape(None, SQUARE), "label None is not a name"),
    (7, "is not an object with label and points"),
])
def test_a_bad_shape_drops_its_object(tmp_path, bad, expected):
    record, problems = one(tmp_path, shape("dog", SQUARE), bad)
    assert len(record.labels) == 1 and problems == [f"{tmp_path}/a.json: shapes[1]: {expected}"]


def test_duplicate_shapes(tmp_path):
    record, problems = one(tmp_path, shape("dog", SQUARE), shape(" dog", SQUARE), shape("cat", SQUARE),
                           shape("dog", SQUARE, group_id=1))
    assert record.labels.tolist() == [2, 1, 2]
    assert problems == [f"{tmp_path}/a.json: shapes[1]: the same object as shapes[0]"]


def test_ignored_labels_are_skipped(tmp_path):
    labelme_set(tmp_path, {"a": [shape("__ignore__", SQUARE), shape("dog", SQUARE)]})
    assert read(tmp_path)[1:] == (["dog"], [])


def test_classes_are_matched_by_name(tmp_path, message):
    labelme_set(tmp_path, {"a": [shape("dog", SQUARE), shape("cat", SQUARE)], "b": [shape("ant", SQUARE)]})
    assert read(tmp_path)[1] == ["ant", "cat", "dog"]
    records, names, problems = read(tmp_path, classes=["background", "dog", "ant"])
    assert names == ["dog", "ant"] and [record.labels.tolist() for record in records] == [[1], [2]]
    assert problems == [f"{tmp_path}/a.json: shapes[1]: category 'cat' is not one of the classes"]
    assert "none of the classes (tree)" in message(read, tmp_path, classes=["background", "tree"])


def test_images_of_files(tmp_path):
    """The image named like the JSON file is used, whatever imagePath says; otherwise that of imagePath, on Windows too."""
    labelme_set(tmp_path, {"a": [], "deep/b": [], "c": []}, imagePath="..\\old\\x.jpg", shapes=[shape("dog", SQUARE)])
    draw(tmp_path / "x.jpg")
    (tmp_path / "c.jpg").unlink()
    records, _, problems = read(tmp_path)
    assert [record.file_name for record in records] == ["a.jpg", "x.jpg", "deep/b.jpg"]
    assert problems == [f"{tmp_path}/{file}.json: imagePath: names '../old/x.jpg'; {image} is used"
                        for file, image in (("a", "a.jpg"), ("c", "x.jpg"), ("deep/b", "deep/b.jpg"))]
    draw(tmp_path / "c.png")        # HEIC images are exported in another format
    labelme_file(tmp_path / "c.json", [shape("dog", SQUARE)], "c.HEIC")
    assert [read(tmp_path)[0][1].file_name, len(read(tmp_path)[2])] == ["c.png", 2]
    (tmp_path / "c.png").unlink()
    labelme_file(tmp_path / "c.json", [shape("dog", SQUARE)], "..\\old\\x.jpg")
    (tmp_path / "x.jpg").unlink()
    assert read(tmp_path)[2][1] == f"{tmp_path}/c.json: {tmp_path} holds no image called c or '../old/x.jpg'"


def test_images_in_a_folder_of_their_own(tmp_path):
    labelme_set(tmp_path / "json", {"a": [shape("dog", SQUARE)]}, imagePath="../img/a.png")
    (tmp_path / "json" / "a.jpg").unlink()
    draw(tmp_path / "img" / "a.png")
    assert read(tmp_path / "json")[0][0].file_name == "../img/a.png"
    assert read(tmp_path / "json", image_dir=tmp_path / "img")[0][0].file_name == "a.png"


def test_missing_sizes_come_from_the_image(tmp_path):
    text = base64.b64encode(cv2.imencode(".png", np.full((5, 5), 255, np.uint8))[1]).decode()
    record, problems = one(tmp_path, shape("dog", SQUARE), shape("dog", [[30, 20], [34, 24]], "mask", mask=text),
                           imageHeight=None, imageWidth="0")
    assert (record.height, record.width, problems) == (None, None, [])
    assert record.segmentations[1]["size"] == [30, 40]      # run lengths need a size
    record, problems = one(tmp_path, shape("dog", SQUARE), imageHeight="wide")
    assert (record.height, record.width) == (None, 40)
    assert problems == [f'{tmp_path}/a.json: imageHeight: "wide" is not a valid image size; the image\'s own size is used']


def test_values_in_any_notation(tmp_path):
    points = [["5", 5], [15.0, "5.0"], [15, 15], [6, 15]]
    record, problems = one(tmp_path, shape("dog", points, difficult="true"), shape("dog", SQUARE, difficult="false"),
                           imageHeight="30", imageWidth=40.0)
    assert problems == [] and (record.height, record.width) == (30, 40)
    assert record.boxes.tolist() == [[5, 5, 15, 15]] * 2 and record.difficult == (True, False)


@pytest.mark.parametrize("name", ["C:\\data\\pics\\x.gif", "/home/somebody/pics/x.gif", "pics/x.gif"])
def test_images_of_missing_folders_are_found_by_name(tmp_path, name):
    labelme_set(tmp_path, {"a": [shape("dog", SQUARE)]}, imagePath=name)
    (tmp_path / "a.jpg").unlink()
    assert cv2.imwrite(str(tmp_path / "x.png"), np.zeros((30, 40, 3), np.uint8))
    (tmp_path / "pics").mkdir()
    (tmp_path / "x.png").rename(tmp_path / "pics" / "x.gif")        # the contents decide the format
    assert read(tmp_path)[0][0].file_name == "pics/x.gif"


@pytest.mark.parametrize(("text", "expected"), [
    ("{", "not a LabelMe file: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    ("[]", "not a LabelMe file: it has no list 'shapes'"), ('{"shapes": 3}', "not a LabelMe file: it has no list 'shapes'"),
    ('{"images": [], "annotations": [], "categories": []}', "not a LabelMe file: it has no list 'shapes'; it is a COCO file"),
])
def test_other_files_are_reported(tmp_path, message, text, expected):
    (tmp_path / "z.json").write_text(text)
    assert message(read, tmp_path) == f"{tmp_path}: holds no LabelMe file: {tmp_path}/z.json: {expected}"
    labelme_set(tmp_path, {"a": [shape("dog", SQUARE)]})
    records, _, problems = read(tmp_path)
    assert len(records) == 1 and problems == [f"{tmp_path}/z.json: {expected}"]


def test_folders_and_lists(tmp_path, message):
    labelme_set(tmp_path, {"train/a": [shape("dog", SQUARE)], "train/b": [], "val/c": [shape("cat", SQUARE)]})
    assert [record.file_name for record in read(tmp_path, "val")[0]] == ["val/c.jpg"]
    names = tmp_path / "list.txt"
    names.write_text("train/b.jpg\nval/c\ntrain/none\n")
    records, _, problems = read(tmp_path, str(names))
    assert [record.file_name for record in records] == ["train/b.jpg", "val/c.jpg"]
    assert problems == [f"{names}:3: {tmp_path} holds no JSON file of train/none"]
    assert message(read, tmp_path, "test") == f"test: no such list of images, and no folder {tmp_path / 'test'}"
    assert message(read, tmp_path / "train" / "no", image_dir=tmp_path).startswith("anno_path: no such folder: ")


def test_conversion_and_ground_truth(tmp_path):
    labelme_set(tmp_path / "in", {"a": [shape("dog", SQUARE), shape("dog", [[1, 1], [9, 9]], "rectangle")]})
    manifest = convert("labelme", "", tmp_path / "in", tmp_path / "o", masks=True, progress=False)
    assert (manifest["objects"], manifest["dropped"]) == (2, {})
    row, = read_back(tmp_path / "o", masks=True)
    assert json.loads(row["masks"].tobytes()) == [[[5, 5, 15, 5, 15, 15, 5, 15]], [[1, 1, 9, 1, 9, 9, 1, 9]]]
    gt = read_ground_truth("labelme", "", tmp_path / "in")
    assert gt["images"] == [{"id": 1, "file_name": "a.jpg", "height": 30, "width": 40}]
    assert [(item["area"], len(item["segmentation"])) for item in gt["annotations"]] == [(100, 1), (64, 1)]
    before = source_digest("labelme", tmp_path / "in")
    labelme_set(tmp_path / "in", {"b": []})
    assert source_digest("labelme", tmp_path / "in") != before
