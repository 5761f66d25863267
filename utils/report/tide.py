"""Error types of detections and their cost in AP, after TIDE (Bolya, Foley, Hays, Hoffman: "TIDE: A General Toolbox for
Identifying Object Detection Errors", ECCV 2020).

A wrong detection has one type, the first that applies. `own` is its highest IoU with an object of its class, `other` with an object
of another class:

    location        BACKGROUND_IOU <= own <= FOREGROUND_IOU
    class           other >= FOREGROUND_IOU
    duplicate       own >= FOREGROUND_IOU, and a better detection matches the object
    background      own and other < BACKGROUND_IOU
    both            the rest: overlaps an object of another class, but is poorly localised
    missed          an object without a detection, and without one that fixing its class or location would match to it

The cost of a type is the gain in AP at IoU 0.50 if only its errors were fixed: for class and location, the best detection of each
object is corrected and the others are removed; duplicate, background and both are removed; missed objects are not counted. The
costs do not add up to 1 - AP. Unlike in the authors' code, classes without objects are excluded, as in COCO's AP.
Shapes as in matching.py.
"""
from typing import NamedTuple

import numpy as np

from .matching import BACKGROUND_IOU, Found, Matches, Objects, Pairs

FOREGROUND_IOU = 0.5
RIGHT, CLASS, LOCATION, BOTH, DUPLICATE, BACKGROUND, IGNORED = range(7)
KINDS = ("class", "location", "both", "duplicate", "background", "missed")      # the first five are numbered from CLASS
RECALLS = np.linspace(0.0, 1.0, 101)


class Errors(NamedTuple):
    """The error type of each detection, and the cost of each type."""

    kinds: np.ndarray           # (n,) RIGHT to IGNORED
    fixable: np.ndarray         # (n,) object that fixing the class or location would match, -1 if none
    missed: np.ndarray          # (g,) bool
    counts: dict[str, int]      # per type in KINDS
    costs: dict[str, float]     # AP50 gained per type in KINDS, and for all "false positives" and "false negatives"
    ap: float                   # AP50, -1 without objects


def find_errors(objects: Objects, found: Found, pairs: Pairs, matches: Matches, classes: int) -> Errors:
    """Classify the errors. matches: within classes at FOREGROUND_IOU."""
    kinds, nearest = _kinds(len(found.scores), pairs, matches)
    fixable = np.where(np.isin(kinds, (CLASS, LOCATION)), nearest, -1)
    fixable[np.append(matches.found, -1)[fixable] >= 0] = -1         # another detection already matches the object
    missed = ~objects.crowd & (matches.found < 0)
    missed[fixable[fixable >= 0]] = False
    counts = {name: int((kinds == number).sum()) for number, name in enumerate(KINDS[:-1], CLASS)}
    counts["missed"] = int(missed.sum())
    positives = np.bincount(objects.labels[~objects.crowd], minlength=classes)
    costs, ap = _costs(objects, found, matches, kinds, fixable, missed, positives)
    return Errors(kinds, fixable, missed, counts, costs, ap)


def _kinds(count: int, pairs: Pairs, matches: Matches) -> tuple[np.ndarray, np.ndarray]:
    """Return the type of each detection, and the object that its class or location was meant for."""
    plain = ~pairs.crowd
    own, own_object = _nearest(count, pairs, plain & pairs.same)
    other, other_object = _nearest(count, pairs, plain & ~pairs.same)
    kinds = np.select(
        [matches.objects >= 0, matches.ignored, (own >= BACKGROUND_IOU) & (own <= FOREGROUND_IOU), other >= FOREGROUND_IOU,
         own >= FOREGROUND_IOU, np.maximum(own, other) < BACKGROUND_IOU],
        [RIGHT, IGNORED, LOCATION, CLASS, DUPLICATE, BACKGROUND], BOTH)
    return kinds, np.where(kinds == CLASS, other_object, own_object)


def _nearest(count: int, pairs: Pairs, use: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (highest IoU, its object) per detection; (0, -1) if there is none."""
    ious, objects = np.zeros(count), np.full(count, -1)
    rows = pairs.found[use][::-1]           # pairs are best first, and the last assignment to a row is kept
    ious[rows], objects[rows] = pairs.ious[use][::-1], pairs.objects[use][::-1]
    return ious, objects


def _costs(objects: Objects, found: Found, matches: Matches, kinds: np.ndarray, fixable: np.ndarray, missed: np.ndarray,
           positives: np.ndarray) -> tuple[dict[str, float], float]:
    counted = kinds != IGNORED
    right = kinds == RIGHT
    ap = mean_ap(found.labels, right, counted, positives, positives)
    first = _first_of_each(fixable, len(objects.labels))
    costs = {}
    for number, name in enumerate(KINDS[:-1], CLASS):
        wrong = kinds == number
        fixed = wrong & first if number in (CLASS, LOCATION) else np.zeros_like(wrong)
        labels = np.where(fixed, np.append(objects.labels, 0)[fixable], found.labels)
        costs[name] = mean_ap(labels, right | fixed, counted & (~wrong | fixed), positives, positives)
    fewer = positives - np.bincount(objects.labels[missed], minlength=len(positives))
    costs["missed"] = mean_ap(found.labels, right, counted, fewer, positives)
    costs["false positives"] = mean_ap(found.labels, right, right, positives, positives)
    fewer = positives - np.bincount(objects.labels[~objects.crowd & (matches.found < 0)], minlength=len(positives))
    costs["false negatives"] = mean_ap(found.labels, right, counted, fewer, positives)
    return {name: max(0.0, value - ap) if ap >= 0 else 0.0 for name, value in costs.items()}, ap


def _first_of_each(fixable: np.ndarray, objects: int) -> np.ndarray:
    """Return (n,) bool: the best detection of those that could be fixed to match the same object."""
    rows = np.flatnonzero(fixable >= 0)
    best = np.full(objects, -1)
    best[fixable[rows][::-1]] = rows[::-1]
    first = np.zeros(len(fixable), bool)
    first[best[best >= 0]] = True
    return first


def mean_ap(labels: np.ndarray, right: np.ndarray, counted: np.ndarray, positives: np.ndarray, annotated: np.ndarray) -> float:
    """Return COCO's AP, averaged over classes, of detections sorted best first; -1 if no class counts.

    positives (K,): objects per class; annotated (K,): the same before objects were removed. A class with neither detections nor
    remaining objects is excluded.
    """
    rows = np.flatnonzero(counted)
    rows = rows[np.argsort(labels[rows], kind="stable")]
    ends = np.searchsorted(labels[rows], np.arange(len(positives) + 1))
    values = []
    for k in np.flatnonzero(annotated).tolist():
        part = right[rows[ends[k]:ends[k + 1]]]
        if len(part) or positives[k]:
            values.append(_average_precision(part, int(positives[k])))
    return float(np.mean(values)) if values else -1.0


def _average_precision(right: np.ndarray, positives: int) -> float:
    if not positives or not len(right):
        return 0.0
    hits = np.cumsum(right)
    precision = np.maximum.accumulate((hits / np.arange(1, len(right) + 1))[::-1])[::-1]
    places = np.searchsorted(hits / positives, RECALLS, side="left")
    return float(np.append(precision, 0.0)[np.minimum(places, len(right))].mean())
