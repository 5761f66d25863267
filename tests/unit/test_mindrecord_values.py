"""Notations of values, names of images and text encodings that the readers accept, and the ground truth for scoring."""
import json
import math

import pytest

from tests.unit.mindrecord_samples import annotation, coco_set, draw, txt_set, voc_set, voc_xml
from utils.mindrecord import DataError, ensure, find_format, load_manifest, read_annotations, read_ground_truth
from utils.mindrecord.detection import find_data
from utils.mindrecord.errors import count_kinds
from utils.mindrecord.values import flag, number, numbers, side, whole_number


@pytest.mark.parametrize("value, want", [
    (7, 7), (7.0, 7), ("7", 7), (" 007 ", 7), ("7.0", 7), ("7e2", 700), (-3, -3), ("-3", -3), (2**70, 2**70), (str(2**70), 2**70),
    (7.5, None), ("7.5", None), ("", None), ("x", None), ("1_0", None), (True, None), (None, None), ([7], None), ({}, None),
    (float("nan"), None), ("inf", None), (1e400, None),
])
def test_whole_number(value, want):
    got = whole_number(value)
    assert got == want and type(got) is type(want)


def test_number():
    assert [number(value) for value in (1.5, "1.5", " 2 ", "-1e-2", 3)] == [1.5, 1.5, 2, -0.01, 3]
    assert [number(value) for value in ("", "x", "1_0", True, None, [], "0x10")] == [None] * 7
    assert math.isnan(number("nan")) and number("inf") == float("inf")
    assert numbers(["1", 2, 3.5, " 4 "], 4) == [1, 2, 3.5, 4] and numbers((1, 2), 2) == [1, 2]
    assert [numbers(value, 2) for value in ([1], [1, 2, 3], ["1", "x"], "12", {1: 2, 3: 4}, None, 5)] == [None] * 7


def test_flag_and_side():
    assert [flag(value) for value in (0, 1, "0", "1", 0.0, "1.0", True, False, " True", "false", None, "")] == [
        0, 1, 0, 1, 0, 1, 1, 0, 1, 0, 0, 0]
    assert [flag(value) for value in (2, "yes", [], -1, 0.5)] == [None] * 5
    assert [side(value) for value in (96, 96.0, "96", " 96.0 ", 0, None, "", " ", "0")] == [96, 96, 96, 96, 0, 0, 0, 0, 0]
    assert [side(value) for value in (-1, 9.5, "wide", True, [9], float("nan"))] == [None] * 6


# ------------------------------------------------------------------------------------------- COCO


def changed(paths, **lists):
    """Replace lists of the JSON file."""
    path = paths[1]
    path.write_text(json.dumps({**json.loads(path.read_text()), **lists}))
    return paths


@pytest.mark.parametrize("crowd, want", [("0", 0), ("1", 1), (False, 0), (True, 1), (1.0, 1), (None, 0)])
def test_iscrowd_in_any_notation(tmp_path, crowd, want):
    records, _, problems = read_annotations("coco", *coco_set(tmp_path, [annotation(1, 1, [1, 1, 5, 5]) | {"iscrowd": crowd}]))
    assert records[0].crowds.tolist() == [want] and not problems


def test_invalid_values_are_reported_and_drop_no_object(tmp_path):
    paths = coco_set(tmp_path, [annotation(4, 1, [1, 1, 5, 5], area="big"), annotation(5, 1, [1, 1, 6, 5]) | {"iscrowd": "maybe"}])
    images = json.loads(paths[1].read_text())["images"]
    images[1].update(width="wide", height=-3)
    images[2].update(width=0, height="")
    records, _, problems = read_annotations("coco", *changed(paths, images=images))
    assert records[0].boxes.tolist() == [[1, 1, 6, 6], [1, 1, 7, 6]] and records[0].areas == (None, None)
    assert records[0].crowds.tolist() == [0, 0]
    assert [(record.height, record.width) for record in records] == [(30, 40), (None, None), (None, None)]
    assert [str(problem).removeprefix(f"{paths[1]}: ") for problem in problems] == [
        "images[1]: height -3 is not a valid image size; the image's own size is used",
        'images[1]: width "wide" is not a valid image size; the image\'s own size is used',
        'annotation 4: area "big" is not a valid area; the box\'s area is used',
        'annotation 5: iscrowd "maybe" is neither 0 nor 1; the object is not treated as a crowd']


