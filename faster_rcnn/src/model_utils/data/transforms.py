"""Image and box transforms for the network's input: resize, normalise, pad. NumPy and OpenCV only.

Images are (height, width, 3) uint8 BGR until `Preprocess` packs them to (3, padded height, padded width) float32, in the network's
channel order. Boxes are (n, 4) float32, (x1, y1, x2, y2) in continuous pixels: the left edge of the image is 0, the right edge its
width, so boxes are scaled and mirrored without any "+1". Sizes are (height, width).
"""
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from .decoding import decode_image as decode_image  # re-exported: the step before


class NetworkInput(NamedTuple):
    """Input of the network for one image."""

    image: np.ndarray       # (3, padded height, padded width) float32
    info: np.ndarray        # (6,) float32, see `image_info`


RESIZE_MODES = ("opencv", "area", "pillow", "float")
# How sides are rounded to whole pixels.
ROUNDINGS: dict[str, Callable[[float], int]] = {"nearest": lambda side: int(side + 0.5), "even": round, "floor": int}


@dataclass(frozen=True)
class InputSize:
    """Size of the network's input.

    Args:
        height, width: size in pixels; what it limits depends on pad_to.
        keep_ratio: False stretches images to height x width.
        pad_to: "fixed": fit an image into height x width and pad it to that size. "divisor": `height` limits the short side and
            `width` the long side; pad to the next multiple of `divisor`. "HxW": the same limits, but fit into and pad to H x W.
        rounding: "nearest": int(x * scale + .5), as detectron2 and mmdet; "floor": as torchvision; "even": as OpenCV.
        exact_scale: resize images and divide boxes by the scale factor itself, as mindspore-lab does. False: by resized / original
            side, after rounding.
    """

    height: int
    width: int
    keep_ratio: bool = True
    pad_to: str = "fixed"
    divisor: int = 32
    rounding: str = "nearest"
    exact_scale: bool = False

    def __post_init__(self) -> None:
        if self.rounding not in ROUNDINGS:
            raise ValueError(f"rounding: expected one of {', '.join(ROUNDINGS)}, got {self.rounding!r}")
        if self.pad_to not in ("fixed", "divisor") and not re.fullmatch(r"[1-9]\d*x[1-9]\d*", self.pad_to):
            raise ValueError(f"pad_to: expected fixed, divisor or HEIGHTxWIDTH, got {self.pad_to!r}")

    def box(self) -> tuple[int, int] | None:
        """Return (height, width) of the padded input, or None if it differs per image."""
        if self.pad_to == "divisor":
            return None
        if self.pad_to == "fixed":
            return self.height, self.width
        height, _, width = self.pad_to.partition("x")
        return int(height), int(width)

    def resized(self, height: int, width: int, factor: float = 1.0) -> tuple[int, int]:
        """Return the size that an image is resized to. factor: shrinks the target."""
        target = self.height * factor, self.width * factor
        box = self.box()
        if self.keep_ratio:
            scale = self.scale(height, width, factor)
            return scaled_side(height, scale, self.rounding), scaled_side(width, scale, self.rounding)
        # Computed from the target, since height * (target / height) may be smaller by a rounding error.
        if box is not None:
            target = min(target[0], box[0]), min(target[1], box[1])
        return scaled_side(1, target[0], self.rounding), scaled_side(1, target[1], self.rounding)

    def scale(self, height: int, width: int, factor: float = 1.0) -> float:
        """Return the scale factor of both sides with keep_ratio. factor: shrinks the target."""
        target, box = (self.height * factor, self.width * factor), self.box()
        if self.pad_to == "fixed":
            return min(target[0] / height, target[1] / width)
        scale = min(target[0] / min(height, width), target[1] / max(height, width))
        return scale if box is None else min(scale, box[0] / height, box[1] / width)

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """Return the size that a resized image is padded to."""
        return self.box() or (-(-height // self.divisor) * self.divisor, -(-width // self.divisor) * self.divisor)


def scaled_side(side: int, scale: float, rounding: str = "nearest") -> int:
    return max(1, ROUNDINGS[rounding](side * scale))


def resize(image: np.ndarray, size: tuple[int, int], mode: str = "opencv", scale: float | None = None) -> np.ndarray:
    """Resize bilinearly, with pixel centres at +0.5.

    Args:
        image: (h, w, 3) uint8.
        size: (height, width) of the result.
        mode: "opencv": on bytes, as mmcv; "area": the same, but shrinking averages the area that a pixel covers, as mindspore-lab;
            "pillow": on bytes, with antialiasing when shrinking, as detectron2; "float": float32 without rounding, as torchvision.
        scale: pixels of the result per pixel, if it is not resized / original side; not for "pillow".
    """
    if image.shape[:2] == tuple(size):
        return image
    if mode == "pillow":
        return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))
    if mode == "float":
        image = image.astype(np.float32)
    shrinks = scale < 1 if scale else size[0] < image.shape[0] or size[1] < image.shape[1]
    interpolation = cv2.INTER_AREA if mode == "area" and shrinks else cv2.INTER_LINEAR
    if scale and tuple(round(side * scale) for side in image.shape[:2]) == tuple(size):     # OpenCV then computes this size
        return cv2.resize(image, None, fx=scale, fy=scale, interpolation=interpolation)
    return cv2.resize(image, (size[1], size[0]), interpolation=interpolation)


