"""EXIF orientations in conversion and check.py: the image of a record is upright or as stored, and its boxes match."""
import json
import logging

import cv2
import numpy as np
import pytest
from PIL import Image

from faster_rcnn.src.model_utils.data.decoding import decode_image
from faster_rcnn.src.xml2coco import convert as to_coco
from tests.unit.format_samples import labelme_file, shape
from tests.unit.mindrecord_samples import draw, read_back, voc_xml
from utils.mindrecord import DataError, convert, ensure, read_ground_truth
from utils.mindrecord.doctor import diagnose
from utils.mindrecord.drawing import Drawing

# The image is stored as 60x40. Viewers show it as 40x60, with the red square at (10, 5, 25, 20).
STORED, TURNED, BOX_STORED, BOX_TURNED = (60, 40), (40, 60), [5, 15, 20, 30], [10, 5, 25, 20]
LOOKS = {"turned": (TURNED, BOX_TURNED), "stored": (STORED, BOX_STORED)}


def write_image(path, orientation=6) -> None:
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[15:30, 5:20] = 255, 0, 0
    exif = Image.Exif()
    exif[0x112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, exif=exif, **({"quality": 95} if path.suffix == ".jpg" else {}))


def data_set(folder, source, size, box, name="a.jpg") -> tuple:
    """Write one image with one box; return (image_dir, annotations). size: the annotated (width, height), or None."""
    write_image(folder / "images" / name)
    x1, y1, x2, y2 = box
    if source == "voc":
        path = folder / "anno"
        path.mkdir()
        (path / "a.xml").write_text(voc_xml(name, [("red", *box)], size or (0, 0)))
    elif source == "coco":
        path = folder / "anno.json"
        image = {"id": 1, "file_name": name, **(dict(zip(("width", "height"), size)) if size else {})}
        path.write_text(json.dumps({
            "images": [image], "categories": [{"id": 1, "name": "red"}], "annotations": [
                {"id": 1, "image_id": 1, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0}]}))
    elif source == "labelme":
        labelme_file(folder / "anno" / "a.json", [shape("red", [[x1, y1], [x2, y2]], "rectangle")], name, size)
        path = folder / "anno"
    elif source == "yolo":
        path = folder / "labels"
        path.mkdir()
        width, height = STORED if box == BOX_STORED else TURNED
        corners = (x1, y1), (x2, y1), (x2, y2), (x1, y2)
        (path / "a.txt").write_text("0 " + " ".join(f"{x / width} {y / height}" for x, y in corners))
    else:
        path = folder / "anno.txt"
        path.write_text(f"{name} {x1},{y1},{x2},{y2},1\n")
    return folder / "images", path


def redness_of_box(row) -> float:
    """Return the IoU of the red pixels and the record's box."""
    blue, _, red = (decode_image(row["image"])[..., c].astype(int) for c in range(3))
    inside = np.zeros(red.shape, bool)
    x1, y1, x2, y2 = row["boxes"][0].astype(int)
    inside[y1:y2, x1:x2] = True
    found = red - blue > 128
    return (found & inside).sum() / max((found | inside).sum(), 1)


@pytest.mark.parametrize("source, annotated, looks, rule", [
    ("coco", TURNED, "turned", "auto"), ("coco", STORED, "stored", "auto"), ("coco", None, "turned", "auto"),
    ("coco", STORED, "turned", "apply"), ("coco", TURNED, "stored", "ignore"), ("voc", TURNED, "turned", "auto"),
    ("voc", STORED, "stored", "auto"), ("voc", None, "turned", "auto"), ("other", None, "turned", "auto"),
    ("other", None, "stored", "ignore"), ("labelme", STORED, "stored", "auto"), ("labelme", None, "turned", "auto"),
    ("labelme", None, "stored", "ignore"), ("yolo", None, "turned", "auto"), ("yolo", None, "stored", "ignore")])
def test_boxes_lie_on_what_they_mark(tmp_path, source, annotated, looks, rule):
    size, box = LOOKS[looks]
    paths = data_set(tmp_path, source, annotated, box)
    manifest = convert(source, *paths, tmp_path / "out", progress=False, exif_orientation=rule)
    (row,) = read_back(tmp_path / "out")
    assert (row["width"], row["height"]) == size and redness_of_box(row) > 0.8
    assert (manifest["orientations"], manifest["objects"], manifest["clipped"]) == (1, 1, 0)


@pytest.mark.parametrize("looks, rule", [("turned", "auto"), ("stored", "ignore")])
def test_fractions_refer_to_the_size_that_is_used(tmp_path, looks, rule):
    """Masks and ground truth refer to the size that the conversion uses."""
    (width, height), box = LOOKS[looks]
    paths = data_set(tmp_path, "yolo", None, box)
    convert("yolo", *paths, tmp_path / "out", progress=False, masks=True, exif_orientation=rule)
    (row,) = read_back(tmp_path / "out", masks=True)
    x1, y1, x2, y2 = box
    ((mask,),) = json.loads(row["masks"].tobytes())
    assert mask == pytest.approx([x1, y1, x2, y1, x2, y2, x1, y2])
    for more in ({"sizes": {1: (height, width)}}, {"exif_orientation": rule}):
        ground_truth = read_ground_truth("yolo", *paths, **more)
        assert ground_truth["images"] == [{"id": 1, "file_name": "a.jpg", "height": height, "width": width}]
        assert ground_truth["annotations"][0]["bbox"] == pytest.approx([x1, y1, x2 - x1, y2 - y1])
        assert ground_truth["annotations"][0]["area"] == pytest.approx(225)


