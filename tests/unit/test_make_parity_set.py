"""The numpy parts of tests/make_parity_set.py: crops of images and objects, class orders, sampling."""
import json

import cv2
import numpy as np
import pytest

from tests import make_parity_set as made
from tests.crop_images import crop_images, crop_objects
from tests.parity_models import ParityModel

SQUARE = [10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]     # (x, y) corners of an object of 20 x 20 pixels


def annotation(dx=0, dy=0, **fields) -> dict:
    """Return an annotation of the square, shifted by (dx, dy)."""
    polygon = (np.reshape(SQUARE, (-1, 2)) + (dx, dy)).ravel().tolist()
    return {"bbox": [10 + dx, 10 + dy, 20, 20], "segmentation": [polygon], "category_id": 1, "area": 400, **fields}


def test_objects_are_clipped_to_the_crop():
    inside = crop_objects([annotation(20, 5), annotation(-2, -5)], (5, 0), (40, 60))
    assert [item["bbox"] for item in inside] == [[25, 15, 20, 20], [3, 5, 20, 20]]
    assert inside[0]["segmentation"] == [[25, 15, 45, 15, 45, 35, 25, 35]] and inside[0]["area"] == 400
    cut = crop_objects([annotation()], (18, 15), (40, 60))
    assert cut == [annotation(bbox=[0, 0, 12, 15], segmentation=[[0, 0, 12, 0, 12, 15, 0, 15]], area=180)]
    assert crop_objects([annotation()], (24, 0), (40, 60)) == []    # less than a third is left: 6 of 20 columns


def test_the_upper_right_part_of_images_is_kept(tmp_path):
    source, output = tmp_path / "source", tmp_path / "output"
    (source / "images").mkdir(parents=True)
    output.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    for name in ("3.png", "4.png"):
        cv2.imwrite(str(source / "images" / name), pixels)
    data = {"images": [{"id": 4, "file_name": "4.png"}, {"id": 3, "file_name": "3.png"}], "categories": [{"id": 1, "name": "a"}],
            "annotations": [annotation(image_id=4, id=1), annotation(20, image_id=3, id=2), annotation(dy=25, image_id=3, id=3)]}
    (source / "instances.json").write_text(json.dumps(data))
    got, corners = crop_images(source, output, {7: (32, 40), 12: (40, 60)})
    assert corners == [(24, 0), (4, 0)] and got == json.loads((output / "instances.json").read_text())
    assert got["images"] == [{"id": 7, "file_name": "000000000007.png", "height": 32, "width": 40},
                             {"id": 12, "file_name": "000000000012.png", "height": 40, "width": 60}]
    assert [(item["id"], item["image_id"], item["bbox"]) for item in got["annotations"]] == [
        (1, 7, [6, 10, 20, 20]), (2, 12, [6, 10, 20, 20])]
    np.testing.assert_array_equal(cv2.imread(str(output / "images" / "000000000012.png")), pixels[:40, 4:])
    with pytest.raises(ValueError, match="2 images, expected 1"):
        crop_images(source, tmp_path, {7: (32, 40)})


@pytest.fixture(params=["detectron2", "torchvision", "mmdet"])
def model(request, tmp_path):
    """Return a ParityModel of two classes, without arrays."""
    names = dict.fromkeys(("rpn_cls", "rpn_box", "cls", "box"), "loss")
    config = {"framework": request.param, "num_foreground_classes": 2, "losses": {"names": names},
              "background_index": 0 if request.param == "torchvision" else 2}
    for name, content in (("config", config), ("tolerances", {"recommended": {}}), ("expected_detections", [])):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return ParityModel(tmp_path)


def test_orders_of_classes(model):
    """Our background is class 0. Theirs is the last class, or class 0 with box deltas and masks."""
    torchvision, ours = model.framework == "torchvision", np.arange(3)
    assert made.their_labels(model, ours).tolist() == ([0, 1, 2] if torchvision else [2, 0, 1])
    assert made.their_classes(model, ours).tolist() == ([0, 1, 2] if torchvision else [1, 2, 0])
    assert len(made.their_boxes(model, np.ones(8))) == (12 if torchvision else 8)
    assert len(made.their_masks(model, np.ones(2))) == (3 if torchvision else 2)


def test_orders_of_classes_and_back(model):
    ours, rows = np.array([2, 0, 1, 1, 0]), np.random.default_rng(0).standard_normal((8, 5))
    for there, back, array in ((made.their_labels, model.labels, ours), (made.their_classes, model.class_rows, rows[:3]),
                               (made.their_boxes, model.box_rows, rows), (made.their_masks, model.mask_rows, rows[:2])):
        np.testing.assert_array_equal(back(there(model, array)), array)


def test_targets_of_boxes():
    got = made.encode([[0, 0, 10, 20]], [[5, 0, 15, 40]], (10, 10, 5, 5))
    np.testing.assert_allclose(got, [[5, 5, 0, 5 * np.log(2)]], rtol=1e-6)


@pytest.mark.parametrize("objects, expected", [(3, 3), (40, 8)])
def test_samples(objects, expected):
    """At most half of the batch is foreground; background fills the rest."""
    labels = np.zeros(100, int)
    labels[10:10 + objects], labels[:5] = 1, -1
    positive, negative = made.draw(np.random.default_rng(0), labels == 1, labels == 0, {"batch": 16, "pos_fraction": 0.5})
    assert len(positive) == expected and len(negative) == 16 - expected
    assert (labels[positive] == 1).all() and (labels[negative] == 0).all() and len({*positive, *negative}) == 16
