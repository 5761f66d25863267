"""Annotations of each source, good and bad, as records."""
import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from tests.unit.mindrecord_samples import annotation, coco_set, draw, txt_set, voc_set, voc_xml
from utils.mindrecord import DataError, read_annotations, records_to_coco
from utils.mindrecord.errors import count_kinds

CLASSES = ["background", "dog", "cat"]


def read(source, paths, **more):
    return read_annotations(source, *paths, **more)


# ------------------------------------------------------------------------------------------- COCO


def test_coco_boxes_labels_and_crowds(tmp_path):
    polygon = [[1, 2, 5, 2, 5, 9]]
    paths = coco_set(tmp_path, [
        annotation(7, 2, [1.5, 2, 10, 20], 3, area=55.5, segmentation=polygon),
        annotation(8, 2, [0, 0, 40, 30], 1, iscrowd=1, segmentation={"size": [30, 40], "counts": [0, 1200]}),
        annotation(9, 1, [1, 1, 2, 2], 1),
    ])
    records, categories, problems = read("coco", paths)
    assert categories == [{"id": 1, "name": "cat", "label": 1}, {"id": 3, "name": "dog", "label": 2}]
    assert not problems and [record.image_id for record in records] == [1, 2, 3]
    second = records[1]
    assert second.boxes.tolist() == [[1.5, 2, 11.5, 22], [0, 0, 40, 30]]
    assert second.labels.tolist() == [2, 1] and second.crowds.tolist() == [0, 1]
    assert second.segmentations[0] == polygon and second.segmentations[1]["counts"] == [0, 1200]
    assert (second.height, second.width, second.file_name) == (30, 40, "2.png")
    assert len(records[2].boxes) == 0


def test_coco_classes_are_matched_by_name(tmp_path):
    paths = coco_set(tmp_path, [annotation(1, 1, [1, 1, 2, 2], 3), annotation(2, 1, [1, 1, 3, 3], 1)])
    records, categories, problems = read("coco", paths, classes=["background", "dog", "bird"])
    assert categories == [{"id": 3, "name": "dog", "label": 1}, {"id": 4, "name": "bird", "label": 2}]
    assert records[0].labels.tolist() == [1]
    assert count_kinds(problems) == {"unknown category 'cat'": 1}
    assert str(problems[0]) == f"{paths[1]}: annotation 2: category 'cat' is not one of the classes"


def test_coco_without_any_of_the_classes(tmp_path, message):
    paths = coco_set(tmp_path, [annotation(1, 1, [1, 1, 2, 2])])
    error = message(read, "coco", paths, classes=["background", "bird"])
    assert "(bird)" in error and "(cat, dog)" in error


@pytest.mark.parametrize("entry, kind, what", [
    (annotation(5, 1, [1, 1, 0, 5]), "box without area", "box (1, 1, 1, 6) has no area"),
    (annotation(5, 1, [9, 1, -5, 5]), "box without area", "box (9, 1, 4, 6) is upside down"),
    (annotation(5, 1, [float("nan"), 1, 5, 5]), "box with a non-finite number", "(nan, 1, nan, 6)"),
    (annotation(5, 1, [1, 1, float("inf"), 5]), "box with a non-finite number", "(1, 1, inf, 6)"),
    (annotation(5, 1, [1, 0.5, 10**400, 5]), "box with a non-finite number", "(1, 0.5, 1000"),
    (annotation(5, 1, [1.5, 0.5, 10**400, 5]), "box with a non-finite number", "(1.5, 0.5, inf"),
    (annotation(5, 99, [1, 1, 5, 5]), "annotation of an unknown image", "image_id 99 is the id of no image"),
    (annotation(5, "a", [1, 1, 5, 5]), "annotation of an unknown image", 'image_id "a"'),
    (annotation(5, True, [1, 1, 5, 5]), "object not usable", "image_id true is not a whole number"),
    (annotation(5, 1.5, [1, 1, 5, 5]), "object not usable", "image_id 1.5 is not a whole number"),
    (annotation(5, 1, [1, 1, 5, 5], "x"), "unknown category 'x'", "category 'x' is not one of the classes"),
    (annotation(5, 1, [1, 1, 5, 5], 77), "unknown category 77", "category 77 is not one of the classes"),
    (annotation(5, 1, [1, 1, 5]), "object not usable", "bbox [1, 1, 5] is not four numbers"),
    (annotation(5, 1, [1, 1, 5, "5 px"]), "object not usable", "not four numbers"),
    (annotation(5, 1, None), "object not usable", "bbox null is not four numbers"),
    ({"id": 5, "image_id": 1, "category_id": 1}, "object not usable", "has no bbox"),
])
def test_coco_bad_object_is_dropped(tmp_path, entry, kind, what):
    paths = coco_set(tmp_path, [annotation(1, 1, [1, 1, 5, 5]), entry])
    records, _, problems = read("coco", paths)
    assert records[0].boxes.tolist() == [[1, 1, 6, 6]]
    assert [problem.kind for problem in problems] == [kind]
    assert str(problems[0]).startswith(f"{paths[1]}: annotation 5: ") and what in str(problems[0])


