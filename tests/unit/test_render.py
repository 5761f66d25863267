"""Augmentation moves boxes, points and pixels alike."""
from dataclasses import replace

import numpy as np
import pytest

from faster_rcnn.src.model_utils.data.render import Placement
from faster_rcnn.src.model_utils.data.transforms import (
    InputSize,
    Preprocess,
    clip_boxes,
)
from tests.unit.test_transforms import augment, augment_boxes, colours, picture, plain


def test_boxes_and_points_scale_clip_and_flip():
    boxes, points = np.array([[1, 2, 3, 4], [-5, 0, 200, 90.5]], np.float32), np.array([[1, 2], [-5, 90.5]])
    straight = Placement(original=(50, 100), window=(0, 0, 100, 50), seen=(0, 0, 100, 50), size=(130, 340), inner=(100, 300),
                         corner=(10, 20))
    flipped = replace(straight, flip_x=True)
    np.testing.assert_array_equal(clip_boxes(boxes, 50, 100), [[1, 2, 3, 4], [0, 0, 100, 50]])
    np.testing.assert_array_equal(straight.boxes(boxes), [[23, 14, 29, 18], [20, 10, 320, 110]])
    np.testing.assert_array_equal(flipped.boxes(boxes), [[311, 14, 317, 18], [20, 10, 320, 110]])
    np.testing.assert_array_equal(straight.points(points), [[23, 14], [5, 191]])
    np.testing.assert_array_equal(flipped.points(points), [[317, 14], [335, 191]])
    upside_down = replace(straight, flip_y=True)
    np.testing.assert_array_equal(upside_down.boxes(boxes), [[23, 112, 29, 116], [20, 20, 320, 120]])
    np.testing.assert_array_equal(upside_down.points(points), [[23, 116], [5, -61]])
    part = replace(straight, window=(10, 0, 60, 50), seen=(10, 0, 60, 50))    # x scales by 6
    np.testing.assert_array_equal(part.boxes(boxes), [[0] * 4, [20, 10, 320, 110]])
    np.testing.assert_array_equal(part.points(points), [[-34, 14], [-70, 191]])
    assert boxes[1].tolist() == [-5, 0, 200, 90.5] and points[1].tolist() == [-5, 90.5]
    none = np.zeros((0, 4), np.float32)
    assert flipped.boxes(none).shape == clip_boxes(none, 5, 5).shape == (0, 4)
    assert flipped.boxes(none).dtype == np.float32 and flipped.points(none[:, :2]).shape == (0, 2)


def test_flipping_twice_changes_nothing():
    """The pipeline flips once, and the test flips back."""
    size, image, boxes = InputSize(48, 64), picture(24, 30), np.array([[3, 4, 20, 21]], np.float32)
    straight, _, straight_boxes = augment_boxes(image, boxes, plain(size))
    flipped, _, flipped_boxes = augment_boxes(image, boxes, plain(size), flip_x=True)
    width = size.resized(24, 30)[1]
    assert width == 60
    np.testing.assert_array_equal(flipped[:, :, :width][:, :, ::-1], straight[:, :, :width])
    assert not flipped[:, :, width:].any()
    back = np.stack([width - flipped_boxes[:, 2], flipped_boxes[:, 1], width - flipped_boxes[:, 0], flipped_boxes[:, 3]], 1)
    np.testing.assert_allclose(back, straight_boxes, atol=1e-5)


AUGMENTATIONS = [
    {},
    {"flip_x": True},
    {"factor": 0.6},
    {"factor": 0.7, "flip_x": True},
    {"margin": 1.7, "corner": (0.3, 0.9)},
    {"margin": 2.5, "corner": (0.999, 0.999), "flip_x": True},
    {"margin": 3.9, "factor": 0.9},
    {"recolour": colours(30.0, 0.6, 1.4, 8.0)},
    {"flip_x": True, "factor": 0.8, "margin": 1.3, "corner": (0.5, 0.2), "recolour": colours(-30.0, 1.4, 0.6, -8.0)},
    {"flip_y": True, "margin": 1.6, "corner": (0.9, 0.1)},
    {"window": (15, -20, 160, 110)},
    {"window": (-30, 10, 150, 140), "flip_x": True, "flip_y": True, "factor": 0.9, "margin": 1.4, "corner": (0.2, 0.7)},
]
SIZES = [InputSize(256, 384), InputSize(256, 384, keep_ratio=False), InputSize(200, 300, pad_to="divisor"),
         InputSize(150, 300, pad_to="256x384")]


@pytest.mark.parametrize("what", AUGMENTATIONS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", [(120, 200), (300, 170)])
def test_a_box_follows_the_pixels_of_a_white_rectangle(shape, size, what):
    image, (x1, y1, x2, y2) = np.zeros((*shape, 3), np.uint8), (40, 30, 140, 90)
    image[y1:y2, x1:x2] = 255
    got, info, placed = augment(image, plain(size), **what)
    boxes = placed.boxes(np.array([[x1, y1, x2, y2]], np.float32))
    rows, columns = np.nonzero(got[0] > got[0].max() / 2)
    np.testing.assert_allclose(boxes[0], [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], atol=1.0)
    height, width = map(int, info[:2])
    assert got.shape[1:] == size.padded(height, width) and not got[:, height:].any() and not got[:, :, width:].any()
    np.testing.assert_allclose(boxes[0, 2:] - boxes[0, :2], [100 * info[3], 60 * info[2]], rtol=1e-5)
    corners = placed.points(np.array([[x1, y1], [x2, y2]]))
    np.testing.assert_allclose([*corners.min(0), *corners.max(0)], boxes[0], rtol=1e-5)


def test_expanding_surrounds_the_image_with_the_mean():
    """The canvas is twice as wide and high as the white image."""
    preprocess = Preprocess(InputSize(64, 64), (100, 100, 100), (1, 1, 1))
    got, info, boxes = augment_boxes(np.full((20, 20, 3), 255, np.uint8), [[0, 0, 20, 20]], preprocess,
                                     margin=2.0, corner=(0.5, 0))
    assert info.tolist() == [64, 64, np.float32(1.6), np.float32(1.6), 20, 20]
    expected = np.zeros((64, 64))
    expected[16:48, :32] = 155
    np.testing.assert_array_equal(got, np.broadcast_to(expected, (3, 64, 64)))
    assert boxes.tolist() == [[0, 16, 32, 48]]


def test_an_expanded_image_reaches_all_borders_of_its_canvas():
    preprocess = plain(InputSize(64, 64))
    image = np.full((20, 20, 3), 255, np.uint8)
    for part, first in ((0.0, 0), (0.9999, 32)):
        got, _, _ = augment(image, preprocess, margin=2.0, corner=(part, part))
        rows, columns = np.nonzero(got[0])
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (first, first + 31) * 2


def test_boxes_are_clipped_to_the_image_and_not_to_its_canvas():
    _, _, boxes = augment_boxes(np.zeros((20, 20, 3), np.uint8), [[-9, 5, 99, 99], [30, 0, 40, 9]],
                                plain(InputSize(40, 40)), margin=2.0, corner=(0.5, 0.5))
    assert boxes.tolist() == [[10, 15, 30, 30], [30, 10, 30, 19]]       # the second is empty


def test_without_augmentation_training_sees_what_inference_sees():
    preprocess, image = Preprocess(InputSize(96, 160), (1, 2, 3), (4, 5, 6)), picture(50, 70)
    inferred, trained = preprocess(image), augment(image, preprocess)
    np.testing.assert_array_equal(inferred[0], trained[0])
    np.testing.assert_array_equal(inferred[1], trained[1])
