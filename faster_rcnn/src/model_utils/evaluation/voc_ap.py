"""PASCAL VOC average precision at IoU 0.5, as VOCdevkit computes it: area under the curve (since 2010) and 11 points (VOC2007).

* IoU is computed on boxes that include their last row and column of pixels: width = x2 - x1 + 1, unlike elsewhere in this
  repository.
* A detection is assigned to the object of its class with the largest IoU, even if another detection is assigned to it already.
  With IoU >= 0.5 they match. The match with the highest score is a true positive, every other detection is a false positive.
* Difficult objects do not count. A detection that matches one is neither a true nor a false positive.

Shapes: D detections and G objects of one class, detections by descending score; P pairs of a detection and an object.
Boxes are (x, y, width, height) as in COCO, with width = x2 - x1.
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
    """VOC AP of each class, and the mean over classes with objects. -1 means that there are no objects."""

    figures: dict       # {"mAP": area under the curve, "mAP_11": mean at 11 recall points}
    per_class: dict     # {class name: {"AP": ..., "AP_11": ..., "objects": n (not difficult), "difficult": n}}

    def lines(self) -> list[str]:
        """Return the lines to print: the two means, then a table of the classes."""
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
        """Return the entry in metrics.json, JSON-serializable."""
        return {**self.figures, "per_class": {name: dict(row) for name, row in self.per_class.items()}}


def voc_ap(ground_truth: GroundTruth, results: Results) -> VocScores:
    """Compute PASCAL VOC AP of COCO results.

    Args:
        ground_truth: as for `coco_ap`; difficult objects have `difficult`: 1.
        results: as for `coco_ap`.

    Raises:
        InputError: an entry of the ground truth or the results is invalid; the message names it.
    """
    truth, _ = clean_ground_truth(ground_truth)
    found = clean_results(read_results(results, "bbox"), truth, "bbox", [])
    found_boxes, annotations = present(found.boxes), truth["annotations"]
    image_ids, categories = (np.array([item[key] for item in annotations], np.int64) for key in ("image_id", "category_id"))
    boxes = np.array([item["bbox"] for item in annotations], np.float64).reshape(-1, 4)
    difficult = np.array([item.get("difficult", 0) for item in annotations], bool)
    per_class = {}
    for category in sorted(truth["categories"], key=lambda item: item["id"]):
        of_class = np.flatnonzero(categories == category["id"])
        rows = np.flatnonzero(found.category_ids == category["id"])
        rows = rows[np.argsort(-found.scores[rows], kind="stable")]
        best, iou = best_objects(found.image_ids[rows], found_boxes[rows], image_ids[of_class], boxes[of_class])
        tp, fp = judge(best, iou, difficult[of_class])
        positives = int((~difficult[of_class]).sum())
        area, points = average_precision(tp, fp, positives)
        name = str(category.get("name", category["id"]))
        name = f"{name} ({category['id']})" if name in per_class else name
        per_class[name] = {"AP": area, "AP_11": points, "objects": positives, "difficult": len(of_class) - positives}
    counted = [row for row in per_class.values() if row["objects"]]
    means = {name: float(np.mean([row[key] for row in counted])) if counted else -1.0
             for name, key in (("mAP", "AP"), ("mAP_11", "AP_11"))}
    return VocScores(means, per_class)


def best_objects(found_image_ids: np.ndarray, found_boxes: np.ndarray, image_ids: np.ndarray,
                 boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the object in the same image with the largest IoU for each detection.

    Args:
        found_image_ids: (D,) int64.
        found_boxes: (D, 4) float64.
        image_ids: (G,) int64.
        boxes: (G, 4) float64.

    Returns:
        (index of the object (D,) int64, IoU (D,) float64); -1 and 0 if no object overlaps.
    """
    order = np.argsort(image_ids, kind="stable")
    first, last = (np.searchsorted(image_ids[order], found_image_ids, side) for side in ("left", "right"))
    counts = last - first
    pair_of = np.repeat(np.arange(len(counts)), counts)                     # (P,), detection of each pair
    starts = np.cumsum(counts) - counts
    objects = order[np.arange(len(pair_of)) - starts[pair_of] + first[pair_of]]
    iou = pair_iou(found_boxes[pair_of], boxes[objects])
    largest = np.zeros(len(counts))
    np.maximum.at(largest, pair_of, iou)
    best = np.full(len(counts), -1)
    # In reverse, so that the first of several equal objects is written last and wins.
    top = np.flatnonzero((iou > 0) & (iou == largest[pair_of]))[::-1]
    best[pair_of[top]] = objects[top]
    return best, largest


def pair_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the IoU (P,) of boxes (P, 4) and others (P, 4), both including their last row and column of pixels."""
    ends, other_ends = boxes[:, :2] + boxes[:, 2:], others[:, :2] + others[:, 2:]
    sides = np.minimum(ends, other_ends) - np.maximum(boxes[:, :2], others[:, :2]) + 1
    inner = sides.clip(0).prod(1)
    return inner / ((boxes[:, 2:] + 1).prod(1) + (others[:, 2:] + 1).prod(1) - inner)


def judge(best: np.ndarray, iou: np.ndarray, difficult: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Classify detections as true positives, false positives or neither (those that match a difficult object).

    Args:
        best, iou: (D,) each, returned by `best_objects`.
        difficult: (G,) bool.

    Returns:
        (true positives (D,) bool, false positives (D,) bool)
    """
    matched = (iou >= MIN_IOU) & (best >= 0)
    ignored = np.zeros(len(best), bool)
    ignored[matched] = difficult[best[matched]]
    candidates = np.flatnonzero(matched & ~ignored)
    tp = np.zeros(len(best), bool)
    tp[candidates[np.unique(best[candidates], return_index=True)[1]]] = True
    return tp, ~tp & ~ignored


def average_precision(tp: np.ndarray, fp: np.ndarray, positives: int) -> tuple[float, float]:
    """Compute the AP of one class.

    Args:
        tp, fp: (D,) bool, true and false positives by descending score.
        positives: number of objects that are not difficult.

    Returns:
        (area under the precision-recall curve, mean precision at 11 recall points); -1 for both without positives.
    """
    if not positives:
        return -1.0, -1.0
    counted = tp | fp
    found = np.cumsum(tp[counted])
    recall = found / positives
    precision = found / np.arange(1, len(found) + 1)
    best_from = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)    # best precision at this recall or above
    area = (np.diff(recall, prepend=0) * best_from[:-1]).sum()
    return float(area), float(best_from[np.searchsorted(recall, POINTS)].mean())
