# Same as faster_rcnn/src/model_utils/data/augmentation.py
"""Augmentations of training images: functions that the key `augmentations` lists by name.

To add one, write its function here and add its name to the list:

    @augmentation
    def flip(plan: Plan, rng: np.random.Generator, flip_ratio: float) -> None:
        if rng.random() < flip_ratio:
            plan.flip_x = not plan.flip_x

A parameter without a default is a configuration key, which default_config.yaml must declare; a parameter with a default (a chance,
say) needs no key. `rng` depends on the seed, the epoch, the index of the record and the function's name, so adding an augmentation
does not change what the others draw. render.py explains the plan and the order in which it is carried out.
"""
import functools
import inspect
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from .crops import MIN_IOUS, TRIALS, draw_window, larger_canvas
from .render import Placement, Plan, render
from .transforms import Preprocess, clip_boxes, shift_colours

# Name -> function.
AUGMENTATIONS: dict[str, Callable[..., None]] = {}
# Ranges of SSD (Liu et al., 2016); hue is in OpenCV's units of 2 degrees.
BRIGHTNESS, CONTRAST, SATURATION = (-32.0, 32.0), (0.5, 1.5), (0.5, 1.5)
INTERPOLATIONS = (cv2.INTER_LINEAR, cv2.INTER_AREA, cv2.INTER_NEAREST, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)


def augmentation(function: Callable[..., None]) -> Callable[..., None]:
    """Register an augmentation under its function name."""
    AUGMENTATIONS[function.__name__] = function
    return function


# ------------------------------------------------------------------------------------------------------------- geometry

@augmentation
def flip(plan: Plan, rng: np.random.Generator, flip_ratio: float) -> None:
    """Mirror left and right with probability `flip_ratio`."""
    if rng.random() < flip_ratio:
        plan.flip_x = not plan.flip_x


@augmentation
def multi_scale(plan: Plan, rng: np.random.Generator, multi_scale: Sequence[float]) -> None:
    """Fit the image into a smaller input, by one of the factors `multi_scale` at random."""
    if multi_scale:
        plan.factor *= multi_scale[rng.integers(len(multi_scale))]


@augmentation
def expand(plan: Plan, rng: np.random.Generator, expand_ratio: float, expand_factor: float) -> None:
    """With probability `expand_ratio` / 2, shrink the image by up to `expand_factor` inside the size that it would have had."""
    if rng.random() < 0.5 * expand_ratio:
        plan.margin, plan.corner = rng.uniform(1.0, expand_factor), tuple(rng.random(2))


@augmentation
def ssd_expand(plan: Plan, rng: np.random.Generator, expand_ratio: float, expand_factor: float) -> None:
    """With probability `expand_ratio` / 2, place the image on a canvas up to `expand_factor` times as high and wide.

    A later `crop` sees the whole canvas.
    """
    if rng.random() < 0.5 * expand_ratio:
        plan.window = larger_canvas(plan.window, rng.uniform(1.0, expand_factor), *rng.random(2))


@augmentation
def crop(plan: Plan, rng: np.random.Generator, crop_ratio: float) -> None:
    """With probability `crop_ratio`, crop like SSD: a window that contains enough of an object, or the whole image."""
    if rng.random() < crop_ratio:
        boxes = clip_boxes(plan.boxes, *plan.original)
        plan.window = draw_window(plan.window, boxes, rng.random((4, len(MIN_IOUS), TRIALS)), rng.random())


@augmentation
def interpolation(plan: Plan, rng: np.random.Generator) -> None:
    """Resize with a random interpolation of OpenCV instead of the one of `resize_mode`."""
    plan.interpolation = INTERPOLATIONS[rng.integers(len(INTERPOLATIONS))]


# -------------------------------------------------------------------------------------------------------------- colours

