"""SSD's augmentation: crops against a plain loop, boxes against drawn rectangles, draws against their probabilities."""
import functools
import tracemalloc

import cv2
import numpy as np
import pytest

from refinedet.src.dataset import build_train_transform
from refinedet.src.model_utils.config import load_config
from refinedet.src.model_utils.data.augmentation import INTERPOLATIONS, Augmenter, random_stream, ssd_colours
from refinedet.src.model_utils.data.crops import MIN_IOUS, TRIALS, best_iou, draw_window, larger_canvas, trial_windows
from refinedet.src.model_utils.data.loading import TrainTransform, create_dataset, iterate
from refinedet.src.model_utils.data.render import Plan, place, render
from refinedet.src.model_utils.data.transforms import InputSize, Preprocess
from tests.unit.test_dataset import make_row, write_records

NAMES = ("ssd_photo", "ssd_expand", "crop", "interpolation", "flip")
EVERYTHING = Augmenter(NAMES, {"flip_ratio": 0.5, "expand_ratio": 1.0, "expand_factor": 4.0, "photo_ratio": 1.0, "crop_ratio": 1.0})
SQUARE = InputSize(64, 64, keep_ratio=False)


def random_image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def plain(size=SQUARE):
    """A Preprocess that leaves the values unchanged, in BGR order."""
    return Preprocess(size, (0, 0, 0), (1, 1, 1), to_rgb=False)


def plan_of(height, width, window=None, **what) -> Plan:
    return Plan((height, width), np.zeros((0, 4), np.float32), window, **what)


def random_boxes(count, height, width, seed):
    first, second = np.random.default_rng(seed).random((2, count, 2)) * (width, height)
    return np.concatenate([np.minimum(first, second), np.maximum(first, second)], 1).astype(np.float32)


# --------------------------------------------------------------------------------------------------------------- crops

def iou_by_hand(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inner = max(width, 0) * max(height, 0)
    return inner / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inner)


def window_by_hand(canvas, boxes, trials, which):
    """SSD's sampler as a loop over kinds, trials and boxes."""
    left, top, width, height = canvas[0], canvas[1], canvas[2] - canvas[0], canvas[3] - canvas[1]
    found = []
    for kind, least in enumerate([0.1, 0.3, 0.5, 0.7, 0.9, 0.0]):
        for scale, ratio, y, x in trials[:, kind].T:
            scale = 0.3 + 0.7 * scale
            low, high = max(0.5, scale * scale), min(2.0, 1 / scale / scale)
            ratio = low + ratio * (high - low)
            share_x, share_y = scale * ratio ** 0.5, scale / ratio ** 0.5
            x1, y1 = int(x * (1 - share_x) * width), int(y * (1 - share_y) * height)
            window = x1 + left, y1 + top, x1 + int(share_x * width) + left, y1 + int(share_y * height) + top
            if any(iou_by_hand(window, box) >= least for box in boxes.astype(np.float64)):
                found.append(window)
                break
    return [*found, canvas][int(which * (len(found) + 1))]


def test_crops_match_a_plain_loop():
    kinds = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        canvas = -int(rng.integers(0, 99)), -int(rng.integers(0, 99)), 200, 150
        boxes = random_boxes(int(rng.integers(1, 6)), 100, 140, seed)
        trials, which = rng.random((4, 6, TRIALS)), rng.random()
        got = draw_window(canvas, boxes, trials, which)
        assert got == window_by_hand(canvas, boxes, trials, which) and all(type(value) is int for value in got)
        kinds.add(int((best_iou(np.array(got), boxes) >= MIN_IOUS).sum()))
    assert len(kinds) >= 5      # many kinds of crop occurred