@pytest.mark.parametrize("looks", LOOKS)
def test_drawings_match_their_boxes(tmp_path, looks):
    size, box = LOOKS[looks]
    paths = data_set(tmp_path, "coco", size, box)
    diagnose("coco", *paths, progress=False, drawings=[Drawing(tmp_path / "drawn")])
    drawn = cv2.imread(str(tmp_path / "drawn" / "0000_a.jpg")).astype(int)
    x, y = (round((box[side] + box[side + 2]) / 2 * drawn.shape[1] / size[0]) for side in (0, 1))
    assert drawn.shape[0] * size[0] == drawn.shape[1] * size[1] and drawn[y, x, 2] - drawn[y, x, 0] > 128


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tiff"])
def test_other_formats_stay_as_stored(tmp_path, name):
    paths = data_set(tmp_path, "coco", STORED, BOX_STORED, name)
    convert("coco", *paths, tmp_path / "out", progress=False)
    (row,) = read_back(tmp_path / "out")
    assert (row["width"], row["height"]) == STORED and redness_of_box(row) > 0.8


def test_an_image_that_is_not_turned_is_reported(tmp_path, caplog):
    paths = data_set(tmp_path, "coco", STORED, BOX_STORED)
    manifest = convert("coco", *paths, tmp_path / "out", progress=False)
    assert manifest["told"] == {"EXIF orientation not applied": 1}
    assert "set exif_orientation: ignore" in caplog.text and "stored as 60x40, turned 40x60" in caplog.text
    caplog.clear()
    convert("coco", *paths, tmp_path / "out", progress=False, exif_orientation="ignore")
    assert not caplog.text


@pytest.mark.parametrize("source, size, support, looks, problems", [
    ("coco", TURNED, "that of the turned image", "turned", 0), ("coco", STORED, "that of the stored image", "stored", 1),
    ("coco", (7, 7), "that of neither", "turned", 1), ("other", None, "no size", "turned", 0),
    ("labelme", None, "no size", "turned", 0), ("yolo", None, "no size", "turned", 0)])
def test_check_names_images_and_readings(tmp_path, source, size, support, looks, problems):
    used, box = LOOKS[looks]
    paths = data_set(tmp_path, source, size, box)
    found = diagnose(source, *paths, progress=False)
    (note,) = map(str, found.notes)
    assert note.startswith(f"{paths[0]}/a.jpg: EXIF orientation 6: stored as 60x40, turned 40x60; ") and support in note
    assert len(found.problems) == problems and "EXIF orientation: 1 image" in found.lines()
    assert found.image_sizes.tolist() == [list(used)]


def test_a_conversion_that_ignored_exif_orientation_is_repeated(tmp_path, caplog):
    paths = data_set(tmp_path, "coco", TURNED, BOX_TURNED)
    ensure("coco", *paths, tmp_path / "out", progress=False)
    path = tmp_path / "out" / "manifest.json"
    old = {key: value for key, value in json.loads(path.read_text()).items() if key != "orientations"}
    path.write_text(json.dumps(old))
    ensure("coco", *paths, tmp_path / "out", progress=False)
    assert json.loads(path.read_text())["orientations"] == 1 and "before EXIF orientations were applied" in caplog.text
    path.write_text(json.dumps({**old, "files": json.loads(path.read_text())["files"],
                                "sizes": json.loads(path.read_text())["sizes"]}))
    caplog.clear()
    with caplog.at_level(logging.WARNING):      # without the data set, it is still used
        assert ensure("coco", tmp_path / "gone", tmp_path / "gone.json", tmp_path / "out", progress=False)["count"] == 1
    assert "which did not apply EXIF orientations" in caplog.text


def test_another_rule_is_another_conversion(tmp_path):
    paths = data_set(tmp_path, "other", None, BOX_TURNED)
    manifests = [ensure("other", *paths, tmp_path / "out", progress=False, exif_orientation=rule)
                 for rule in ("auto", "auto", "ignore", "ignore")]
    files = [manifest["files"] for manifest in manifests]
    assert files[0] == files[1] and files[2] == files[3] and files[0] != files[2]
    with pytest.raises(DataError, match="exif_orientation: expected one of auto, apply, ignore, got 'never'"):
        ensure("other", *paths, tmp_path / "out", progress=False, exif_orientation="never")


@pytest.mark.parametrize("annotated, size", [(TURNED, TURNED), (None, TURNED), (STORED, STORED)])
def test_xml2coco_writes_the_size_that_the_boxes_refer_to(tmp_path, annotated, size):
    data_set(tmp_path, "voc", annotated, BOX_TURNED if size == TURNED else BOX_STORED)
    (tmp_path / "anno").rename(tmp_path / "annotations")
    (image,) = to_coco(tmp_path)["images"]
    assert (image["width"], image["height"]) == size


def test_dark_images_are_reported(tmp_path, caplog):
    path = tmp_path / "anno.txt"
    draw(tmp_path / "images" / "bright.png", dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "images" / "dark.png"), np.arange(2000, dtype=np.uint16).reshape(40, 50))
    path.write_text("bright.png 1,1,9,9,1\ndark.png 1,1,9,9,1\n")
    found = diagnose("other", tmp_path / "images", path, progress=False)
    want = (f"{path}:2: dark.png: the 16-bit image uses only 12 bits; dividing by 256 leaves it dark: "
            "multiply the values of all images by 16")
    assert list(map(str, found.problems)) == [want] and found.usable == 2
    manifest = convert("other", tmp_path / "images", path, tmp_path / "out", progress=False)
    assert manifest["count"] == 2 and manifest["told"] == {"16-bit image that uses few bits": 1} and want in caplog.text
