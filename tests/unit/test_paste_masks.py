"""Pasted masks against fixtures and a loop over pixels, and their encoding."""
import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mask_rcnn.src import paste_masks
from mask_rcnn.src.paste_masks import paste_rle

SIZE = 28


def paste_by_hand(mask, box, height, width):
    """Return the probability at the centre of each pixel, (height, width) float64."""
    padded = np.pad(mask.astype(np.float64), 1)
    out = np.zeros((height, width))
    for y, x in np.ndindex(height, width):
        v = (y + 0.5 - box[1]) / (box[3] - box[1]) * SIZE - 0.5
        u = (x + 0.5 - box[0]) / (box[2] - box[0]) * SIZE - 0.5
        if -1 <= v < SIZE and -1 <= u < SIZE:
            i, j = int(np.floor(v)), int(np.floor(u))
            fv, fu = v - i, u - j
            out[y, x] = ((1 - fv) * ((1 - fu) * padded[i + 1, j + 1] + fu * padded[i + 1, j + 2])
                         + fv * ((1 - fu) * padded[i + 2, j + 1] + fu * padded[i + 2, j + 2]))
    return out


def smooth_masks(rng, count):
    cells = np.kron(rng.uniform(0.3, 1, (count, 7, 7)), np.ones((4, 4)))
    return np.clip(cells + rng.normal(0, 0.1, cells.shape), 0, 1).astype(np.float32)


BOXES = {
    "inside": (10.3, 5.7, 40.2, 30.1), "the whole picture": (0, 0, 60, 45), "beyond all sides": (-20.5, -9, 75.2, 60),
    "over the right": (41.1, 10.6, 80, 33.3), "over the upper left": (-17.7, -20.2, 12.9, 8.8), "outside": (70, 10, 90, 30),
    "below a pixel": (20.2, 13.1, 20.9, 13.8), "around a centre": (20.45, 13.4, 20.55, 13.6), "thin": (3, 22.3, 57, 23.1),
    "last corner": (58.7, 43.9, 60, 45), "no size": (5, 5, 5, 20), "turned": (30, 5, 10, 20), "not a number": (np.nan, 0, 9, 9),
}


@pytest.mark.parametrize("strip", [1 << 20, 100])
def test_equals_loop_over_pixels(monkeypatch, strip):
    monkeypatch.setattr(paste_masks, "PIXELS_AT_ONCE", strip)
    rng = np.random.default_rng(0)
    masks, boxes = smooth_masks(rng, len(BOXES)), np.array(list(BOXES.values()))
    got = dict(zip(BOXES, paste_rle(masks, boxes, 45, 60)))
    areas = {}
    for mask, (name, box) in zip(masks, BOXES.items()):
        assert got[name]["size"] == [45, 60] and isinstance(got[name]["counts"], str)
        decoded = coco_mask.decode(got[name])
        areas[name] = decoded.sum()
        if name in ("no size", "turned", "not a number"):
            assert areas[name] == 0
            continue
        soft = paste_by_hand(mask, box, 45, 60)
        np.testing.assert_array_equal(decoded[np.abs(soft - 0.5) > 1e-5], (soft >= 0.5)[np.abs(soft - 0.5) > 1e-5], err_msg=name)
    assert areas["outside"] == 0 and sum(area > 0 for area in areas.values()) > 5
    assert areas["the whole picture"] > 1000


@pytest.mark.parametrize("value, expected", [(1.0, 1), (0.0, 0)])
def test_full_and_empty_masks(value, expected):
    """A run continues from the bottom of a column to the top of the next column."""
    masks = np.full((2, SIZE, SIZE), value, np.float32)
    whole, part = paste_rle(masks, [(-50, -50, 110, 95), (10, 5, 30, 25)], 45, 60)
    assert (coco_mask.decode(whole) == expected).all()
    assert coco_mask.area([part])[0] == 400 * expected
    assert whole["counts"] == coco_mask.encode(np.full((45, 60), expected, np.uint8, order="F"))["counts"].decode()


