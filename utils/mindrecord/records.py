"""Annotations in memory: one ImageRecord per image, for every source format.

Boxes are (x1, y1, x2, y2) in continuous pixels of the image, width = x2 - x1; label 0 is background, classes are 1..K.
"""
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

import numpy as np

from .errors import CLIPPED, KEPT_KINDS, NO_AREA, NOT_FINITE, OUTSIDE, DataError, Problem

BACKGROUND = "background"
# Annotation tools round: boxes that extend beyond the image by less are clipped without a warning.
TOLERANCE = 0.5     # pixels
HUGE = 1e9          # larger coordinates are rejected
SIDE_DECIMALS = 9   # box sides in ground truth are rounded to this


@dataclass
class ImageRecord:
    """An image with its n objects."""

    file_name: str                      # relative to the folder of images
    image_id: int
    height: Optional[int]               # as annotated; None if missing
    width: Optional[int]
    boxes: np.ndarray                   # (n, 4) float64, as annotated; may extend beyond the image
    labels: np.ndarray                  # (n,) int32
    crowds: np.ndarray                  # (n,) int32; 1 = a region with many objects
    areas: Optional[tuple] = None        # n areas of the source, None for objects without one
    segmentations: Optional[tuple] = None    # n COCO polygons or RLE, None for objects without one
    origin: str = ""                    # annotation file, for messages
    places: tuple = ()                  # place of each object in the file, such as the annotation's id
    place_word: str = "object"          # noun for a place
    difficult: tuple = ()               # n VOC flags, not scored by VOC's rules; () if none is set
    fractions: bool = False             # annotated in fractions of the image's sides; height and width are the image's own

    def place(self, index: int) -> str:
        """Describe where object `index` is in the annotation file."""
        return f"{self.place_word} {self.places[index]}"

    def keep(self, stay: np.ndarray) -> None:
        """Keep only the objects with these indices."""
        self.boxes, self.labels, self.crowds = self.boxes[stay], self.labels[stay], self.crowds[stay]
        for name in ("areas", "segmentations", "places", "difficult"):
            column = getattr(self, name)
            if column:
                setattr(self, name, tuple(column[index] for index in stay))

    def take_size(self, height: int, width: int) -> None:
        """Set the image's size, and rescale boxes and polygons that were annotated in fractions."""
        if self.fractions and (self.height, self.width) != (height, width):
            factors = width / (self.width or width), height / (self.height or height)
            self.boxes = self.boxes * np.array(factors * 2)
            self.segmentations = self.segmentations and tuple(_scaled(mask, factors) for mask in self.segmentations)
        self.height, self.width = height, width


def _scaled(mask: Any, factors: tuple[float, float]) -> Any:
    """Scale the polygons of a mask by (x, y) factors."""
    return mask and [[value * factors[place % 2] for place, value in enumerate(polygon)] for polygon in mask]


@dataclass
class Annotations:
    """The content of a source, including fatal problems."""

    records: list[ImageRecord]
    categories: list[dict[str, Any]]    # {"id", "name", "label"} of each class
    problems: list[Problem]
    digest: str     # of the annotation files


class ObjectList:
    """Collects the objects of an image and rejects those without a valid box."""

    def __init__(self) -> None:
        self.objects: list[tuple] = []

    def add(self, box: Sequence[float], label: int, crowd: int, place: Any, area: Optional[float] = None,
            segmentation: Any = None, difficult: bool = False) -> Optional[tuple[str, str]]:
        """Add an object with box (x1, y1, x2, y2) in pixels; return (kind, what) of the problem if the box is invalid.

        place: line, number or id in the annotation file, for messages.
        """
        x1, y1, x2, y2 = box
        # Written out for speed. Comparisons with nan are false.
        if not (-HUGE < x1 < HUGE and -HUGE < y1 < HUGE and -HUGE < x2 < HUGE and -HUGE < y2 < HUGE):
            return NOT_FINITE, f"box {_numbers(box)} has a number that is not finite or beyond {HUGE:g}"
        if x2 <= x1 or y2 <= y1:
            shape = "is upside down" if x2 < x1 or y2 < y1 else "has no area"
            return NO_AREA, f"box {_numbers(box)} {shape}"
        if type(segmentation) is list and segmentation and type(segmentation[0]) in (int, float, str):
            segmentation = [segmentation]       # a single polygon that is not in a list, as VIA 2.0 exports it
        self.objects.append((box, label, crowd, place, area, segmentation, difficult))
        return None

    def record(self, file_name: str, image_id: int, height: Optional[int], width: Optional[int], origin: str,
               place_word: str, with_coco: bool = False) -> ImageRecord:
        """Return the image's record, with tuples until `pack_arrays` converts them to arrays.

        origin: the annotation file; place_word: noun for a place, such as "line"; with_coco: include areas and segmentations.
        """
        columns: Any = zip(*self.objects) if self.objects else [()] * 7
        boxes, labels, crowds, places, areas, segmentations, difficult = columns
        return ImageRecord(file_name, image_id, height, width, boxes, labels, crowds, areas if with_coco else None,
                           segmentations if with_coco else None, origin, places, place_word,
                           difficult if any(difficult) else ())


