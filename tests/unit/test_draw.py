"""Drawn detections: which pixels change, the colours, and where labels go."""
import itertools
import time

import cv2
import numpy as np
import pytest

from faster_rcnn.src.model_utils.inference import draw
from faster_rcnn.src.model_utils.inference.draw import colour_of, draw_detections

NAMES = ["background", "cat", "dog", "bird"]


def grey(height=240, width=320) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def plates_of(monkeypatch) -> list:
    """Return a list that collects (rectangle, colour) of each plate drawn from now on."""
    plates, original = [], draw._draw_plate

    def record(picture, rectangle, alpha, colour):
        plates.append((rectangle.tolist(), colour))
        original(picture, rectangle, alpha, colour)

    monkeypatch.setattr(draw, "_draw_plate", record)
    return plates


def test_a_box_is_drawn_on_its_edge_and_nowhere_else():
    image = grey()
    before = image.copy()
    picture = draw_detections(image, [[100, 80, 220, 180]], [1], [0.9], NAMES)
    assert np.array_equal(image, before) and picture.shape == image.shape and picture.dtype == np.uint8
    for x, y in ((100, 130), (219, 130), (160, 179)):       # middle of the left, right and lower edge
        assert np.abs(picture[y - 1:y + 2, x - 1:x + 2].astype(int) - colour_of(0)).sum(-1).min() < 30, (x, y)
    assert (picture[90:170, 110:210] == 128).all()
    outside = picture.copy()
    outside[60:190, 90:230] = 128                           # the box and the plate above it
    assert (outside == 128).all()


def test_without_detections_the_image_stays_unchanged():
    image = np.random.default_rng(0).integers(0, 255, (50, 60, 3), np.uint8)
    assert np.array_equal(draw_detections(image, np.zeros((0, 4)), [], [], NAMES), image)


def test_colours_of_classes_are_distinct():
    lab = cv2.cvtColor(np.uint8([[colour_of(i) for i in range(12)]]), cv2.COLOR_BGR2LAB)[0].astype(float)
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2)) > 20
    assert len({colour_of(i) for i in range(100)}) == 100
    luminance = np.array([colour_of(i) for i in range(200)]) @ [0.114, 0.587, 0.299]
    assert luminance.min() > 90                             # light enough for black letters


@pytest.mark.parametrize("box", [[0, 0, 320, 240], [-50, -50, 10, 10], [310, 100, 400, 140], [0, 230, 60, 260],
                                 [318, 238, 320, 240], [5, 5, 5, 5], [0, 0, 320, 4]])
def test_plates_stay_inside_the_image(monkeypatch, box):
    plates = plates_of(monkeypatch)
    draw_detections(grey(), [box], [1], [0.9], NAMES)
    for (x1, y1, x2, y2), _ in plates:
        assert 0 <= x1 < x2 <= 320 and 0 <= y1 < y2 <= 240
        assert x1 <= max(box[2], 0) + 1 and x2 >= min(box[0], 320) - 1      # and touches its box
    assert plates or box[2] - box[0] < 3 or box == [5, 5, 5, 5]


def test_plates_hardly_overlap(monkeypatch):
    plates = plates_of(monkeypatch)
    rng = np.random.default_rng(1)
    corners = rng.uniform(0, 1, (25, 2)) * [260, 180]
    boxes = np.concatenate([corners, corners + rng.uniform(20, 60, (25, 2))], 1)
    draw_detections(grey(480, 640), boxes * 2, rng.integers(1, 4, 25), rng.random(25), NAMES)
    assert len(plates) > 15
    for (a, _), (b, _) in itertools.combinations(plates, 2):
        shared = [min(a[2 + i], b[2 + i]) - max(a[i], b[i]) for i in (0, 1)]
        area = max(shared[0], 0) * max(shared[1], 0)
        assert area <= draw.TOUCH_LIMIT * max((r[2] - r[0]) * (r[3] - r[1]) for r in (a, b))


def test_a_crowd_gets_a_legend_instead_of_labels(monkeypatch):
    plates = plates_of(monkeypatch)
    rng = np.random.default_rng(2)
    corners = rng.uniform(0, 1, (150, 2)) * [310, 230]
    boxes = np.concatenate([corners, corners + 9], 1)
    picture = draw_detections(grey(), boxes, np.ones(150, int), rng.random(150), NAMES)
    assert not plates
    # A dark legend in a corner replaces the labels.
    corners = picture[:9, :40], picture[:9, -40:], picture[-9:, :40], picture[-9:, -40:]
    assert any((corner < 60).any() for corner in corners)


def test_best_detections_are_labelled_first(monkeypatch):
    plates = plates_of(monkeypatch)
    draw_detections(grey(), [[50, 50, 150, 150]] * 3, [1, 2, 3], [0.3, 0.9, 0.6], NAMES)
    assert [colour for _, colour in plates][:2] == [colour_of(1), colour_of(2)]


def test_masks_tint_their_pixels_with_a_colour_per_instance():
    from pycocotools import mask as mask_utils

    masks = np.zeros((2, 240, 320), bool)
    masks[0, 60:120, 40:120], masks[1, 60:120, 200:280] = True, True
    boxes = [[40, 60, 120, 120], [200, 60, 280, 120]]
    picture = draw_detections(grey(), boxes, [1, 1], None, NAMES, masks)
    for i, (x, y) in enumerate(((80, 90), (240, 90))):
        np.testing.assert_allclose(picture[y, x], 0.55 * 128 + 0.45 * np.array(colour_of(i)), atol=1)
    assert (picture[130:, :] == 128).all()
    rles = [mask_utils.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]
    assert np.array_equal(draw_detections(grey(), boxes, [1, 1], None, NAMES, rles), picture)
    with pytest.raises(ValueError, match="masks: expected the image's size"):
        draw_detections(grey(), boxes[:1], [1], None, NAMES, masks[:1, :9])


def test_lines_and_letters_grow_with_the_image():
    assert [draw.line_width(h, w) for h, w in ((100, 100), (480, 640), (768, 1280), (3000, 4000))] == [1, 2, 3, 10]
    sizes = [draw.font_size(h, w) for h, w in ((100, 100), (480, 640), (768, 1280), (3000, 4000))]
    assert sizes[0] >= 10 and sizes == sorted(sizes) and sizes[-1] > 3 * sizes[1]


@pytest.mark.parametrize("shape", [(1, 1), (8, 300), (20, 20)])
def test_tiny_images_and_unusual_names(shape):
    box = [0, 0, shape[1], shape[0]]
    picture = draw_detections(grey(*shape), [box] * 3, [1, 2, 9], [1.0, 0.5, 0.1], ["bg", "白细胞 ß", ""])
    assert picture.shape == (*shape, 3)


def test_a_video_frame_with_many_objects_is_quick():
    rng = np.random.default_rng(3)
    corners = rng.uniform(0, 1, (100, 2)) * [1200, 680]
    boxes = np.concatenate([corners, corners + rng.uniform(10, 80, (100, 2))], 1)
    arguments = grey(720, 1280), boxes, rng.integers(1, 4, 100), rng.random(100), NAMES
    draw_detections(*arguments)
    start = time.process_time()
    draw_detections(*arguments)
    assert time.process_time() - start < 1      # measured: 0.03 s on one core


def test_plots_and_legends_need_no_network(monkeypatch):
    import socket

    monkeypatch.setattr(socket, "socket", lambda *args, **kwargs: pytest.fail("opened a socket"))
    draw._font.cache_clear()
    draw_detections(grey(), [[50, 50, 150, 150]], [1], [0.9], ["bg", "鸟"])
