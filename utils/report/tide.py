"""What kinds of error cost how much AP, after TIDE (Bolya, Foley, Hays, Hoffman: "TIDE: A General Toolbox for Identifying Object
Detection Errors", ECCV 2020).

Each wrong detection has one kind, the first that fits. `own` is its IoU with the nearest object of its class, `other` with the
nearest object of another class:

    location        BACKGROUND_IOU <= own <= FOREGROUND_IOU
    class           other >= FOREGROUND_IOU
    duplicate       own >= FOREGROUND_IOU, and a better detection has the object
    background      own and other < BACKGROUND_IOU
    both            what is left: in the place of an object of another class, and not well
    missed          of objects: without a detection, and without one whose class or location could be mended to give it

The cost of a kind is how much AP at IoU 0.50 rises if only its errors are mended: the class or box of the best detection of an
object is made right and the further ones go; duplicate, background and both go; missed objects no longer count. The costs do not
add up to 1 - AP. Unlike in the authors' program, classes without objects do not count, as in COCO's AP.
Shapes as in matching.py.
"""
from typing import NamedTuple

import numpy as np

from .matching import BACKGROUND_IOU, Found, Matches, Objects, Pairs

FOREGROUND_IOU = 0.5
RIGHT, CLASS, LOCATION, BOTH, DUPLICATE, BACKGROUND, IGNORED = range(7)
KINDS = ("class", "location", "both", "duplicate", "background", "missed")      # of errors; the first five from CLASS on
RECALLS = np.linspace(0.0, 1.0, 101)


class Errors(NamedTuple):
    """The kind of each detection, and what the kinds cost."""

    kinds: np.ndarray           # (n,) RIGHT to IGNORED
    mendable: np.ndarray        # (n,) object that a wrong class or location could be mended to give, -1 without one
    missed: np.ndarray          # (g,) bool
    counts: dict[str, int]      # of each in KINDS
    costs: dict[str, float]     # AP50 gained, of each in KINDS, and of "false positives" and "false negatives" as wholes
    ap: float                   # AP50, -1 without objects


def find_errors(objects: Objects, found: Found, pairs: Pairs, matches: Matches, classes: int) -> Errors:
    """Return the errors. matches: of the same classes at FOREGROUND_IOU."""
    kinds, nearest = _kinds(len(found.scores), pairs, matches)
    mendable = np.where(np.isin(kinds, (CLASS, LOCATION)), nearest, -1)
    mendable[np.append(matches.found, -1)[mendable] >= 0] = -1         # another detection has the object
    missed = ~objects.crowd & (matches.found < 0)
    missed[mendable[mendable >= 0]] = False
    counts = {name: int((kinds == number).sum()) for number, name in enumerate(KINDS[:-1], CLASS)}
    counts["missed"] = int(missed.sum())
    positives = np.bincount(objects.labels[~objects.crowd], minlength=classes)
    costs, ap = _costs(objects, found, matches, kinds, mendable, missed, positives)
    return Errors(kinds, mendable, missed, counts, costs, ap)


def _kinds(count: int, pairs: Pairs, matches: Matches) -> tuple[np.ndarray, np.ndarray]:
    """The kind of each detection, and the object that its class or location was meant for."""
    plain = ~pairs.crowd
    own, own_object = _nearest(count, pairs, plain & pairs.same)
    other, other_object = _nearest(count, pairs, plain & ~pairs.same)
    kinds = np.select(
        [matches.objects >= 0, matches.ignored, (own >= BACKGROUND_IOU) & (own <= FOREGROUND_IOU), other >= FOREGROUND_IOU,
         own >= FOREGROUND_IOU, np.maximum(own, other) < BACKGROUND_IOU],
        [RIGHT, IGNORED, LOCATION, CLASS, DUPLICATE, BACKGROUND], BOTH)
    return kinds, np.where(kinds == CLASS, other_object, own_object)


def _nearest(count: int, pairs: Pairs, use: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(IoU with the nearest object, which one) of each detection; (0, -1) without one."""
    ious, objects = np.zeros(count), np.full(count, -1)
    rows = pairs.found[use][::-1]           # best first, and of several assignments the last one stays
    ious[rows], objects[rows] = pairs.ious[use][::-1], pairs.objects[use][::-1]
    return ious, objects


def _costs(objects: Objects, found: Found, matches: Matches, kinds: np.ndarray, mendable: np.ndarray, missed: np.ndarray,
           positives: np.ndarray) -> tuple[dict[str, float], float]:
    counted = kinds != IGNORED
    right = kinds == RIGHT
    ap = mean_ap(found.labels, right, counted, positives, positives)
    first = _first_of_each(mendable, len(objects.labels))
    costs = {}
    for number, name in enumerate(KINDS[:-1], CLASS):
        wrong = kinds == number
        mended = wrong & first if number in (CLASS, LOCATION) else np.zeros_like(wrong)
        labels = np.where(mended, np.append(objects.labels, 0)[mendable], found.labels)
        costs[name] = mean_ap(labels, right | mended, counted & (~wrong | mended), positives, positives)
    fewer = positives - np.bincount(objects.labels[missed], minlength=len(positives))
    costs["missed"] = mean_ap(found.labels, right, counted, fewer, positives)
    costs["false positives"] = mean_ap(found.labels, right, right, positives, positives)
    fewer = positives - np.bincount(objects.labels[~objects.crowd & (matches.found < 0)], minlength=len(positives))
    costs["false negatives"] = mean_ap(found.labels, right, counted, fewer, positives)
    return {name: max(0.0, value - ap) if ap >= 0 else 0.0 for name, value in costs.items()}, ap


def _first_of_each(mendable: np.ndarray, objects: int) -> np.ndarray:
    """Which detection is the best of those that could give an object, (n,) bool."""
    rows = np.flatnonzero(mendable >= 0)
    best = np.full(objects, -1)
    best[mendable[rows][::-1]] = rows[::-1]
    first = np.zeros(len(mendable), bool)
    first[best[best >= 0]] = True
    return first


def mean_ap(labels: np.ndarray, right: np.ndarray, counted: np.ndarray, positives: np.ndarray, annotated: np.ndarray) -> float:
    """COCO's AP of detections that stand best first, mean over the classes; -1 without one.

    positives (K,): objects of each class; annotated (K,): those before any were taken off. A class without detections from which
    all objects were taken off does not count.
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
