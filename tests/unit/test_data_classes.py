"""Settings that follow from the data: named sets, val_ratio, and classes that the configuration leaves out."""
import logging

import cv2
import numpy as np
import pytest

import mask_rcnn.src.model_utils.config as mask_config
from faster_rcnn.src.model_utils.config import DEFAULT_CONFIG, load_config, parse_config, save_config
from faster_rcnn.src.model_utils.data.source import find_source
from faster_rcnn.src.model_utils.training import drawn_batches
from faster_rcnn.src.model_utils.training.run import find_data
from mask_rcnn.src.model_utils.training import drawn_batches as drawn_mask_batches
from tests.unit.format_samples import labelme_set, shape, yolo_line, yolo_set
from tests.unit.mindrecord_samples import voc_set
from utils.mindrecord import Split

BOX = [[5, 5], [15, 15]]


def open_config(tmp_path, **keys):
    """Return the configuration as train.py reads it: the data names the classes."""
    base = {"output_path": str(tmp_path / "out"), "img_height": 32, "img_width": 64, "flip_ratio": 0}
    return load_config(overrides={**base, **keys}, classes_of_data=True)


def voc_keys(tmp_path, files, train, val):
    image_dir, anno_path = voc_set(tmp_path, files)
    for name, stems in (("train", train), ("val", val)):
        (tmp_path / f"{name}.txt").write_text("\n".join(stems))
    return {"dataset": "voc", "image_dir": str(image_dir), "anno_path": str(anno_path), "image_set": str(tmp_path / "train.txt"),
            "val_image_set": str(tmp_path / "val.txt")}


# ------------------------------------------------------------------------------------------- classes

def test_given_classes_are_kept():
    def parsed(*flags):
        config = parse_config(list(flags), classes_of_data=True)
        return config.num_classes, len(config.coco_classes)

    assert parsed() == (0, 0) and parsed("--num_classes=81") == (81, 81)
    assert parsed("--num_classes=3", "--coco_classes=[]") == (3, 0)
    assert parsed("--num_classes=2", "--coco_classes=[background, cat]") == (2, 2)
    config = parse_config([])       # evaluation, inference and export
    assert (config.num_classes, len(config.coco_classes)) == (81, 81)


def test_classes_of_the_training_set(tmp_path, caplog):
    """VOC classes are in alphabetical order. The evaluation set has the same labels."""
    keys = voc_keys(tmp_path, {name: [(kind, 1, 1, 9, 9) for kind in kinds] for name, kinds in (
        ("a", ("dog", "ant", "cat")), ("b", ("cat", "dog", "ant")))}, ["a"], ["b"])
    with caplog.at_level(logging.INFO):
        config, data, val = find_data(open_config(tmp_path, **keys), 0, 1)
    assert "classes of the data: ant, cat, dog" in caplog.text
    assert config.num_classes == 4 and config.coco_classes == ("background", "ant", "cat", "dog")
    assert data.class_names == val.class_names == list(config.coco_classes)
    assert [item["category_id"] for item in val.ground_truth()["annotations"]] == [2, 3, 1]
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml").coco_classes == config.coco_classes
    again, same, _ = find_data(config, 0, 1)        # a resumed run converts nothing again
    assert again == config and same.files == data.files


def test_yolo_classes_keep_the_order_of_names(tmp_path):
    path = yolo_set(tmp_path, {"train": {"a": [yolo_line(1, 2, 3, 10, 12)]}, "val": {"b": [yolo_line(0, 2, 3, 10, 12)]}},
                    names=("zebra", "ant"))
    config, data, val = find_data(open_config(tmp_path, dataset="yolo", anno_path=str(path)), 0, 1)
    assert config.coco_classes == ("background", "zebra", "ant")
    assert (data.count, val.count, data.source.image_set, val.source.image_set) == (1, 1, "train", "val")
    assert data.source.image_dir == str(tmp_path / "images" / "train")


def test_classes_of_only_one_set_are_refused(tmp_path, message):
    keys = voc_keys(tmp_path, {name: [(kind, 1, 1, 9, 9) for kind in kinds] for name, kinds in (
        ("a", ("dog", "ant")), ("b", ("dog", "cat")))}, ["a"], ["b"])
    text = message(find_data, open_config(tmp_path, **keys), 0, 1)
    sides = " and ".join(f"{name} is only in {tmp_path / 'Annotations'} ({tmp_path / f'{side}.txt'})"
                         for name, side in (("ant", "train"), ("cat", "val")))
    assert text == (f"coco_classes: the classes to train and to evaluate on differ: {sides}; select classes, for example "
                    "--num_classes=3 --coco_classes='[background, ant, dog]'")
    classes = ["background", "ant", "dog"]
    _, data, val = find_data(open_config(tmp_path, **keys, num_classes=3, coco_classes=classes), 0, 1)
    assert data.class_names == val.class_names == classes


# ----------------------------------------------------------------------------------------------- sets