def test_coco_annotations_that_are_not_json_objects(tmp_path):
    paths = coco_set(tmp_path, [annotation(1, 1, [1, 1, 5, 5]), 17, None, "x"])
    _, _, problems = read("coco", paths)
    assert [problem.place for problem in problems] == ["annotations[1]", "annotations[2]", "annotations[3]"]


@pytest.mark.parametrize("text, expected", [
    ("", "the file is empty"),
    (" \n", "the file is empty"),
    ('{"images": [],\n "annotations": [}', ":2:18: not valid JSON: Expecting value"),
    ("[1, 2]", "holds a list, expected an object"),
    ("{}", "has no 'images'; it has no key at all"),
    ('{"images": [], "annotations": []}', "has no 'categories'; it has 'images', 'annotations'"),
    ('{"images": {}, "annotations": [], "categories": []}', "images: is a JSON object, expected a list"),
    ('{"images": [], "annotations": [], "categories": []}', "categories: the list is empty"),
    ('{"images": [], "annotations": [], "categories": [{"id": 1}]}', "categories[0]: expected a whole number as id and"),
    ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}', "no usable image"),
    ("[" * 100000, "nested too deeply"),
    ("9" * 5000, "not valid JSON"),
])
def test_coco_unreadable_file(tmp_path, message, text, expected):
    image_dir, path = coco_set(tmp_path, [])
    path.write_text(text)
    line = message(read, "coco", (image_dir, path))
    assert line.startswith(str(path)) and expected in line


def test_coco_file_that_is_not_utf8(tmp_path, message):
    image_dir, path = coco_set(tmp_path, [])
    path.write_bytes(b'{"images": "\xff"}')
    assert "byte 12 is not UTF-8" in message(read, "coco", (image_dir, path))


def test_coco_image_id_given_twice(tmp_path, message):
    image_dir, path = coco_set(tmp_path, [])
    content = json.loads(path.read_text())
    content["images"][2]["id"] = 1
    path.write_text(json.dumps(content))
    assert message(read, "coco", (image_dir, path)) == f"{path}: images[2]: id 1 is given twice (1.png and 3.png)"


@pytest.mark.parametrize("change, what", [
    ({"id": "x"}, 'id "x" is not a whole number'), ({"id": None}, "id null is not a whole number"), ({"id": 2**70}, "64 bits"),
    ({"id": 1.5}, "id 1.5 is not a whole number"), ({"file_name": None}, "file_name null is not a name"),
])
def test_coco_bad_image_is_reported_once(tmp_path, change, what):
    image_dir, path = coco_set(tmp_path, [annotation(k, k, [1, 1, 5, 5]) for k in (1, 2)])
    content = json.loads(path.read_text())
    content["images"][0].update(change)
    path.write_text(json.dumps(content))
    records, _, problems = read("coco", (image_dir, path))
    assert [record.image_id for record in records] == [2, 3]
    first = [problem for problem in problems if problem.kind == "image entry not usable"]
    assert len(first) == 1 and first[0].place == "images[0]" and what in first[0].what


def test_public_file_whose_image_ids_are_text(data_dir):
    path = data_dir / "coco_known_answer" / "gt_ignore_test.json"
    records, _, problems = read("coco", (data_dir / "coco_mini" / "val2017", path))
    assert [(record.image_id, len(record.boxes), int(record.crowds.sum())) for record in records] == [(2299, 14, 1)]
    assert not problems


# ------------------------------------------------------------------------------------------- Pascal VOC


