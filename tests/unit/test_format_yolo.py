"""YOLO text annotations: boxes and polygons in fractions, data.yaml, darknet files and plain folders."""
import shutil

import pytest

from tests.unit.format_samples import yolo_line, yolo_polygon, yolo_set
from tests.unit.mindrecord_samples import draw, read_back
from utils.mindrecord import convert, ensure, read_annotations, read_ground_truth
from utils.mindrecord.detection import find_data
from utils.mindrecord.readers import source_digest

TRIANGLE = yolo_polygon(1, (10, 5), (30, 5), (10, 25))

EXPECTED = "expected class, centre x, centre y, width, height, or class and x, y of at least 3 points"


def read(path, image_set=None, classes=None, image_dir=""):
    records, categories, problems = read_annotations("yolo", image_dir, path, classes, image_set)
    return records, [item["name"] for item in categories], [str(problem) for problem in problems]


def found(records):
    return {record.file_name: [(*box, label) for box, label in zip(record.boxes.round(6).tolist(), record.labels.tolist())]
            for record in records}


def test_boxes_and_polygons_of_a_set(tmp_path):
    path = yolo_set(tmp_path / "my set", {"train": {"a": [yolo_line(0, 2, 3, 10, 12), TRIANGLE], "b": None, "c": []},
                                          "val": {"d": [yolo_line(1, 0, 0, 40, 30)]}})
    records, names, problems = read(path, "train")
    assert (names, problems) == (["cat", "dog"], [])
    assert found(records) == {"a.png": [(2, 3, 12, 15, 1), (10, 5, 30, 25, 2)], "b.png": [], "c.png": []}
    assert [(record.image_id, record.height, record.width) for record in records] == [(1, 30, 40), (2, 30, 40), (3, 30, 40)]
    assert records[0].segmentations[0] is None and records[0].segmentations[1] == [pytest.approx([10, 5, 30, 5, 10, 25])]
    assert records[0].areas[0] is None and records[0].areas[1] == pytest.approx(200)
    assert list(found(read(path, "val")[0])) == ["d.png"]
    # With all sets, names are relative to the root.
    assert list(found(read(path)[0])) == [f"images/{name}.png" for name in ("train/a", "train/b", "train/c", "val/d")]


