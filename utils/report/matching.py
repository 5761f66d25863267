"""Match detections to objects as COCOeval does.

Shapes: n detections, g objects, p pairs of a detection and an object of the same image, K classes. Labels are class indices, 0 to
K - 1. Boxes are (x, y, width, height) in pixels of the image.
"""
from typing import Any, NamedTuple, Union

import numpy as np

# A detection with a lower IoU is unrelated to the object.
BACKGROUND_IOU = 0.1

Shapes = Union[np.ndarray, list[dict[str, Any]]]      # (m, 4) boxes, or m masks as compressed RLE


class Objects(NamedTuple):
    """The ground truth."""

    images: np.ndarray      # (g,) image index
    labels: np.ndarray      # (g,)
    crowd: np.ndarray       # (g,) bool
    areas: np.ndarray       # (g,)
    shapes: Shapes


class Found(NamedTuple):
    """The detections, best first."""

    images: np.ndarray      # (n,)
    labels: np.ndarray      # (n,)
    scores: np.ndarray      # (n,)
    shapes: Shapes


class Pairs(NamedTuple):
    """Detections and objects with an IoU of at least BACKGROUND_IOU, grouped by detection, best first."""

    found: np.ndarray       # (p,) detection index
    objects: np.ndarray     # (p,) object index
    ious: np.ndarray        # (p,) for a crowd region: the fraction of the detection inside it
    same: np.ndarray        # (p,) bool: same class
    crowd: np.ndarray       # (p,) bool: the object is a crowd region


class Matches(NamedTuple):
    """The result of matching."""

    objects: np.ndarray     # (n,) index of the matched object, -1 if none
    ignored: np.ndarray     # (n,) bool: matches a crowd region, so neither right nor wrong
    found: np.ndarray       # (g,) index of the matched detection, -1 if none


def take(shapes: Shapes, rows: np.ndarray) -> Shapes:
    """Return the shapes of these rows."""
    return [shapes[row] for row in rows.tolist()] if isinstance(shapes, list) else shapes[rows]


def best_first(found: Found, max_dets: int) -> np.ndarray:
    """Return the rows of detections to score, best first: at most `max_dets` per image and class."""
    order = np.argsort(-found.scores, kind="stable")
    groups = np.lexsort((np.arange(len(order)), found.labels[order], found.images[order]))      # by image, class, score
    image, label = found.images[order][groups], found.labels[order][groups]
    first = np.flatnonzero((np.diff(image, prepend=-1) != 0) | (np.diff(label, prepend=-1) != 0))
    place = np.arange(len(order)) - np.repeat(first, np.diff(np.r_[first, len(order)]))
    keep = np.zeros(len(order), bool)
    keep[groups] = place < max_dets
    return order[keep]


def find_pairs(objects: Objects, found: Found) -> Pairs:
    """Compute the IoU of each detection with each object of its image, and return the pairs that overlap."""
    from pycocotools import mask as mask_utils

    by_found, by_object = (np.argsort(side.images, kind="stable") for side in (found, objects))
    parts: list[tuple[np.ndarray, ...]] = []
    images = np.intersect1d(found.images, objects.images)
    starts = [np.searchsorted(side.images[order], images, where) for side, order in ((found, by_found), (objects, by_object))
              for where in ("left", "right")]
    for a, b, c, d in zip(*starts):
        rows, columns = by_found[a:b], by_object[c:d]
        ious = mask_utils.iou(take(found.shapes, rows), take(objects.shapes, columns), objects.crowd[columns].astype(np.uint8))
        i, j = np.nonzero(ious >= BACKGROUND_IOU)
        parts.append((rows[i], columns[j], ious[i, j]))
    parts = parts or [(np.zeros(0, int), np.zeros(0, int), np.zeros(0))]
    row, column, iou = (np.concatenate(part) for part in zip(*parts))
    order = np.lexsort((-column, -iou, row))        # for equal IoU the later object, as in COCOeval
    row, column, iou = row[order], column[order], iou[order]
    return Pairs(row, column, iou, found.labels[row] == objects.labels[column], objects.crowd[column])


def match(pairs: Pairs, count: int, objects: int, iou: float, any_class: bool = False) -> Matches:
    """Match each detection, best first, to the unmatched object with the highest IoU, if that is at least `iou`.

    count, objects: number of detections and objects. any_class: allow objects of another class for detections that match none of
    their own.
    """
    use = (pairs.ious >= min(iou, 1 - 1e-10)) & (pairs.same | any_class)
    rows, columns = pairs.found[use & ~pairs.crowd], pairs.objects[use & ~pairs.crowd]
    if any_class:
        same, ious = pairs.same[use & ~pairs.crowd], pairs.ious[use & ~pairs.crowd]
        order = np.lexsort((-ious, ~same, rows))
        rows, columns = rows[order], columns[order]
    matched, taken = [-1] * count, [-1] * objects
    for row, column in zip(rows.tolist(), columns.tolist()):
        if matched[row] < 0 and taken[column] < 0:
            matched[row], taken[column] = column, row
    result = np.array(matched, np.int64)
    ignored = np.zeros(count, bool)
    ignored[pairs.found[use & pairs.crowd & pairs.same]] = True
    return Matches(result, ignored & (result < 0), np.array(taken, np.int64))