def test_trials_stay_inside_and_have_their_shapes():
    windows = trial_windows((-50, -20, 350, 280), *np.random.default_rng(0).random((4, 6, 3000)))
    assert (windows[..., :2] >= (-50, -20)).all() and (windows[..., 2:] <= (350, 280)).all()
    share = (windows[..., 2:] - windows[..., :2]) / (400, 300)
    scale, ratio = np.sqrt(share.prod(-1)), share[..., 0] / share[..., 1]
    assert 0.29 < scale.min() < 0.31 and 0.99 < scale.max() <= 1
    assert 0.48 < ratio.min() < 0.52 and 1.95 < ratio.max() < 2.05
    corners = (windows[..., :2] - (-50, -20)) / (400, 300)
    assert corners.min() == 0 and (corners.max(axis=(0, 1)) > 0.6).all()


@pytest.mark.parametrize("canvas", [(0, 0, 1, 1), (0, 0, 3, 2), (-2, 0, 1, 1)])
def test_crops_of_tiny_images_hold_a_pixel(canvas):
    windows = trial_windows(canvas, *np.random.default_rng(0).random((4, 6, TRIALS)))
    assert (windows[..., 2:] > windows[..., :2]).all()
    assert (windows >= np.tile(canvas[:2], 2)).all() and (windows <= np.tile(canvas[2:], 2)).all()


def test_without_objects_the_image_stays_whole():
    trials = np.random.default_rng(0).random((4, 6, TRIALS))
    none = np.zeros((0, 4), np.float32)
    assert {draw_window((0, 0, 90, 60), none, trials, which) for which in (0, 0.5, 0.99)} == {(0, 0, 90, 60)}


def test_expanding_covers_its_range():
    assert larger_canvas((0, 0, 90, 60), 1.0, 0.5, 0.9) == (0, 0, 90, 60)
    assert larger_canvas((0, 0, 90, 60), 2.0, 0.0, 0.999) == (-90, 0, 90, 120)      # the image at the top right
    assert larger_canvas((0, 0, 90, 60), 2.998, 0.999, 0.0) == (0, -119, 269, 60)
    assert larger_canvas((10, 20, 100, 80), 2.0, 0.0, 0.999) == (-80, 20, 100, 140)     # around a window


# --------------------------------------------------------------------------------------------------- pixels and boxes

WINDOWS = [(0, 0, 200, 120), (30, 20, 170, 100), (-100, -60, 300, 180), (-20, 10, 120, 110), (120, -200, 420, 100)]


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("size", [InputSize(320, 320, keep_ratio=False), InputSize(192, 320, keep_ratio=False)])
def test_a_box_follows_the_pixels_of_a_white_rectangle(window, size, flip, interpolation):
    image = np.zeros((120, 200, 3), np.uint8)
    image[30:90, 40:180] = 255
    got, info, placed = render(image, plain(size), plan_of(120, 200, window, flip_x=flip, interpolation=interpolation))
    (box,) = placed.boxes(np.array([[40, 30, 180, 90]], np.float32))
    rows, columns = np.nonzero(got[0] > 127)
    if window == WINDOWS[-1]:       # the rectangle's centre is outside
        assert not box.any() and len(rows)
        return
    np.testing.assert_allclose(box, [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], atol=1.6)
    assert got.shape == (3, size.height, size.width) and info[:2].tolist() == [size.height, size.width]
    scale = size.height / (window[3] - window[1]), size.width / (window[2] - window[0])
    np.testing.assert_allclose(info[2:4], scale, rtol=0.02)
    assert info[4:].tolist() == [120, 200]


def test_boxes_literally():
    """A 40 x 20 window fills an input of 80 x 80: x scales by 2, y by 4. The image ends at x = 100, y = 50."""
    boxes = np.array([[70, 35, 90, 45], [80, 45, 100, 50], [60, 30, 82, 38], [61, 29, 120, 99], [0, 0, 9, 9]], np.float32)
    size = InputSize(80, 80, keep_ratio=False)
    placed = place(plan_of(50, 100, (70, 40, 110, 60)), size)
    assert (placed.seen, placed.inner, placed.corner) == ((70, 40, 100, 50), (40, 60), (0, 0))
    expected = [[0, 0, 40, 20], [20, 20, 60, 40], [0] * 4, [0] * 4, [0] * 4]     # centres 80,40; 90,47.5; 71,34; 80.5,39.5
    np.testing.assert_array_equal(placed.boxes(boxes), expected)
    mirrored = place(plan_of(50, 100, (70, 40, 110, 60), flip_x=True), size).boxes(boxes)
    np.testing.assert_array_equal(mirrored, [[40, 0, 80, 20], [20, 20, 60, 40], [0] * 4, [0] * 4, [0] * 4])
    assert mirrored.dtype == np.float32
    assert placed.boxes(np.zeros((0, 4), np.float32)).shape == (0, 4)


