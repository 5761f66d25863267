# Same as faster_rcnn/src/model_utils/evaluation/coco_inputs.py
"""Reading, checking and cleaning of COCO ground truth and results, so that the scorers do not fail on them."""
import json
import math
import os
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...util import counted
from ..config import InputError
from ..own_utils import own_utils
from ..yaml_text import shown
from .coco_masks import keep_masks, match_image_size, settle_sizes
from .detections import Detections, Rle, present

if TYPE_CHECKING:
    from utils.mindrecord.errors import Problem

# COCO ground truth and COCO results, each as content or as the path of a JSON file.
GroundTruth = Mapping[str, Any] | Path | str
Results = Iterable[Mapping[str, Any]] | Path | str
MOST_CATEGORIES = 30_000        # a category takes 100 KB of memory in the scorers


class Named(NamedTuple):
    """Content and the name that messages give it."""

    where: str
    content: Any


class CleanGroundTruth(NamedTuple):
    """COCO ground truth that the scorers accept."""

    content: dict[str, Any]
    notes: list[str]            # messages about dropped or corrected entries


def clean_ground_truth(ground_truth: GroundTruth, iou_type: str = "bbox", found: Detections | None = None) -> CleanGroundTruth:
    """Return a copy of the ground truth without unusable entries.

    utils/mindrecord does the cleaning, so that scoring drops the same annotations as the conversion to MindRecord.

    Args:
        ground_truth: COCO ground truth, or the path of a file.
        iou_type: bbox or segm; segm also drops annotations without a usable mask.
        found: detections whose masks give the size of images that have no size or a wrong one in the ground truth.

    Raises:
        InputError: the ground truth cannot be read or scored.
    """
    where, content = read_json(ground_truth, "ground truth")
    if not isinstance(content, Mapping):
        raise InputError(f"{where}: expected an object with images, annotations and categories, got {_kind(content)}")
    problems: list[Problem] = []
    try:
        truth = own_utils("mindrecord.readers").clean_content(where, content, problems)
    except own_utils("mindrecord.errors").DataError as error:
        raise InputError(str(error)) from error
    if len(truth["categories"]) > MOST_CATEGORIES:
        raise InputError(f"{where}: has {len(truth['categories'])} categories, but at most {MOST_CATEGORIES} can be scored, since "
                         "each takes 100 KB of memory; remove categories without annotations")
    kinds: dict[str, list[Problem]] = {}
    for problem in problems:
        kind = "unknown category" if problem.kind.startswith("unknown category") else problem.kind     # one note for all
        kinds.setdefault(kind, []).append(problem)
    is_dropped = own_utils("mindrecord.records").is_dropped
    notes = [f"{len(some)} x {kind} in the ground truth{', dropped' if is_dropped(some[0]) else ''}; the first: "
             f"{some[0].place}: {some[0].what}" for kind, some in kinds.items()]
    if iou_type == "segm":
        notes += settle_sizes(truth, found)
        notes += keep_masks(where, truth)
    if not truth["annotations"]:
        notes.append("the ground truth has no objects, so every figure is -1")
    return CleanGroundTruth(truth, notes)


def read_results(results: Results, iou_type: str) -> Named:
    """Read COCO results.

    Args:
        results: Detections, an iterable of COCO result dicts, or the path of a file.
        iou_type: bbox or segm.

    Returns:
        The name of the results in messages, and Detections with boxes for bbox or RLE for segm.

    Raises:
        InputError: the results cannot be read; the message names the first invalid entry.
    """
    where, content = read_json(results, "detections")
    if isinstance(content, Mapping):
        raise InputError(f"{where}: expected a list of COCO results, got an object")
    read = _read_columns if isinstance(content, Detections) else _read_dicts
    return Named(where, read(where, content, iou_type))


def clean_results(results: Named, truth: Mapping[str, Any], iou_type: str, notes: list[str]) -> Detections:
    """Return the detections that can be scored against the ground truth, with their areas.

    Args:
        results: returned by `read_results`.
        truth: content returned by `clean_ground_truth`.
        iou_type: bbox or segm.
        notes: messages about dropped detections are appended to it.

    Raises:
        InputError: a detection has an image_id that is not in the ground truth.
    """
    where, found = results
    images = {image["id"]: image for image in truth["images"]}
    unknown = np.flatnonzero(~np.isin(found.image_ids, list(images)))
    if len(unknown):
        raise InputError(f"{where}: result {unknown[0]}: image_id {found.image_ids[unknown[0]]} is not in the ground truth "
                         f"({counted(len(images), 'image')}); give the annotations of the images that the detections were made on")
    known = np.isin(found.category_ids, [item["id"] for item in truth["categories"]])
    if not known.all():
        others = found.category_ids[~known]
        some = ", ".join(map(str, np.unique(others)[:5].tolist())) + (" ..." if len(np.unique(others)) > 5 else "")
        notes.append(f"{counted(len(others), 'detection')} dropped: category_id {some} is not in the ground truth")
    if iou_type == "segm":
        known &= match_image_size(found, known, images, notes)
    elif found.boxes is not None:
        negative = np.flatnonzero((found.boxes[:, 2:] < 0).any(axis=1) & known)
        if len(negative):
            box = found.boxes[negative[0]].tolist()
            notes.append(f"{counted(len(negative), 'detection')} with a negative width or height, matching nothing; the first: "
                         f"result {negative[0]}: bbox {box}")
    if not known.all():
        found = found.keep(np.flatnonzero(known))
    if not len(found):
        notes.append("no detections: AP and AR are 0 for every class that has objects")
    found.areas = _areas(found)
    return found