@pytest.mark.parametrize("write", [str, float, lambda value: f" {value}.0"])
def test_ids_in_any_notation(tmp_path, write):
    paths = coco_set(tmp_path, [annotation(1, write(2), [1, 1, 5, 5], write(3)), annotation(2, 2, ["1", "1", "4.5", 5], 1)])
    content = json.loads(paths[1].read_text())
    images, categories = ([{**item, "id": write(item["id"])} for item in content[key]] for key in ("images", "categories"))
    records, found, problems = read_annotations("coco", *changed(paths, images=images, categories=categories))
    assert not problems and found == [{"id": 1, "name": "cat", "label": 1}, {"id": 3, "name": "dog", "label": 2}]
    assert [record.image_id for record in records] == [1, 2, 3]
    assert records[1].labels.tolist() == [2, 1] and records[1].boxes.tolist() == [[1, 1, 6, 6], [1, 1, 5.5, 6]]


def test_unused_duplicate_category_is_ignored(tmp_path, message):
    categories = [{"id": 0, "name": "cat"}, {"id": 1, "name": "cat"}, {"id": 3, "name": "dog"}]
    paths = changed(coco_set(tmp_path, [annotation(1, 1, [1, 1, 5, 5], 1)]), categories=categories)
    records, found, problems = read_annotations("coco", *paths)
    assert not problems and [(item["id"], item["name"]) for item in found] == [(1, "cat"), (3, "dog")]
    content = json.loads(paths[1].read_text())
    changed(paths, annotations=[*content["annotations"], annotation(2, 1, [1, 1, 5, 5], "0")])
    assert message(read_annotations, "coco", *paths) == (
        f"{paths[1]}: categories: name 'cat' is given twice, and annotations have the ids of both (0 and 1)")
    changed(paths, annotations=[])
    assert [item["id"] for item in read_annotations("coco", *paths)[1]] == [0, 3]


@pytest.mark.parametrize("name", ["x\\1.png", "./1.png", "../pictures/1.png", "{folder}/1.png", "sub/../1.png"])
def test_image_in_two_entries_is_reported(tmp_path, name):
    paths = coco_set(tmp_path, [annotation(1, 1, [1, 1, 5, 5]), annotation(2, 3, [2, 2, 5, 5])])
    images = json.loads(paths[1].read_text())["images"]
    (paths[0] / "sub").mkdir()
    images[2]["file_name"] = name.format(folder=paths[0])
    records, _, problems = read_annotations("coco", *changed(paths, images=images))
    assert [record.file_name for record in records] == ["1.png", "2.png", "1.png"]
    assert [str(problem) for problem in problems] == [f"{paths[1]}: images[2]: 1.png is also the image of images[0] (ids 1 and 3)"]


@pytest.mark.parametrize("name", ["pictures\\1.png", "C:\\data\\pictures\\1.png", "pictures/1.png", "/home/me/pictures/1.png",
                                  "sub\\1.png", "x\\sub\\1.png", "./1.png"])
@pytest.mark.parametrize("source", ["coco", "other", "voc"])
def test_images_behind_folders_are_found(tmp_path, name, source):
    draw(tmp_path / "pictures" / "sub" / "1.png")
    (tmp_path / "xml").mkdir()
    (tmp_path / "xml" / "1.xml").write_text(voc_xml(name, [("cat", 1, 1, 5, 5)]))
    (tmp_path / "a.txt").write_text(f"{name} 1,1,5,5,1\n")
    draw(tmp_path / "pictures" / "1.png")
    images = [{"id": 1, "file_name": name, "width": 40, "height": 30}]
    changed(coco_set(tmp_path, [annotation(1, 1, [1, 1, 4, 4])], images=0), images=images)
    anno = {"coco": "anno.json", "other": "a.txt", "voc": "xml"}[source]
    records, _, problems = read_annotations(source, tmp_path / "pictures", tmp_path / anno)
    want = "sub/1.png" if "sub" in name else "1.png"
    assert (tmp_path / "pictures" / records[0].file_name).samefile(tmp_path / "pictures" / want) and not problems


def test_backslash_in_the_name_of_a_file(tmp_path):
    """Linux allows such names, so the unchanged name is tried first."""
    paths = coco_set(tmp_path, [annotation(1, 1, [1, 1, 5, 5])])
    (paths[0] / "1.png").rename(paths[0] / "a\\1.png")
    images = json.loads(paths[1].read_text())["images"]
    images[0]["file_name"] = "a\\1.png"
    assert read_annotations("coco", *changed(paths, images=images))[0][0].file_name == "a\\1.png"


