"""From the configuration to the data sets: which keys name them, where they are converted, and their ground truth."""
import json
import logging

import cv2
import mindspore.dataset as ds
import numpy as np
import pytest

from faster_rcnn.src.dataset import build_train_transform, prepare_data
from faster_rcnn.src.model_utils.config import load_config
from faster_rcnn.src.model_utils.data.loading import EvalBatches, build_preprocess, create_dataset, iterate
from faster_rcnn.src.model_utils.data.source import find_source
from faster_rcnn.src.model_utils.data.transforms import InputSize


def encoded(height, width, kind, seed):
    """An image with black rows at the top. A BMP stores these last, so the file ends in zero bytes."""
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    image[:3] = 0
    return cv2.imencode(kind, image)[1].tobytes()


def train_batches(info, config, batch_size=2):
    data = create_dataset(info.files, info.count, build_train_transform(config), batch_size, epoch=1)
    return list(iterate(data, output_numpy=True))


def test_configuration_reaches_the_transforms(message):
    config = load_config(overrides={
        "img_height": 64, "img_width": 96, "keep_ratio": False, "flip_ratio": 0.25, "expand_ratio": 0.5,
        "expand_factor": 3.0, "photo_ratio": 0.5, "multi_scale": [0.5, 1], "num_gts": 7, "seed": 9, "image_mean": [1, 2, 3],
        "image_std": [4, 5, 6], "to_rgb": False})
    transform = build_train_transform(config)
    assert {name: step.keywords for name, step in transform.augmenter.steps.items()} == {
        "photo": {"photo_ratio": 0.5}, "expand": {"expand_ratio": 0.5, "expand_factor": 3.0},
        "multi_scale": {"multi_scale": (0.5, 1.0)},
        "flip": {"flip_ratio": 0.25}}
    assert (transform.num_gts, transform.seed) == (7, 9)
    assert transform.preprocess.size == InputSize(64, 96, keep_ratio=False)
    image, _ = build_preprocess(config)(np.full((8, 8, 3), (10, 20, 30), np.uint8))
    np.testing.assert_allclose(image[:, 0, 0], [9 / 4, 18 / 5, 27 / 6], rtol=1e-6)
    divisor = load_config(overrides={"pad_to": "divisor", "img_height": 800, "img_width": 1333})
    assert build_preprocess(divisor).size.padded(800, 1333) == (800, 1344)
    assert message(build_train_transform, divisor).startswith("pad_to: divisor")
    assert message(load_config, overrides={"multi_scale": [1.5]}).startswith("multi_scale")


def eval_ids(info, config):
    data = EvalBatches(info.files, info.count, build_preprocess(config))
    return [int(image_id) for batch in data for image_id in batch.image_id]


def coco_set(root, split, count, empty=()):
    """Write `count` images in COCO's layout, each with a cat and a crowd of dogs; the lowest id comes last."""
    (root / split).mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    content = {"images": [], "annotations": [], "categories": [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}]}
    for i in range(count):
        name = f"{split} {i}.bmp"
        (root / split / name).write_bytes(encoded(20, 30, ".bmp", i))
        content["images"].append({"id": 100 - i, "file_name": name, "height": 20, "width": 30})
        content["annotations"] += [
            {"id": 2 * i + k, "image_id": 100 - i, "category_id": 17 + k, "bbox": [3, 4, 5, 6], "area": 30,
             "iscrowd": k} for k in (0, 1) if i not in empty]
    path = root / "annotations" / f"instances_{split}.json"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def coco(tmp_path):
    """(folder with train2017 and val2017, function that builds its configuration)."""
    root = tmp_path / "two sets"
    coco_set(root, "train2017", 5, empty=[1])
    coco_set(root, "val2017", 4, empty=[2])
    overrides = {"coco_root": str(root), "output_path": str(tmp_path / "out"), "num_classes": 3,
                 "coco_classes": ["background", "cat", "dog"], "img_height": 32, "img_width": 64, "flip_ratio": 0}
    return root, lambda **more: load_config(overrides={**overrides, **more})


def test_images_of_rare_classes_are_repeated(coco, caplog, message):
    """Every image has a cat; the dogs are crowds."""
    _, config = coco
    assert prepare_data(config(), train=True).repeats is None
    assert prepare_data(config(repeat_threshold=4.0), train=False).repeats is None
    with caplog.at_level(logging.INFO):
        data = prepare_data(config(repeat_threshold=4.0), train=True)
    np.testing.assert_allclose(data.repeats, [2, 2, 2, 2])
    assert "an epoch has 8 images instead of 4" in caplog.text
    assert message(config, repeat_threshold=-1.0).startswith("repeat_threshold")


