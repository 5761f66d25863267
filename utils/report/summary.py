"""What depends on the score that a user chooses: confusion matrix, precision and recall, recall by size of the objects.

Everything is counted in BINS steps of the score, so that the page adds up what lies above the chosen one.
Shapes as in matching.py; B score bins.
"""
from collections.abc import Sequence
from typing import Any

import numpy as np

from .matching import Found, Matches, Objects, Pairs, match

BINS = 20                           # steps of 0.05
CONFUSION_IOUS = (0.3, 0.5, 0.75, 0.9)
SIZES = (16, 32, 64, 96, 192)       # sides, sqrt(area), in pixels


def score_bins(scores: np.ndarray) -> np.ndarray:
    """Return the bin of each score, 0 to BINS - 1."""
    return np.clip(np.floor(scores * BINS + 1e-9), 0, BINS - 1).astype(np.int64)


def confusion(objects: Objects, found: Found, pairs: Pairs, classes: int) -> list[dict[str, Any]]:
    """Return of each IoU the counts as [object's class, detection's class, bin, count, ...]; class K is the background.

    A detection takes an object of its class if one is free, else one of another class.
    """
    bins, tables = score_bins(found.scores), []
    for iou in CONFUSION_IOUS:
        matches = match(pairs, len(found.scores), len(objects.labels), iou, any_class=True)
        keep = ~matches.ignored
        truth = np.append(objects.labels, classes)[matches.objects]         # that of none, -1, is the background
        code = ((truth * classes + found.labels) * BINS + bins)[keep]
        codes, counts = np.unique(code, return_counts=True)
        rows = np.stack([codes // (classes * BINS), codes // BINS % classes, codes % BINS, counts], 1)
        tables.append({"iou": iou, "counts": rows.ravel().tolist()})
    return tables


def by_class(objects: Objects, found: Found, matches: Matches, classes: int) -> dict[str, Any]:
    """Return {"right", "wrong"}: counts (K, B) of the detections at IoU 0.50, and {"objects"} (K,)."""
    code = found.labels * BINS + score_bins(found.scores)
    right, wrong = matches.objects >= 0, (matches.objects < 0) & ~matches.ignored
    table = {name: np.bincount(code[use], minlength=classes * BINS).reshape(classes, BINS).tolist()
             for name, use in (("right", right), ("wrong", wrong))}
    return {**table, "objects": np.bincount(objects.labels[~objects.crowd], minlength=classes).tolist()}


def by_size(objects: Objects, found: Found, matches: Matches) -> list[dict[str, Any]]:
    """Return of each range of sizes how many objects there are, and how many are found at IoU 0.50 by score, (B,)."""
    place = np.digitize(np.sqrt(np.maximum(objects.areas, 0)), SIZES)
    rows = []
    for i, name in enumerate(names_of_ranges(SIZES)):
        inside = (place == i) & ~objects.crowd
        best = matches.found[inside]
        counts = np.bincount(score_bins(found.scores[best[best >= 0]]), minlength=BINS)
        rows.append({"name": name, "objects": int(inside.sum()), "found": counts.tolist()})
    return rows


def names_of_ranges(edges: Sequence[float]) -> list[str]:
    """Return what the ranges between the edges are called."""
    return [f"< {edges[0]}", *(f"{a}–{b}" for a, b in zip(edges, edges[1:])), f"≥ {edges[-1]}"]


def best_bin(right: np.ndarray, wrong: np.ndarray, objects: int) -> int:
    """Return the bin from which on the detections have the best F1. right, wrong: counts (B,)."""
    hits, misses = (np.cumsum(side[::-1])[::-1] for side in (right, wrong))
    return int(np.argmax(2 * hits / np.maximum(hits + misses + objects, 1)))