def test_encoding_equals_pycocotools():
    """The bytes are equal: there are no runs of length 0, which would decode to the same mask."""
    rng = np.random.default_rng(1)
    corner = rng.uniform(-20, 50, (50, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, 60, (50, 2))], 1)
    for rle in paste_rle(smooth_masks(rng, 50), boxes, 45, 60):
        assert rle["counts"] == coco_mask.encode(np.asfortranarray(coco_mask.decode(rle)))["counts"].decode()


def test_threshold_and_no_detections():
    mask = np.linspace(0, 1, SIZE * SIZE, dtype=np.float32).reshape(1, SIZE, SIZE)
    areas = [coco_mask.area(paste_rle(mask, [(0, 0, 56, 56)], 56, 56, threshold))[0] for threshold in (0.3, 0.5, 0.7)]
    np.testing.assert_allclose(areas, [0.7 * 56 ** 2, 0.5 * 56 ** 2, 0.3 * 56 ** 2], rtol=0.03)
    assert paste_rle(np.zeros((0, SIZE, SIZE)), np.zeros((0, 4)), 10, 10) == []


def test_pasting_parity(parity_file):
    fixture = np.load(parity_file("op_fixtures.npz"))
    expected = fixture["paste/d2"]
    got = paste_rle(fixture["paste/prob"], fixture["paste/boxes"], *expected.shape[1:])
    np.testing.assert_array_equal(np.stack([coco_mask.decode(rle) for rle in got]), expected)


def test_truncated_pasting_parity(parity_file):
    """torchvision's soft masks. Pixels within rounding of the threshold may differ."""
    fixture = np.load(parity_file("op_fixtures.npz"))
    soft = fixture["paste/tv_soft"]
    for threshold in (0.5, 0.2, 0.8):
        rles = paste_rle(fixture["paste/prob"], fixture["paste/boxes"], *soft.shape[1:], threshold, "truncated")
        got = np.stack([coco_mask.decode(rle) for rle in rles])
        sure = np.abs(soft - threshold) > 1e-5
        np.testing.assert_array_equal(got[sure], (soft >= threshold)[sure])
        assert sure.mean() > 0.99 and got.any()


def test_truncated_boxes_outside_the_image_have_no_pixels():
    boxes = [(70, 10, 90, 30), (-30, -30, -10, -10), (5, 5, 5, 20), (np.nan, 0, 9, 9)]
    rles = paste_rle(np.ones((4, SIZE, SIZE)), boxes, 45, 60, rule="truncated")
    assert coco_mask.area(rles).tolist() == [0, 0, 0, 0]


def test_rounded_pasting_is_resizing_to_whole_pixels():
    """mindspore-lab's rule: OpenCV resizes the mask to the rounded size; it starts at the truncated corner and is clipped."""
    rng = np.random.default_rng(1)
    boxes = [(10.3, 5.7, 40.2, 30.1), (0, 0, 60, 45), (41.1, 10.6, 60, 45), (20.2, 13.1, 21.4, 13.8), (3, 22.3, 57, 23.1),
             (20.2, 13.1, 20.6, 20), (60, 5, 60, 20), (5, 45, 20, 45)]
    masks = smooth_masks(rng, len(boxes))
    masks[0, :14] = 0.5         # exactly the threshold is background
    for mask, box, rle in zip(masks, boxes, paste_rle(masks, boxes, 45, 60, rule="rounded")):
        expected = np.zeros((45, 60), np.uint8)
        width, height = (int(box[i + 2] - box[i] + 0.5) for i in (0, 1))
        if width and height:
            soft = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)
            x, y = int(box[0]), int(box[1])
            inside = expected[y:y + height, x:x + width]
            inside[:] = (soft > 0.5)[:inside.shape[0], :inside.shape[1]]
        assert (coco_mask.decode(rle) != expected).sum() <= 1
        assert coco_mask.area(rle) == expected.sum() or expected.any()