def test_voc_boxes_are_taken_as_written(tmp_path):
    paths = voc_set(tmp_path, {"b": [("dog", 1.5, "2e0", " 30 ", 28)], "a": [("cat", 3, 4, 5, 6), ("dog", 1, 1, 2, 2)]})
    records, categories, problems = read("voc", paths)
    assert not problems
    assert categories == [{"id": 1, "name": "cat", "label": 1}, {"id": 2, "name": "dog", "label": 2}]
    assert [(record.file_name, record.image_id) for record in records] == [("a.jpg", 1), ("b.jpg", 2)]
    assert records[1].boxes.tolist() == [[1.5, 2, 30, 28]] and records[0].labels.tolist() == [1, 2]
    assert (records[0].height, records[0].width) == (30, 40)
    assert read("voc", paths, classes=CLASSES)[0][0].labels.tolist() == [2, 1]


def test_voc_difficult_parts_and_stray_text(tmp_path):
    text = """<?xml version="1.0"?><annotation>stray<filename>a.jpg</filename><size><width>0</width></size>
    <object><name> dog </name><difficult>1</difficult>
    <part><name>head</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>6</xmax><ymax>6</ymax></bndbox></part>
    <bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox>file:/stray.xml</object></annotation>"""
    plain = voc_xml("b.jpg", [("dog", 1, 2, 3, 4)])
    records, categories, problems = read("voc", voc_set(tmp_path, {"a": text, "b": plain}))
    assert not problems and records[0].boxes.tolist() == [[1, 2, 3, 4]] and records[0].crowds.tolist() == [0]
    first, second = records_to_coco(records, categories)["annotations"]
    assert first["difficult"] == 1 and not second.get("difficult", 0) and first["iscrowd"] == 0
    assert (records[0].height, records[0].width) == (None, None)


def test_voc_image_is_found_by_stem_if_its_name_is_wrong(tmp_path):
    image_dir, xmls = voc_set(tmp_path, {"a": voc_xml("C:\\photos\\other.jpg", [("dog", 1, 1, 5, 5)])})
    draw(image_dir / "other.jpg")
    records, _, problems = read("voc", (image_dir, xmls))
    assert records[0].file_name == "a.jpg"
    assert [str(problem) for problem in problems] == [
        f"{xmls / 'a.xml'}: filename: is 'C:\\\\photos\\\\other.jpg', but the image is a.jpg"]
    (image_dir / "a.jpg").unlink()
    assert [record.file_name for record in read("voc", (image_dir, xmls))[0]] == ["other.jpg"]
    (image_dir / "other.jpg").unlink()
    draw(image_dir / "a.PNG")
    assert read("voc", (image_dir, xmls))[0][0].file_name == "a.PNG"


def test_voc_two_files_with_one_image_are_reported(tmp_path):
    box = [("dog", 1, 1, 5, 5)]
    image_dir, xmls = voc_set(tmp_path, {"a": box, "b": voc_xml("a.jpg", box)})
    (image_dir / "b.jpg").unlink()
    records, _, problems = read("voc", (image_dir, xmls))
    assert len(records) == 2 and [problem.what for problem in problems] == ["a.jpg is also the image of a.xml"]


@pytest.mark.parametrize("text, what", [
    ("", "line 1, column 1: not valid XML: no element found"),
    ("<annotation>\n<object></annotation>", "line 2, column 11: not valid XML: mismatched tag"),
    ("<html/>", "the root is <html>, expected <annotation>"),
    ('<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>', "declares entities"),
    ('<?xml version="1.0" encoding="nonsense"?><annotation/>', "not valid XML"),
    ('<?xml version="1.0" encoding="gbk"?><annotation>€</annotation>', "not valid XML"),
])
def test_voc_unreadable_xml_is_dropped(tmp_path, message, text, what):
    paths = voc_set(tmp_path, {"a": text, "b": [("dog", 1, 1, 5, 5)]})
    records, _, problems = read("voc", paths)
    assert [record.file_name for record in records] == ["b.jpg"]
    assert len(problems) == 1 and str(problems[0]).startswith(f"{paths[1] / 'a.xml'}: ") and what in str(problems[0])
    (paths[1] / "b.xml").unlink()
    assert what in message(read, "voc", paths)


@pytest.mark.parametrize("box, what", [
    (("", 1, 5, 5), "has no xmin"), (("one", 1, 5, 5), "xmin 'one' is not a number"),
    (("nan", 1, 5, 5), "not finite"), ((5, 1, 5, 5), "has no area"), ((6, 1, 5, 5), "upside down"),
])
def test_voc_bad_object_is_dropped(tmp_path, box, what):
    paths = voc_set(tmp_path, {"a": [("dog", *box), ("dog", 1, 1, 5, 5)]})
    records, _, problems = read("voc", paths)
    assert records[0].boxes.tolist() == [[1, 1, 5, 5]] and records[0].places == (2,)
    assert len(problems) == 1 and problems[0].place == "object 1" and what in problems[0].what