def test_the_area_around_the_image_is_the_mean():
    preprocess = Preprocess(SQUARE, (100, 100, 100), (1, 1, 1))
    got, _, placed = render(np.full((20, 20, 3), 255, np.uint8), preprocess, plan_of(20, 20, (0, -10, 40, 30)))
    expected = np.zeros((64, 64))
    expected[16:48, :32] = 155
    np.testing.assert_array_equal(got, np.broadcast_to(expected, (3, 64, 64)))
    assert placed.boxes(np.array([[0, 0, 20, 20]], np.float32)).tolist() == [[0, 16, 32, 48]]


def test_a_crop_beside_the_image_shows_nothing():
    got, info, placed = render(np.full((20, 20, 3), 255, np.uint8), plain(), plan_of(20, 20, (-40, 0, -10, 20)))
    assert got.shape == (3, 64, 64) and not got.any() and np.isfinite(info).all()
    assert not placed.boxes(np.array([[0, 0, 20, 20]], np.float32)).any()


def test_without_augmentation_training_sees_what_inference_sees():
    preprocess, image = Preprocess(SQUARE, (1, 2, 3), (4, 5, 6)), random_image(50, 70)
    inferred, trained = preprocess(image), render(image, preprocess, plan_of(50, 70))
    np.testing.assert_array_equal(inferred[0], trained[0])
    np.testing.assert_array_equal(inferred[1], trained[1])


def test_the_canvas_is_never_allocated():
    """The image takes 18 MB, its canvas would take 288 MB, and the input takes 49 KB."""
    image = np.zeros((2000, 3000, 3), np.uint8)
    boxes = np.array([[0, 0, 2000, 1500]], np.float32)
    tracemalloc.start()
    try:
        for seed in range(20):
            EVERYTHING(image, boxes, plain(), functools.partial(random_stream, seed, 1, 0))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2e6


# --------------------------------------------------------------------------------------------------- colours and draws

def test_colours_in_either_order():
    def clip(values):
        return np.clip(np.round(values), 0, 255).astype(np.uint8)

    def saturated(image):
        hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV).astype(np.float64)
        hsv = np.stack([(hsv[..., 0] + 12) % 180, hsv[..., 1] * 1.4, hsv[..., 2]], -1)
        return cv2.cvtColor(clip(hsv), cv2.COLOR_HSV2BGR)

    image = random_image(20, 30)
    what = {"brightness": -20.0, "contrast": 1.3, "saturation": 1.4, "hue": 12.0}
    bright = clip(image - 20.0)
    np.testing.assert_array_equal(ssd_colours(image, **what), saturated(clip(bright * 1.3)))
    np.testing.assert_array_equal(ssd_colours(image, **what, contrast_last=True), clip(saturated(bright) * 1.3))
    np.testing.assert_array_equal(ssd_colours(image), image)


