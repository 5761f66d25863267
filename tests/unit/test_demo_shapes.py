"""The demo's data set: the annotations match the images, and a seed always gives the same images."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as rle
from pycocotools.coco import COCO

from utils.demo import paint, shapes
from utils.demo.forms import FORMS


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """(folder, info) of a tiny data set; the folder's name holds a space."""
    folder = tmp_path_factory.mktemp("drawn pictures")
    return folder, shapes.draw_dataset(folder, train=5, val=3, size=128, seed=11, workers=1)


def test_layout_and_annotations_agree_with_images(dataset):
    folder, info = dataset
    assert info["pictures"] == {"train2017": 5, "val2017": 3}
    for split, count in info["pictures"].items():
        coco = COCO(str(folder / "annotations" / f"instances_{split}.json"))
        assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == ["fish", "starfish", "shell"]
        assert len(coco.imgs) == count == len(list((folder / split).glob("*.jpg")))
        assert len(coco.anns) == info["objects"][split] > 0
        for image in coco.imgs.values():
            assert cv2.imread(str(folder / split / image["file_name"])).shape == (128, 128, 3)
        for annotation in coco.anns.values():
            mask = coco.annToMask(annotation)
            ys, xs = np.nonzero(mask)
            assert annotation["bbox"] == [xs.min(), ys.min(), xs.max() + 1 - xs.min(), ys.max() + 1 - ys.min()]
            assert annotation["area"] == mask.sum() > 0
            assert annotation["iscrowd"] == 0


def test_masks_of_an_image_are_disjoint(dataset):
    folder, _ = dataset
    coco = COCO(str(folder / "annotations" / "instances_train2017.json"))
    for image_id in coco.imgs:
        masks = [coco.annToMask(a) for a in coco.loadAnns(coco.getAnnIds(imgIds=[image_id]))]
        assert np.sum(masks, axis=0).max() == 1


def test_mask_covers_the_object_and_nothing_else(monkeypatch):
    """If white objects are painted on black without light or shadow, the masks are the bright pixels."""
    monkeypatch.setattr(paint, "background", lambda rng, size: np.zeros((size, size, 3), np.float32))
    monkeypatch.setattr(paint, "shade", lambda albedo, height, light, gloss: np.ones((*height.shape, 3), np.float32))
    monkeypatch.setattr(shapes, "_cast_shadow", lambda *args: None)
    for clutter in ("_pebble", "_weed"):
        monkeypatch.setattr(shapes, clutter, lambda *args: None)
    for seed in range(4):
        image, objects = shapes.draw_scene(np.random.default_rng(seed), 160)
        shown = image.min(axis=2) > 127
        masks = np.any([o.mask for o in objects], axis=0)
        assert np.mean(shown != masks) < 0.003       # camera grain may flip pixels of an edge


def test_every_object_stays_visible(monkeypatch):
    placed = []

    def place(rng, owner, totals, alpha):
        corner = real_place(rng, owner, totals, alpha)
        if corner is not None:
            placed.append(int((alpha > 0.5).sum()))
        return corner

    real_place = shapes._place
    monkeypatch.setattr(shapes, "_place", place)
    for seed in range(6):
        placed.clear()
        _, objects = shapes.draw_scene(np.random.default_rng(seed), 160)
        visible = [drawn.mask.sum() / area for drawn, area in zip(objects, placed)]
        assert min(visible) >= shapes.MIN_VISIBLE


def test_same_seed_same_bytes_whatever_the_number_of_workers_and_images(dataset, tmp_path):
    folder, _ = dataset
    shapes.draw_dataset(tmp_path, train=3, val=1, size=128, seed=11, workers=2)
    for name in ("train2017/000001.jpg", "train2017/000003.jpg", "val2017/000001.jpg"):
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes()
    assert (folder / "train2017/000001.jpg").read_bytes() != (folder / "val2017/000001.jpg").read_bytes()


def test_drawn_once_and_again_when_changed_or_interrupted(tmp_path):
    wish = {"train": 1, "val": 1, "size": 64, "workers": 1}
    assert shapes.draw_dataset(tmp_path, **wish, seed=1)["drawn"]
    first = (tmp_path / "train2017/000001.jpg").read_bytes()
    assert not shapes.draw_dataset(tmp_path, **wish, seed=1)["drawn"]
    assert shapes.draw_dataset(tmp_path, **wish, seed=2)["drawn"]
    assert (tmp_path / "train2017/000001.jpg").read_bytes() != first
    (tmp_path / "drawn.json").unlink()      # as after an interrupted drawing
    assert shapes.draw_dataset(tmp_path, **wish, seed=2)["drawn"]


def test_smaller_data_set_leaves_no_old_images(tmp_path):
    shapes.draw_dataset(tmp_path, train=3, val=1, size=64, seed=1, workers=1)
    shapes.draw_dataset(tmp_path, train=1, val=1, size=64, seed=1, workers=1)
    assert len(list((tmp_path / "train2017").iterdir())) == 1


@pytest.mark.parametrize("name", sorted(FORMS))
def test_forms_fill_the_unit_circle_and_vary(name):
    """A patch would crop a larger outline. Two objects of a class must differ."""
    outlines = [FORMS[name](np.random.default_rng(seed)).polygons for seed in range(40)]
    for polygons in outlines:
        assert max(np.linalg.norm(p, axis=1).max() for p in polygons) == pytest.approx(1, abs=1e-6)
    assert not np.allclose(outlines[0][-1][0], outlines[1][-1][0])


def test_colour_gives_no_class_away():
    """The mean colours of the classes differ less than the colours within a class."""
    means = {name: [] for name in shapes.CLASSES}
    light = np.float32([0.4, 0.5, 0.77])
    for name, values in means.items():
        for seed in range(40):
            patch, alpha = shapes._object(np.random.default_rng(seed), name, 20, light)
            values.append(patch[alpha > 0.5].mean(axis=0))
    centres = np.array([np.mean(v, axis=0) for v in means.values()])
    spread = np.mean([np.std(v, axis=0) for v in means.values()])
    assert np.abs(centres - centres.mean(axis=0)).max() < spread


def test_command_line_draws(tmp_path, capsys):
    shapes.main([str(tmp_path / "a b"), "--train=1", "--val=1", "--size=64"])
    assert "1 image," in capsys.readouterr().out
    entry = json.loads((tmp_path / "a b/annotations/instances_val2017.json").read_text())["annotations"][0]
    assert rle.area(entry["segmentation"]) == entry["area"]
    assert Path(tmp_path / "a b/val2017/000001.jpg").stat().st_size > 500
