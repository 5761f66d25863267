"""How training pictures are augmented, as in SSD (Liu et al. 2016, its Caffe code): colours, a larger canvas, a crop that
holds enough of an object, warped to the input, mirrored. NumPy and OpenCV only.

Shapes: O kinds of crops, T trials of each, n objects. Pictures, boxes and sizes are those of transforms.py; a window is
(x1, y1, x2, y2) in whole pixels of the picture, and reaches out of it where the picture is expanded.
"""
from dataclasses import dataclass

import cv2
import numpy as np

from .model_utils.data.transforms import Preprocess, clip_boxes, image_info, shift_colours

# How far colours are moved; hue in OpenCV's units of 2 degrees.
BRIGHTNESS, CONTRAST, SATURATION, HUE = (-32.0, 32.0), (0.5, 1.5), (0.5, 1.5), (-18.0, 18.0)
# Kinds of crops beside the whole picture: with an object of at least this IoU; the last takes any.
MIN_IOUS = np.array([0.1, 0.3, 0.5, 0.7, 0.9, 0.0])
TRIALS = 50
# A crop's sides over the canvas's: their geometric mean, and width over height.
SCALES, RATIOS = (0.3, 1.0), (0.5, 2.0)
INTERPOLATIONS = (cv2.INTER_LINEAR, cv2.INTER_AREA, cv2.INTER_NEAREST, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)


@dataclass(frozen=True)
class Augmentation:
    """What is done to one training picture. The default warps the whole of it."""

    window: tuple                   # what is seen: x1, y1, x2, y2
    flip: bool = False
    interpolation: int = cv2.INTER_LINEAR
    brightness: float = 0.0
    contrast: float = 1.0
    contrast_last: bool = False     # after saturation and hue, not before
    saturation: float = 1.0
    hue: float = 0.0


@dataclass(frozen=True)
class Augmenter:
    """Chances and ranges of the augmentations; the names are those of the configuration."""

    flip_ratio: float = 0.0
    expand_ratio: float = 1.0
    photo_ratio: float = 0.0
    crop_ratio: float = 0.0

    def __call__(self, image: np.ndarray, boxes: np.ndarray, preprocess: Preprocess, rng: np.random.Generator) -> tuple:
        """(chw, info, placement) of a training picture with these boxes."""
        return augment(image, preprocess, self.draw(image.shape[:2], boxes, rng))

    def draw(self, original: tuple, boxes: np.ndarray, rng: np.random.Generator) -> Augmentation:
        """Always takes the same number of draws, so that one switch leaves what the others draw as it was."""
        flip, kind, photo, order, expand_or_not, *expand, crop, which = rng.random(10)
        parts, amounts, trials = rng.random(4), rng.random(4), rng.random((4, len(MIN_IOUS), TRIALS))
        canvas = expanded(original, self.expand_ratio if expand_or_not < 0.5 else 1.0, *expand)
        window = draw_window(canvas, clip_boxes(boxes, *original), trials, which) if crop < self.crop_ratio else canvas
        colours = {}
        if photo < self.photo_ratio:
            ranges = {"brightness": BRIGHTNESS, "contrast": CONTRAST, "saturation": SATURATION, "hue": HUE}
            colours = {name: low + amount * (high - low)
                       for (name, (low, high)), part, amount in zip(ranges.items(), parts, amounts) if part < 0.5}
            colours["contrast_last"] = bool(order < 0.5)
        return Augmentation(window, bool(flip < self.flip_ratio), INTERPOLATIONS[int(kind * len(INTERPOLATIONS))],
                            **colours)


def build_augmenter(config) -> Augmenter:
    """The augmentation that the configuration asks for."""
    return Augmenter(config.flip_ratio, config.expand_ratio, config.photo_ratio, config.crop_ratio)


def expanded(original: tuple, most: float, ratio: float, y: float, x: float) -> tuple:
    """The window of a canvas 1 to `most` times as high and wide as the picture, which lies anywhere on it.

    ratio, y, x: draws from [0, 1).
    """
    height, width = original
    factor = 1 + ratio * (most - 1)
    outer = int(height * factor), int(width * factor)
    top, left = int(y * (outer[0] - height + 1)), int(x * (outer[1] - width + 1))
    return -left, -top, outer[1] - left, outer[0] - top


def draw_window(canvas: tuple, boxes: np.ndarray, trials: np.ndarray, which: float) -> tuple:
    """One of the crops of a canvas that do, or the whole of it; a picture without boxes stays whole.

    trials (4, O, T) and which: draws from [0, 1). Of each kind the first trial counts that has its IoU with some box.
    """
    windows = trial_windows(canvas, *trials)                                            # (O, T, 4)
    if not len(boxes):
        return canvas
    good = best_iou(windows, boxes) >= MIN_IOUS[:, None]                                # (O, T)
    found = np.flatnonzero(good.any(axis=1))
    choice = int(which * (1 + len(found)))
    if choice == len(found):
        return canvas
    kind = found[choice]
    return tuple(windows[kind, good[kind].argmax()].tolist())


