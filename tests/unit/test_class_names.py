"""Classes are matched by name: between the training and evaluation sets, and with a checkpoint."""
import json
import re
import types

import mindspore as ms
import numpy as np
import pytest

from faster_rcnn.src.model_utils.config import InputError, load_config
from faster_rcnn.src.model_utils.data.source import name_classes, prepare_data, require_same_classes
from faster_rcnn.src.model_utils.training.checkpoint import CheckpointFolder, check_same_run
from faster_rcnn.src.model_utils.weights.class_names import with_class_names
from faster_rcnn.src.model_utils.weights.loading import load_checkpoint_into, load_pretrained
from tests.toy_network import ToyDetector
from tests.unit.mindrecord_samples import annotation, coco_set, txt_set, voc_set

PETS = ["background", "cat", "dog", "bird"]
HEADS = ["rcnn.cls_score.weight", "rcnn.cls_score.bias"]


def values(net) -> dict:
    return {param.name: param.asnumpy().copy() for param in net.get_parameters()}


@pytest.fixture
def trained():
    """A ToyDetector whose parameters differ from the initial ones."""
    net = ToyDetector()
    for param in net.get_parameters():
        param.set_data(param + 1)
    return net


@pytest.fixture(params=["in the file", "yaml beside", "config of the run"])
def checkpoint(request, tmp_path, trained):
    """Path of a checkpoint of PETS that stores the class names in one of three places."""
    folder = CheckpointFolder(tmp_path, "toy", keep=1, classes=PETS if request.param == "in the file" else ())
    folder.save_best(types.SimpleNamespace(weights=lambda: {param.name: param for param in trained.get_parameters()}))
    path = tmp_path / "checkpoint" / "best.ckpt"
    if request.param == "yaml beside":
        path.with_suffix(".yaml").write_text(f"num_classes: 4\ncoco_classes: {json.dumps(PETS)}\n")
    elif request.param == "config of the run":
        (tmp_path / "config.yaml").write_text(f"coco_classes: {json.dumps(PETS)}\n")
    return path


def test_head_of_the_same_classes_is_loaded(checkpoint, trained):
    net = ToyDetector()
    assert load_pretrained(net, checkpoint, PETS) == []
    assert all(np.array_equal(value, values(trained)[name]) for name, value in values(net).items())


@pytest.mark.parametrize("classes, expected", [
    (["background", "cat", "dog", "fish"], "label 3 is 'bird' in the checkpoint and 'fish' in coco_classes"),
    (["background", "dog", "cat", "bird"], "label 1 is 'cat' in the checkpoint and 'dog' in coco_classes"),
])
def test_head_of_other_classes_is_reported_and_not_loaded(checkpoint, trained, caplog, classes, expected):
    net = ToyDetector()
    before = values(net)
    assert load_pretrained(net, checkpoint, classes) == HEADS
    for name, value in values(net).items():
        assert np.array_equal(value, before[name] if name in HEADS else values(trained)[name])
    assert expected in caplog.text and ", ".join(HEADS) in caplog.text


def test_head_without_names_is_reported_and_loaded(tmp_path, trained, caplog):
    path = tmp_path / "old.ckpt"
    ms.save_checkpoint(trained, str(path))
    with caplog.at_level("INFO"):
        assert load_pretrained(ToyDetector(), path, PETS) == []
    assert f"{path} does not name its classes" in caplog.text


def test_classes_of_a_checkpoint_for_inference(checkpoint, caplog):
    load_checkpoint_into(ToyDetector(), checkpoint, PETS)
    load_checkpoint_into(ToyDetector(), checkpoint)
    assert not caplog.text
    load_checkpoint_into(ToyDetector(), checkpoint, ["background", "Katze", "Hund", "Vogel"])
    assert "was trained on other classes: label 1 is 'cat' in the checkpoint and 'Katze' in coco_classes" in caplog.text
    with pytest.raises(InputError, match=r"was trained on \[background, cat, dog, bird\], in this order, not on \[background, b"):
        load_checkpoint_into(ToyDetector(), checkpoint, ["background", "bird", "cat", "dog"])


def test_configuration_without_names_takes_them_from_the_checkpoint(checkpoint):
    unnamed = load_config(overrides={"num_classes": 4, "coco_classes": []})
    assert with_class_names(unnamed, checkpoint).coco_classes == tuple(PETS)
    other = load_config(overrides={"num_classes": 3, "coco_classes": []})
    assert with_class_names(other, checkpoint) is other
    named = load_config()
    assert with_class_names(named, checkpoint) is named and with_class_names(unnamed, checkpoint.with_name("no.ckpt")) is unnamed