def test_coco_is_converted_and_read(coco):
    root, config = coco
    train, val = prepare_data(config(), train=True), prepare_data(config(), train=False, in_training=True)
    assert (train.count, val.count) == (4, 4)       # only training drops the image without objects
    assert train.class_names == ["background", "cat", "dog"]
    assert [item["id"] for item in train.categories] == [17, 18]
    kept = root.parent / "out" / "mindrecord"
    assert all(path.is_file() and kept in path.parents for path in train.files + val.files)
    got = train_batches(train, config())
    assert sorted(int(i) for batch in got for i in batch[-1]) == [96, 97, 98, 100]
    for _, _, boxes, labels, valid, _ in got:
        assert labels[:, :2].tolist() == [[1, 0]] * 2 and valid.sum() == 2      # the dog is a crowd
        np.testing.assert_allclose(boxes[:, 0], [[4.8, 6.4, 12.8, 16]] * 2, rtol=1e-6)
    assert eval_ids(val, config()) == [100, 99, 98, 97]
    ground_truth = val.ground_truth()
    written = json.loads((root / "annotations" / "instances_val2017.json").read_text())
    assert ground_truth["images"] == written["images"]
    assert sorted(ground_truth["categories"], key=str) == sorted(written["categories"], key=str)
    assert [{**item, "id": 0} for item in ground_truth["annotations"]] == [{**item, "id": 0} for item in written["annotations"]]


def test_only_requested_classes_are_scored(coco):
    _, config = coco
    val = prepare_data(config(coco_classes=["background", "cat"], num_classes=2), train=False)
    ground_truth = val.ground_truth()
    assert [item["name"] for item in ground_truth["categories"]] == ["cat"] and len(ground_truth["images"]) == 4
    assert {item["category_id"] for item in ground_truth["annotations"]} == {17}


def test_classes_default_to_those_of_the_data(coco, message):
    _, config = coco
    assert prepare_data(config(coco_classes=[]), train=True).class_names == ["background", "cat", "dog"]
    error = message(prepare_data, config(coco_classes=[], num_classes=5), train=True)
    assert error.startswith("num_classes: 5") and "has 3" in error


def test_records_are_in_the_order_of_their_index(coco):
    """The loader takes rows by position and augments them by index."""
    _, config = coco
    info = prepare_data(config(), train=True)
    assert len(info.files) > 1
    data = ds.MindDataset([str(path) for path in info.files], ["index", "image", "file_name"], shuffle=False)
    for position, (index, image, name) in enumerate(data.create_tuple_iterator(num_epochs=1, output_numpy=True)):
        assert index == position
        assert image.tobytes() == (coco[0] / "train2017" / str(name)).read_bytes()


def test_an_earlier_conversion_is_used(coco, tmp_path):
    """mindrecord_dir may be the converted folder itself; another set gets its own subfolder."""
    from utils import mindrecord
    root, config = coco
    folder = tmp_path / "made before"
    mindrecord.convert("coco", root / "train2017", root / "annotations" / "instances_train2017.json", folder,
                       classes=["background", "cat", "dog"], progress=False)
    made = (folder / "manifest.json").read_bytes()
    here = config(mindrecord_dir=str(folder))
    train, val = prepare_data(here, train=True), prepare_data(here, train=False)
    assert all(folder in path.parents and folder / "train" not in path.parents for path in train.files)
    assert all(folder / "eval" in path.parents for path in val.files)
    assert (folder / "manifest.json").read_bytes() == made
    without_images = config(mindrecord_dir=str(folder), coco_root="")
    assert prepare_data(without_images, train=True).files == train.files


def test_missing_data_is_named(coco, message, tmp_path):
    _, config = coco
    for error, keys in ((f"coco_root: no such folder: {tmp_path / 'no'}", {"coco_root": str(tmp_path / "no")}),
                       ("anno_path: no such file: no.json", {"anno_path": "no.json"}),
                       ("image_dir is required: give --coco_root or --image_dir", {"coco_root": ""})):
        assert message(prepare_data, config(**keys), train=True) == error
    error = message(prepare_data, config(coco_root="", image_dir="a", anno_path="b"), train=False, in_training=True)
    assert error.startswith("val_image_dir is required for run_eval")


