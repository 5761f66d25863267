"""RefineDet's data from COCO, VOC and text files: which keys name it, what is dropped, and one-line errors."""
import json
from pathlib import Path

import numpy as np
import pytest

from refinedet.src.dataset import build_train_transform, prepare_data
from refinedet.src.model_utils.config import load_config
from refinedet.src.model_utils.data.loading import EvalBatches, build_preprocess, create_dataset, iterate
from refinedet.src.model_utils.data.source import find_source
from refinedet.src.model_utils.evaluation.voc_ap import voc_ap
from tests.unit.mindrecord_samples import annotation, coco_set, cut, draw, txt_set, voc_set, voc_xml

SOURCES = ("coco", "voc", "other")
LABELS = {"cat": 1, "dog": 2, "unicorn": 7}
COCO_IDS = {"cat": 1, "dog": 3, "unicorn": 9}


def write_set(source, folder, images) -> dict:
    """Write a data set and return its keys. images: {name: [(class, x1, y1, x2, y2), ...]}, each 40 x 30 pixels."""
    if source == "voc":
        image_dir, path = voc_set(folder, {name: voc_xml(f"{name}.jpg", items) for name, items in images.items()})
    elif source == "other":
        lines = [" ".join([f"{name}.jpg", *(",".join(map(str, [*box, LABELS[kind]])) for kind, *box in items)])
                 for name, items in images.items()]
        image_dir, path = txt_set(folder, "\n".join(lines), [f"{name}.jpg" for name in images])
    else:
        image_dir, path = coco_set(folder, [], images=0)
        content = json.loads(path.read_text())
        for number, (name, items) in enumerate(images.items(), 1):
            draw(image_dir / f"{name}.jpg", seed=number)
            content["images"].append({"id": number, "file_name": f"{name}.jpg", "width": 40, "height": 30})
            content["annotations"] += [annotation(100 * number + k, number, [x1, y1, x2 - x1, y2 - y1], COCO_IDS[kind])
                                       for k, (kind, x1, y1, x2, y2) in enumerate(items)]
        path.write_text(json.dumps(content))
    return {"dataset": source, "image_dir": str(image_dir), "anno_path": str(path)}


def make_config(tmp_path, **keys):
    return load_config(overrides={"output_path": str(tmp_path / "out"), "num_classes": 3, "img_height": 64, "img_width": 64,
                                  "coco_classes": ["background", "cat", "dog"], "num_gts": 5, **keys})


def first_batch(config, info, batch_size=2):
    return next(iterate(create_dataset(info.files, info.count, build_train_transform(config), batch_size, epoch=1), True))


GOOD = {"a": [("cat", 2, 3, 30, 25)], "b": [("dog", 5, 5, 20, 20), ("cat", 10, 2, 38, 28)]}


@pytest.mark.parametrize("source", SOURCES)
def test_all_formats_arrive(source, tmp_path):
    config = make_config(tmp_path, **write_set(source, tmp_path, {**GOOD, "empty": []}),
                         flip_ratio=0.0, expand_ratio=0.0, photo_ratio=0.0, crop_ratio=0.0)
    train, val = prepare_data(config, train=True), prepare_data(config, train=False)
    assert (train.count, val.count) == (2, 3)       # only training drops the image without objects
    assert train.class_names == ["background", "cat", "dog"]
    image, info, boxes, labels, valid, ids = first_batch(config, train)
    assert image.shape == (2, 3, 64, 64) and info[:, :2].tolist() == [[64, 64]] * 2
    rows = {tuple(label[real].tolist()): box[real] for label, box, real in zip(labels, boxes, valid)}
    scale = np.array([64 / 40, 64 / 30] * 2)
    np.testing.assert_allclose(rows[(1,)], [[2, 3, 30, 25] * scale], rtol=1e-5)
    np.testing.assert_allclose(rows[(2, 1)], [[5, 5, 20, 20] * scale, [10, 2, 38, 28] * scale], rtol=1e-5)
    found = [number for batch in EvalBatches(val.files, val.count, build_preprocess(config)) for number in batch.image_id]
    ground_truth = val.ground_truth()
    assert len(found) == 3 and set(found) == {item["id"] for item in ground_truth["images"]}
    assert len(ground_truth["annotations"]) == 3