def test_ground_truth_holds_sizes_areas_and_masks(tmp_path):
    path = yolo_set(tmp_path, {"train": {"a": [TRIANGLE, yolo_line(0, 2, 3, 10, 12)]}})
    ground_truth = read_ground_truth("yolo", "", path, None, "train")
    assert ground_truth["images"] == [{"id": 1, "file_name": "a.png", "height": 30, "width": 40}]
    assert ground_truth["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert [round(item["area"], 3) for item in ground_truth["annotations"]] == [200, 120]
    assert [item["category_id"] for item in ground_truth["annotations"]] == [2, 1]
    assert [len(item.get("segmentation", ())) for item in ground_truth["annotations"]] == [1, 0]


def test_classes_are_matched_by_name(tmp_path, message):
    path = yolo_set(tmp_path, {"train": {"a": [yolo_line(0, 2, 3, 10, 12), yolo_line(1, 2, 3, 10, 9)]}})
    records, names, problems = read(path, "train", ["background", "dog", "bird"])
    assert names == ["dog", "bird"] and found(records) == {"a.png": [(2, 3, 12, 12, 1)]}
    assert problems == [f"{tmp_path}/labels/train/a.txt: line 1: category 'cat' is not one of the classes"]
    error = message(read, path, "train", ["background", "tree"])
    assert error == f"{path}: none of the classes (tree) is among its categories (cat, dog)"


@pytest.mark.parametrize(("line", "expected"), [
    ("0 0.5 0.5 0.2", f"has 4 values: {EXPECTED}"),
    ("0 0.5 0.5 0.2 0.2 0.9", f"has 6 values: {EXPECTED}; a sixth value is the confidence in a detector's results"),
    ("cat 0.5 0.5 0.2 0.2", "'cat' is not a number"), ("0.5 0.5 0.5 0.2 0.2", "class 0.5 is not a whole number >= 0"),
    ("-1 0.5 0.5 0.2 0.2", "class -1 is not a whole number >= 0"), ("0 nan 0.5 0.2 0.2", "'nan' is not a number"),
    ("0 20 15 10 5", "20 is not a fraction of the image's side: expected 0 to 1, not pixels"),
    ("2 0.5 0.5 0.2 0.2", "class 2 has no name: the names are those of classes 0 to 1"),
    ("0 0.5 0.5 0 0.2", "box (20, 12, 20, 18) has no area"),
    (yolo_line(1, 2, 3, 10, 9), "the same object as line 1"),
    (yolo_line(1, 2, 3, 10, 9).replace(" 0.", "  .") + "0", "the same object as line 1"),
])
def test_a_bad_line_drops_its_object(tmp_path, line, expected):
    good = yolo_line(1, 2, 3, 10, 9)
    path = yolo_set(tmp_path, {"train": {"a": [good, line]}})
    records, _, problems = read(path, "train")
    assert found(records) == {"a.png": [(2, 3, 12, 12, 2)]}
    assert problems == [f"{tmp_path}/labels/train/a.txt: line 2: {expected}"]


def test_key_points_are_ignored(tmp_path):
    path = yolo_set(tmp_path, {"train": {"a": [f"{yolo_line(0, 2, 3, 10, 12)} 0.2 0.3 2 0.4 0.5 1 0 0 0"]}})
    assert "has 14 values" in read(path, "train")[2][0]
    path.write_text(path.read_text() + "kpt_shape: [3, 3]\n")
    assert found(read(path, "train")[0]) == {"a.png": [(2, 3, 12, 15, 1)]}


def test_unpaired_label_files_and_images(tmp_path, message):
    path = yolo_set(tmp_path, {"train": {"a": [TRIANGLE], "b": [TRIANGLE], "c": [TRIANGLE]}})
    (tmp_path / "images" / "train" / "b.png").unlink()
    (tmp_path / "images" / "train" / "c.png").write_bytes(b"nothing")
    records, _, problems = read(path, "train")
    assert list(found(records)) == ["a.png"]
    assert problems[0] == f"{tmp_path}/labels/train/b.txt: no image of this name in {tmp_path}/images/train"
    assert problems[1].startswith(f"{tmp_path}/images/train/c.png: ") and len(problems) == 2
    shutil.rmtree(tmp_path / "labels")
    error = message(read, path, "train")
    assert error == f"{path}: none of the 2 images has a label file: {tmp_path}/images/train/a.txt does not exist"


@pytest.mark.parametrize(("text", "expected"), [
    ("train: [\n", ":2: not valid YAML: "), ("- a\n", ":1: expected lines of `key: value` with train, val and names"),
    ("names: [a]\n", ": names no images: expected train, val or test, found names"),
    ("train: no/where\nnames: [a]\n", ": train: no such folder or list of images: no/where"),
    ("train: {a: b}\nnames: [a]\n", ": train: expected a path or a list of paths"),
    ("train: images/train\nnc: 3\nnames: [a, b]\n", ": nc is 3, but names has 2 classes"),
    ("train: images/train\nnames: [a, a]\n", ": names: 'a' is given twice"),
    ("train: images/train\nnames: {x: a}\n", ": names: expected `0: name`, `1: name` and so on: "),
    ("train: images/train\nnames: some\n", ": names: expected a list of class names, got 'some'"),
])
def test_errors_in_data_yaml_are_one_line(tmp_path, message, text, expected):
    path = yolo_set(tmp_path, {"train": {"a": [TRIANGLE]}})
    path.write_text(text)
    assert message(read, path, "train").startswith(f"{path}{expected}")


def test_missing_sets(tmp_path, message):
    path = yolo_set(tmp_path, {"train": {"a": [TRIANGLE]}})
    assert message(read, path, "val") == f"{path}: has no set 'val'; it has train"
    for image_dir in ("", tmp_path):
        error = message(read, tmp_path / "no", image_dir=image_dir)
        assert error == f"anno_path: no such file or folder: {tmp_path / 'no'} (yolo: the data.yaml, or a folder of label files)"


def test_names_stay_text(tmp_path):
    """`no` and `7` are not read as a boolean and a number. A mapping may skip numbers."""
    path = yolo_set(tmp_path, {"train": {"a": [yolo_line(0, 2, 3, 10, 12)]}})
    path.write_text("train: images/train\nnames:\n  0: no\n  2: 7\n")
    assert read(path, "train")[1] == ["no", "1", "7"]
    path.write_text("train: images/train\nnc: 2\n")
    assert read(path, "train")[1] == ["0", "1"]


def one_image(folder, image, label):
    """Write an image and its label file with one box of class 0; both paths are relative to the folder."""
    draw(folder / image)
    (folder / label).parent.mkdir(parents=True, exist_ok=True)
    (folder / label).write_text(yolo_line(0, 2, 3, 10, 12) + "\n")


ONE = [(2, 3, 12, 15, 1)]


def test_roboflow(tmp_path, message):
    """Roboflow's paths start one folder too high, and its validation set is called valid."""
    root = tmp_path / "set"
    for name in ("train", "valid"):
        one_image(root, f"{name}/images/{name}.jpg", f"{name}/labels/{name}.txt")
    path = root / "data.yaml"
    path.write_text("train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 1\nnames: ['a b']\n")
    assert found(read(path, "train")[0]) == {"train.jpg": ONE} and found(read(path, "valid")[0]) == {"valid.jpg": ONE}
    # data.yaml names a test set that was not exported.
    assert len(read(path)[0]) == 2 and [item.place.image_set for item in find_data(root)] == ["train", "val"]
    assert message(read, path, "test") == f"{path}: test: no such folder or list of images: ../test/images"


def test_cvat_ultralytics_and_lists(tmp_path):
    """Lists of images with paths relative to the list or the root, a set of several entries, `path` from another machine."""
    one_image(tmp_path, "images/train/a b.jpg", "labels/train/a b.txt")
    one_image(tmp_path, "more/c.jpg", "more/c.txt")
    (tmp_path / "train.txt").write_text("images/train/a b.jpg\n\n./more/c.jpg\nmore/gone.jpg\n")
    path = tmp_path / "data.yaml"
    path.write_text("path: /home/somebody/set\ntrain: train.txt\nval: [images/train, more]\nnames:\n  0: nut\n")
    records, names, problems = read(path, "train")
    assert found(records) == {"images/train/a b.jpg": ONE, "more/c.jpg": ONE} and names == ["nut"]
    assert problems == [f"{tmp_path}/more/gone.jpg: no such image"]
    assert found(read(path, "val")[0]) == found(records)


def test_values_in_any_notation(tmp_path):
    path = yolo_set(tmp_path, {"train": {"a": ["1.0 5e-1 0.5 .5 0.5"]}})
    path.write_text(path.read_text().replace("nc: 2", "nc: 2.0"))
    assert found(read(path, "train")[0]) == {"a.png": [(10, 7.5, 30, 22.5, 2)]}
    (tmp_path / "labels" / "train" / "a.txt").write_text("0 1_0 0.5 0.2 0.2\n0 0.5 0.5 0.2 0.2\n")
    assert read(path, "train")[2] == [f"{tmp_path}/labels/train/a.txt: line 1: '1_0' is not a number"]


@pytest.mark.parametrize("name", ["D:\\set\\images\\a.gif", "/home/somebody/set/images/a.gif"])
def test_lists_from_another_machine(tmp_path, name):
    one_image(tmp_path, "images/a.png", "labels/a.txt")
    (tmp_path / "images" / "a.png").rename(tmp_path / "images" / "a.gif")       # the contents decide the format
    (tmp_path / "train.txt").write_text(f"{name}\n")
    (tmp_path / "data.yaml").write_text("train: train.txt\nnames: [nut]\n")
    assert found(read(tmp_path / "data.yaml", "train")[0]) == {"images/a.gif": ONE}


def test_darknet(tmp_path):
    """In CVAT's YOLO 1.1, paths start with data/ and label files are beside the images."""
    one_image(tmp_path, "obj_train_data/a.png", "obj_train_data/a.txt")
    (tmp_path / "train.txt").write_text("data/obj_train_data/a.png\n")
    (tmp_path / "obj.names").write_text("bolt\n")
    path = tmp_path / "obj.data"
    path.write_text("classes = 1\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    for place in (path, tmp_path):
        records, names, problems = read(place, "train")
        assert found(records) == {"obj_train_data/a.png": ONE} and (names, problems) == (["bolt"], [])


def test_folders_without_data_yaml(tmp_path):
    root = tmp_path / "set"
    one_image(root, "images/train/a.jpg", "labels/train/a.txt")
    one_image(root, "images/val/b.jpg", "labels/val/b.txt")
    assert found(read(root)[0]) == {"train/a.jpg": ONE, "val/b.jpg": ONE}
    assert read(root)[1] == ["0"] and read(root, classes=["background", "nut"])[1] == ["nut"]
    (root / "classes.txt").write_text("nut\nbolt\n")
    assert found(read(root, "val")[0]) == found(read(root / "labels" / "val")[0]) == {"b.jpg": ONE}
    assert read(root, "val")[1] == read(root / "labels" / "val")[1] == ["nut", "bolt"]
    # Label files beside the images, as labelImg writes them, and in a folder of any name.
    one_image(tmp_path / "beside", "a.jpg", "a.txt")
    (tmp_path / "beside" / "classes.txt").write_text("nut\n")
    assert found(read(tmp_path / "beside")[0]) == {"a.jpg": ONE} and read(tmp_path / "beside")[1:] == (["nut"], [])
    one_image(tmp_path, "pics/a.jpg", "text/a.txt")
    assert found(read(tmp_path / "text", image_dir=tmp_path / "pics")[0]) == {"a.jpg": ONE}


def test_folders_without_images(tmp_path, message):
    (tmp_path / "labels").mkdir()
    assert message(read, tmp_path / "labels").startswith(f"{tmp_path / 'labels'}: contains no image (.jpg")
    one_image(tmp_path, "images/a.jpg", "labels/a.txt")
    assert message(read, tmp_path / "labels", "val") == (
        f"{tmp_path / 'labels'}: has no set 'val': no such folder: {tmp_path / 'labels' / 'val'}")


def test_conversion_follows_the_labels(tmp_path):
    path = yolo_set(tmp_path, {"train": {"a": [TRIANGLE], "b": [yolo_line(0, 2, 3, 10, 12)]}, "val": {"c": [TRIANGLE]}})
    manifest = convert("yolo", "", path, tmp_path / "o", image_set="train", masks=True, progress=False)
    assert (manifest["count"], manifest["dropped"]) == (1, {"object without segmentation": 1})
    row, = read_back(tmp_path / "o", masks=True)
    assert row["boxes"].tolist() == [pytest.approx([10, 5, 30, 25])] and row["labels"].tolist() == [2]

    def again():
        return ensure("yolo", "", path, tmp_path / "p", image_set="train", progress=False)

    first = again()
    assert again() == first and first["count"] == 2
    before = source_digest("yolo", path, "train")
    (tmp_path / "labels" / "val" / "c.txt").write_text("")
    assert source_digest("yolo", path, "train") == before and source_digest("yolo", path, "val") != before
    (tmp_path / "labels" / "train" / "b.txt").write_text("")
    assert again()["count"] == 1
    draw(tmp_path / "images" / "train" / "new.png", seed=9)
    assert source_digest("yolo", path, "train") != before
