# Same as faster_rcnn/src/model_utils/data/render.py
"""Render one training image: the plan, the position in the network input, and the input itself. NumPy and OpenCV only.

Augmentations only write to a `Plan`; `render` then resizes once, regardless of their number. An enlarged canvas or a crop is never
materialised in pixels of the image, of which a canvas may have 16 times as many.

Shapes: n objects. Images, boxes and sizes: see transforms.py. A window is (x1, y1, x2, y2) in whole pixels of the image, and
extends beyond the image if the image lies on a larger canvas.
"""
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np

from .transforms import InputSize, Preprocess, clip_boxes, image_info, scaled_side


@dataclass
class Plan:
    """What to do to one training image; a new plan does nothing.

    The steps always run in this order, whichever augmentation is listed first: cut out the window, fit it into the input, shrink,
    recolour, mirror.

    Attributes:
        original: (height, width) of the image.
        boxes: (n, 4) float32, boxes of its objects, which may extend beyond it.
        window: the visible part; defaults to the whole image.
        factor: fraction of the network input that the window is fitted into, 0 to 1.
        margin: canvas / window, per side, at least 1: the window is shrunk inside the same size, and the mean fills the rest.
        corner: position of the window on that canvas, y and x from 0 (top or left) to 1 (bottom or right).
        flip_x, flip_y: mirror left and right, top and bottom.
        interpolation: cv2.INTER_*; None: the one of `resize_mode`.
        recolour: functions (h, w, 3) uint8 BGR -> the same shape and type, applied in order to the resized pixels, which are fewer,
            and without the mean around them.
    """

    original: tuple[int, ...]
    boxes: np.ndarray
    window: tuple[int, ...] = ()
    factor: float = 1.0
    margin: float = 1.0
    corner: tuple[float, ...] = (0.0, 0.0)
    flip_x: bool = False
    flip_y: bool = False
    interpolation: int | None = None
    recolour: list[Callable[[np.ndarray], np.ndarray]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.window:
            self.window = (0, 0, self.original[1], self.original[0])


@dataclass(frozen=True)
class Placement:
    """Position of a training image in the network input; maps boxes and outlines.

    The part `seen` (x1, y1, x2, y2) of an image of size `original` is resized to `inner` (height, width) and placed at `corner`
    (y, x) of a canvas of `size`, which is then mirrored as a whole.
    """

    original: tuple[int, ...]
    window: tuple[int, ...]
    seen: tuple[int, ...]
    size: tuple[int, int]
    inner: tuple[int, int]
    corner: tuple[int, int]
    flip_x: bool = False
    flip_y: bool = False

    @property
    def scale(self) -> tuple[float, float]:
        """Return the pixels of the input per pixel of the image: y, x."""
        x1, y1, x2, y2 = self.seen
        return self.inner[0] / max(y2 - y1, 1), self.inner[1] / max(x2 - x1, 1)

    @property
    def mirrored_corner(self) -> tuple[int, int]:
        """Return (y, x) of the resized part after mirroring."""
        y, x = (whole - start - side if flip else start for start, side, whole, flip in
                zip(self.corner, self.inner, self.size, (self.flip_y, self.flip_x)))
        return y, x

    def points(self, points: np.ndarray) -> np.ndarray:
        """Map (n, 2) x, y in pixels of the image to (n, 2) float64 in pixels of the input, without clipping."""
        points = (points.astype(np.float64) - self.seen[:2]) * self.scale[::-1] + self.corner[::-1]
        for axis, flip in enumerate((self.flip_x, self.flip_y)):
            if flip:
                points[:, axis] = self.size[1 - axis] - points[:, axis]
        return points

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Map (n, 4) in pixels of the image to (n, 4) float32 in pixels of the input, clipped to the visible part.

        Boxes whose centre lies outside the window or the image become empty.
        """
        boxes, inside = clip_boxes(boxes, *self.original), None
        if self.seen != (0, 0, *self.original[::-1]):
            boxes = boxes.astype(np.float64)
            centres = (boxes[:, :2] + boxes[:, 2:]) / 2
            inside = ((centres >= self.window[:2]) & (centres <= self.window[2:])).all(axis=1)
            boxes = np.clip(boxes, self.seen[:2] * 2, self.seen[2:] * 2)
        boxes = self.points(boxes.reshape(-1, 2)).reshape(-1, 4)
        boxes = boxes[:, [2, 1, 0, 3]] if self.flip_x else boxes
        boxes = boxes[:, [0, 3, 2, 1]] if self.flip_y else boxes
        return (boxes if inside is None else boxes * inside[:, None]).astype(np.float32)


def place(plan: Plan, size: InputSize) -> Placement:
    """Return the position of the plan's image in an input of this size, in whole pixels of the input."""
    (height, width), (left, top, right, bottom) = plan.original, plan.window
    canvas = size.resized(bottom - top, right - left, plan.factor)
    # An enlarged canvas gets the size that the window would have had.
    shrunk = [min(side, scaled_side(side, 1 / plan.margin)) for side in canvas]
    y, x = (int(part * (whole - side + 1)) for part, whole, side in zip(plan.corner, canvas, shrunk))
    seen = tuple(min(max(edge, 0), limit) for edge, limit in zip(plan.window, (width, height) * 2))
    first_x, last_x = (math.floor((edge - left) * shrunk[1] / (right - left) + 0.5) for edge in seen[::2])
    first_y, last_y = (math.floor((edge - top) * shrunk[0] / (bottom - top) + 0.5) for edge in seen[1::2])
    return Placement((height, width), (left, top, right, bottom), seen, canvas, (last_y - first_y, last_x - first_x),
                     (y + first_y, x + first_x), plan.flip_x, plan.flip_y)


def render(image: np.ndarray, preprocess: Preprocess, plan: Plan) -> tuple[np.ndarray, np.ndarray, Placement]:
    """Return the network input of a training image.

    Args:
        image: (h, w, 3) uint8 BGR, of the size plan.original.
        preprocess: provides the input size, the resize mode, and the normalisation.
        plan: what to do to the image.

    Returns:
        (3, H, W) float32, see `Preprocess.pack`; (6,) float32, see `image_info`; position of the image.
    """
    placed = place(plan, preprocess.size)
    info = image_info(image.shape, placed.size, placed.inner)
    info[2:4] = placed.scale
    if 0 in placed.inner:           # the crop lies outside the image
        return preprocess.blank(placed.size), info, placed
    x1, y1, x2, y2 = placed.seen
    pixels = image[y1:y2, x1:x2]
    if plan.interpolation is None:
        pixels = preprocess.resize(pixels, placed.inner)
    else:
        pixels = cv2.resize(pixels, placed.inner[::-1], interpolation=plan.interpolation)
    if plan.recolour and pixels.dtype != np.uint8:
        pixels = pixels.round().astype(np.uint8)
    for change in plan.recolour:
        pixels = change(pixels)
        if pixels.shape != (*placed.inner, 3) or pixels.dtype != np.uint8:
            raise ValueError(f"{change}: expected {(*placed.inner, 3)} of uint8, got {pixels.shape} of {pixels.dtype}")
    if placed.flip_x or placed.flip_y:
        pixels = cv2.flip(pixels, -1 if placed.flip_x and placed.flip_y else int(placed.flip_x))
    return preprocess.pack(pixels, placed.size, placed.mirrored_corner), info, placed