class Preprocess:
    """Preprocessing of an image for training and inference: `preprocess(image) -> NetworkInput`.

    mean, std: per channel for values 0 to 255, in the order that `to_rgb` selects. resize_mode: see `resize`. pad_black: pad with
    black, normalised like the image; False: pad with 0, the mean.
    """

    def __init__(self, size: InputSize, mean: ArrayLike, std: ArrayLike, to_rgb: bool = True, resize_mode: str = "opencv",
                 pad_black: bool = False):
        if resize_mode not in RESIZE_MODES:
            raise ValueError(f"resize_mode: expected one of {', '.join(RESIZE_MODES)}, got {resize_mode!r}")
        self.size, self.resize_mode = size, resize_mode
        mean, std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
        if to_rgb:
            mean, std = mean[::-1], std[::-1]               # in the order of the image, blue first
        self._planes = (2, 1, 0) if to_rgb else (0, 1, 2)   # the network's planes of blue, green, red
        # (value - mean) / std for the 256 values of a byte: one look-up converts, normalises, transposes and pads. It takes 1.2 ms
        # for 768 x 1024, array arithmetic 18 ms, cv2.dnn.blobFromImage 4 ms; and it rounds only once.
        self._norms = list(zip(mean, std))
        self._tables = [np.ascontiguousarray((np.arange(256) - m) / s, np.float32) for m, s in zip(mean, std)]
        black = np.array([self._tables[channel][0] for channel in self._planes], np.float32)
        self._padding = black.reshape(3, 1, 1) if pad_black else np.zeros((3, 1, 1), np.float32)

    def __call__(self, image: np.ndarray, factor: float = 1.0) -> NetworkInput:
        """Return the input for an image (h, w, 3) uint8 BGR. factor: scale of the size that it is resized to, at most 1."""
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"expected an image (height, width, 3) of uint8, got {image.shape} of {image.dtype}")
        height, width = image.shape[:2]
        size = self.size.resized(height, width, factor)
        scale = self.size.scale(height, width, factor) if self.size.exact_scale and self.size.keep_ratio else None
        info = image_info(image.shape, size, size)
        if scale:
            info[2:4] = scale
        return NetworkInput(self.pack(self.resize(image, size, scale), size), info)

    def resize(self, image: np.ndarray, size: tuple[int, int], scale: float | None = None) -> np.ndarray:
        return resize(image, size, self.resize_mode, scale)

    def blank(self, size: tuple[int, int]) -> np.ndarray:
        """Return a network input without an image, for a resized `size`."""
        return np.zeros((3, *self.size.padded(*size)), np.float32) + self._padding

    def pack(self, image: np.ndarray, size: tuple[int, int], corner: tuple[int, int] = (0, 0)) -> np.ndarray:
        """Normalise a resized image, uint8 or float32, and place it at `corner` (y, x) of a padded canvas of `size`."""
        out = self.blank(size)
        rows = slice(corner[0], corner[0] + image.shape[0])
        columns = slice(corner[1], corner[1] + image.shape[1])
        for plane, channel, table, (mean, std) in zip(self._planes, cv2.split(image), self._tables, self._norms):
            if image.dtype == np.uint8:
                cv2.LUT(channel, table, dst=out[plane, rows, columns])
            else:
                out[plane, rows, columns] = (channel - np.float32(mean)) / np.float32(std)
        return out


def image_info(original: tuple[int, ...], size: tuple[int, int], inner: tuple[int, int]) -> np.ndarray:
    """Return (6,) float32: resized height and width, scale_y, scale_x (resized / original), original height and width.

    original: shape of the original image; inner: size that it was resized to; size: size of its canvas, larger than `inner` for an
    expanded image.
    """
    height, width = original[:2]
    return np.array([*size, inner[0] / height, inner[1] / width, height, width], np.float32)


def boxes_on_image(boxes: ArrayLike, info: ArrayLike) -> np.ndarray:
    """Return boxes as (..., D, 4) float64, x1, y1, x2, y2, in pixels of the original images and clipped to them.

    boxes (..., D, 4): in pixels of the network's input; info (..., 6): see `image_info`.
    """
    info = np.asarray(info, np.float64)[..., None, :]           # (..., 1, 6)
    return np.clip(np.asarray(boxes, np.float64) / info[..., [3, 2, 3, 2]], 0, info[..., [5, 4, 5, 4]])


def clip_boxes(boxes: np.ndarray, height: float, width: float) -> np.ndarray:
    return np.clip(boxes, np.float32(0), np.array([width, height, width, height], np.float32))


def shift_colours(image: np.ndarray, brightness: float, contrast: float, saturation: float, hue: float) -> np.ndarray:
    """Compute value * contrast + brightness, then saturation * s and hue + h in HSV; (0, 1, 1, 0) changes nothing."""
    values = np.arange(256.0)
    if brightness or contrast != 1:
        image = cv2.LUT(image, _bytes(values * contrast + brightness))
    if saturation == 1 and not hue:
        return image                                        # the conversion to HSV and back costs time and rounds
    tables = np.stack([_bytes((values + hue).round() % 180), _bytes(values * saturation), _bytes(values)], -1)
    hsv = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_BGR2HSV), tables.reshape(1, 256, 3))
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(values.round(), 0, 255).astype(np.uint8)
