"""Small data sets in COCO's layout, and exports of toy networks, for tests of the commands."""
import json

import cv2
import numpy as np

SIZES = ((120, 200), (300, 161), (90, 90))      # height, width of the images of `write_quarters`
CATEGORIES = [{"id": 11, "name": "cat"}, {"id": 5, "name": "dog"}, {"id": 7, "name": "bird"}]


def quarters(height: int, width: int) -> list:
    """Return the boxes that toy networks find: x, y, width, height."""
    return [[x, y, width / 2, height / 2] for y in (0, height / 2) for x in (0, width / 2)]


def left_half(x, y, width, height) -> list:
    """Return the mask that toy networks find for a box, as a polygon."""
    return [x, y, x + width / 2, y, x + width / 2, y + height, x, y + height]


def write_quarters(root):
    """Write a validation set. Objects are the quarters of an image; masks are the left halves of objects."""
    (root / "val2017").mkdir()
    (root / "annotations").mkdir()
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for image_id, (height, width) in enumerate(SIZES, 31):
        cv2.imwrite(str(root / "val2017" / f"{image_id:012d}.png"), rng.integers(0, 255, (height, width, 3), np.uint8))
        images.append({"id": image_id, "file_name": f"{image_id:012d}.png", "height": height, "width": width})
        for box, category in zip(quarters(height, width), (11, 5, 7, 11)):
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, "category_id": category, "bbox": box,
                                "area": box[2] * box[3] / 2, "iscrowd": 0, "segmentation": [left_half(*box)]})
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    return root


def write_noise(root):
    """Write 6 training and 3 validation images of noise, 48 x 64, with one object each."""
    (root / "annotations").mkdir()
    rng = np.random.default_rng(0)
    for name, count in (("train2017", 6), ("val2017", 3)):
        (root / name).mkdir()
        images, annotations = [], []
        for i in range(count):
            image = rng.integers(0, 255, (48, 64, 3), np.uint8)
            cv2.imwrite(str(root / name / f"{i}.png"), image)
            images.append({"id": 10 + i, "file_name": f"{i}.png", "height": 48, "width": 64})
            box = [4, 6, 20 + i, 30]
            annotations.append({"id": i + 1, "image_id": 10 + i, "category_id": 1 + i % 3, "bbox": box,
                                "area": box[2] * box[3] / 2, "iscrowd": 0, "segmentation": [left_half(*box)]})
        content = {"images": images, "annotations": annotations,
                   "categories": [{"id": i, "name": f"thing {i}"} for i in (1, 2, 3)]}
        (root / "annotations" / f"instances_{name}.json").write_text(json.dumps(content))
    return root


def export_toy(net, plain, folder, height: int = 96):
    """Write `folder`/toy.mindir and toy.onnx, for one image of height x 128. plain: a folder without a space in its path."""
    import mindspore as ms

    from faster_rcnn.src.network_define import InferenceNet

    inputs = ms.Tensor(np.zeros((1, 3, height, 128), np.float32)), ms.Tensor(np.ones((1, 6), np.float32))
    for kind in ("MINDIR", "ONNX"):
        ms.export(InferenceNet(net).set_train(False), *inputs, file_name=str(plain / "toy"), file_format=kind)
        (plain / f"toy.{kind.lower()}").rename(folder / f"toy.{kind.lower()}")
    return folder
