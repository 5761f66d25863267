"""Convert the masks of a record to the edges of their outlines, which training batches hold.

An outline is a list of loops: (part, (k, 2) points x, y), k >= 3, the last point joined to the first. A point lies in a
part if a ray from it crosses an odd number of the part's edges, and in the mask if it lies in one of its parts.
"""
import cv2
import numpy as np
from pycocotools import mask as mask_utils

from .model_utils.data.render import Placement

PARTS = 4               # all polygons from the fourth on share a part
TOLERANCE = 0.25        # initial tolerance of the simplification, in pixels
GROWTH = 1.4
ENLARGE = 4             # factor by which run lengths are enlarged before tracing, see `_traced`
MOST_ENLARGED = 1 << 20     # pixels; in larger masks a fraction of a pixel does not matter


def mask_edges(mask, placed: Placement, capacity: int) -> np.ndarray:
    """Return the edges of a mask: (E, 5) float32 x0, y0, x1, y1, part in pixels of the input; E = capacity, padded with 0.

    mask: polygons or compressed run lengths of pycocotools, as utils/mindrecord writes them.
    """
    loops = [(part, placed.points(points)) for part, points in outline(mask)]
    edges = loop_edges(simplified(loops, capacity))
    return np.pad(edges, ((0, capacity - len(edges)), (0, 0)))


def outline(mask) -> list:
    """Return the loops of a mask in pixels of the image."""
    if isinstance(mask, dict):
        return _traced(mask)
    return [(min(number, PARTS - 1), np.array(polygon, np.float64).reshape(-1, 2)) for number, polygon in enumerate(mask)]


def _traced(runs: dict) -> list:
    """Trace run lengths; holes become further loops of the same part."""
    x, y, width, height = mask_utils.toBbox(runs).astype(int)
    crop = mask_utils.decode(runs)[y:y + height, x:x + width]
    # A contour runs through the centres of the outermost pixels, half a pixel inside; an eighth if each pixel becomes 4 x 4.
    scale = ENLARGE if width * height <= MOST_ENLARGED else 1
    contours, _ = cv2.findContours(crop.repeat(scale, 0).repeat(scale, 1), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    loops = [(0, (contour.reshape(-1, 2) + 0.5) / scale + (x, y)) for contour in contours]
    # Nothing may be left of lines that are one pixel wide.
    return _approximated(loops, TOLERANCE) or [(0, _rectangle(x, y, x + width, y + height))]


def simplified(loops: list, capacity: int) -> list:
    """Simplify loops to at most `capacity` >= 4 points; loops that already fit are not changed."""
    found, tolerance = loops, TOLERANCE
    while sum(len(points) for _, points in found) > capacity:
        found = _approximated(loops, tolerance)
        tolerance *= GROWTH
    if found:
        return found
    points = np.concatenate([points for _, points in loops])
    return [(0, _rectangle(*points.min(0), *points.max(0)))]


def _approximated(loops: list, tolerance: float) -> list:
    """Approximate loops, without those that lose their area."""
    found = [(part, cv2.approxPolyDP(points.astype(np.float32), tolerance, True).reshape(-1, 2)) for part, points in loops]
    return [(part, points) for part, points in found if len(points) > 2]


def _rectangle(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float64)


def loop_edges(loops: list) -> np.ndarray:
    """Return the edges between consecutive points of each loop: (n, 5) float32 x0, y0, x1, y1, part."""
    return np.concatenate([np.column_stack([points, np.roll(points, -1, axis=0), np.full(len(points), part)])
                           for part, points in loops]).astype(np.float32)
