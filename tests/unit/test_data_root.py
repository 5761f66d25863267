"""The key data_root: one folder gives the format, the folders and the sets of a data set."""
import shutil

import pytest

from faster_rcnn.src.model_utils.config import InputError, load_config, parse_config, save_config
from mask_rcnn.src.model_utils.config import parse_config as parse_mask_config
from tests.unit.format_samples import labelme_set, shape, yolo_line, yolo_set
from tests.unit.mindrecord_samples import annotation, coco_set, txt_set, voc_set

BOX = yolo_line(0, 2, 3, 10, 12)
NAMES = ("image_dir", "anno_path", "image_set", "val_image_dir", "val_anno_path", "val_image_set")


def taken(folder, *flags):
    """Return dataset, the six keys of both sets with paths relative to the folder, and val_ratio."""
    config = parse_config([f"--data_root={folder}", *flags])
    assert config.data_root == config.coco_root == ""
    return [config.dataset, *(config[name].removeprefix(f"{folder}/") for name in NAMES), config.val_ratio]


def coco_files(folder, *names):
    """Write a COCO folder whose annotation files have these names."""
    image_dir, path = coco_set(folder, [annotation(1, 1, [1, 1, 5, 5])])
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(path, folder / name)
    path.unlink()


def test_voc_uses_lists(tmp_path):
    voc_set(tmp_path, {"1": [("nut", 1, 1, 9, 9)], "2": [("nut", 1, 1, 9, 9)]})
    found = ["voc", "JPEGImages", "Annotations"]
    assert taken(tmp_path) == [*found, "", "", "", "", 0.2]
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for name in ("trainval", "nut_train", "nut_val"):       # VOC also has lists per class
        (lists / f"{name}.txt").write_text("1\n")
    assert taken(tmp_path) == [*found, "trainval", "", "", "", 0.2]
    (lists / "train.txt").write_text("1\n")
    (lists / "test.txt").write_text("2\n")
    assert taken(tmp_path) == [*found, "train", *found[1:], "test", 0.0]
    (lists / "val.txt").write_text("2\n")
    assert taken(tmp_path) == [*found, "train", *found[1:], "val", 0.0]
    assert taken(tmp_path, "--image_set=trainval") == [*found, "trainval", *found[1:], "val", 0.0]


def test_coco_uses_files(tmp_path):
    names = [f"annotations/{name}2017.json" for name in ("instances_train", "person_keypoints_train", "instances_val")]
    coco_files(tmp_path / "a", *names)
    assert taken(tmp_path / "a") == ["coco", "pictures", names[0], "", "pictures", names[2], "", 0.0]
    names = [f"{name}/_annotations.coco.json" for name in ("train", "valid", "test")]       # as Roboflow exports
    coco_files(tmp_path / "b", *names)
    assert taken(tmp_path / "b")[2::3] == [names[0], names[1]]
    coco_files(tmp_path / "c", "boxes.json")
    assert taken(tmp_path / "c") == ["coco", "pictures", "boxes.json", "", "", "", "", 0.2]
    assert taken(tmp_path / "c", "--val_anno_path=other.json")[5:] == ["other.json", "", 0.0]


def test_other_formats(tmp_path):
    path = yolo_set(tmp_path / "a", {"train": {"a": [BOX]}, "val": {"b": [BOX]}})
    assert taken(tmp_path / "a") == ["yolo", "images/train", path.name, "train", "images/val", path.name, "val", 0.0]
    labelme_set(tmp_path / "b", {"a": [shape("dog", [[1, 1], [9, 9]], "rectangle")]})
    assert taken(tmp_path / "b") == ["labelme", str(tmp_path / "b"), str(tmp_path / "b"), "", "", "", "", 0.2]
    txt_set(tmp_path / "c", "a.jpg 1,1,5,5,1\n")[1].rename(tmp_path / "c" / "train.txt")
    (tmp_path / "c" / "val.txt").write_text("b.jpg 1,1,5,5,1\n")
    assert taken(tmp_path / "c") == ["other", "pictures", "train.txt", "", "pictures", "val.txt", "", 0.0]


def test_ambiguous_folders_are_refused(tmp_path):
    def fault(*flags, parse=parse_config):
        with pytest.raises(InputError if parse is parse_config else ValueError) as raised:
            parse([*flags])
        return str(raised.value)

    assert fault(f"--data_root={tmp_path / 'gone'}") == f"--data_root: {tmp_path / 'gone'}: no such folder"
    coco_files(tmp_path / "a", "one.json", "two.json")
    assert fault(f"--data_root={tmp_path / 'a'}") == (
        f"--data_root: {tmp_path / 'a'}: holds 2 sets, one.json, two.json, but none called train: give --image_dir and "
        "--anno_path")
    coco_files(tmp_path / "b", "a_train.json", "b_train.json")
    assert fault(f"--data_root={tmp_path / 'b'}") == (
        f"--data_root: {tmp_path / 'b'}: a_train.json, b_train.json are all called train: give --image_dir and --anno_path")
    voc_set(tmp_path / "c", {"1": [("nut", 1, 1, 9, 9)]})
    assert fault(f"--data_root={tmp_path / 'c'}", parse=parse_mask_config).startswith(
        "--data_root: dataset: 'voc' has no masks")


def test_a_yaml_may_set_data_root_and_a_later_root_replaces_its_folders(tmp_path):
    voc_set(tmp_path / "data", {"1": [("nut", 1, 1, 9, 9)]})
    (tmp_path / "mine.yaml").write_text(f"data_root: {tmp_path / 'data'}\nval_ratio: 0.5\n")
    config = parse_config([f"--config_path={tmp_path / 'mine.yaml'}"])
    assert (config.dataset, config.val_ratio, config.image_dir) == ("voc", 0.5, str(tmp_path / "data" / "JPEGImages"))
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
    shutil.rmtree(tmp_path / "data")        # config.yaml holds what was found
    assert load_config(tmp_path / "config.yaml") == config
    later = load_config(tmp_path / "config.yaml", {"coco_root": "COCO", "dataset": "coco"})
    assert (later.image_dir, later.anno_path) == ("", "")
    kept = load_config(tmp_path / "config.yaml", {"coco_root": "COCO", "image_dir": "x", "anno_path": "y"})
    assert (kept.image_dir, kept.anno_path) == ("x", "y")