def test_ground_truth_is_what_a_conversion_keeps(tmp_path):
    paths = coco_set(tmp_path, [
        annotation(1, 1, [1.1, 2.2, 5.3, 6.7], area=9), annotation(2, 1, [1, 1, 0, 5]), annotation(3, 1, [50, 1, 5, 5]),
        annotation(4, 1, [35, 20, 15.25, 5]), annotation(5, 2, ["1", 1, 5, 5], "3", difficult=1)])
    images = json.loads(paths[1].read_text())["images"]
    images[0].update(width=30, height=40)
    changed(paths, images=images)
    problems = []
    ground_truth = read_ground_truth("coco", *paths, sizes={1: (30, 40)}, problems=problems)
    assert [(item["bbox"], item["area"]) for item in ground_truth["annotations"]] == [
        ([1.1, 2.2, 5.3, 6.7], 9), ([35, 20, 15.25, 5], 15.25 * 5), ([1, 1, 5, 5], 25)]
    assert ground_truth["annotations"][2]["category_id"] == 3 and ground_truth["annotations"][2]["difficult"] == 1
    assert [(image["height"], image["width"]) for image in ground_truth["images"]] == [(30, 40)] * 3
    assert count_kinds(problems) == {"box outside the image": 1, "box without area": 1}
    without = read_ground_truth("coco", tmp_path / "gone", paths[1])       # without the images
    assert len(without["annotations"]) == 4 and without["images"][0]["height"] == 40


# ------------------------------------------------------------------------------------------- text and lists


def test_lines_of_one_image_are_joined(tmp_path):
    paths = txt_set(tmp_path, "a.jpg 1,1,5,5,1 1,1,5,1,1\nb.jpg\na.jpg 2,2,6,6,2\nb.jpg 50,1,60,9,1 1,1,9,9,1\n")
    records, _, problems = read_annotations("other", *paths)
    assert [(record.file_name, record.image_id, len(record.boxes)) for record in records] == [("a.jpg", 1, 2), ("b.jpg", 2, 2)]
    assert records[0].boxes.tolist() == [[1, 1, 5, 5], [2, 2, 6, 6]] and records[0].labels.tolist() == [1, 2]
    assert [str(problem) for problem in problems] == [f"{paths[1]}:1: box 2: box (1, 1, 5, 1) has no area"]
    assert (records[1].origin, records[1].place(0)) == (str(paths[1]), "line 4, box 1")
    paths[1].write_text("a.jpg 1,1,5,5,1\n./a.jpg 2,2,6,6,1\npictures\\a.jpg 3,3,7,7,1\n")
    records, _, _ = read_annotations("other", *paths)
    assert [(record.file_name, len(record.boxes)) for record in records] == [("a.jpg", 3)]


@pytest.mark.parametrize("name", ["IMG 2 copy.jpg", "2.jpg", "my 1,5 cat.JPG", "a 1 2.png", "x.jpg 2.tif", "a 1 b.GIF"])
@pytest.mark.parametrize("boxes", ["", " 1,1,5,5,1", "  1,1,5,5,1\t2,2,6,6,1.0 "])
def test_names_with_spaces_and_numbers(tmp_path, name, boxes):
    paths = txt_set(tmp_path, f"{name}{boxes}\nb.jpg 1,1,5,5,1\n")
    records, _, problems = read_annotations("other", *paths)
    assert [record.file_name for record in records] == [name, "b.jpg"] and not problems
    assert len(records[0].boxes) == len(boxes.split())


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_json_in_other_encodings(tmp_path, encoding):
    image_dir, path = coco_set(tmp_path, [annotation(1, 1, [1, 1, 5, 5])])
    path.write_bytes(path.read_text().replace('"cat"', '"Bär"').encode(encoding))
    records, categories, _ = read_annotations("coco", image_dir, path)
    assert len(records[0].boxes) == 1 and categories[0]["name"] == "Bär"
    assert len(read_ground_truth("coco", image_dir, path)["annotations"]) == 1


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_text_files_in_other_encodings(tmp_path, encoding):
    image_dir, path = txt_set(tmp_path, "")
    path.write_bytes("Bär.jpg 1,1,5,5,1\n".encode(encoding))
    assert read_annotations("other", image_dir, path)[0][0].file_name == "Bär.jpg"
    assert [item.entry.name for item in find_data(tmp_path)] == ["other"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "gbk", "shift_jis", "cp1251"])
def test_xml_in_other_encodings(tmp_path, encoding):
    name = "кот" if encoding == "cp1251" else "犬"
    paths = voc_set(tmp_path, {"1": [("dog", 1, 1, 5, 5)]})
    text = (paths[1] / "1.xml").read_text().replace("dog", name)
    (paths[1] / "1.xml").write_bytes(f'<?xml version="1.0" encoding="{encoding}"?>{text}'.encode(encoding))
    records, categories, problems = read_annotations("voc", *paths)
    assert [item["name"] for item in categories] == [name] and len(records[0].boxes) == 1 and not problems
    assert [item.entry.name for item in find_data(tmp_path)] == ["voc"]