def test_voc_unknown_category_and_missing_image(tmp_path):
    image_dir, xmls = voc_set(tmp_path, {"a": [("dog", 1, 1, 5, 5), ("elk", 1, 1, 5, 5)], "b": []})
    (image_dir / "b.jpg").unlink()
    records, _, problems = read("voc", (image_dir, xmls), classes=CLASSES)
    assert len(records) == 1 and count_kinds(problems) == {"missing image": 1, "unknown category 'elk'": 1}


def test_voc_image_set(tmp_path, message):
    box = [("dog", 1, 1, 5, 5)]
    paths = voc_set(tmp_path, {"a": box, "b": box, "c": box})
    folder = tmp_path / "ImageSets" / "Main"
    folder.mkdir(parents=True)
    (folder / "train.txt").write_text("c 1\n\nb -1\nghost\n")
    for image_set in ("train", str(folder / "train.txt")):
        records, _, problems = read("voc", paths, image_set=image_set)
        assert [record.file_name for record in records] == ["b.jpg", "c.jpg"]
        assert [str(problem) for problem in problems] == [f"{folder / 'train.txt'}:4: {paths[1]} holds no ghost.xml"]
    assert message(read, "voc", paths, image_set="val").startswith("val: no such list of images, and no ")
    (folder / "val.txt").write_text("ghost\n")
    assert "names no XML file" in message(read, "voc", paths, image_set="val")


def test_bccd_has_two_boxes_without_area(data_dir):
    folder = data_dir / "bccd"
    records, categories, problems = read("voc", (folder / "JPEGImages", folder / "Annotations"))
    assert [problem.file.rsplit("/", 1)[1] for problem in problems] == ["BloodImage_00338.xml", "BloodImage_00343.xml"]
    assert {problem.kind for problem in problems} == {"box without area"}
    assert [category["name"] for category in categories] == ["Platelets", "RBC", "WBC"]
    assert sum(len(record.boxes) for record in records) == 4155 + 372 + 361 - 2
    for record in records[::40]:
        root = ElementTree.parse(folder / "Annotations" / record.file_name.replace(".jpg", ".xml")).getroot()
        want = [[float(box.find(side).text) for side in ("xmin", "ymin", "xmax", "ymax")]
                for box in root.iter("bndbox")]
        assert record.boxes.tolist() == want


# ------------------------------------------------------------------------------------------- text


def test_txt_boxes_crowds_negatives_and_comments(tmp_path):
    paths = txt_set(tmp_path, "# comment\n\na.jpg 0,1.5,4,5,2 3,3,9,9,1,true\n  my b.jpg  1,1,2,2,1,0.0\r\nc.jpg\n")
    records, categories, problems = read("other", paths)
    assert not problems
    assert [record.file_name for record in records] == ["a.jpg", "my b.jpg", "c.jpg"]
    assert records[0].boxes.tolist() == [[0, 1.5, 4, 5], [3, 3, 9, 9]]
    assert records[0].labels.tolist() == [2, 1] and records[0].crowds.tolist() == [0, 1]
    assert len(records[2].boxes) == 0 and [record.image_id for record in records] == [1, 2, 3]
    assert categories == [{"id": 1, "name": "1", "label": 1}, {"id": 2, "name": "2", "label": 2}]


def test_txt_classes_by_number_or_name(tmp_path):
    paths = txt_set(tmp_path, "a.jpg 0,0,4,5,2 0,0,4,5,dog 0,0,4,5,0 0,0,4,5,3\n")
    records, _, problems = read("other", paths, classes=CLASSES)
    assert records[0].labels.tolist() == [2, 1]
    assert [str(problem) for problem in problems] == [
        f"{paths[1]}:1: box 3: class 0 is the background",
        f"{paths[1]}:1: box 4: class 3 is not one of the classes (1 to 2)"]