def _areas(found: Detections) -> np.ndarray:
    if found.rles is None:
        boxes = present(found.boxes)
        return boxes[:, 2] * boxes[:, 3]
    if not found.rles:
        return np.zeros(0)
    from pycocotools import mask as mask_utils
    return np.asarray(mask_utils.area([{"size": size, "counts": counts} for size, counts in found.rles]), np.float64)


def _read_columns(where: str, found: Detections, iou_type: str) -> Detections:
    """Check the scores and keep the columns that the IoU type needs."""
    bad = np.flatnonzero(~np.isfinite(found.scores))
    if len(bad):
        raise InputError(f"{where}: result {bad[0]}: score: expected a finite number, got {found.scores[bad[0]]}")
    if iou_type == "bbox":
        return replace(found, rles=None)
    if found.rles is None:
        raise InputError(f"{where}: expected masks for segm, but the detections have none")
    return replace(found, boxes=None)


def _read_dicts(where: str, results: Iterable[Any], iou_type: str) -> Detections:
    image_ids, category_ids, scores, boxes, rles = array("q"), array("q"), array("d"), array("d"), []
    for i, item in enumerate(results):
        try:
            image_ids.append(_int(item, "image_id"))
            category_ids.append(_int(item, "category_id"))
            scores.append(_score(item))
            if iou_type == "segm":
                rle = _rle(item)
                rles.append(Rle(tuple(rle["size"]), rle["counts"]))
            else:
                boxes.extend(_result_box(item))
        except (InputError, OverflowError) as error:
            raise InputError(f"{where}: result {i}: {error}") from None
    found = Detections(np.array(image_ids, np.int64), np.array(category_ids, np.int64), np.array(scores))
    if iou_type == "segm":
        found.rles = rles
    else:
        found.boxes = np.array(boxes).reshape(-1, 4)
    return found


def _result_box(item: Any) -> list[float]:
    """Return the box [x, y, width, height] of a result. Negative sizes are accepted, as the scorers accept them."""
    if "bbox" not in item and item.get("segmentation"):     # derived from the mask, as COCO.loadRes does
        from pycocotools import mask as mask_utils
        item = {"bbox": mask_utils.toBbox(_rle(item)).tolist()}
    box = own_utils("mindrecord.values").numbers(item.get("bbox"), 4)
    if box is None or not all(map(math.isfinite, box)):
        raise InputError(f"bbox: expected [x, y, width, height], got {shown(item.get('bbox'))}")
    return box


def read_json(source: Any, what: str) -> Named:
    """Return the parsed content of a JSON file, or content that is passed in unchanged.

    Args:
        source: path of the file, or the content itself.
        what: name of the content in messages.

    Raises:
        InputError: there is no such file, or it is not JSON.
    """
    if not isinstance(source, (str, os.PathLike)):
        return Named(what, source)
    path = Path(source)
    if not path.is_file():
        raise InputError(f"{path}: no such file ({what})")
    try:
        return Named(str(path), json.loads(path.read_bytes()))      # bytes, since json then detects UTF-8, UTF-16 and UTF-32
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: line {error.lineno}: not JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not JSON: {error.reason} at byte {error.start}") from error
    except (ValueError, RecursionError) as error:       # ValueError: an integer with more digits than Python parses
        raise InputError(f"{path}: not JSON: {'nested too deeply' if isinstance(error, RecursionError) else error}") from error


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, list) else type(value).__name__


def _int(item: Any, key: str) -> int:
    """Return the id at `key`; strings and floats that are whole numbers are accepted."""
    value = item.get(key) if isinstance(item, Mapping) else None
    if type(value) is int:
        return value
    found = own_utils("mindrecord.values").whole_number(value)
    if found is None:
        raise InputError(f"{key}: expected an integer, got {shown(value)}")
    return found


def _score(item: Any) -> float:
    score = own_utils("mindrecord.values").number(item.get("score"))
    if score is None or not math.isfinite(score):
        raise InputError(f"score: expected a finite number, got {shown(item.get('score'))}")
    return score


def _rle(item: Any) -> dict[str, Any]:
    """Return the mask of a result after checks that pycocotools lacks.

    pycocotools reads past the end of truncated counts and divides by a height of 0.
    """
    whole_number = own_utils("mindrecord.values").whole_number
    rle = item.get("segmentation")
    if not isinstance(rle, Mapping) or not isinstance(rle.get("counts"), (str, bytes)) or "size" not in rle:
        raise InputError(f"segmentation: expected a compressed RLE with size and counts, got {shown(rle)}")
    sides = [whole_number(side) for side in rle["size"]] if isinstance(rle["size"], (list, tuple)) else []
    height, width = (side or 0 for side in sides) if len(sides) == 2 else (0, 0)
    if not (0 < height < 2**31 and 0 < width < 2**31):
        raise InputError(f"segmentation: size: expected [height, width], got {shown(rle['size'])}")
    counts = rle["counts"] if isinstance(rle["counts"], str) else rle["counts"].decode("ascii", "replace")
    try:
        lengths = own_utils("mindrecord.masks").run_lengths(counts)
    except ValueError as error:
        raise InputError(f"segmentation: counts: run lengths {error}") from None
    if (lengths < 0).any() or lengths.sum() > height * width:
        raise InputError(f"segmentation: counts: run lengths do not fit into {width}x{height} pixels")
    return {"size": [height, width], "counts": counts}
