"""Batches with outlines: outlines match the pixels of their objects and the boxes in the same rows."""
import json

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_utils

from mask_rcnn.src.dataset import MaskTransform, build_train_transform, prepare_data
from mask_rcnn.src.model_utils.config import load_config
from mask_rcnn.src.model_utils.data.augmentation import Augmenter
from mask_rcnn.src.model_utils.data.loading import EvalBatches, build_preprocess, create_dataset, iterate
from mask_rcnn.src.model_utils.data.transforms import InputSize, Preprocess
from tests.unit.test_mask_edges import fill, overlap, runs_of
from utils import mindrecord

GREYS = (100, 170, 240)     # of the three objects in each image


def draw_set(folder, count=6, as_runs=False) -> tuple:
    """Return (image_dir, JSON file): black images with three separate polygons, one for each grey, labels 1, 2, 3."""
    rng = np.random.default_rng(5)
    (folder / "pictures").mkdir(parents=True)
    content = {"images": [], "annotations": [],
               "categories": [{"id": 10 + k, "name": f"grey{grey}"} for k, grey in enumerate(GREYS)]}
    for i in range(count):
        height, width = 60 + 5 * i, 130 - 7 * i
        image = np.zeros((height, width, 3), np.uint8)
        content["images"].append({"id": 50 + i, "file_name": f"p {i}.png", "height": height, "width": width})
        for k, grey in enumerate(GREYS):
            angles = np.sort(rng.uniform(0, 2 * np.pi, 9)) + 0.1
            radii = rng.uniform(0.6, 1, 9) * min(width / 7, height / 2.2)
            points = np.stack([width * (2 * k + 1) / 6 + radii * np.cos(angles), height / 2 + radii * np.sin(angles)], 1)
            fine = np.zeros((8 * height, 8 * width), np.uint8)      # OpenCV also fills the pixels on the outline
            cv2.fillPoly(fine, [np.round(8 * points - 0.5).astype(np.int32)], 255)
            mask = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA) > 127
            image[mask] = grey
            (x, y), (right, bottom) = points.min(0), points.max(0)
            content["annotations"].append({
                "id": 3 * i + k, "image_id": 50 + i, "category_id": 10 + k, "iscrowd": 0,
                "bbox": [x, y, right - x, bottom - y], "area": float(mask.sum()),
                "segmentation": runs_of(mask) if as_runs else [points.ravel().tolist()]})
        assert cv2.imwrite(str(folder / "pictures" / f"p {i}.png"), image)
    path = folder / "anno.json"
    path.write_text(json.dumps(content))
    return folder / "pictures", path


def grey_transform(augmenter, num_gts=4, size=(160, 256)) -> MaskTransform:
    """Return a transform that does not normalise; num_gts slots, at most 64 edges."""
    return MaskTransform(Preprocess(InputSize(*size), (0, 0, 0), (1, 1, 1)), augmenter, num_gts, 3, 64)


def rows_of(manifest, folder, transform, epochs=(1,), batch_size=2) -> list:
    """Return [(image, info, boxes, labels, valid, edges, image_id)], one tuple per image."""
    files = [folder / name for name in manifest["files"]]
    rows = []
    for epoch in epochs:
        data = create_dataset(files, manifest["count"], transform, batch_size, epoch=epoch)
        rows += [row for batch in iterate(data, output_numpy=True) for row in zip(*batch)]
    return rows


@pytest.mark.parametrize("as_runs", [False, True])
@pytest.mark.parametrize("augmenter", [
    Augmenter(["flip"], {"flip_ratio": 0.5}),
    Augmenter(["expand", "multi_scale", "flip"], {"flip_ratio": 0.5, "expand_ratio": 1.0, "expand_factor": 2.0,
                                                  "multi_scale": (0.6, 0.8, 1.0)})])
