"""PASCAL VOC average precision at IoU 0.5, as VOCdevkit computes it: under the curve (2010 on) and at 11 points (VOC2007).

* The corners of a box are pixels that belong to it: width = x2 - x1 + 1, unlike everywhere else here.
* A detection belongs to the object of its class with which its IoU is largest, found already or not; at 0.5 or more it has
  found it. The best detection of an object is right, every other one is wrong.
* Objects that are marked difficult need not be found, and what finds them is neither right nor wrong.

Shapes: D detections and G objects of a class, best detection first. Boxes are (x, y, width, height) as COCO's, where
width is x2 - x1.
"""
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..files import printable
from .coco_inputs import GroundTruth, Results, clean_ground_truth, clean_results, read_results
from .detections import present

MIN_IOU = 0.5
POINTS = np.arange(11) / 10


@dataclass
class VocScores:
    """AP of each class, and their mean over the classes that have objects; -1 where there are none."""

    figures: dict       # {"mAP": under the curve, "mAP_11": at 11 points}
    per_class: dict     # {class name: {"AP": ..., "AP_11": ..., "objects": n without the difficult, "difficult": n}}

    def lines(self) -> list[str]:
        """The two means, then a line for each class."""
        shown = {name: printable(name) for name in self.per_class}
        width = max([len("class"), *map(len, shown.values())])
        rows = [f" PASCAL VOC mean AP @[ IoU={MIN_IOU:.2f} | {what} ] = {self.figures[name]:.3f}"
                for name, what in (("mAP", "area under the curve"), ("mAP_11", "11 points of VOC2007"))]
        rows.append(f"{'class':<{width}}  VOC AP  11 points  objects  difficult")
        for name, row in self.per_class.items():
            area, points = ("-" if row[key] < 0 else f"{row[key]:.3f}" for key in ("AP", "AP_11"))
            rows.append(f"{shown[name]:<{width}}  {area:>6}  {points:>9}  {row['objects']:>7}  {row['difficult']:>9}")
        return rows

    def to_dict(self) -> dict[str, Any]:
        """What metrics.json holds."""
        return {**self.figures, "per_class": {name: dict(row) for name, row in self.per_class.items()}}


def voc_ap(ground_truth: GroundTruth, results: Results) -> VocScores:
    """Score COCO results against COCO ground truth whose difficult objects have `difficult`: 1; both as `coco_ap` takes them."""
    truth, _ = clean_ground_truth(ground_truth)
    found = clean_results(read_results(results, "bbox"), truth, "bbox", [])
    found_boxes, annotations = present(found.boxes), truth["annotations"]
    pictures, categories = (np.array([item[key] for item in annotations], np.int64) for key in ("image_id", "category_id"))
    boxes = np.array([item["bbox"] for item in annotations], np.float64).reshape(-1, 4)
    difficult = np.array([item.get("difficult", 0) for item in annotations], bool)
    per_class = {}
    for category in sorted(truth["categories"], key=lambda item: item["id"]):
        mine = np.flatnonzero(categories == category["id"])
        rows = np.flatnonzero(found.category_ids == category["id"])
        rows = rows[np.argsort(-found.scores[rows], kind="stable")]
        best, iou = best_objects(found.image_ids[rows], found_boxes[rows], pictures[mine], boxes[mine])
        right, wrong = judge(best, iou, difficult[mine])
        needed = int((~difficult[mine]).sum())
        area, points = average_precision(right, wrong, needed)
        name = str(category.get("name", category["id"]))
        name = f"{name} ({category['id']})" if name in per_class else name
        per_class[name] = {"AP": area, "AP_11": points, "objects": needed, "difficult": len(mine) - needed}
    counted = [row for row in per_class.values() if row["objects"]]
    means = {name: float(np.mean([row[key] for row in counted])) if counted else -1.0
             for name, key in (("mAP", "AP"), ("mAP_11", "AP_11"))}
    return VocScores(means, per_class)


def best_objects(found_pictures: np.ndarray, found_boxes: np.ndarray, pictures: np.ndarray,
                 boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(index (D,) of the object of the same picture with the largest IoU, that IoU (D,)); -1 and 0 where there is none."""
    order = np.argsort(pictures, kind="stable")
    first, last = (np.searchsorted(pictures[order], found_pictures, side) for side in ("left", "right"))
    counts = last - first
    pair_of = np.repeat(np.arange(len(counts)), counts)                     # (P,) pairs of one picture
    starts = np.cumsum(counts) - counts
    objects = order[np.arange(len(pair_of)) - starts[pair_of] + first[pair_of]]
    iou = pair_iou(found_boxes[pair_of], boxes[objects])
    largest = np.zeros(len(counts))
    np.maximum.at(largest, pair_of, iou)
    best = np.full(len(counts), -1)
    # Of equal ones the first, which is written last.
    top = np.flatnonzero((iou > 0) & (iou == largest[pair_of]))[::-1]
    best[pair_of[top]] = objects[top]
    return best, largest


def pair_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU (P,) of boxes (P, 4) with others (P, 4), whose last row and column of pixels belong to them."""
    ends, other_ends = boxes[:, :2] + boxes[:, 2:], others[:, :2] + others[:, 2:]
    sides = np.minimum(ends, other_ends) - np.maximum(boxes[:, :2], others[:, :2]) + 1
    inner = sides.clip(0).prod(1)
    return inner / ((boxes[:, 2:] + 1).prod(1) + (others[:, 2:] + 1).prod(1) - inner)


def judge(best: np.ndarray, iou: np.ndarray, difficult: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(right (D,), wrong (D,)) of detections whose best objects these are; neither: they found a difficult one."""
    hit = (iou >= MIN_IOU) & (best >= 0)
    spared = np.zeros(len(best), bool)
    spared[hit] = difficult[best[hit]]
    candidates = np.flatnonzero(hit & ~spared)
    right = np.zeros(len(best), bool)
    right[candidates[np.unique(best[candidates], return_index=True)[1]]] = True
    return right, ~right & ~spared


def average_precision(right: np.ndarray, wrong: np.ndarray, needed: int) -> tuple[float, float]:
    """(area under the curve, mean at 11 points of recall) of `needed` objects; -1 where none is needed."""
    if not needed:
        return -1.0, -1.0
    counted = right | wrong
    found = np.cumsum(right[counted])
    recall = found / needed
    precision = found / np.arange(1, len(found) + 1)
    best_from = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)    # at this recall or more
    area = (np.diff(recall, prepend=0) * best_from[:-1]).sum()
    return float(area), float(best_from[np.searchsorted(recall, POINTS)].mean())