def pack_arrays(records: list[ImageRecord]) -> None:
    """Convert boxes, labels and crowds of all records to arrays; one conversion is faster than one per record."""
    boxes = np.array([box for record in records for box in record.boxes], np.float64).reshape(-1, 4)
    labels = np.array([label for record in records for label in record.labels], np.int32)
    crowds = np.array([crowd for record in records for crowd in record.crowds], np.int32)
    start = 0
    for record in records:
        end = start + len(record.labels)
        record.boxes, record.labels, record.crowds = boxes[start:end], labels[start:end], crowds[start:end]
        start = end


def _numbers(box: Iterable[float]) -> str:
    # JSON may hold integers too large for a float, which :g cannot format.
    return "(" + ", ".join(f"{value:g}" if -HUGE < value < HUGE else str(value)[:24] for value in box) + ")"


class ClippedObjects(NamedTuple):
    """The m objects of an image whose clipped boxes have an area."""

    stay: Union[slice, np.ndarray]      # their indices
    boxes: np.ndarray                   # (m, 4), clipped to the image
    problems: list[Problem]


def clip_objects(record: ImageRecord, height: int, width: int) -> ClippedObjects:
    """Clip the boxes of a record to its image, and drop boxes without area in it."""
    boxes = record.boxes
    cut = np.minimum(np.maximum(boxes, 0), (width, height, width, height))
    stored = cut.astype(np.float32)         # rounding may remove the area of a sliver
    solid = (stored[:, 2:] > stored[:, :2]).all(axis=1)
    if solid.all() and (cut == boxes).all():
        return ClippedObjects(slice(None), boxes, [])
    problems = []
    for index in np.flatnonzero(~solid | (np.abs(boxes - cut) > TOLERANCE).any(axis=1)):
        kind, word = (CLIPPED, "partly outside") if solid[index] else (OUTSIDE, "outside")
        what = f"box {_numbers(boxes[index])} lies {word} the image {record.file_name} of {width}x{height}"
        problems.append(Problem(record.origin, record.place(index), what, kind))
    stay = np.flatnonzero(solid)
    return ClippedObjects(stay, cut[stay], problems)


def is_dropped(problem: Problem) -> bool:
    return problem.kind not in KEPT_KINDS


def check_classes(classes: Optional[Sequence[str]]) -> Optional[list[str]]:
    """Return the class names as a list, or None; DataError unless they are [background, name, ...]."""
    if classes is None or len(classes) == 0:
        return None
    classes = [str(name) for name in classes]
    if classes[0] != BACKGROUND:
        raise DataError(f"classes: the first must be {BACKGROUND!r}, got {classes[0]!r}")
    if len(classes) < 2:
        raise DataError(f"classes: expected at least one class besides {BACKGROUND!r}")
    twice = sorted(name for name, count in Counter(classes).items() if count > 1)
    if twice:
        raise DataError(f"classes: {twice[0]!r} is given twice")
    return classes


def choose_classes(source: Path, classes: Optional[list[str]], found: set[str]) -> list[str]:
    """Return the requested classes, or else all found classes, sorted; DataError if no object has a requested class."""
    if classes is None:
        return [BACKGROUND, *sorted(found - {BACKGROUND})]
    if found and not found & set(classes[1:]):
        raise no_overlap(source, classes, found)
    return classes


def named_categories(names: Iterable[str]) -> list[dict[str, Any]]:
    """Return the categories of a source without category ids: id == label."""
    return [{"id": label, "name": name, "label": label} for label, name in enumerate(names, 1)]


def no_overlap(source: Path, classes: Sequence[str], found: Iterable[str]) -> DataError:
    """Return the error that no object has a requested class."""
    return DataError(f"{source}: none of the classes ({_listed(classes[1:])}) is among its categories "
                     f"({_listed(sorted(found))})")


def _listed(names: Iterable[str], most: int = 8) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f", ... {len(names) - most} more" if len(names) > most else "")


def records_to_coco(records: Iterable[ImageRecord], categories: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the records as COCO ground truth. The area is the source's, or else the area of the box."""
    by_label = {category["label"]: category["id"] for category in categories}
    truth: dict[str, list] = {"images": [], "annotations": [],
                              "categories": [{"id": c["id"], "name": c["name"]} for c in categories]}
    for record in records:
        image: dict[str, Any] = {"id": record.image_id, "file_name": record.file_name}
        if record.height and record.width:
            image.update(height=record.height, width=record.width)
        truth["images"].append(image)
        # Rounded, because (x + w) - x differs from the annotated w in the last digits.
        sides = (record.boxes[:, 2:] - record.boxes[:, :2]).round(SIDE_DECIMALS).tolist()
        for index, ((x, y, _, _), (width, height)) in enumerate(zip(record.boxes.tolist(), sides)):
            area = record.areas[index] if record.areas else None
            annotation = {
                "id": len(truth["annotations"]) + 1, "image_id": record.image_id,
                "category_id": by_label[int(record.labels[index])], "bbox": [x, y, width, height],
                "area": width * height if area is None else area, "iscrowd": int(record.crowds[index]),
            }
            segmentation = record.segmentations[index] if record.segmentations else None
            if segmentation is not None:
                annotation["segmentation"] = segmentation
            if record.difficult and record.difficult[index]:
                annotation["difficult"] = 1
            truth["annotations"].append(annotation)
    return truth
