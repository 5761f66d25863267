# Same as faster_rcnn/src/model_utils/data/transforms.py
"""Pictures and boxes on their way to the network: resize, normalise, pad. NumPy and OpenCV only.

Pictures are (height, width, 3) uint8, blue, green, red, until `Preprocess` packs them: (3, padded height, padded
width) float32 in the order that the network takes. Boxes are (n, 4) float32, (x1, y1, x2, y2) in continuous pixels: the
left edge of the picture is 0, the right one its width, so a box is scaled and mirrored without any "+1". Sizes are
always (height, width).
"""
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from .decoding import decode_image as decode_image  # the step before


class NetworkInput(NamedTuple):
    """What the network takes of an image."""

    image: np.ndarray       # (3, padded height, padded width) float32
    info: np.ndarray        # (6,) float32, see `image_info`


RESIZE_MODES = ("opencv", "area", "pillow", "float")
# How sides become whole pixels.
ROUNDINGS: dict[str, Callable[[float], int]] = {"nearest": lambda side: int(side + 0.5), "even": round, "floor": int}


@dataclass(frozen=True)
class InputSize:
    """Size of the network's input.

    pad_to: `fixed`: a picture is fitted into height x width and padded to that; `divisor`: `height` bounds its short
    side, `width` its long one, and it is padded to the next multiple of `divisor`; `HxW`: the same bounds, padded to
    H x W and never larger than that. keep_ratio=False stretches to height x width.
    rounding: `nearest`, int(x * scale + .5), as detectron2 and mmdet do; `floor` as torchvision; `even` as OpenCV.
    exact_scale: images are resized by the factor before the sides are rounded, and boxes divided by it, as mindspore-lab does;
    False: by resized / original side.
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
        """(height, width) of the padded input, None where it differs from picture to picture."""
        if self.pad_to == "divisor":
            return None
        if self.pad_to == "fixed":
            return self.height, self.width
        height, _, width = self.pad_to.partition("x")
        return int(height), int(width)

    def resized(self, height: int, width: int, factor: float = 1.0) -> tuple[int, int]:
        """Size that a picture is resized to; `factor` shrinks the target."""
        target = self.height * factor, self.width * factor
        box = self.box()
        if self.keep_ratio:
            scale = self.scale(height, width, factor)
            return scaled_side(height, scale, self.rounding), scaled_side(width, scale, self.rounding)
        # From the target itself: height * (target / height) may fall short of it by a rounding error.
        if box is not None:
            target = min(target[0], box[0]), min(target[1], box[1])
        return scaled_side(1, target[0], self.rounding), scaled_side(1, target[1], self.rounding)

    def scale(self, height: int, width: int, factor: float = 1.0) -> float:
        """What the sides of an image are multiplied by to keep their ratio; `factor` shrinks the target."""
        target, box = (self.height * factor, self.width * factor), self.box()
        if self.pad_to == "fixed":
            return min(target[0] / height, target[1] / width)
        scale = min(target[0] / min(height, width), target[1] / max(height, width))
        return scale if box is None else min(scale, box[0] / height, box[1] / width)

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """Size that a resized picture is padded to."""
        return self.box() or (-(-height // self.divisor) * self.divisor, -(-width // self.divisor) * self.divisor)


def scaled_side(side: int, scale: float, rounding: str = "nearest") -> int:
    return max(1, ROUNDINGS[rounding](side * scale))


def resize(image: np.ndarray, size: tuple[int, int], mode: str = "opencv", scale: float | None = None) -> np.ndarray:
    """Bilinear, pixel centres at +0.5.

    mode: one of RESIZE_MODES; `opencv`: of bytes, as mmcv does; `area`: as opencv, but what is shrunk gets the mean of the area
    that a pixel covers, as mindspore-lab does; `pillow`: of bytes, and what is shrunk is smoothed, as detectron2 does; `float`: as
    opencv, without rounding: float32 of the values 0 to 255, as torchvision does.
    scale: pixels of the result per pixel, where it is not resized / original side; of the modes of OpenCV only.
    """
    if image.shape[:2] == tuple(size):
        return image
    if mode == "pillow":
        return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))
    if mode == "float":
        image = image.astype(np.float32)
    shrinks = scale < 1 if scale else size[0] < image.shape[0] or size[1] < image.shape[1]
    interpolation = cv2.INTER_AREA if mode == "area" and shrinks else cv2.INTER_LINEAR
    if scale and tuple(round(side * scale) for side in image.shape[:2]) == tuple(size):     # the size that OpenCV takes then
        return cv2.resize(image, None, fx=scale, fy=scale, interpolation=interpolation)
    return cv2.resize(image, (size[1], size[0]), interpolation=interpolation)


class Preprocess:
    """The network's input of a picture: `preprocess(image) -> NetworkInput`; one code for training and inference.

    mean, std: per channel for values 0 to 255, in the order that `to_rgb` gives. resize_mode: see `resize`. pad_black: around the
    image is black, normalised as the image is; False: 0, the mean.
    """

    def __init__(self, size: InputSize, mean: ArrayLike, std: ArrayLike, to_rgb: bool = True, resize_mode: str = "opencv",
                 pad_black: bool = False):
        if resize_mode not in RESIZE_MODES:
            raise ValueError(f"resize_mode: expected one of {', '.join(RESIZE_MODES)}, got {resize_mode!r}")
        self.size, self.resize_mode = size, resize_mode
        mean, std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
        if to_rgb:
            mean, std = mean[::-1], std[::-1]               # in the order of the picture, blue first
        self._planes = (2, 1, 0) if to_rgb else (0, 1, 2)   # the network's planes of blue, green, red
        # (value - mean) / std of the 256 values of a byte: one look-up converts, normalises, transposes and pads. For
        # 768 x 1024 it takes 1.2 ms, array arithmetic 18 ms, cv2.dnn.blobFromImage 4 ms; and it rounds only once.
        self._norms = list(zip(mean, std))
        self._tables = [np.ascontiguousarray((np.arange(256) - m) / s, np.float32) for m, s in zip(mean, std)]
        black = np.array([self._tables[channel][0] for channel in self._planes], np.float32)
        self._padding = black.reshape(3, 1, 1) if pad_black else np.zeros((3, 1, 1), np.float32)

    def __call__(self, image: np.ndarray, factor: float = 1.0) -> NetworkInput:
        """Return the input that an image (h, w, 3) uint8 BGR makes. factor: of the size that it is resized to, at most 1."""
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"expected a picture (height, width, 3) of uint8, got {image.shape} of {image.dtype}")
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
        """Return a network input without an image, for one resized to `size`."""
        return np.zeros((3, *self.size.padded(*size)), np.float32) + self._padding

    def pack(self, image: np.ndarray, size: tuple[int, int], corner: tuple[int, int] = (0, 0)) -> np.ndarray:
        """Normalise a resized picture, bytes or float32, at `corner` (y, x) of a canvas of `size`; around it the padding."""
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
    """(6,) float32: resized height and width, scale_y, scale_x (resized / original), original height and width.

    original: shape of the picture as it came; inner: size it was resized to; size: that of its canvas, which is larger
    for an expanded picture.
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
    """value * contrast + brightness, then saturation * s and hue + h in HSV; (0, 1, 1, 0) changes nothing."""
    values = np.arange(256.0)
    if brightness or contrast != 1:
        image = cv2.LUT(image, _bytes(values * contrast + brightness))
    if saturation == 1 and not hue:
        return image                                        # the way to HSV and back costs time and rounds
    tables = np.stack([_bytes((values + hue).round() % 180), _bytes(values * saturation), _bytes(values)], -1)
    hsv = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_BGR2HSV), tables.reshape(1, 256, 3))
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(values.round(), 0, 255).astype(np.uint8)
