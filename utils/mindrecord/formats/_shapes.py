"""Geometry that readers turn into boxes and masks, and sizes of images that annotations do not state.

Points are (x, y) in pixels; a mask is a list of polygons [[x1, y1, x2, y2, ...], ...] as in COCO.
"""
import base64
import binascii
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..image_files import inspect, read_image
from ..image_header import read_header

MOST_POINTS = 256       # vertices of a circle; enough for a radius of 13,000 pixels
Point = tuple[float, float]
# (path, bytes, mtime) -> (height, width). Evaluation reads the ground truth again after each epoch.
_sizes: dict[tuple[str, int, int], tuple[int, int]] = {}


def image_size(path: Path) -> tuple[int, int]:
    """Return (height, width) of an image turned by its EXIF orientation; ImageError if the image cannot be used."""
    try:
        status = os.stat(path)
        key = (str(path), status.st_size, status.st_mtime_ns)
    except OSError:
        key = (str(path), -1, -1)
    if key not in _sizes:
        info = inspect(read_image(path)).turned()
        _sizes[key] = (info.height, info.width)
    return _sizes[key]


def box_of(points: Sequence[Point]) -> list[float]:
    """Return the bounding box [x1, y1, x2, y2] of points."""
    xs, ys = zip(*points)
    return [min(xs), min(ys), max(xs), max(ys)]


def corners(box: Sequence[float]) -> list[Point]:
    """Return the four corners of a box."""
    x1, y1, x2, y2 = box
    return [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]


def circle_points(centre: Point, radius: float) -> list[Point]:
    """Return the vertices of a polygon that deviates from the circle by about a pixel at most."""
    count = 12 if radius <= 1 else min(MOST_POINTS, max(12, math.ceil(math.pi / math.acos(1 - 1 / radius))))
    angles = [2 * math.pi * k / count for k in range(count)]
    return [(centre[0] + radius * math.cos(angle), centre[1] + radius * math.sin(angle)) for angle in angles]


def area_of(points: Sequence[Point]) -> float:
    """Return the area that a polygon encloses."""
    following = [*points[1:], points[0]]
    return abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(points, following))) / 2


def mask_pixels(text: Any, height: int, width: int) -> np.ndarray:
    """Decode a mask, a PNG in base64, to (h, w) pixels; ValueError if it is invalid or larger than the image."""
    try:
        data = base64.b64decode(text, validate=True)
        header = read_header(data)
        if header and (header.height > height or header.width > width):     # a small file may decode to a huge image
            raise ValueError(f"mask of {header.width}x{header.height} does not fit into the image of {width}x{height}")
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if header else None
    except (TypeError, binascii.Error, cv2.error):
        pixels = None
    if pixels is None:
        raise ValueError("mask is not a PNG in base64")
    return pixels if pixels.ndim == 2 else pixels.max(2)


def flat(points: Sequence[Point]) -> list[float]:
    """Return [x1, y1, x2, y2, ...], the form of a COCO polygon."""
    return [value for point in points for value in point]