@pytest.mark.parametrize("word, what", [
    ("1,2,3,4", "box 2 '1,2,3,4' has 4 numbers, expected x1,y1,x2,y2,class[,crowd]"),
    ("1,2,3,4,1,0,0", "box 2 '1,2,3,4,1,0,0' has 7 numbers, expected x1,y1,x2,y2,class[,crowd]"),
    ("7", "box 2 '7' has 1 number, expected"), ("1,2,x,4,1", "has 'x', which is not a number"),
    ("1,2,3,4,1.5", "has the class 1.5, which is not an integer"), ("1,2,3,4,nan", "has the class nan"),
    ("1,2,3,4,bird", "has 'bird', which is not a number"), ("1,2,3,4,1,2", "has the crowd flag 2"),
    ("1,2,3,4,1,", "has the crowd flag , which"), ("1,2,3,4,1,yes", "has the crowd flag yes"),
    ("1,2,3,,1", "has '', which is not a number"),
])
def test_txt_malformed_line(tmp_path, message, word, what):
    paths = txt_set(tmp_path, f"\nb.jpg\na.jpg 1,1,5,5,1 {word}\n")
    error = message(read, "other", paths)
    assert error.startswith(f"{paths[1]}:3: box 2 ") and what in error


def test_txt_bad_boxes_are_dropped(tmp_path):
    paths = txt_set(tmp_path, "a.jpg 1,1,5,5,1 5,5,5,9,1 nan,1,5,5,1 9,9,1,1,1\n")
    records, _, problems = read("other", paths)
    assert records[0].boxes.tolist() == [[1, 1, 5, 5]]
    assert [problem.place for problem in problems] == ["box 2", "box 3", "box 4"]


def test_txt_without_an_image_or_not_utf8(tmp_path, message):
    image_dir, path = txt_set(tmp_path, "# nothing\n")
    assert message(read, "other", (image_dir, path)) == f"{path}: no line names an image"
    path.write_bytes(b"a.jpg\nb\xff.jpg\n")
    assert message(read, "other", (image_dir, path)).startswith(f"{path}:2: not UTF-8 text")


# ------------------------------------------------------------------------------------------- all sources


def test_missing_paths_are_named(tmp_path, message):
    image_dir, path = coco_set(tmp_path, [])
    assert message(read, "coco", (tmp_path / "no", path)) == f"image_dir: no such folder: {tmp_path / 'no'}"
    assert message(read, "coco", (path, path)) == f"image_dir: {path} is not a folder"
    assert message(read, "coco", (image_dir, tmp_path / "no")) == f"anno_path: no such file: {tmp_path / 'no'}"
    assert message(read, "other", (image_dir, image_dir)) == f"anno_path: {image_dir} is not a file"
    assert message(read, "voc", (image_dir, path)).startswith(f"anno_path: {path} is not a folder")
    assert message(read, "coco", (image_dir, "")) == "anno_path is required"
    assert message(read, "nolo", (image_dir, path)) == "source: 'nolo' is not one of coco, voc, coco_files, labelme, other, yolo"
    assert "no XML file" in message(read, "voc", (image_dir, image_dir))


@pytest.mark.parametrize("classes, expected", [
    (["cat"], "the first must be 'background'"), (["background"], "expected at least one class besides"),
    (["background", "a", "a"], "'a' is given twice"),
])
def test_invalid_classes(tmp_path, message, classes, expected):
    paths = coco_set(tmp_path, [annotation(1, 1, [1, 1, 5, 5])])
    assert expected in message(read, "coco", paths, classes=classes)


def test_records_to_coco_restores_the_source(data_dir):
    path = data_dir / "coco_mini" / "annotations" / "instances_val2017.json"
    want = json.loads(path.read_text())
    records, categories, problems = read("coco", (data_dir / "coco_mini" / "val2017", path))
    got = records_to_coco(records, categories)
    assert not problems
    assert sorted(image["id"] for image in got["images"]) == sorted(image["id"] for image in want["images"])
    assert sorted(item["id"] for item in got["categories"]) == sorted(item["id"] for item in want["categories"])
    def key(item):
        return item["image_id"], item["category_id"], item["area"], item["iscrowd"]
    got, want = (sorted(ground_truth["annotations"], key=key) for ground_truth in (got, want))
    assert [key(item) for item in got] == [key(item) for item in want]
    np.testing.assert_allclose([item["bbox"] for item in got], [item["bbox"] for item in want], atol=1e-9)
    assert [item["segmentation"] for item in got] == [item["segmentation"] for item in want]


def test_data_error_is_a_value_error():
    assert issubclass(DataError, ValueError) and DataError.user_error
