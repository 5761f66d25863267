"""Conversion: records read back as their source. Bad data is dropped and counted."""
import json
import logging
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from tests.unit.mindrecord_samples import annotation, coco_set, cut, draw, read_back, txt_set, voc_set
from utils.mindrecord import conversion as conversion_module
from utils.mindrecord import convert, mindrecord_files


def quietly(source, paths, output, **more) -> dict:
    return convert(source, *paths, output, progress=False, **more)


# ------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("split, workers, shards", [("train2017", 2, None), ("val2017", 3, 5), ("val2017", 1, 1)])
def test_coco_reads_back_as_in_the_json(data_dir, tmp_path, monkeypatch, split, workers, shards):
    monkeypatch.setattr(conversion_module, "WORTH_A_THREAD", 1)     # as many threads as for a large data set
    image_dir, path = data_dir / "coco_mini" / split, data_dir / "coco_mini" / "annotations" / f"instances_{split}.json"
    manifest = quietly("coco", (image_dir, path), tmp_path / "out dir", workers=workers, shards=shards, keep_empty=True)
    content = json.loads(path.read_text())
    labels = {number: label for label, number in enumerate(sorted(item["id"] for item in content["categories"]), 1)}
    rows = read_back(tmp_path / "out dir")
    assert len(manifest["files"]) == (shards or workers) and manifest["dropped"] == {} and manifest["clipped"] == 0
    assert manifest["count"] == len(rows) == len(content["images"])
    assert manifest["objects"] == len(content["annotations"])
    for index, (row, image) in enumerate(zip(rows, content["images"])):
        assert row["image"].tobytes() == (image_dir / image["file_name"]).read_bytes()
        assert [row[name].item() for name in ("image_id", "file_name", "index", "height", "width")] == [
            image["id"], image["file_name"], index, image["height"], image["width"]]
        found = [item for item in content["annotations"] if item["image_id"] == image["id"]]
        boxes = np.array([item["bbox"] for item in found])
        boxes[:, 2:] += boxes[:, :2]
        assert row["count"] == len(found)
        # Annotation tools round boxes beyond the border; the conversion clips them.
        np.testing.assert_allclose(row["boxes"], np.clip(boxes, 0, [image["width"], image["height"]] * 2), atol=1e-3)
        assert row["boxes"].dtype == np.float32
        assert row["labels"].tolist() == [labels[item["category_id"]] for item in found]
        assert row["crowds"].tolist() == [item["iscrowd"] for item in found]