def test_which_keys_name_which_set():
    def find(train, in_training=False, **keys):
        source = find_source(load_config(overrides=keys), train, in_training)
        return source.image_dir, source.anno_path, source.image_set

    root = {"coco_root": "/r"}
    assert find(True, **root) == ("/r/train2017", "/r/annotations/instances_train2017.json", None)
    assert find(False, **root) == ("/r/val2017", "/r/annotations/instances_val2017.json", None)
    assert find(False, **root, anno_path="/a.json") == ("/r/val2017", "/a.json", None)      # eval.py --anno_path
    assert find(False, True, **root, anno_path="/a.json")[1] == "/r/annotations/instances_val2017.json"
    assert find(False, True, **root, val_anno_path="/v.json") == ("/r/val2017", "/v.json", None)
    voc = {"dataset": "voc", "image_dir": "/i", "anno_path": "/x", "image_set": "train", "val_image_set": "val"}
    assert find(True, **voc) == ("/i", "/x", "train")
    assert find(False, **voc) == find(False, True, **voc) == ("/i", "/x", "val")
    other = {"dataset": "other", "image_dir": "/i", "anno_path": "/t.txt"}
    assert find(False, **other) == ("/i", "/t.txt", None) and find(False, True, **other) == ("", "", None)


def test_voc_ground_truth_holds_the_images_of_the_set(tmp_path):
    (tmp_path / "Images").mkdir()
    (tmp_path / "Annotations").mkdir()
    for i in range(3):
        (tmp_path / "Images" / f"{i}.png").write_bytes(encoded(20, 30, ".png", i))
        (tmp_path / "Annotations" / f"{i}.xml").write_text(
            f"<annotation><filename>{i}.png</filename><size><width>30</width><height>20</height><depth>3</depth></size>"
            f"<object><name>nut</name><bndbox><xmin>{i + 1}</xmin><ymin>2</ymin><xmax>10</xmax><ymax>9</ymax></bndbox>"
            "</object></annotation>")
    (tmp_path / "val.txt").write_text("0\n2\n")
    (tmp_path / "train.txt").write_text("1\n")
    config = load_config(overrides={
        "dataset": "voc", "image_dir": str(tmp_path / "Images"), "anno_path": str(tmp_path / "Annotations"),
        "image_set": str(tmp_path / "train.txt"), "val_image_set": str(tmp_path / "val.txt"), "num_classes": 2,
        "coco_classes": ["background", "nut"], "output_path": str(tmp_path / "out")})
    val = prepare_data(config, train=False, in_training=True)
    ground_truth = val.ground_truth()
    assert prepare_data(config, train=True).count == 1
    assert [item["file_name"] for item in ground_truth["images"]] == ["0.png", "2.png"]
    assert [item["bbox"] for item in ground_truth["annotations"]] == [[1, 2, 9, 7], [3, 2, 7, 7]]
    assert eval_ids(val, config) == [item["id"] for item in ground_truth["images"]]


def test_all_coco_images_and_objects_arrive(data_dir, tmp_path):
    config = load_config(overrides={"coco_root": str(data_dir / "coco_mini"), "output_path": str(tmp_path),
                                    "img_height": 96, "img_width": 160})
    info = prepare_data(config, train=True)
    found = {}
    for _, image_info, boxes, labels, valid, image_id in train_batches(info, config, batch_size=4):
        for n, id_ in enumerate(image_id.tolist()):
            found[id_] = labels[n][valid[n]].tolist()
            real, (height, width) = boxes[n][valid[n]], image_info[n, :2]
            assert (real >= 0).all() and (real[:, 2] <= width).all() and (real[:, 3] <= height).all()
            assert (labels[n] > 0).tolist() == valid[n].tolist()
    content = json.loads((data_dir / "coco_mini" / "annotations" / "instances_train2017.json").read_text())
    names = {item["id"]: item["name"] for item in content["categories"]}
    expected = {}
    for item in content["annotations"]:
        if not item["iscrowd"]:
            expected.setdefault(item["image_id"], []).append(config.coco_classes.index(names[item["category_id"]]))
    for image_id, labels in expected.items():
        assert sorted(found.pop(image_id)) == sorted(labels)
    assert not found
