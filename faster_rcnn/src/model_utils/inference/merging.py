"""Non-maximum suppression in NumPy, of detections that come from several views or from a network without its last step.

Shapes: C candidates, best first. Boxes are (x1, y1, x2, y2), width = x2 - x1.
"""
import numpy as np


def suppress(boxes: np.ndarray, labels: np.ndarray, iou_thr: float, most: int) -> list[int]:
    """Return the indices of the first `most` boxes (C, 4) that stand.

    A box falls if a better one that stands, of its label, overlaps it by IoU > iou_thr. A loop over those that stand.
    """
    areas = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
    left, kept = np.arange(len(boxes)), list[int]()
    while len(left) and len(kept) < most:
        best, left = left[0], left[1:]
        kept.append(int(best))
        sides = np.minimum(boxes[left, 2:], boxes[best, 2:]) - np.maximum(boxes[left, :2], boxes[best, :2])
        shared = np.prod(np.maximum(sides, 0), axis=1)
        union = areas[left] + areas[best] - shared
        left = left[(labels[left] != labels[best]) | (shared <= iou_thr * union)]
    return kept


def merge(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, iou_thr: float, most: int) -> np.ndarray:
    """Return the rows, best first, of the `most` best boxes (C, 4) that stand within their labels; candidates in any order."""
    order = np.argsort(-scores, kind="stable")
    return order[suppress(boxes[order], labels[order], iou_thr, most)]
