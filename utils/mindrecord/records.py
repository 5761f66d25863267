"""Annotations in memory: one ImageRecord an image, whatever they were read from.

Boxes are (x1, y1, x2, y2) in continuous pixels of the picture, width = x2 - x1; label 0 is background, the classes are
1..K.
"""
from dataclasses import dataclass
from typing import Optional

import numpy as np

from .errors import CLIPPED, KEPT_KINDS, NO_AREA, NOT_FINITE, OUTSIDE, DataError, Problem

BACKGROUND = "background"
# Annotation tools round: what lies outside of the picture by less is cut off without a word.
TOLERANCE = 0.5     # pixels
HUGE = 1e9          # no coordinate is beyond


@dataclass
class ImageRecord:
    """One image with its n objects."""

    file_name: str                      # relative to the folder of pictures
    image_id: int
    height: Optional[int]               # as annotated, None where it is not
    width: Optional[int]
    boxes: np.ndarray                   # (n, 4) float64, as annotated: may reach out of the picture
    labels: np.ndarray                  # (n,) int32
    crowds: np.ndarray                  # (n,) int32, 1 = a region with many objects
    areas: Optional[tuple] = None        # n of the source's own areas, None where it gives none
    segmentations: Optional[tuple] = None    # n polygons or run lengths as COCO has them, None where there is none
    origin: str = ""                    # the file that annotates it, for messages
    places: tuple = ()                  # where each object stands in it: an annotation's id, a number
    place_word: str = "object"          # what a place is
    difficult: tuple = ()               # n flags of VOC: not counted when scored as VOC does; () where none is set

    def place(self, index: int) -> str:
        """Object `index` in words, with the picture where the file annotates many."""
        return f"{self.place_word} {self.places[index]}"


@dataclass
class Annotations:
    """What a source holds. Fatal problems are among them."""

    records: list
    categories: list
    problems: list
    digest: str     # of the annotation files


class ObjectList:
    """Collects the objects of one image, and turns down those without a sensible box."""

    def __init__(self):
        self.objects = []

    def add(self, box, label: int, crowd: int, place, area=None, segmentation=None, difficult=False):
        """None, or (kind, what) where the box (four numbers) is not one."""
        x1, y1, x2, y2 = box
        # Written out for speed; nan compares as false.
        if not (-HUGE < x1 < HUGE and -HUGE < y1 < HUGE and -HUGE < x2 < HUGE and -HUGE < y2 < HUGE):
            return NOT_FINITE, f"box {_numbers(box)} has a number that is not finite, or beyond all sense"
        if x2 <= x1 or y2 <= y1:
            shape = "is upside down" if x2 < x1 or y2 < y1 else "has no area"
            return NO_AREA, f"box {_numbers(box)} {shape}"
        self.objects.append((box, label, crowd, place, area, segmentation, difficult))
        return None

    def record(self, file_name, image_id, height, width, origin, place_word, with_coco=False) -> ImageRecord:
        """With tuples in place of arrays: see `pack_arrays`."""
        boxes, labels, crowds, places, areas, segmentations, difficult = zip(*self.objects) if self.objects else [()] * 7
        return ImageRecord(file_name, image_id, height, width, boxes, labels, crowds, areas if with_coco else None,
                           segmentations if with_coco else None, origin, places, place_word,
                           difficult if any(difficult) else ())


def pack_arrays(records: list) -> None:
    """Boxes, labels and crowds of the records from tuples to arrays: one conversion is faster than one for each."""
    boxes = np.array([box for record in records for box in record.boxes], np.float64).reshape(-1, 4)
    labels = np.array([label for record in records for label in record.labels], np.int32)
    crowds = np.array([crowd for record in records for crowd in record.crowds], np.int32)
    start = 0
    for record in records:
        end = start + len(record.labels)
        record.boxes, record.labels, record.crowds = boxes[start:end], labels[start:end], crowds[start:end]
        start = end


def _numbers(box) -> str:
    # JSON may hold integers that no float can: they have no :g.
    return "(" + ", ".join(f"{value:g}" if -HUGE < value < HUGE else str(value)[:24] for value in box) + ")"


def clip_objects(record: ImageRecord, height: int, width: int) -> tuple:
    """(index of the m objects that stay, their boxes cut to the picture (m, 4), problems)."""
    boxes = record.boxes
    cut = np.minimum(np.maximum(boxes, 0), (width, height, width, height))
    stored = cut.astype(np.float32)         # where a sliver may lose its area
    solid = (stored[:, 2:] > stored[:, :2]).all(axis=1)
    if solid.all() and (cut == boxes).all():
        return slice(None), boxes, []
    problems = []
    for index in np.flatnonzero(~solid | (np.abs(boxes - cut) > TOLERANCE).any(axis=1)):
        kind, word = (CLIPPED, "partly outside") if solid[index] else (OUTSIDE, "outside")
        what = f"box {_numbers(boxes[index])} lies {word} the picture {record.file_name} of {width}x{height}"
        problems.append(Problem(record.origin, record.place(index), what, kind))
    stay = np.flatnonzero(solid)
    return stay, cut[stay], problems


def is_dropped(problem: Problem) -> bool:
    return problem.kind not in KEPT_KINDS


def check_classes(classes):
    """The class names as a list, or None; DataError where they are not [background, name, ...]."""
    if classes is None or len(classes) == 0:
        return None
    classes = [str(name) for name in classes]
    if classes[0] != BACKGROUND:
        raise DataError(f"classes: the first must be {BACKGROUND!r}, it is {classes[0]!r}")
    if len(classes) < 2:
        raise DataError(f"classes: none beside {BACKGROUND!r}")
    twice = sorted({name for name in classes if classes.count(name) > 1})
    if twice:
        raise DataError(f"classes: {twice[0]!r} is given twice")
    return classes


def named_categories(names) -> list:
    """Categories of a source without ids of its own: id == label."""
    return [{"id": label, "name": name, "label": label} for label, name in enumerate(names, 1)]


def no_overlap(source, classes, found) -> DataError:
    """The error that no object has a class that was asked for."""
    wanted, found = _listed(classes[1:]), _listed(sorted(found))
    return DataError(f"{source}: none of the classes ({wanted}) is among its categories ({found})")


def _listed(names, most: int = 8) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f", ... {len(names) - most} more" if len(names) > most else "")


def records_to_coco(records, categories) -> dict:
    """COCO ground truth of the records, for evaluation. An area is the source's own, or that of the box."""
    by_label = {category["label"]: category["id"] for category in categories}
    truth = {"images": [], "annotations": [], "categories": [{"id": c["id"], "name": c["name"]} for c in categories]}
    for record in records:
        image = {"id": record.image_id, "file_name": record.file_name}
        if record.height and record.width:
            image.update(height=record.height, width=record.width)
        truth["images"].append(image)
        for index, (x1, y1, x2, y2) in enumerate(record.boxes.tolist()):
            area = record.areas[index] if record.areas else None
            annotation = {
                "id": len(truth["annotations"]) + 1, "image_id": record.image_id,
                "category_id": by_label[int(record.labels[index])], "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1) if area is None else area, "iscrowd": int(record.crowds[index]),
            }
            segmentation = record.segmentations[index] if record.segmentations else None
            if segmentation:
                annotation["segmentation"] = segmentation
            if record.difficult and record.difficult[index]:
                annotation["difficult"] = 1
            truth["annotations"].append(annotation)
    return truth