@augmentation
def photo(plan: Plan, rng: np.random.Generator, photo_ratio: float) -> None:
    """With probability `photo_ratio`, change brightness, contrast, saturation and hue, all four of them."""
    if rng.random() < photo_ratio:
        ranges = {"brightness": BRIGHTNESS, "contrast": CONTRAST, "saturation": SATURATION, "hue": (-9.0, 9.0)}
        drawn: dict[str, Any] = {name: rng.uniform(*ends) for name, ends in ranges.items()}
        plan.recolour.append(functools.partial(shift_colours, **drawn))


@augmentation
def ssd_photo(plan: Plan, rng: np.random.Generator, photo_ratio: float) -> None:
    """With probability `photo_ratio`, change the colours like SSD: each of the four with probability 1/2."""
    if rng.random() < photo_ratio:
        ranges = {"brightness": BRIGHTNESS, "contrast": CONTRAST, "saturation": SATURATION, "hue": (-18.0, 18.0)}
        drawn: dict[str, Any] = {name: rng.uniform(*ends) for name, ends in ranges.items() if rng.random() < 0.5}
        plan.recolour.append(functools.partial(ssd_colours, contrast_last=rng.random() < 0.5, **drawn))


def ssd_colours(image: np.ndarray, brightness: float = 0.0, contrast: float = 1.0, saturation: float = 1.0, hue: float = 0.0,
                contrast_last: bool = False) -> np.ndarray:
    """Change brightness, then contrast, saturation and hue, or saturation, hue and contrast; each step rounds to bytes.

    image: (h, w, 3) uint8 BGR; amounts: see `shift_colours`.
    """
    image = shift_colours(image, brightness, 1.0, 1.0, 0.0)
    if contrast_last:
        return shift_colours(shift_colours(image, 0.0, 1.0, saturation, hue), 0.0, contrast, 1.0, 0.0)
    return shift_colours(image, 0.0, contrast, saturation, hue)


# -------------------------------------------------------------------------------------------------------------- compose

def keys_of(name: str) -> tuple[str, ...]:
    """Return the configuration keys that an augmentation reads."""
    parameters = list(inspect.signature(AUGMENTATIONS[name]).parameters.values())[2:]   # after plan and rng
    return tuple(parameter.name for parameter in parameters if parameter.default is parameter.empty)


def random_stream(seed: int, epoch: int, index: int, name: str) -> np.random.Generator:
    """Return the generator of augmentation `name` for record `index` in this epoch."""
    key = [seed, epoch, index, zlib.crc32(name.encode())]
    # Same as from the list, but without the 20 us that NumPy takes to split the list into words.
    return np.random.default_rng(np.array(key, np.uint32) if seed < 1 << 32 else key)


class Augmenter:
    """Apply augmentations one after the other.

    Args:
        names: keys of AUGMENTATIONS, in order.
        values: holds the configuration keys that they read; others are ignored, so a Config can be passed.
    """

    def __init__(self, names: Sequence[str] = (), values: Mapping[str, Any] | None = None):
        held = values or {}
        self.steps = {name: functools.partial(AUGMENTATIONS[name], **{key: held[key] for key in keys_of(name)})
                      for name in names}

    def __call__(self, image: np.ndarray, boxes: np.ndarray, preprocess: Preprocess,
                 stream: Callable[[str], np.random.Generator]) -> tuple[np.ndarray, np.ndarray, Placement]:
        """Return the result of `render` for an image (h, w, 3) uint8 BGR with boxes (n, 4) in its pixels.

        stream: returns the generator of an augmentation, given its name.
        """
        return render(image, preprocess, self.plan(image.shape[:2], boxes, stream))

    def plan(self, original: tuple[int, ...], boxes: np.ndarray, stream: Callable[[str], np.random.Generator]) -> Plan:
        """Return the plan for an image of this (height, width) with these boxes (n, 4)."""
        plan = Plan(original, boxes)
        for name, step in self.steps.items():
            step(plan, stream(name))
        return plan