BAD_OBJECTS = {"without area": (("cat", 9, 9, 9, 20), "box without area"),
               "outside": (("dog", 50, 40, 60, 45), "box outside the image"),
               "partly outside": (("dog", 20, 20, 60, 45), "box partly outside the image"),
               "endless": (("cat", 1, 1, 1e400, 5), "box with a non-finite number"),
               "unknown class": (("unicorn", 1, 1, 9, 9), "unknown category")}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("fault", BAD_OBJECTS)
def test_bad_objects_are_reported_and_the_others_train(source, fault, tmp_path, caplog):
    bad, reported = BAD_OBJECTS[fault]
    config = make_config(tmp_path, **write_set(source, tmp_path, {**GOOD, "c": [bad, ("dog", 3, 3, 33, 23)]}))
    info = prepare_data(config, train=True)
    assert info.count == 3
    assert any(message.startswith(f"1 x {reported}") for message in caplog.messages), caplog.messages
    image, _, boxes, labels, valid, _ = first_batch(config, info, batch_size=3)
    assert np.isfinite(image).all() and np.isfinite(boxes).all() and set(labels[valid].tolist()) <= {1, 2}
    assert (boxes[valid][:, 2:] > boxes[valid][:, :2]).all()


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("fault", ["missing", "cut", "no picture"])
def test_bad_images_are_reported_and_the_others_train(source, fault, tmp_path, caplog):
    keys = write_set(source, tmp_path, {**GOOD, "c": [("dog", 3, 3, 33, 23)]})
    (image_file,) = tmp_path.rglob("c.jpg")
    if fault == "missing":
        image_file.unlink()
    elif fault == "cut":
        cut(image_file, 0.5)
    else:
        image_file.write_text("<html>404</html>")
    config = make_config(tmp_path, **keys)
    info = prepare_data(config, train=True)
    assert info.count == 2 and "c.jpg" in caplog.text.replace("called c", "c.jpg")
    assert first_batch(config, info)[4].any()


def spoil(source, keys, fault) -> dict:
    """Return the keys of the set with one fatal fault."""
    path, image_dir = keys["anno_path"], keys["image_dir"]
    if fault == "no pictures":
        return {**keys, "image_dir": f"{image_dir} not"}
    if fault == "no annotations":
        return {**keys, "anno_path": f"{path} not"}
    if fault == "not given":
        return {**keys, "anno_path": ""}
    if fault == "number of classes":
        return {**keys, "coco_classes": [], "num_classes": 5}
    if fault == "other classes" and source != "other":
        return {**keys, "coco_classes": ["background", "tree", "house"]}
    text = {"unreadable": "\0nonsense,", "empty": "", "other classes": "a.jpg 2,3,30,25,7"}[fault]
    for file in sorted(Path(path).glob("*.xml")) if source == "voc" else [Path(path)]:
        file.write_text(text)
    return keys


TEXTS = {"no pictures": "image_dir: no such folder: ", "no annotations": "anno_path: no such f",
         "not given": "anno_path is required", "number of classes": "num_classes: 5, but ", "other classes": "", "unreadable": "",
         "empty": ""}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("fault", TEXTS)
def test_a_fatal_fault_is_one_line_that_names_it(source, fault, tmp_path, message):
    keys = spoil(source, write_set(source, tmp_path, GOOD), fault)
    reported = message(prepare_data, make_config(tmp_path, **keys), train=True)
    assert reported.startswith(TEXTS[fault]), reported
    if not TEXTS[fault]:
        assert keys["anno_path"] in reported


# ----------------------------------------------------------------------------------------------------------- voc_root

def voc_root(tmp_path) -> dict:
    write_set("voc", tmp_path / "VOC 2007", {**GOOD, "c": [("dog", 3, 3, 33, 23)]})
    lists = tmp_path / "VOC 2007" / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "trainval.txt").write_text("a\nb\n")
    (lists / "test.txt").write_text("c\n")
    xml = tmp_path / "VOC 2007" / "Annotations" / "c.xml"
    xml.write_text(xml.read_text().replace("</object>", "<difficult>1</difficult></object>"))
    return {"dataset": "voc", "voc_root": str(tmp_path / "VOC 2007"), "image_set": "trainval", "val_image_set": "test"}


