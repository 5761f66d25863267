# Same as faster_rcnn/src/model_utils/data/augmentation.py
"""The augmentations of training images, each a function that `augmentations` in the YAML lists by name.

To add one, write its function here and its name into the list:

    @augmentation
    def flip(plan: Plan, rng: np.random.Generator, flip_ratio: float) -> None:
        if rng.random() < flip_ratio:
            plan.flip_x = not plan.flip_x

A parameter without a default is a key of the configuration, which default_config.yaml declares; one with a default (a chance,
say) needs no key. `rng` follows from seed, epoch, index of the record and name of the function, so what the others draw does
not depend on it. What a plan holds, and in which order it is carried out, is in render.py.
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
# How far colours are moved, as in SSD (Liu et al. 2016), hue apart: in OpenCV's units of 2 degrees.
BRIGHTNESS, CONTRAST, SATURATION = (-32.0, 32.0), (0.5, 1.5), (0.5, 1.5)
INTERPOLATIONS = (cv2.INTER_LINEAR, cv2.INTER_AREA, cv2.INTER_NEAREST, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)


def augmentation(function: Callable[..., None]) -> Callable[..., None]:
    """Make a function known under its name."""
    AUGMENTATIONS[function.__name__] = function
    return function


# ------------------------------------------------------------------------------------------------------------- geometry

@augmentation
def flip(plan: Plan, rng: np.random.Generator, flip_ratio: float) -> None:
    """Mirror left and right with the chance `flip_ratio`."""
    if rng.random() < flip_ratio:
        plan.flip_x = not plan.flip_x


@augmentation
def multi_scale(plan: Plan, rng: np.random.Generator, multi_scale: Sequence[float]) -> None:
    """Fit the image into a part of the input, one of the factors `multi_scale` of its sides."""
    if multi_scale:
        plan.factor *= multi_scale[rng.integers(len(multi_scale))]


@augmentation
def expand(plan: Plan, rng: np.random.Generator, expand_ratio: float, expand_factor: float) -> None:
    """Shrink an image, by up to `expand_factor`, inside the size that it would have had; with half the chance `expand_ratio`."""
    if rng.random() < 0.5 * expand_ratio:
        plan.margin, plan.corner = rng.uniform(1.0, expand_factor), tuple(rng.random(2))


@augmentation
def ssd_expand(plan: Plan, rng: np.random.Generator, expand_ratio: float, expand_factor: float) -> None:
    """Lay an image on a canvas up to `expand_factor` times as high and wide, all of which `crop` then sees.

    It has half the chance `expand_ratio`.
    """
    if rng.random() < 0.5 * expand_ratio:
        plan.window = larger_canvas(plan.window, rng.uniform(1.0, expand_factor), *rng.random(2))


@augmentation
def crop(plan: Plan, rng: np.random.Generator, crop_ratio: float) -> None:
    """Crop as SSD does, with the chance `crop_ratio`: a window that holds enough of an object, or the whole."""
    if rng.random() < crop_ratio:
        boxes = clip_boxes(plan.boxes, *plan.original)
        plan.window = draw_window(plan.window, boxes, rng.random((4, len(MIN_IOUS), TRIALS)), rng.random())


@augmentation
def interpolation(plan: Plan, rng: np.random.Generator) -> None:
    """Resize in one of OpenCV's ways, whatever `resize_mode` says."""
    plan.interpolation = INTERPOLATIONS[rng.integers(len(INTERPOLATIONS))]


# -------------------------------------------------------------------------------------------------------------- colours

@augmentation
def photo(plan: Plan, rng: np.random.Generator, photo_ratio: float) -> None:
    """Change brightness, contrast, saturation and hue, all of them, with the chance `photo_ratio`."""
    if rng.random() < photo_ratio:
        ranges = {"brightness": BRIGHTNESS, "contrast": CONTRAST, "saturation": SATURATION, "hue": (-9.0, 9.0)}
        drawn: dict[str, Any] = {name: rng.uniform(*ends) for name, ends in ranges.items()}
        plan.recolour.append(functools.partial(shift_colours, **drawn))


@augmentation
def ssd_photo(plan: Plan, rng: np.random.Generator, photo_ratio: float) -> None:
    """Change colours as SSD does, with the chance `photo_ratio`: each of the four in every second of these images."""
    if rng.random() < photo_ratio:
        ranges = {"brightness": BRIGHTNESS, "contrast": CONTRAST, "saturation": SATURATION, "hue": (-18.0, 18.0)}
        drawn: dict[str, Any] = {name: rng.uniform(*ends) for name, ends in ranges.items() if rng.random() < 0.5}
        plan.recolour.append(functools.partial(ssd_colours, contrast_last=rng.random() < 0.5, **drawn))


def ssd_colours(image: np.ndarray, brightness: float = 0.0, contrast: float = 1.0, saturation: float = 1.0, hue: float = 0.0,
                contrast_last: bool = False) -> np.ndarray:
    """Change brightness, then contrast, saturation and hue, or saturation, hue and contrast; each step gives bytes.

    image: (h, w, 3) uint8 BGR; the amounts are those of `shift_colours`.
    """
    image = shift_colours(image, brightness, 1.0, 1.0, 0.0)
    if contrast_last:
        return shift_colours(shift_colours(image, 0.0, 1.0, saturation, hue), 0.0, contrast, 1.0, 0.0)
    return shift_colours(image, 0.0, contrast, saturation, hue)


# -------------------------------------------------------------------------------------------------------------- compose

def keys_of(name: str) -> tuple[str, ...]:
    """Return the configuration's keys that an augmentation reads."""
    parameters = list(inspect.signature(AUGMENTATIONS[name]).parameters.values())[2:]   # after plan and rng
    return tuple(parameter.name for parameter in parameters if parameter.default is parameter.empty)


def random_stream(seed: int, epoch: int, index: int, name: str) -> np.random.Generator:
    """Return the random numbers that the one who goes by `name` draws for record `index` in this epoch."""
    key = [seed, epoch, index, zlib.crc32(name.encode())]
    # The same as from the list, without the 20 us that NumPy takes to split it into words.
    return np.random.default_rng(np.array(key, np.uint32) if seed < 1 << 32 else key)


class Augmenter:
    """Some of the augmentations, one after the other.

    Args:
        names: of AUGMENTATIONS, in order.
        values: what the keys that these read hold; more are ignored, so a Config will do.
    """

    def __init__(self, names: Sequence[str] = (), values: Mapping[str, Any] | None = None):
        held = values or {}
        self.steps = {name: functools.partial(AUGMENTATIONS[name], **{key: held[key] for key in keys_of(name)})
                      for name in names}

    def __call__(self, image: np.ndarray, boxes: np.ndarray, preprocess: Preprocess,
                 stream: Callable[[str], np.random.Generator]) -> tuple[np.ndarray, np.ndarray, Placement]:
        """Return what `render` makes of an image (h, w, 3) uint8 BGR with these boxes (n, 4), in its pixels.

        stream: the random numbers of an augmentation by its name.
        """
        return render(image, preprocess, self.plan(image.shape[:2], boxes, stream))

    def plan(self, original: tuple[int, ...], boxes: np.ndarray, stream: Callable[[str], np.random.Generator]) -> Plan:
        """Return what is to be done to an image of this (height, width) with these boxes (n, 4)."""
        plan = Plan(original, boxes)
        for name, step in self.steps.items():
            step(plan, stream(name))
        return plan
