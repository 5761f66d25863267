"""Several COCO files as one data set."""
import json

from tests.unit.mindrecord_samples import annotation, draw
from utils.mindrecord import read_annotations
from utils.mindrecord.readers import source_digest


def write(path, images, annotations, categories):
    """Write a COCO file. images: names, with the ids 1, 2, ...; categories: {id: name}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({
        "images": [{"id": number, "file_name": name, "width": 40, "height": 30} for number, name in enumerate(images, 1)],
        "annotations": annotations, "categories": [{"id": key, "name": name} for key, name in categories.items()]}))
    return path


def read(folder, image_set=None, classes=None, image_dir=""):
    records, categories, problems = read_annotations("coco_files", image_dir, folder, classes, image_set)
    return records, [item["name"] for item in categories], [str(problem) for problem in problems]


def example(tmp_path):
    """Write two files whose categories differ in order and that share ids and an image."""
    for name in ("a.png", "b.png"):
        draw(tmp_path / name)
    square = [[5, 5, 15, 5, 15, 15, 5, 15]]
    write(tmp_path / "one.json", ["a.png", "b.png"], [
        annotation(1, 1, [5, 5, 10, 10], 1, segmentation=square, area=99), annotation(2, 2, [1, 1, 5, 5], 2)], {1: "cat", 2: "dog"})
    write(tmp_path / "two.json", ["b.png"], [
        annotation(1, 1, [1, 1, 5, 5], 1), annotation(2, 1, [20, 20, 5, 5], 2), annotation(3, 1, [0, 0, 9, 9], 3)],
        {1: "dog", 2: "cat", 3: "ant"})
    return tmp_path


def test_files_are_joined_by_name(tmp_path):
    records, names, problems = read(example(tmp_path))
    assert names == ["cat", "dog", "ant"]
    assert [(record.file_name, record.image_id, record.labels.tolist()) for record in records] == [
        ("a.png", 1, [1]), ("b.png", 2, [2, 1, 3])]
    assert records[1].boxes.tolist() == [[1, 1, 6, 6], [20, 20, 25, 25], [0, 0, 9, 9]]
    assert records[0].areas == (99,) and records[0].segmentations[0] and records[1].segmentations == (None, None, None)
    assert problems == [f"{tmp_path}/two.json: annotation 1: same box and category of b.png as in {tmp_path}/one.json"]
    assert records[1].place(1) == f"annotation 2 of {tmp_path}/two.json"


def test_classes_and_choice(tmp_path, message):
    example(tmp_path)
    records, names, problems = read(tmp_path, "two*", ["background", "ant", "dog"])
    assert names == ["ant", "dog"] and [record.labels.tolist() for record in records] == [[2, 1]]
    assert problems == [f"{tmp_path}/two.json: annotation 2: category 'cat' is not one of the classes"]
    assert len(read(tmp_path, "one.json,two")[0]) == 2
    assert message(read, tmp_path, "three") == f"image_set: 'three' matches no JSON file of {tmp_path}: one.json, two.json"
    assert "none of the classes (tree)" in message(read, tmp_path, classes=["background", "tree"])
    assert source_digest("coco_files", tmp_path, "one") != source_digest("coco_files", tmp_path)
    (tmp_path / "three.json").write_text("{}")
    assert message(read, tmp_path).startswith(f"{tmp_path}/three.json: has no 'images'")
    (tmp_path / "empty").mkdir()
    assert message(read, tmp_path / "empty") == f"{tmp_path / 'empty'}: holds no JSON file"


def test_values_and_names_as_in_one_file(tmp_path):
    """Numbers may be text. Images of Windows paths are found below image_dir and beside the file."""
    draw(tmp_path / "pics" / "a.png")
    draw(tmp_path / "json" / "b.png", seed=1)
    write(tmp_path / "json" / "one.json", ["D:\\x\\pics\\a.png"], [
        annotation(1, "1", ["5", 5.0, 10, 10], "1", difficult=1), annotation(2, 1, [1, 1, 5, 5])], {"1": "cat"})
    write(tmp_path / "json" / "two.json", ["old\\b.png", "D:\\x\\pics\\a.png"], [
        annotation(1, 1, [1, 1, 5, 5]), annotation(2, 2, [9, 9, 5, 5])], {1: "cat"})
    records, names, problems = read(tmp_path / "json", image_dir=tmp_path)
    assert names == ["cat"] and problems == []
    assert [record.file_name for record in records] == ["pics/a.png", "json/b.png"]
    assert records[0].boxes.tolist() == [[5, 5, 15, 15], [1, 1, 6, 6], [9, 9, 14, 14]]
    assert [tuple(record.difficult) for record in records] == [(True, False, False), (False,)]


def test_images_beside_their_files(tmp_path):
    """Each export has its own folder, with the same image names."""
    for part in ("first", "second"):
        draw(tmp_path / part / "a.png")
        write(tmp_path / part / "anno.json", ["a.png"], [annotation(1, 1, [5, 5, 10, 10], 1)], {1: "cat"})
    assert [record.file_name for record in read(tmp_path)[0]] == ["first/a.png", "second/a.png"]
