"""The masks of a record -> the edges of their outlines, which is what a training batch holds of them.

An outline is a list of loops: (part, (k, 2) points x, y), k >= 3, the last point joined to the first. A point lies in a
part where a ray from it crosses an odd number of the part's edges, and in the mask where it lies in one of its parts.
"""
import cv2
import numpy as np
from pycocotools import mask as mask_utils

from .model_utils.data.render import Placement

PARTS = 4               # the polygons from the fourth on share a number
TOLERANCE = 0.25        # pixels: what simplifying begins with
GROWTH = 1.4
ENLARGE = 4             # times that run lengths are enlarged before they are traced: see `_traced`
MOST_ENLARGED = 1 << 20     # pixels; above this a quarter of one does not matter


def mask_edges(mask, placed: Placement, capacity: int) -> np.ndarray:
    """(E, 5) float32 x0, y0, x1, y1, part in pixels of the network's input; E = capacity, the rest is 0.

    mask: as utils/mindrecord writes it: polygons, or run lengths that pycocotools compressed.
    """
    loops = [(part, placed.points(points)) for part, points in outline(mask)]
    edges = loop_edges(simplified(loops, capacity))
    return np.pad(edges, ((0, capacity - len(edges)), (0, 0)))


def outline(mask) -> list:
    """The loops of a mask in pixels of the picture."""
    if isinstance(mask, dict):
        return _traced(mask)
    return [(min(number, PARTS - 1), np.array(polygon, np.float64).reshape(-1, 2)) for number, polygon in enumerate(mask)]


def _traced(runs: dict) -> list:
    """Holes are further loops of the same part."""
    x, y, width, height = mask_utils.toBbox(runs).astype(int)
    crop = mask_utils.decode(runs)[y:y + height, x:x + width]
    # A contour runs through the centres of the outermost pixels: half a pixel inside, an eighth of one if each is 4 x 4.
    scale = ENLARGE if width * height <= MOST_ENLARGED else 1
    contours, _ = cv2.findContours(crop.repeat(scale, 0).repeat(scale, 1), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    loops = [(0, (contour.reshape(-1, 2) + 0.5) / scale + (x, y)) for contour in contours]
    # With lines of one pixel nothing may be left.
    return _approximated(loops, TOLERANCE) or [(0, _rectangle(x, y, x + width, y + height))]


def simplified(loops: list, capacity: int) -> list:
    """Loops of `capacity` points at most, 4 or more; as they are where they have no more."""
    found, tolerance = loops, TOLERANCE
    while sum(len(points) for _, points in found) > capacity:
        found = _approximated(loops, tolerance)
        tolerance *= GROWTH
    if found:
        return found
    points = np.concatenate([points for _, points in loops])
    return [(0, _rectangle(*points.min(0), *points.max(0)))]


def _approximated(loops: list, tolerance: float) -> list:
    """Without those of which no area is left."""
    found = [(part, cv2.approxPolyDP(points.astype(np.float32), tolerance, True).reshape(-1, 2)) for part, points in loops]
    return [(part, points) for part, points in found if len(points) > 2]


def _rectangle(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float64)


def loop_edges(loops: list) -> np.ndarray:
    """(n, 5) float32 x0, y0, x1, y1, part: from each point of a loop to the next."""
    return np.concatenate([np.column_stack([points, np.roll(points, -1, axis=0), np.full(len(points), part)])
                           for part, points in loops]).astype(np.float32)
