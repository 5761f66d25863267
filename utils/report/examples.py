"""The example images of a page: thumbnails of the worst images with their objects and detections.

Shapes as in matching.py. Boxes and outlines of an example are in pixels of its thumbnail.
"""
import base64
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Optional

import cv2
import numpy as np

from ..files import printable
from ..mindrecord.decoding import DecodeError, decode_image
from .matching import Found, Matches, Objects, Shapes, take
from .tide import BACKGROUND, BOTH, CLASS, DUPLICATE, LOCATION, Errors

SIDE = 560                  # longer side of a thumbnail, in pixels
QUALITY = 80                # JPEG quality
MOST_BYTES = 9_000_000      # for all thumbnails together
MOST_FOUND = 100            # drawn detections per image, best first
WORST, WORST_OF_KIND, MOST = 40, 5, 90


class Judged(NamedTuple):
    """Objects and detections of one IoU type, with matches and errors."""

    objects: Objects
    found: Found
    matches: Matches
    errors: Errors


class Thumbnail(NamedTuple):
    """A small image; without `jpeg`, only the size of an image that cannot be read."""

    height: int
    width: int
    scale: float        # thumbnail pixels per image pixel
    jpeg: Optional[bytes]


def image_costs(judged: Judged, images: int, wrong: Optional[np.ndarray] = None) -> np.ndarray:
    """Return the cost of each image: the scores of its wrong detections plus, per object, 1 minus the score of its detection.

    wrong: (n,) bool, the detections to count; objects are then not counted.
    """
    objects, found, matches, errors = judged
    mistakes = np.isin(errors.kinds, (CLASS, LOCATION, BOTH, DUPLICATE, BACKGROUND)) if wrong is None else wrong
    costs = np.bincount(found.images[mistakes], found.scores[mistakes], images).astype(np.float64)
    if wrong is None:
        lacking = 1 - object_scores(matches.found, found.scores)
        costs += np.bincount(objects.images, lacking * ~objects.crowd, images)
    return costs


def object_scores(rows: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the score of each object's detection, 0 for objects without one."""
    return np.where(rows >= 0, np.append(scores, 0.0)[rows], 0.0)


def choose(judged: Judged, images: int, classes: int) -> list[int]:
    """Return the images to show, worst first: the worst overall, per error type, and, as far as there is room, per class."""
    costs = image_costs(judged, images)
    chosen = dict.fromkeys(_worst(costs, WORST))
    kinds, missed = judged.errors.kinds, judged.errors.missed
    for kind in (CLASS, LOCATION, BOTH, DUPLICATE, BACKGROUND):
        chosen.update(dict.fromkeys(_worst(image_costs(judged, images, kinds == kind), WORST_OF_KIND)))
    chosen.update(dict.fromkeys(_worst(np.bincount(judged.objects.images[missed], minlength=images), WORST_OF_KIND)))
    for label in range(classes):
        if len(chosen) >= MOST:
            break
        of_class = np.bincount(judged.objects.images[judged.objects.labels == label], minlength=images) > 0
        chosen.update(dict.fromkeys(_worst(costs * of_class, 1)))
    return sorted(list(chosen)[:MOST], key=lambda image: -costs[image])


def _worst(costs: np.ndarray, count: int) -> list[int]:
    order = np.argsort(-costs, kind="stable")[:count]
    return order[costs[order] > 0].tolist()


def thumbnails(images: list[Mapping[str, Any]], folder: Optional[Path], upright: bool) -> list[Thumbnail]:
    """Return a thumbnail of each ground-truth image; after MOST_BYTES the remaining ones have no JPEG."""
    def read(image: Mapping[str, Any]) -> Thumbnail:
        return thumbnail(folder and folder / str(image.get("file_name", "")), upright, image.get("height"), image.get("width"))

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(read, images))
    used = np.cumsum([len(item.jpeg or b"") for item in results])
    return [item if total <= MOST_BYTES else item._replace(jpeg=None) for item, total in zip(results, used)]