def test_draws_have_their_probabilities_and_ranges():
    augmenter = Augmenter(NAMES, {"flip_ratio": 0.3, "expand_ratio": 1.0, "expand_factor": 4.0, "photo_ratio": 0.8,
                                   "crop_ratio": 0.5})
    boxes = np.array([[20, 20, 60, 50]], np.float32)
    draws = [augmenter.plan((90, 120), boxes, functools.partial(random_stream, 7, 1, i)) for i in range(2000)]
    assert abs(np.mean([d.flip_x for d in draws]) - 0.3) < 0.04                  # 4 standard deviations
    colours = [d.recolour[0].keywords if d.recolour else {} for d in draws]
    assert abs(np.mean([c.get("contrast_last", False) for c in colours]) - 0.4) < 0.045
    for name, rest, low, high in (("brightness", 0, -32, 32), ("contrast", 1, 0.5, 1.5), ("saturation", 1, 0.5, 1.5),
                                  ("hue", 0, -18, 18)):
        values = np.array([c.get(name, rest) for c in colours])
        assert abs(np.mean(values != rest) - 0.4) < 0.045, name
        np.testing.assert_allclose([values.min(), values.max()], [low, high], atol=(high - low) / 50)
    kinds = [d.interpolation for d in draws]
    assert all(abs(kinds.count(kind) / 2000 - 0.2) < 0.036 for kind in INTERPOLATIONS)
    assert abs(np.mean([d.window == (0, 0, 120, 90) for d in draws]) - 0.29) < 0.08     # neither cropped nor expanded
    assert min(d.window[0] for d in draws) < -250 and max(d.window[2] for d in draws) > 370


# ------------------------------------------------------------------------------------------------------------- batches

def test_configuration_reaches_the_augmenter():
    config = load_config(overrides={"flip_ratio": 0.25, "expand_ratio": 0.5, "expand_factor": 3.0, "photo_ratio": 0.5,
                                    "crop_ratio": 0.75,
                                    "num_gts": 7, "seed": 9, "img_height": 128, "img_width": 192})
    transform = build_train_transform(config)
    assert {name: step.keywords for name, step in transform.augmenter.steps.items()} == {
        "ssd_photo": {"photo_ratio": 0.5}, "ssd_expand": {"expand_ratio": 0.5, "expand_factor": 3.0},
        "crop": {"crop_ratio": 0.75}, "interpolation": {}, "flip": {"flip_ratio": 0.25}}
    assert (transform.num_gts, transform.seed) == (7, 9)
    assert transform.preprocess.size == InputSize(128, 192, keep_ratio=False)
    grey, _ = transform.preprocess(np.full((8, 8, 3), (104, 117, 123), np.uint8))
    assert not grey.any()


def test_batches_depend_only_on_seed_epoch_and_index(tmp_path):
    rows = [make_row(i, objects=(i + 1) % 4, crowds=[1] if i == 6 else ()) for i in range(11)]
    files = write_records(tmp_path, rows, shards=2)

    def batches(workers=1, epoch=1, batch_size=2, seed=3):
        transform = TrainTransform(plain(), EVERYTHING, 3, seed)
        return list(iterate(create_dataset(files, 11, transform, batch_size, epoch=epoch, workers=workers), output_numpy=True))

    def images_by_id(got):
        return {int(number): image for batch in got for image, number in zip(batch[0], batch[-1])}

    one = batches()
    for batch, other in zip(one, batches(workers=2), strict=True):
        for column, same in zip(batch, other, strict=True):
            np.testing.assert_array_equal(column, same)
    for image, info, boxes, labels, valid, _ in one:
        assert [column.dtype for column in (image, info, boxes, labels, valid)] == [
            np.float32, np.float32, np.float32, np.int32, np.bool_]
        assert image.shape == (2, 3, 64, 64) and boxes.shape == (2, 3, 4)
        real = boxes[valid]
        assert (real[:, 2:] > real[:, :2]).all() and real.min(initial=0) >= 0 and real.max(initial=0) <= 64
        assert ((labels > 0) == valid).all() and not boxes[~valid].any()
    assert any(batch[4].any() for batch in one)
    larger, later, others = (images_by_id(batches(**options)) for options in ({"batch_size": 4}, {"epoch": 2}, {"seed": 4}))
    first = images_by_id(one)
    assert all(np.array_equal(first[number], larger[number]) for number in first)
    for changed in (later, others):
        assert sum(np.array_equal(first[number], changed[number]) for number in first) < 4