def test_val_ratio_divides_the_training_set(tmp_path, caplog, message):
    folder = labelme_set(tmp_path / "in", {str(number): [shape("dog", BOX, "rectangle")] for number in range(10)})
    keys = {"dataset": "labelme", "anno_path": str(folder), "val_ratio": 0.3}
    _, data, val = find_data(open_config(tmp_path, **keys), 0, 1)
    assert (data.count, val.count) == (7, 3) and val.source.split == Split(0.3, "val")
    assert len(val.ground_truth()["images"]) == 3
    # eval.py on the run's configuration evaluates the same images.
    source = find_source(load_config(overrides=keys), train=False)
    assert source == val.source.__class__(**{**vars(val.source), "classes": source.classes})
    text = message(load_config, overrides={**keys, "val_anno_path": "x"})
    assert text == "val_ratio: 0.3 splits the training set, but val_anno_path names a validation set; set one of them"
    assert message(load_config, overrides={"val_ratio": 1.0}).startswith("val_ratio: expected 0 to 0.9")


def test_val_ratio_below_a_root():
    keys = {"coco_root": "/r", "val_ratio": 0.2}
    for train in (True, False):
        source = find_source(load_config(overrides=keys), train, in_training=not train)
        assert source.anno_path == "/r/annotations/instances_train2017.json" and source.image_dir == "/r/train2017"
        assert source.split == Split(0.2, "train" if train else "val")


def test_which_set_of_yolo(tmp_path):
    line = yolo_line(0, 2, 3, 10, 12)
    path = yolo_set(tmp_path, {"train": {"a": [line]}, "val": {"b": [line]}, "test": {"c": [line]}})

    def sets(**keys):
        config = load_config(overrides={"dataset": "yolo", "anno_path": str(path), **keys})
        return tuple(find_source(config, *which).image_set for which in ((True,), (False, True), (False,)))

    assert sets() == ("train", "val", "val")
    assert sets(image_set="test") == ("test", "val", "test")        # eval.py --image_set=test
    assert sets(val_image_set="test") == ("train", "test", "test")
    assert sets(val_ratio=0.5) == ("train", "train", "train")
    path.unlink()
    assert sets(anno_path=str(tmp_path)) == ("train", "val", "val")  # the folders of labels/
    assert sets(anno_path=str(tmp_path / "no")) == (None, None, None)


def test_yolo_without_an_evaluation_set_is_refused(tmp_path, message):
    path = yolo_set(tmp_path, {"train": {"a": [yolo_line(0, 2, 3, 10, 12)]}})
    text = message(find_data, open_config(tmp_path, dataset="yolo", anno_path=str(path)), 0, 1)
    assert text == f"{path}: has no set 'val'; it has train"


# -------------------------------------------------------------------------------------------- drawings

@pytest.mark.parametrize(("module", "configuration", "outline"), [
    (drawn_batches, DEFAULT_CONFIG, False), (drawn_mask_batches, mask_config.DEFAULT_CONFIG, True)])
def test_batches_are_drawn_as_trained(tmp_path, module, configuration, outline):
    """A 40x30 image in a 64x64 input is resized to 64x48 and may be mirrored."""
    folder = labelme_set(tmp_path / "in", {name: [shape("dog", [[10, 10], [30, 10], [20, 25]])] for name in "ab"})
    for path in folder.glob("*.jpg"):
        cv2.imwrite(str(path), np.zeros((30, 40, 3), np.uint8))
    keys = {"dataset": "labelme", "anno_path": str(folder), "image_dir": "", "img_height": 64, "img_width": 64, "photo_ratio": 0.0,
            "batch_size": 1, "num_parallel_workers": 1}
    assert module.draw(configuration, keys, tmp_path / "out", 3, tmp_path / "scratch") == 3
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert [name[:6] for name in names] == ["0_0000", "0_0001", "1_0002"]
    image = cv2.imread(str(tmp_path / "out" / names[0])).astype(int)
    assert image.shape == (64, 64, 3)
    assert image[16:40, 16:18].max() > 150 and image[16:40, 46:48].max() > 150     # the box from x 16 to 48, down to y 40
    inside = image[22:36, 21:43].max() > 100            # the legs of the triangle
    assert inside == outline


def test_an_evaluation_set_is_required(tmp_path, message):
    folder = labelme_set(tmp_path / "in", {"a": [shape("dog", BOX, "rectangle")]})
    text = message(find_data, open_config(tmp_path, dataset="labelme", anno_path=str(folder)), 0, 1)
    assert text == ("val_anno_path is required for run_eval: give --val_anno_path, or --val_ratio=0.2 to split it off the training "
                    "set")
    nowhere = open_config(tmp_path / "new", dataset="labelme", anno_path=str(tmp_path / "no"))
    text = message(find_data, nowhere, 0, 1)
    assert text == f"anno_path: no such folder: {tmp_path / 'no'} (labelme: the folder of JSON files)"