def test_outlines_follow_the_pixels(tmp_path, as_runs, augmenter):
    manifest = mindrecord.convert("coco", *draw_set(tmp_path, as_runs=as_runs), tmp_path / "o", progress=False, masks=True)
    rows = rows_of(manifest, tmp_path / "o", grey_transform(augmenter), epochs=(1, 2))
    assert len(rows) == 12
    flipped, overlaps = set(), []
    for image, _, boxes, labels, valid, edges, _ in rows:
        assert image.shape == (3, 160, 256) and edges.shape == (4, 64, 5) and edges.dtype == np.float32
        assert valid.tolist() == [True] * 3 + [False] and labels.tolist() == [1, 2, 3, 0] and not edges[3].any()
        flipped.add(bool(boxes[0, 0] > boxes[2, 0]))
        for k, grey in enumerate(GREYS):
            x, y, right, bottom = np.round(boxes[k]).astype(int)
            seen = np.zeros((160, 256), bool)       # pixels that the object covers at least half
            seen[y:bottom, x:right] = image[0, y:bottom, x:right] >= grey / 2
            overlaps.append(overlap(fill(edges[k], 160, 256), seen))
    assert flipped == {False, True}
    assert min(overlaps) > 0.75 and np.median(overlaps) > 0.94


def test_outlines_follow_the_pixels_of_crops(tmp_path):
    """Compared within the box, which the crop clips. The outline continues outside."""
    augmenter = Augmenter(["ssd_expand", "crop", "expand", "multi_scale", "flip"],
                          {"expand_ratio": 1.0, "expand_factor": 1.5, "crop_ratio": 1.0, "multi_scale": (0.8, 1.0),
                           "flip_ratio": 0.5})
    manifest = mindrecord.convert("coco", *draw_set(tmp_path), tmp_path / "o", progress=False, masks=True)
    overlaps, cut = [], 0
    for image, _, boxes, labels, valid, edges, _ in rows_of(manifest, tmp_path / "o", grey_transform(augmenter), epochs=(1, 2, 3)):
        for box, label, outline in zip(boxes[valid], labels[valid], edges[valid]):
            x, y, right, bottom = np.round(box).astype(int)
            if min(right - x, bottom - y) < 12:
                continue        # too small: every pixel is on the border
            seen = image[0, y:bottom, x:right] >= GREYS[label - 1] / 2
            overlaps.append(overlap(fill(outline, 160, 256)[y:bottom, x:right], seen))
            points = outline[outline[:, :4].any(axis=1)][:, :2]
            cut += bool((points.min(0) < box[:2] - 2).any() or (points.max(0) > box[2:] + 2).any())
    assert len(overlaps) > 20 and cut > 5
    assert min(overlaps) > 0.75 and np.median(overlaps) > 0.94


def test_outlines_of_dropped_objects_are_dropped(tmp_path):
    """Crowds, objects without a mask, which the records lack, and objects beyond num_gts."""
    image_dir, path = draw_set(tmp_path, count=4)
    content = json.loads(path.read_text())
    for item in content["annotations"]:
        item["iscrowd"] = int(item["id"] == 1)
        if item["id"] == 5:
            item["segmentation"] = None
    path.write_text(json.dumps(content))
    manifest = mindrecord.convert("coco", image_dir, path, tmp_path / "o", progress=False, masks=True)
    assert manifest["objects"] == 11
    seen = {}
    for _, _, boxes, labels, valid, edges, image_id in rows_of(manifest, tmp_path / "o", grey_transform(Augmenter(), 2),
                                                               epochs=(1, 2, 3)):
        assert valid.all()
        seen.setdefault(int(image_id), set()).update(labels.tolist())
        for box, outline in zip(boxes, edges):
            points = outline[outline[:, :4].any(axis=1)][:, :2]
            np.testing.assert_allclose([*points.min(0), *points.max(0)], box, atol=1e-3)
    assert seen == {50: {1, 3}, 51: {1, 2}, 52: {1, 2, 3}, 53: {1, 2, 3}}


def test_outlines_of_objects_outside_the_image_are_dropped():
    """The first of three objects is outside the image."""
    squares = [[50, 1, 60, 9], [2, 3, 8, 9], [10, 12, 20, 25]]
    masks = [[[x, y, right, y, right, bottom, x, bottom]] for x, y, right, bottom in squares]
    data = np.array([cv2.imencode(".png", np.zeros((30, 40, 3), np.uint8))[1].tobytes()])
    transform = grey_transform(Augmenter(), 3, size=(30, 40))
    _, _, boxes, labels, valid, edges = transform(
        1, data, "a.png", 0, np.array(squares, np.float32), np.array([7, 8, 9]), np.zeros(3, np.int32), 3,
        np.array([json.dumps(masks).encode()]))
    assert boxes.tolist() == [squares[1], squares[2], [0] * 4] and labels.tolist() == [8, 9, 0]
    assert edges[:2, 0].tolist() == [[2, 3, 8, 3, 0], [10, 12, 20, 12, 0]] and not edges[:, 4:].any() and not edges[2].any()