def test_voc_reads_back_as_in_the_xml(data_dir, tmp_path):
    folder = data_dir / "facemask"
    classes = ["background", "with_mask", "without_mask", "mask_weared_incorrect"]
    paths = folder / "images", folder / "annotations"
    manifest = quietly("voc", paths, tmp_path / "o", classes=classes, image_set="train")
    rows = read_back(tmp_path / "o")
    assert manifest["count"] == len(rows) == 676
    assert manifest["categories"][0] == {"id": 1, "name": "with_mask", "label": 1}
    clipped = 0
    for row in rows:
        name = str(row["file_name"])
        root = ElementTree.parse(folder / "annotations" / name.replace(".jpg", ".xml")).getroot()
        assert row["image"].tobytes() == (folder / "images" / name).read_bytes()
        assert [row["width"], row["height"]] == [int(root.findtext(f"size/{side}")) for side in ("width", "height")]
        boxes = np.array([[float(node.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
                          for node in root.iter("object")])
        inside = np.minimum(boxes, [row["width"], row["height"]] * 2)
        clipped += int((boxes != inside).any(axis=1).sum())
        np.testing.assert_array_equal(row["boxes"], inside)
        assert row["labels"].tolist() == [classes.index(node.findtext("name")) for node in root.iter("object")]
    assert manifest["clipped"] == clipped > 0


def test_txt_reads_back(tmp_path):
    paths = txt_set(tmp_path, "b.jpg\na.jpg 1,2,3,4.5,2 0,0,40,30,1,1\n")
    manifest = quietly("other", paths, tmp_path / "o", classes=["background", "cat", "dog"], keep_empty=True)
    rows = read_back(tmp_path / "o")
    assert [row["file_name"].item() for row in rows] == ["b.jpg", "a.jpg"]
    # A record without objects holds a row of zeros.
    assert rows[0]["count"] == 0 and rows[0]["boxes"].tolist() == [[0, 0, 0, 0]] and rows[0]["labels"].tolist() == [0]
    assert rows[1]["boxes"].tolist() == [[1, 2, 3, 4.5], [0, 0, 40, 30]] and rows[1]["crowds"].tolist() == [0, 1]
    assert (manifest["count"], manifest["images_with_objects"], manifest["objects"]) == (2, 1, 2)
    assert manifest["schema"] == 1 and manifest["source"] == "other"
    assert mindrecord_files(tmp_path / "o") == [str(tmp_path / "o" / name) for name in manifest["files"]]


def test_images_without_objects_are_dropped_unless_kept(tmp_path):
    """An image with only crowds counts as empty."""
    paths = coco_set(tmp_path, [annotation(1, 1, [1, 1, 5, 5]), annotation(2, 2, [1, 1, 9, 9], iscrowd=1)])
    assert quietly("coco", paths, tmp_path / "o")["count"] == 1
    manifest = quietly("coco", paths, tmp_path / "o", keep_empty=True)
    assert (manifest["count"], manifest["images_with_objects"], manifest["objects"]) == (3, 2, 2)
    assert [row["count"].item() for row in read_back(tmp_path / "o")] == [1, 1, 0]


# ------------------------------------------------------------------------------------------- bad data


@pytest.mark.parametrize("name, channels, dtype", [
    ("grey.jpg", 1, np.uint8), ("grey.png", 1, np.uint8), ("alpha.png", 4, np.uint8), ("deep.png", 3, np.uint16),
    ("plain.bmp", 3, np.uint8), ("other.webp", 3, np.uint8), ("other.tiff", 3, np.uint8),
])
def test_images_of_all_formats_are_stored_unchanged(tmp_path, name, channels, dtype):
    path = draw(tmp_path / "p" / name, 33, 21, channels, dtype)
    (tmp_path / "a.txt").write_text(f"{name} 1,1,5,5,1\n")
    manifest = quietly("other", (tmp_path / "p", tmp_path / "a.txt"), tmp_path / "o")
    row = read_back(tmp_path / "o")[0]
    assert not manifest["dropped"] and (row["width"], row["height"]) == (33, 21)
    assert row["image"].tobytes() == path.read_bytes()


def test_unusable_images_are_dropped_counted_and_reported(tmp_path, caplog):
    names = ["good.jpg", "half.jpg", "end.jpg", "half.png", "empty.jpg", "text.jpg", "missing.jpg", "folder.jpg",
             "padded.jpg"]
    paths = txt_set(tmp_path, "".join(f"{name} 1,1,5,5,1\n" for name in names),
                    [name for name in names if name not in ("missing.jpg", "folder.jpg")])
    cut(paths[0] / "half.jpg", 0.5)
    cut(paths[0] / "half.png", 0.5)
    cut(paths[0] / "end.jpg", 0.99)
    (paths[0] / "empty.jpg").write_bytes(b"")
    (paths[0] / "text.jpg").write_text("not found")
    (paths[0] / "folder.jpg").mkdir()
    with open(paths[0] / "padded.jpg", "ab") as file:     # valid: some tools pad the last block
        file.write(b"\0" * 700)
    with caplog.at_level(logging.WARNING):
        manifest = quietly("other", paths, tmp_path / "o", workers=2)
    assert [row["file_name"].item() for row in read_back(tmp_path / "o")] == ["good.jpg", "padded.jpg"]
    assert manifest["dropped"] == {"truncated image": 3, "unreadable image": 3, "missing image": 1}
    messages = caplog.messages
    assert "3 x truncated image: dropped" in messages
    assert any(f"{paths[0] / 'half.jpg'}: " in line and "truncated" in line for line in messages)
    assert f"    {paths[1]}:7: missing.jpg: no such image in {paths[0]}" in messages


def test_boxes_outside_the_image(tmp_path, caplog):
    """The size of the image file counts; the size in the JSON is wrong."""
    image_dir, path = coco_set(tmp_path, [
        annotation(1, 1, [-5, -5, 20, 20]), annotation(2, 1, [30, 20, 10.4, 10.4]), annotation(3, 1, [41, 1, 5, 5]),
        annotation(4, 1, [40, 1, 5, 5]), annotation(5, 1, [0, 0, 41, 30]), annotation(6, 2, [39.9999999, 1, 0.6, 5])])
    content = json.loads(path.read_text())
    content["images"][0].update(width=400, height=300)
    path.write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING):
        manifest = quietly("coco", (image_dir, path), tmp_path / "o")
    (row,) = read_back(tmp_path / "o")
    np.testing.assert_allclose(row["boxes"], [[0, 0, 15, 15], [30, 20, 40, 30], [0, 0, 40, 30]])
    assert (row["width"], row["height"]) == (40, 30)
    assert manifest["dropped"] == {"box outside the image": 3} and manifest["clipped"] == 2
    assert manifest["told"] == {"size differs from the annotation": 1}
    expected = f"    {path}: annotation 1: box (-5, -5, 15, 15) lies partly outside the image 1.png of 40x30"
    assert expected in caplog.messages


def test_many_problems_are_reported_in_a_few_lines(tmp_path, caplog):
    paths = coco_set(tmp_path, [annotation(k, 1, [1, 1, int(k == 0), 5]) for k in range(60)])
    with caplog.at_level(logging.WARNING):
        assert quietly("coco", paths, tmp_path / "o")["dropped"] == {"box without area": 59}
    assert len(caplog.messages) == 5 and "... and 56 more" in caplog.messages[-1]


def test_no_usable_image_is_an_error_and_leaves_no_files(tmp_path, message):
    image_dir, path = coco_set(tmp_path, [annotation(1, 1, [1, 1, 5, 5])])
    output = tmp_path / "o"
    cut(image_dir / "1.png", 0.5)
    error = message(quietly, "coco", (image_dir, path), output)
    assert error.startswith(f"{path}: no usable image: {image_dir / '1.png'}: ") and list(output.iterdir()) == []
    (image_dir / "1.png").unlink()
    assert "1.png: no such image" in message(quietly, "coco", (image_dir, path), output)
    assert "none of its 3 images has an object" in message(quietly, "coco", coco_set(tmp_path, []), output)
    image_dir, path = txt_set(tmp_path, "a.jpg 1,2,3,4\n")
    assert "'1,2,3,4' has 4 numbers" in message(quietly, "other", (image_dir, path), output)


def test_unwritable_output(tmp_path, message, monkeypatch):
    paths = coco_set(tmp_path, [annotation(1, 1, [1, 1, 5, 5])])
    (tmp_path / "file").write_text("")
    assert message(quietly, "coco", paths, tmp_path / "file").startswith(f"{tmp_path / 'file'}: ")
    monkeypatch.setattr(conversion_module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10}))
    assert "are free" in message(quietly, "coco", paths, tmp_path / "o")
    assert list((tmp_path / "o").iterdir()) == []


def test_an_image_larger_than_a_record_is_dropped(tmp_path, monkeypatch):
    paths = txt_set(tmp_path, "a.jpg 1,1,5,5,1\nb.jpg 1,1,5,5,1\n")
    monkeypatch.setattr(conversion_module, "MAX_IMAGE", (paths[0] / "a.jpg").stat().st_size)
    with open(paths[0] / "b.jpg", "ab") as file:
        file.write(b"\0" * 1000)
    assert quietly("other", paths, tmp_path / "o")["dropped"] == {"image too large": 1}


def test_progress_is_reported(tmp_path, monkeypatch, capsys):
    paths = voc_set(tmp_path, {name: [("dog", 1, 1, 5, 5)] for name in "abcdef"})
    seen = []
    convert("voc", *paths, tmp_path / "o", workers=2, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (6, 6) and all(done <= total == 6 for done, total in seen)
    quietly("voc", paths, tmp_path / "o")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("utils.mindrecord.progress.INTERVAL", 0)    # without a terminal, plain lines
    convert("voc", *paths, tmp_path / "o")
    assert "MindRecord: 6 of 6 images, " in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    convert("voc", *paths, tmp_path / "o")
    assert "6/6" in capsys.readouterr().err
