"""Statistics that depend on the score threshold: confusion matrix, precision and recall, recall by object size.

All are counted per score bin (BINS), so that the page can sum the bins above the threshold a user selects.
Shapes as in matching.py; B score bins.
"""
from collections.abc import Sequence
from typing import Any

import numpy as np

from .matching import Found, Matches, Objects, Pairs, match

BINS = 20                           # of width 0.05
CONFUSION_IOUS = (0.3, 0.5, 0.75, 0.9)
SIZES = (16, 32, 64, 96, 192)       # edges for sqrt(area), in pixels


def score_bins(scores: np.ndarray) -> np.ndarray:
    """Return the bin of each score, 0 to BINS - 1."""
    return np.clip(np.floor(scores * BINS + 1e-9), 0, BINS - 1).astype(np.int64)


def confusion(objects: Objects, found: Found, pairs: Pairs, classes: int) -> list[dict[str, Any]]:
    """Return for each IoU the counts [object's class, detection's class, bin, count, ...]; class K is background.

    A detection matches an object of its class if one is unmatched, or else an object of another class.
    """
    bins, tables = score_bins(found.scores), []
    for iou in CONFUSION_IOUS:
        matches = match(pairs, len(found.scores), len(objects.labels), iou, any_class=True)
        keep = ~matches.ignored
        truth = np.append(objects.labels, classes)[matches.objects]         # unmatched (-1) maps to background
        code = ((truth * classes + found.labels) * BINS + bins)[keep]
        codes, counts = np.unique(code, return_counts=True)
        rows = np.stack([codes // (classes * BINS), codes // BINS % classes, codes % BINS, counts], 1)
        tables.append({"iou": iou, "counts": rows.ravel().tolist()})
    return tables


def by_class(objects: Objects, found: Found, matches: Matches, classes: int) -> dict[str, Any]:
    """Return {"right", "wrong"}: counts (K, B) of detections at IoU 0.50, and {"objects"} (K,)."""
    code = found.labels * BINS + score_bins(found.scores)
    right, wrong = matches.objects >= 0, (matches.objects < 0) & ~matches.ignored
    table = {name: np.bincount(code[use], minlength=classes * BINS).reshape(classes, BINS).tolist()
             for name, use in (("right", right), ("wrong", wrong))}
    return {**table, "objects": np.bincount(objects.labels[~objects.crowd], minlength=classes).tolist()}


def by_size(objects: Objects, found: Found, matches: Matches) -> list[dict[str, Any]]:
    """Return for each size range the number of objects, and the counts (B,) of those found at IoU 0.50, by score."""
    place = np.digitize(np.sqrt(np.maximum(objects.areas, 0)), SIZES)
    rows = []
    for i, name in enumerate(names_of_ranges(SIZES)):
        inside = (place == i) & ~objects.crowd
        best = matches.found[inside]
        counts = np.bincount(score_bins(found.scores[best[best >= 0]]), minlength=BINS)
        rows.append({"name": name, "objects": int(inside.sum()), "found": counts.tolist()})
    return rows


def names_of_ranges(edges: Sequence[float]) -> list[str]:
    """Return the names of the ranges between the edges."""
    return [f"< {edges[0]}", *(f"{a}–{b}" for a, b in zip(edges, edges[1:])), f"≥ {edges[-1]}"]


def best_bin(right: np.ndarray, wrong: np.ndarray, objects: int) -> int:
    """Return the bin whose lower edge is the score threshold with the best F1. right, wrong: counts (B,)."""
    hits, misses = (np.cumsum(side[::-1])[::-1] for side in (right, wrong))
    return int(np.argmax(2 * hits / np.maximum(hits + misses + objects, 1)))