def trial_windows(canvas: tuple, scale, ratio, y, x) -> np.ndarray:
    """Windows (..., 4) int64 inside the canvas from draws from [0, 1), each of one shape."""
    origin, sides = np.array(canvas[:2]), np.array([canvas[2] - canvas[0], canvas[3] - canvas[1]])
    scale = SCALES[0] + scale * (SCALES[1] - SCALES[0])
    low, high = np.maximum(RATIOS[0], scale ** 2), np.minimum(RATIOS[1], scale ** -2)   # neither side exceeds the canvas
    root = np.sqrt(low + ratio * (high - low))
    share = np.stack([scale * root, scale / root], -1)                                  # (..., 2) width, height
    corner = np.stack([x, y], -1) * (1 - share)
    first = np.minimum((corner * sides).astype(np.int64), sides - 1)
    extent = np.clip((share * sides).astype(np.int64), 1, sides - first)
    return np.concatenate([first, first + extent], -1) + np.tile(origin, 2)


def best_iou(windows: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The largest IoU of each window (..., 4) with one of n > 0 boxes."""
    windows, boxes = windows[..., None, :].astype(np.float64), boxes.astype(np.float64)
    sides = np.minimum(windows[..., 2:], boxes[:, 2:]) - np.maximum(windows[..., :2], boxes[:, :2])
    inner = sides.clip(0).prod(-1)                                                      # (..., n)
    areas = (windows[..., 2:] - windows[..., :2]).prod(-1) + (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return (inner / (areas - inner)).max(-1)


@dataclass(frozen=True)
class Placement:
    """Where a training picture lies: what of it is `seen` (x1, y1, x2, y2), resized to `inner` (height, width), lies at
    `corner` (y, x) of an input of `size`, mirrored with it.
    """

    original: tuple
    window: tuple
    size: tuple
    seen: tuple
    inner: tuple
    corner: tuple
    flip: bool = False

    @property
    def scale(self) -> tuple:
        """Of y and x: pixels of the input for one of the picture."""
        x1, y1, x2, y2 = self.seen
        return self.inner[0] / max(y2 - y1, 1), self.inner[1] / max(x2 - x1, 1)

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """(n, 4) in pixels of the picture -> (n, 4) float32 in those of the input, clipped to what is seen.

        Those whose centre is outside of the window become empty.
        """
        boxes = clip_boxes(boxes, *self.original).astype(np.float64)
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        here = ((centres >= self.window[:2]) & (centres <= self.window[2:])).all(axis=1)
        scale, corner = np.tile(self.scale[::-1], 2), np.tile(self.corner[::-1], 2)
        boxes = (np.clip(boxes, self.seen[:2] * 2, self.seen[2:] * 2) - self.seen[:2] * 2) * scale + corner
        if self.flip:
            boxes = np.array([self.size[1], 0, self.size[1], 0]) + boxes[:, [2, 1, 0, 3]] * (-1, 1, -1, 1)
        return (boxes * here[:, None]).astype(np.float32)


def place(original: tuple, size: tuple, window: tuple, flip: bool = False) -> Placement:
    """Where a picture of this height and width lies in an input of `size` that shows this window of it.

    Only what is seen is resized, to whole pixels of the input: neither the canvas nor the crop, up to expand_ratio^2 as large
    as the picture, is ever made.
    """
    start, sides = np.array(window[:2]), np.array([window[2] - window[0], window[3] - window[1]])
    limits = np.array(original[::-1])
    seen = np.stack([np.clip(window[:2], 0, limits), np.clip(window[2:], 0, limits)])           # (2, 2) x, y
    edges = np.floor((seen - start) * size[::-1] / sides + 0.5).astype(int)
    (left, top), (right, bottom) = edges.tolist()
    return Placement(tuple(original), tuple(window), tuple(size), tuple(seen.ravel().tolist()),
                     (bottom - top, right - left), (top, left), flip)


def augment(image: np.ndarray, preprocess: Preprocess, what: Augmentation) -> tuple:
    """(chw, info, placement) of a training picture."""
    x1, y1, x2, y2 = what.window
    size = preprocess.size.resized(y2 - y1, x2 - x1)
    placed = place(image.shape[:2], size, what.window, what.flip)
    info = image_info(image.shape, size, placed.inner)
    info[2:4] = placed.scale
    if 0 in placed.inner:           # a crop beside the picture
        return np.zeros((3, *preprocess.size.padded(*size)), np.float32), info, placed
    x1, y1, x2, y2 = placed.seen
    # Colours after resizing: fewer pixels, and what is around is the mean itself.
    resized = cv2.resize(image[y1:y2, x1:x2], placed.inner[::-1], interpolation=what.interpolation)
    resized = recolour(resized, what)
    (y, x) = placed.corner
    if what.flip:
        resized, x = cv2.flip(resized, 1), size[1] - x - placed.inner[1]
    return preprocess.pack(resized, size, (y, x)), info, placed


def recolour(image: np.ndarray, what: Augmentation) -> np.ndarray:
    """Brightness, then contrast, saturation and hue, or saturation, hue and contrast; each step as bytes."""
    image = shift_colours(image, what.brightness, 1.0, 1.0, 0.0)
    if what.contrast_last:
        return shift_colours(shift_colours(image, 0.0, 1.0, what.saturation, what.hue), 0.0, what.contrast, 1.0, 0.0)
    return shift_colours(image, 0.0, what.contrast, what.saturation, what.hue)