def thumbnail(path: Optional[Path], upright: bool, height: Optional[int], width: Optional[int]) -> Thumbnail:
    """Read and shrink an image. height, width: annotated size, used if the image cannot be read."""
    try:
        image = decode_image(path.read_bytes(), upright) if path else None
        if image is not None and upright and image.shape[:2] != (height, width) and image.shape[1::-1] == (height, width):
            stored = decode_image(path.read_bytes(), False) if path else image
            image = stored if stored.shape[:2] == (height, width) else image
    except (OSError, ValueError, DecodeError):
        image = None
    return shrink(image) if image is not None else _without_image(height or SIDE, width or SIDE)


def shrink(image: np.ndarray) -> Thumbnail:
    """Return the thumbnail of an image (h, w, 3) uint8 BGR."""
    height, width = image.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    small = cv2.resize(image, _size(height, width, scale)[::-1], interpolation=cv2.INTER_AREA) if scale < 1 else image
    jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
    return Thumbnail(small.shape[0], small.shape[1], scale, jpeg)


def _without_image(height: int, width: int) -> Thumbnail:
    scale = min(1.0, SIDE / max(height, width, 1))
    return Thumbnail(*_size(height, width, scale), scale, None)


def _size(height: int, width: int, scale: float) -> tuple[int, int]:
    return max(1, round(height * scale)), max(1, round(width * scale))


def describe(image: Mapping[str, Any], small: Thumbnail) -> dict[str, Any]:
    """Return the name, size and pixels of an image for the page."""
    source = f"data:image/jpeg;base64,{base64.b64encode(small.jpeg).decode('ascii')}" if small.jpeg else None
    name = printable(str(image.get("file_name", image["id"])))
    return {"name": name, "width": small.width, "height": small.height, "src": source}


def contents(judged: Judged, image: int, scale: float) -> dict[str, Any]:
    """Return the objects and detections of an image for the page.

    {"objects": [[class, crowd, score of its detection, best score of a detection that could be fixed to match it, box, outlines],
    ...], "found": [[class, score, kind, object, box, outlines], ...], "cost"}; kinds as numbered in tide.py.
    """
    objects, found, matches, errors = judged
    columns = np.flatnonzero(objects.images == image)
    rows = np.flatnonzero(found.images == image)[:MOST_FOUND]
    place = {column: i for i, column in enumerate(columns.tolist())}
    scores = object_scores(matches.found[columns], found.scores)
    fixed = dict.fromkeys(place, 0.0)
    for row in rows.tolist():
        column = int(errors.fixable[row])
        if column in fixed:
            fixed[column] = max(fixed[column], float(found.scores[row]))
    listed = [[int(objects.labels[column]), int(objects.crowd[column]), round(float(score), 3), round(fixed[column], 3), *drawn]
              for column, score, drawn in zip(columns.tolist(), scores, _drawn(take(objects.shapes, columns), scale))]
    seen = [[int(found.labels[row]), round(float(found.scores[row]), 3), int(errors.kinds[row]),
             place.get(int(matches.objects[row]), -1), *drawn]
            for row, drawn in zip(rows.tolist(), _drawn(take(found.shapes, rows), scale))]
    lacking = float((1 - scores)[~objects.crowd[columns]].sum())
    wrong = np.isin(errors.kinds[rows], (CLASS, LOCATION, BOTH, DUPLICATE, BACKGROUND))
    return {"objects": listed, "found": seen, "cost": round(lacking + float(found.scores[rows][wrong].sum()), 3)}


def _drawn(shapes: Shapes, scale: float) -> list[list[Any]]:
    """Return [box, outlines] of each shape; outlines is 0 for boxes."""
    if not isinstance(shapes, list):
        return [[box, 0] for box in (shapes * scale).round(1).tolist()]
    if not shapes:
        return []
    from pycocotools import mask as mask_utils

    boxes = (mask_utils.toBbox(shapes) * scale).round(1).tolist()
    return [[box, outlines(mask_utils.decode(shape), scale)] for box, shape in zip(boxes, shapes)]


def outlines(mask: np.ndarray, scale: float) -> list[list[float]]:
    """Return the outlines of a mask, (h, w) uint8, as lists x, y, x, y, ... in pixels of the thumbnail."""
    contours, _ = cv2.findContours(np.ascontiguousarray(mask), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    simple = [cv2.approxPolyDP(contour, 0.7 / scale, True).reshape(-1, 2) for contour in contours]
    return [((points + 0.5) * scale).round(1).ravel().tolist() for points in simple if len(points) > 2]
