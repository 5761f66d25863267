"""The page of an evaluation: metrics, curves, error types, confusion matrix, and the worst images."""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from ..files import printable
from .examples import Judged, choose, contents, describe, thumbnails
from .matching import Found, Objects, best_first, find_pairs, match
from .page import write_page
from .summary import BINS, best_bin, by_class, by_size, confusion
from .tide import FOREGROUND_IOU, KINDS, find_errors

TITLES = {"bbox": "Boxes", "segm": "Masks"}


@dataclass
class Scored:
    """One kind of COCO AP and the data it was computed from.

    Shapes: K classes in the order of their ids, T IoU thresholds 0.50:0.05:0.95, R recall points, n detections.
    """

    iou_type: str                           # bbox or segm
    figures: Mapping[str, float]            # -1: no object in this range
    per_class: Mapping[str, Mapping[str, Any]]      # {name: {"AP", "AP50", "objects"}}, K of them
    precision: np.ndarray                   # (T, R, K)
    truth: Mapping[str, Any]                # COCO ground truth, cleaned
    image_ids: np.ndarray                   # (n,)
    category_ids: np.ndarray                # (n,)
    scores: np.ndarray                      # (n,)
    shapes: Any                             # (n, 4) boxes x, y, width, height; for masks n pairs (size, counts)
    max_dets: int = 100


def write_evaluation(path: Path, title: str, kinds: Sequence[Scored], facts: Mapping[str, str], notes: Sequence[str] = (),
                     image_dir: Optional[Path] = None, upright: bool = True) -> None:
    """Write the page.

    Args:
        kinds: boxes, and masks if there are any. The last one decides which images are shown.
        facts: {name: value} of the run, shown below the title.
        notes: remarks for the reader.
        image_dir: folder of the images; None shows objects and detections without the image.
        upright: whether images are turned by their EXIF orientation.
    """
    truth = kinds[0].truth
    names = [printable(name) for name in kinds[0].per_class]
    judged = [judge(kind) for kind in kinds]
    chosen = choose(judged[-1][0], len(truth["images"]), len(names))
    images = [truth["images"][image] for image in chosen]
    small = thumbnails(images, image_dir, upright)
    examples = [{**describe(image, item),
                 "kinds": [contents(found, place, item.scale) for found, _ in judged]}
                for image, item, place in zip(images, small, chosen)]
    data = {"classes": names, "bins": BINS, "errors": list(KINDS), "examples": examples,
            "kinds": [{"title": TITLES[kind.iou_type], **_figures(kind), **more} for kind, (_, more) in zip(kinds, judged)]}
    write_page(path, "evaluation", data, title=printable(title), notes=[printable(note) for note in notes],
               facts={name: printable(str(value)) for name, value in facts.items()},
               masks=len(kinds) > 1, images=len(truth["images"]), shown=len(examples))


def judge(kind: Scored) -> tuple[Judged, dict[str, Any]]:
    """Return the matched detections with their errors, and the counts for the page."""
    objects, found, classes = _objects(kind), _found(kind), len(kind.per_class)
    pairs = find_pairs(objects, found)
    matches = match(pairs, len(found.scores), len(objects.labels), FOREGROUND_IOU)
    errors = find_errors(objects, found, pairs, matches, classes)
    table = by_class(objects, found, matches, classes)
    right, wrong = (np.array(table[name]).reshape(classes, BINS).sum(0) for name in ("right", "wrong"))
    return Judged(objects, found, matches, errors), {
        "tide": {"ap": errors.ap, "counts": errors.counts, "costs": errors.costs},
        "confusion": confusion(objects, found, pairs, classes), "byClass": table, "bySize": by_size(objects, found, matches),
        "bestBin": best_bin(right, wrong, sum(table["objects"])), "detections": len(kind.scores)}


def _objects(kind: Scored) -> Objects:
    annotations, masks = kind.truth["annotations"], kind.iou_type == "segm"
    places = {image["id"]: i for i, image in enumerate(kind.truth["images"])}
    labels = _labels(kind)
    if masks:
        sizes = {image["id"]: (image["height"], image["width"]) for image in kind.truth["images"]}
        shapes: Any = [_run_lengths(item["segmentation"], *sizes[item["image_id"]]) for item in annotations]
    else:
        shapes = np.array([item["bbox"] for item in annotations], np.float64).reshape(-1, 4)
    return Objects(
        np.array([places[item["image_id"]] for item in annotations], np.int64),
        np.array([labels[item["category_id"]] for item in annotations], np.int64),
        np.array([bool(item.get("iscrowd", 0)) for item in annotations], bool),
        np.array([item["area"] for item in annotations], np.float64), shapes)


def _found(kind: Scored) -> Found:
    places = np.array([image["id"] for image in kind.truth["images"]])
    categories = np.array(sorted(_labels(kind)))
    order = np.argsort(places, kind="stable")
    images = order[np.searchsorted(places[order], kind.image_ids)] if len(kind.image_ids) else np.zeros(0, np.int64)
    labels = np.searchsorted(categories, kind.category_ids)
    shapes = kind.shapes if kind.iou_type == "bbox" else [{"size": list(size), "counts": counts} for size, counts in kind.shapes]
    rows = best_first(Found(images, labels, kind.scores, shapes), kind.max_dets)
    shapes = [shapes[row] for row in rows.tolist()] if isinstance(shapes, list) else shapes[rows]
    return Found(images[rows], labels[rows], kind.scores[rows], shapes)


def _labels(kind: Scored) -> dict[int, int]:
    """Return {category id: label}, labels in the order of the ids."""
    return {number: label for label, number in enumerate(sorted(item["id"] for item in kind.truth["categories"]))}


def _run_lengths(mask: Any, height: int, width: int) -> dict[str, Any]:
    """Return a mask, polygons or RLE, as compressed RLE."""
    from pycocotools import mask as mask_utils

    if isinstance(mask, list):
        return mask_utils.merge(mask_utils.frPyObjects(mask, height, width))
    return mask_utils.frPyObjects(mask, height, width) if isinstance(mask["counts"], list) else mask


def _figures(kind: Scored) -> dict[str, Any]:
    precision = kind.precision
    absent = precision < 0
    with np.errstate(invalid="ignore"):
        means = np.where(absent.all(0), -1, np.where(absent, 0, precision).mean(0))     # (R, K)
    curves = [np.round(values.T, 3).tolist() for values in (precision[0], precision[5], means)]
    seventy_five = [_mean(precision[5, :, k]) for k in range(precision.shape[2])]
    rows = [{"objects": row["objects"], "ap": row["AP"], "ap50": row["AP50"], "ap75": value}
            for row, value in zip(kind.per_class.values(), seventy_five)]
    return {"figures": dict(kind.figures), "perClass": rows, "curves": curves}


def _mean(values: np.ndarray) -> float:
    return float(values[values > -1].mean()) if (values > -1).any() else -1.0