@pytest.mark.parametrize("line, want", [
    ("my cat 1", "my cat 1"), ("my cat 1  -1", "my cat 1"), ("my cat", "my cat"), ("my cat 1.jpg", "my cat 1"),
    ("my cat 1.xml", "my cat 1"),
    ("JPEGImages/my cat 1.jpg Annotations/my cat 1.xml", "my cat 1"), ("Annotations/dog.xml JPEGImages/dog.jpg", "dog"),
    ("JPEGImages\\dog.jpg\tAnnotations\\dog.xml", "dog"), ("/data/JPEGImages/dog.jpg", "dog"), ("dog 1", "dog"), ("dog", "dog"),
    ("a.b", "a.b"), ("a.b.jpg", "a.b"), ("ghost 1", None), ("my ghost", None),
])
def test_lines_of_lists(tmp_path, line, want):
    box = [("dog", 1, 1, 5, 5)]
    paths = voc_set(tmp_path, dict.fromkeys(("my cat 1", "my cat", "my", "dog", "1", "a.b", "a"), box))
    (tmp_path / "list.txt").write_text(f"{line}\na\n")
    records, _, problems = read_annotations("voc", *paths, image_set=str(tmp_path / "list.txt"))
    names = {record.file_name.removesuffix(".jpg") for record in records}
    assert names == {"a", want} - {None} and len(problems) == (want is None)


def test_file_name_is_used_if_no_image_matches_the_xml_file(tmp_path):
    box = [("dog", 1, 1, 5, 5)]
    image_dir, xmls = voc_set(tmp_path, {"a": voc_xml("b.jpg", box), "b": voc_xml("c", box), "c": voc_xml("photo.jpg", box),
                                         "d": voc_xml("d.png", box)})
    (image_dir / "c.jpg").rename(image_dir / "photo.jpg")
    draw(image_dir / "d.png")
    records, _, problems = read_annotations("voc", image_dir, xmls)
    assert [record.file_name for record in records] == ["a.jpg", "b.jpg", "photo.jpg", "d.png"]
    assert [(problem.file, problem.what) for problem in problems] == [
        (str(xmls / "a.xml"), "is 'b.jpg', but the image is a.jpg"), (str(xmls / "b.xml"), "is 'c', but the image is b.jpg")]


def test_tilde_in_the_paths_of_the_commands(tmp_path, run_command, repo_dir):
    voc_set(tmp_path, {"a": [("Bär", 1, 1, 5, 5)]})
    (tmp_path / "classes.txt").write_bytes("Bär\n".encode("utf-16"))
    run = run_command(["python", repo_dir / "utils" / "mindrecord" / "convert.py", "--source=voc", "--image_dir=~/JPEGImages",
                       "--anno_path=~/Annotations", "--output_dir=~/out", "--classes=@~/classes.txt"], env={"HOME": tmp_path})
    assert run.returncode == 0 and load_manifest(tmp_path / "out")["objects"] == 1, run.stderr


# ------------------------------------------------------------------------------------------- existing conversions


def test_conversion_of_an_earlier_reader_is_repeated(tmp_path, caplog):
    image_dir, xmls = voc_set(tmp_path, {"a": [("dog", 1, 1, 5, 5)]})
    ensure("voc", image_dir, xmls, tmp_path / "out")
    path = tmp_path / "out" / "manifest.json"
    manifest = json.loads(path.read_text())
    assert manifest.pop("revision") == find_format("voc").revision > 1
    path.write_text(json.dumps(manifest))
    ensure("voc", image_dir, xmls, tmp_path / "out")
    assert "it was made by an earlier version, which read these annotations differently" in caplog.text
    assert load_manifest(tmp_path / "out")["files"] != manifest["files"]


def test_conversion_of_all_classes_serves_their_names(tmp_path):
    paths = coco_set(tmp_path, [annotation(1, 1, [1, 1, 5, 5], 1), annotation(2, 1, [2, 2, 5, 5], 3)])
    files = ensure("coco", *paths, tmp_path / "out")["files"]
    assert ensure("coco", *paths, tmp_path / "out", classes=["background", "cat", "dog"])["files"] == files
    assert ensure("coco", *paths, tmp_path / "out", classes=["background", "dog", "cat"])["files"] != files
    with pytest.raises(DataError):
        ensure("coco", *paths, tmp_path / "out", classes=["background", "elk"])
