"""The last step of inference in numpy, for networks exported without it: the same as Detector of refinedet.py.

Shapes: N images, A anchors, K foreground classes, C candidates, D detections per image. Boxes are
(x1, y1, x2, y2) in input-image pixels, width = x2 - x1.
"""
import numpy as np

from .model_utils.inference.merging import suppress


def detections_of(boxes, scores, *, score_thr: float, iou_thr: float, per_class: int, total: int, max_per_img: int) -> tuple:
    """Return the detections in descending order of score.

    Per class, take the best `per_class` scores above score_thr. Of these, take the best `total`, apply NMS within each class, and
    keep the best max_per_img; the remaining slots are padding.

    Args:
        boxes: (N, A, 4); scores: (N, A, K), 0 to 1.
        score_thr: score that a detection must exceed; iou_thr: IoU above which NMS drops the worse box.

    Returns:
        boxes (N, D, 4), scores (N, D), labels int32 (N, D) in 1..K, valid bool (N, D).
    """
    boxes, scores = np.asarray(boxes, np.float32), np.asarray(scores, np.float32)
    n, a, k = scores.shape
    slots = min(max_per_img, total, k * min(per_class, a))
    found = np.zeros((n, slots, 4), np.float32), np.zeros((n, slots), np.float32), np.ones((n, slots), np.int32)
    valid = np.zeros((n, slots), bool)
    for i in range(n):
        anchor, label, score = _candidates(scores[i], score_thr, per_class, total)
        kept = suppress(boxes[i][anchor], label, iou_thr, slots)
        for out, values in zip(found, (boxes[i][anchor[kept]], score[kept], label[kept] + 1)):
            out[i, :len(kept)] = values
        valid[i, :len(kept)] = True
    return *found, valid


def _candidates(scores, score_thr: float, per_class: int, total: int) -> tuple:
    """Select candidates from scores (A, K): anchors, classes from 0 on and scores, (C,) each, best first."""
    anchor, label = np.nonzero(scores > score_thr)
    score = scores[anchor, label]
    order = np.lexsort((anchor, -score, label))
    starts = np.searchsorted(label[order], np.arange(scores.shape[1]))
    order = order[np.arange(len(order)) - starts[label[order]] < per_class]
    order = order[np.argsort(-score[order], kind="stable")][:total]
    return anchor[order], label[order], score[order]