@pytest.mark.parametrize("name, classes", [("pennfudan", 2), ("coco_mini", 81)])
def test_masks_of_real_data(data_dir, tmp_path, name, classes):
    """Run lengths and polygons: filled outlines match the scaled masks that pycocotools decodes."""
    config = load_config(overrides={"coco_root": str(data_dir / name), "output_path": str(tmp_path), "num_classes": classes,
                                    "coco_classes": [], "img_height": 160, "img_width": 256, "num_gts": 40,
                                    "train_data_type": "val2017"})
    train, val = prepare_data(config, train=True), prepare_data(config, train=False, in_training=True)
    assert {path.parent.parent for path in train.files} == {tmp_path / "mindrecord" / "train_masks"}
    assert {path.parent.parent for path in val.files} == {tmp_path / "mindrecord" / "eval"}
    assert sum(1 for _ in EvalBatches(val.files, val.count, build_preprocess(config))) == val.count
    content = json.loads((data_dir / name / "annotations" / "instances_val2017.json").read_text())
    objects = {}
    for item in content["annotations"]:
        if not item["iscrowd"]:
            objects.setdefault(item["image_id"], []).append(item)
    transform = build_train_transform(config)
    transform.augmenter = Augmenter()
    data = create_dataset(train.files, train.count, transform, 1, epoch=1)
    overlaps, counted = [], 0
    for number, ((_,), (info,), (boxes,), _, (valid,), (edges,), (image_id,)) in enumerate(iterate(data, output_numpy=True)):
        found = objects[int(image_id)]
        assert valid.sum() == min(len(found), 40) and edges[valid].any(axis=(1, 2)).all() and not edges[~valid].any()
        counted += int(valid.sum())
        if number % 2 or len(found) > 40:
            continue
        size, original = info[:2].astype(int), info[4:].astype(int)
        for item, outline, box in zip(found, edges, boxes):
            if min(box[2:] - box[:2]) < 8:
                continue        # too small: every pixel is on the border
            runs = item["segmentation"]
            runs = mask_utils.merge(mask_utils.frPyObjects(runs, *original)) if isinstance(runs, list) else runs
            want = cv2.resize(mask_utils.decode(runs).astype(np.float32), size[::-1].tolist(), interpolation=cv2.INTER_AREA)
            overlaps.append(overlap(fill(outline, *size), want >= 0.5))
    assert counted == sum(min(len(items), 40) for items in objects.values())
    assert len(overlaps) > 25 and np.median(overlaps) > 0.95 and min(overlaps) > 0.75


def test_configuration_reaches_the_transform(message):
    config = load_config(overrides={"max_mask_edges": 33, "num_gts": 7, "img_height": 64, "img_width": 96, "seed": 9})
    transform = build_train_transform(config)
    assert (transform.max_edges, transform.num_gts, transform.seed) == (33, 7, 9)
    assert transform.preprocess.size == InputSize(64, 96)
    error = message(load_config, overrides={"dataset": "voc"})
    assert error.startswith("dataset: 'voc' has no masks")


def test_a_conversion_without_masks_is_kept(data_dir, tmp_path):
    """A conversion without masks in mindrecord_dir is neither used nor replaced; a conversion with masks is used."""
    root = data_dir / "coco_mini"
    paths = root / "train2017", root / "annotations" / "instances_train2017.json"
    classes = load_config().coco_classes
    config = load_config(overrides={"coco_root": str(root), "mindrecord_dir": str(tmp_path)})
    mindrecord.convert("coco", *paths, tmp_path, classes=classes, progress=False)
    made = (tmp_path / "manifest.json").read_bytes()
    assert all(tmp_path / "train_masks" in path.parents for path in prepare_data(config, train=True).files)
    assert (tmp_path / "manifest.json").read_bytes() == made
    mindrecord.convert("coco", *paths, tmp_path, classes=classes, progress=False, masks=True)
    made = (tmp_path / "manifest.json").read_bytes()
    assert all(tmp_path / "train_masks" not in path.parents for path in prepare_data(config, train=True).files)
    assert (tmp_path / "manifest.json").read_bytes() == made
