# Same as faster_rcnn/src/augmentation.py
"""How training pictures are augmented: colours, expansion, scale and mirroring. NumPy and OpenCV only.

Pictures, boxes and sizes are those of transforms.py.
"""
from dataclasses import dataclass

import cv2
import numpy as np

from .model_utils.config import InputError
from .model_utils.data.transforms import InputSize, Preprocess, clip_boxes, image_info, scaled_side, shift_colours

# How far colours are moved, as in SSD (Liu et al. 2016); hue in OpenCV's units of 2 degrees.
BRIGHTNESS, CONTRAST, SATURATION, HUE = (-32.0, 32.0), (0.5, 1.5), (0.5, 1.5), (-9.0, 9.0)


@dataclass(frozen=True)
class Augmentation:
    """What is done to one training picture. The default changes nothing."""

    flip: bool = False
    factor: float = 1.0         # of the target that the picture is resized to
    expand: float = 1.0         # canvas / picture, per side
    corner: tuple = (0.0, 0.0)  # where on the canvas, y and x: 0 top or left, 1 bottom or right
    colours: tuple = ()         # brightness, contrast, saturation, hue


@dataclass(frozen=True)
class Augmenter:
    """Chances and ranges of the augmentations; the names are those of the configuration."""

    flip_ratio: float = 0.0
    expand_ratio: float = 1.0
    photo_ratio: float = 0.0
    multi_scale: tuple = ()

    def __post_init__(self):
        if any(factor > 1 for factor in self.multi_scale):
            raise ValueError(f"multi_scale: expected factors up to 1, the whole input, got {max(self.multi_scale)}")

    def __call__(self, image: np.ndarray, boxes: np.ndarray, preprocess: Preprocess, rng: np.random.Generator) -> tuple:
        """(chw, info, placement) of a training picture; what is done does not depend on its boxes."""
        return augment(image, preprocess, self.draw(rng))

    def draw(self, rng: np.random.Generator) -> Augmentation:
        """Always takes the same number of draws, so that one switch leaves what the others draw as it was."""
        flip, scale, expand_or_not, expand, y, x, photo, *colours = rng.random(11)
        ranges = (BRIGHTNESS, CONTRAST, SATURATION, HUE)
        return Augmentation(
            flip=bool(flip < self.flip_ratio),
            factor=float(self.multi_scale[int(scale * len(self.multi_scale))]) if self.multi_scale else 1.0,
            # Every second picture, as in SSD.
            expand=1.0 + expand * (self.expand_ratio - 1.0) if expand_or_not < 0.5 else 1.0,
            corner=(y, x),
            colours=tuple(low + part * (high - low) for part, (low, high) in zip(colours, ranges))
            if photo < self.photo_ratio else ())


def build_augmenter(config) -> Augmenter:
    """The augmentation that the configuration asks for."""
    try:
        return Augmenter(config.flip_ratio, config.expand_ratio, config.photo_ratio, tuple(config.multi_scale))
    except ValueError as error:
        raise InputError(str(error)) from error


@dataclass(frozen=True)
class Placement:
    """Where a training picture lies: resized to `inner`, at `corner` (y, x) of a canvas of `size`, mirrored with it."""

    original: tuple
    size: tuple
    inner: tuple
    corner: tuple
    flip: bool = False

    def points(self, points: np.ndarray) -> np.ndarray:
        """(n, 2) x, y in pixels of the picture as it came -> (n, 2) float64 in those of the input."""
        scale = self.inner[1] / self.original[1], self.inner[0] / self.original[0]
        points = points.astype(np.float64) * scale + self.corner[::-1]
        if self.flip:
            points[:, 0] = self.size[1] - points[:, 0]
        return points

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """(n, 4) likewise, float32, clipped to the picture (around it is nothing): those outside become empty."""
        boxes = self.points(clip_boxes(boxes, *self.original).reshape(-1, 2)).reshape(-1, 4)
        return (boxes[:, [2, 1, 0, 3]] if self.flip else boxes).astype(np.float32)


def place(original: tuple, size: InputSize, what: Augmentation) -> Placement:
    """Where a picture of this height and width lies.

    Expanding is resizing to less and leaving the mean around: the canvas itself, up to expand^2 as large as the picture,
    is never made. It has the size that the picture would have had, so it is resized just as without.
    """
    outer = size.resized(*original, what.factor)
    inner = tuple(min(side, scaled_side(side, 1 / what.expand)) for side in outer)
    corner = tuple(int(part * (whole - side + 1)) for part, whole, side in zip(what.corner, outer, inner))
    return Placement(tuple(original), outer, inner, corner, what.flip)


def augment(image: np.ndarray, preprocess: Preprocess, what: Augmentation) -> tuple:
    """(chw, info, placement) of a training picture."""
    placed = place(image.shape[:2], preprocess.size, what)
    resized, (y, x) = preprocess.resize(image, placed.inner), placed.corner
    if what.colours:
        resized = resized.round().astype(np.uint8) if resized.dtype != np.uint8 else resized
        resized = shift_colours(resized, *what.colours)
    if what.flip:
        resized = cv2.flip(resized, 1)
        x = placed.size[1] - x - placed.inner[1]
    return preprocess.pack(resized, placed.size, (y, x)), image_info(image.shape, placed.size, placed.inner), placed
