# Same as faster_rcnn/src/model_utils/inference/merging.py
"""Class-wise non-maximum suppression in NumPy.

It merges the detections of several views of an image, and completes the outputs of a network exported without its NMS.

Shapes: C candidates. Boxes are (x1, y1, x2, y2) in pixels, width = x2 - x1.
"""
import numpy as np


def suppress(boxes: np.ndarray, labels: np.ndarray, iou_thr: float, most: int) -> list[int]:
    """Return the indices of the boxes that greedy class-wise NMS keeps, best first.

    A box is suppressed if a better box of the same label has been kept and their IoU is above iou_thr.

    Args:
        boxes: (C, 4) float, sorted by descending score.
        labels: (C,) int.
        iou_thr: IoU threshold, 0 to 1.
        most: the maximum number of boxes to keep.
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
    """Sort the candidates by score, apply class-wise NMS and return the rows of the boxes it keeps, best first.

    Args:
        boxes: (C, 4) float, in any order.
        scores: (C,) float.
        labels: (C,) int.
        iou_thr: IoU threshold, 0 to 1.
        most: the maximum number of boxes to keep.
    """
    order = np.argsort(-scores, kind="stable")
    return order[suppress(boxes[order], labels[order], iou_thr, most)]