# ------------------------------------------------------------------------------------------- training and evaluation data


def two_sets(tmp_path, source, train, val):
    """Return the configuration of a training and an evaluation set. train, val: class names in the order of their ids."""
    overrides = {"dataset": source, "coco_classes": [], "num_classes": len(train) + 1, "output_path": str(tmp_path / "out")}
    for prefix, names in (("", train), ("val_", val)):
        folder = tmp_path / f"{prefix}set"
        folder.mkdir()
        if source == "coco":
            boxes = [annotation(number, 1, [1, 1, 5, 5 + len(name)], number) for number, name in enumerate(names, 1)]
            paths = coco_set(folder, boxes, categories=[{"id": number, "name": name} for number, name in enumerate(names, 1)])
        elif source == "voc":
            paths = voc_set(folder, {"a": [(name, 1, 1, 6, 6 + len(name)) for name in names]})
        else:
            paths = txt_set(folder, "a.jpg " + " ".join(f"1,1,6,9,{name}" for name in names) + "\n")
        overrides |= {f"{prefix}image_dir": str(paths[0]), f"{prefix}anno_path": str(paths[1])}
    return load_config(overrides=overrides)


def heights_by_label(data) -> dict:
    """Return {label: box height - 5}, which is the length of the annotated class name."""
    import mindspore.dataset as ds

    rows = ds.MindDataset([str(file) for file in data.files], ["labels", "boxes"], shuffle=False)
    (labels, boxes), = [row for row in rows.create_tuple_iterator(num_epochs=1, output_numpy=True) if row[0].any()]
    return {int(label): int(box[3] - box[1]) - 5 for label, box in zip(labels, boxes)}


def test_ids_in_another_order_mean_the_same_labels(tmp_path):
    config = two_sets(tmp_path, "coco", ["red", "blue", "green"], ["green", "red", "blue"])
    data = prepare_data(config, train=True)
    require_same_classes(config, data)
    named = name_classes(config, data)
    assert named.coco_classes == ("background", "red", "blue", "green")
    val = prepare_data(named, train=False, in_training=True)
    assert heights_by_label(data) == heights_by_label(val) == {1: 3, 2: 4, 3: 5}
    assert [(item["name"], item["id"]) for item in val.categories] == [("red", 2), ("blue", 3), ("green", 1)]
    assert prepare_data(named, train=True).files == data.files      # not converted again


@pytest.mark.parametrize("source, train, val, expected", [
    ("coco", ["red", "blue"], ["red", "green"], "blue is only in .*/set/anno.json and green is only in .*/val_set/anno.json"),
    ("coco", ["red", "blue"], ["red"], "differ: blue is only in .*/set/anno.json;"),
    ("voc", ["red", "blue"], ["red", "blue", "green"], "differ: green is only in .*/val_set/Annotations;"),
    ("other", ["1", "2"], ["1", "3"], "differ: 3 is only in .*/val_set/.*;"),
])
def test_classes_of_only_one_set_are_refused(tmp_path, message, source, train, val, expected):
    config = two_sets(tmp_path, source, train, val)
    text = message(require_same_classes, config, prepare_data(config, train=True))
    assert text.startswith("coco_classes: the classes to train and to evaluate on differ: ")
    assert re.search(expected, text), text
    named = name_classes(config, prepare_data(config, train=True))      # the way out that the message names
    require_same_classes(named, prepare_data(named, train=True))


def test_labels_absent_from_the_evaluation_set_are_accepted(tmp_path):
    config = two_sets(tmp_path, "other", ["1", "2"], ["1"])
    data = prepare_data(config, train=True)
    require_same_classes(config, data)
    assert prepare_data(name_classes(config, data), train=False, in_training=True).class_names == ["background", "1", "2"]


def test_run_of_an_earlier_version_without_names_resumes(tmp_path):
    before = load_config(overrides={"num_classes": 4, "coco_classes": []})
    now = load_config(overrides={"num_classes": 4, "coco_classes": PETS})
    check_same_run({"config": before.to_dict(), "facts": {}}, now, {}, "state.ckpt")
    with pytest.raises(InputError, match="coco_classes was"):
        check_same_run({"config": now.to_dict(), "facts": {}}, load_config(overrides={
            "num_classes": 4, "coco_classes": ["background", "dog", "cat", "bird"]}), {}, "state.ckpt")