def test_voc_root_has_images_annotations_and_lists(tmp_path):
    config = make_config(tmp_path, **voc_root(tmp_path))
    train, val = prepare_data(config, train=True), prepare_data(config, train=False, in_training=True)
    assert (train.count, val.count) == (2, 1)
    ground_truth = val.ground_truth()
    assert [item["file_name"] for item in ground_truth["images"]] == ["c.jpg"] and ground_truth["annotations"][0]["difficult"] == 1
    assert first_batch(config, train)[4].any()
    scores = voc_ap(ground_truth, [])
    assert scores.per_class["dog"]["difficult"] == 1 and scores.figures == {"mAP": -1.0, "mAP_11": -1.0}


def test_which_keys_name_which_set():
    def find(train, in_training=False, **keys):
        source = find_source(load_config(overrides={"dataset": "voc", "voc_root": "/v", **keys}), train, in_training)
        return source.image_dir, source.anno_path, source.image_set

    folders = "/v/JPEGImages", "/v/Annotations"
    both = {"image_set": "trainval", "val_image_set": "test"}
    assert find(True, **both) == (*folders, "trainval")
    assert find(False, **both) == find(False, True, **both) == (*folders, "test")
    assert find(True, image_dir="/i") == ("/i", "/v/Annotations", None)
    assert find(False, image_set="test") == (*folders, "test")              # eval.py --image_set
    assert find(False, True, image_set="trainval") == ("", "", None)        # never the training images
    assert find(True, dataset="coco", coco_root="/c")[0] == "/c/train2017"


def test_missing_parts_of_voc_root_are_named(tmp_path, message):
    keys = voc_root(tmp_path)
    assert message(prepare_data, make_config(tmp_path, **{**keys, "voc_root": "/no"}), train=True) == \
        "voc_root: no such folder: /no"
    reported = message(prepare_data, make_config(tmp_path, **{**keys, "val_image_set": ""}), train=False, in_training=True)
    assert reported.startswith("val_image_set is required for run_eval: give --val_image_set, or --val_ratio=0.2")
    reported = message(prepare_data, make_config(tmp_path, dataset="voc"), train=True)
    assert reported == "image_dir is required: give --voc_root or --image_dir"
    reported = message(prepare_data, make_config(tmp_path, **{**keys, "image_set": "train"}), train=True)
    assert reported.startswith("train: no such list of images")
    (tmp_path / "VOC 2007" / "JPEGImages").rename(tmp_path / "pictures")
    reported = message(prepare_data, make_config(tmp_path, **keys), train=True)
    assert reported.startswith("image_dir: no such folder: ") and reported.endswith("JPEGImages")


@pytest.mark.parametrize("model", ["faster_rcnn", "refinedet"])
def test_eval_prints_and_writes_voc_ap(model, tmp_path, run_command):
    """One of the two objects in image a is found; the difficult object in image b is not."""
    folder = tmp_path / "VOC 2007"
    keys = write_set("voc", folder, {"a": [("cat", 2, 3, 30, 25), ("dog", 5, 5, 20, 20)], "b": [("dog", 5, 5, 20, 20)]})
    xml = folder / "Annotations" / "b.xml"
    xml.write_text(xml.read_text().replace("</object>", "<difficult>1</difficult></object>"))
    results = tmp_path / "results.json"
    results.write_text(json.dumps([{"image_id": 1, "category_id": 1, "bbox": [2, 3, 28, 22], "score": 0.5}]))
    run = run_command(["python", f"{model}/eval.py", f"--detections={results}", f"--output_path={tmp_path / 'out'}",
                       *(f"--{name}={value}" for name, value in keys.items()), "--coco_classes=[background, cat, dog]",
                       "--num_classes=3"])
    assert run.returncode == 0, run.stderr
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["voc"]["mAP"] == 0.5 and metrics["voc"]["per_class"]["dog"] == {
        "AP": 0, "AP_11": 0, "objects": 1, "difficult": 1}
    assert metrics["bbox"]["AP50"] == pytest.approx(0.5)
    assert " PASCAL VOC mean AP @[ IoU=0.50 | area under the curve ] = 0.500" in run.stdout.splitlines()
    assert " PASCAL VOC mean AP @[ IoU=0.50 | 11 points of VOC2007 ] = 0.500" in run.stdout.splitlines()
    assert (run.stdout.splitlines()[-1] == "mAP:0.5000") == (model == "refinedet")
