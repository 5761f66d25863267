# Same as faster_rcnn/src/model_utils/evaluation/coco_inputs.py
"""COCO ground truth and results, read, checked and cleaned of what scorers stumble over."""
import json
import math
import os
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..config import InputError
from .detections import Detections, Rle, present

# COCO ground truth and COCO results, or the paths of files with them.
GroundTruth = Mapping[str, Any] | Path | str
Results = Iterable[Mapping[str, Any]] | Path | str


class Named(NamedTuple):
    """Content, and what messages call it."""

    where: str
    content: Any


class CleanGroundTruth(NamedTuple):
    """COCO ground truth without what the scorers stumble over."""

    content: dict[str, Any]
    notes: list[str]            # for the reader: what was left out


def clean_ground_truth(ground_truth: GroundTruth, iou_type: str = "bbox") -> CleanGroundTruth:
    """Return a clean copy; InputError where it cannot be scored."""
    where, truth = read_json(ground_truth, "ground truth")
    if not isinstance(truth, Mapping):
        raise InputError(f"{where}: expected an object with images, annotations and categories, got {_kind(truth)}")
    for key in ("images", "annotations", "categories"):
        if not isinstance(truth.get(key), (list, tuple)):
            raise InputError(f"{where}: no list {key!r}: not COCO ground truth")
    categories = _with_ids(truth["categories"], f"{where}: categories")
    images = _with_ids(truth["images"], f"{where}: images")
    for key, items in (("categories", categories), ("images", images)):
        twice = [number for number, count in Counter(item["id"] for item in items).items() if count > 1]
        if twice:
            raise InputError(f"{where}: {key}: id {twice[0]} is given twice")
        if not items:
            raise InputError(f"{where}: {key} is empty: nothing to score")
    if iou_type == "segm" and any("height" not in image or "width" not in image for image in images):
        raise InputError(f"{where}: images need height and width to score masks")
    annotations, notes = _clean_annotations(where, truth["annotations"], images, categories, iou_type)
    return CleanGroundTruth({"info": {}, "images": images, "annotations": annotations, "categories": categories}, notes)


def _with_ids(items: Iterable[Any], where: str) -> list[dict[str, Any]]:
    copies = []
    for i, item in enumerate(items):
        try:
            copies.append({**item, "id": _int(item, "id")})
        except (InputError, TypeError) as error:
            raise InputError(f"{where}[{i}]: {error}") from None
    return copies


def _clean_annotations(where: str, source: Iterable[Any], images: list[dict[str, Any]], categories: list[dict[str, Any]],
                       iou_type: str) -> tuple[list[dict[str, Any]], list[str]]:
    known = {"image_id": {image["id"] for image in images}, "category_id": {item["id"] for item in categories}}
    sizes: dict[int, tuple[Any, Any]] = {image["id"]: (image.get("height"), image.get("width")) for image in images}
    kept: list[dict[str, Any]] = []
    dropped: Counter[str] = Counter()
    faults: list[str] = []
    for i, item in enumerate(source):
        try:
            ids = {key: _int(item, key) for key in known}
            unknown = [key for key in known if ids[key] not in known[key]]
            if unknown:
                dropped[unknown[0]] += 1
                continue
            box = _box(item)
        except InputError as error:
            raise InputError(f"{where}: annotations[{i}]: {error}") from None
        if iou_type == "segm":
            try:
                mask = _clean_mask(item.get("segmentation"), *sizes[ids["image_id"]])
            except InputError as error:
                faults.append(f"annotations[{i}]: {error}")
                continue
        # Renumbered: an id of 0 means "not matched" inside the scorers, and one given twice would hide the first.
        entry = {**ids, "id": len(kept) + 1, "bbox": box, "iscrowd": int(item.get("iscrowd") or 0),
                 "area": float(item["area"] if item.get("area") is not None else box[2] * box[3])}
        if item.get("difficult"):       # of VOC; COCO AP does not ask
            entry["difficult"] = 1
        if iou_type == "segm":
            entry["segmentation"] = mask
        kept.append(entry)
    notes = [f"{count} annotations of the ground truth left out: {key} not listed" for key, count in dropped.items()]
    if faults and not kept:
        raise InputError(f"{where}: {faults[0]}, so masks cannot be scored")
    if faults:
        notes.append(f"{len(faults)} annotations of the ground truth left out: no mask; the first: {faults[0]}")
    if not kept:
        notes.append("the ground truth has no objects: every figure is -1")
    return kept, notes


def _clean_mask(segmentation: Any, height: int, width: int) -> Mapping[str, Any] | list:
    """RLE of the picture's size, or those of the polygons that have an area; InputError where nothing is left."""
    if not segmentation:
        raise InputError("no segmentation")
    if isinstance(segmentation, Mapping):
        size = list(segmentation.get("size") or ())
        if not isinstance(segmentation.get("counts"), (str, bytes, list)) or size != [height, width]:
            raise InputError(f"segmentation: expected an RLE (size, counts) of {[height, width]}, got one of {size}")
        return segmentation
    if not isinstance(segmentation, (list, tuple)):
        raise InputError(f"segmentation: expected polygons or an RLE, got {_kind(segmentation)}")
    good = [part for part in segmentation if isinstance(part, (list, tuple)) and len(part) >= 6 and len(part) % 2 == 0]
    if not good:
        raise InputError("segmentation: a polygon takes an even count of numbers, 6 or more")
    return good


def clean_results(results: Results, truth: Mapping[str, Any], iou_type: str, notes: list[str]) -> Detections:
    """COCO results that can be scored against what `clean_ground_truth` gave; adds to its notes."""
    where, content = read_json(results, "detections")
    if isinstance(content, Mapping):
        raise InputError(f"{where}: expected a list of COCO results, got an object")
    read = _read_columns if isinstance(content, Detections) else _read_dicts
    found = read(where, content, iou_type)
    images = {image["id"]: image for image in truth["images"]}
    unknown = np.flatnonzero(~np.isin(found.image_ids, list(images)))
    if len(unknown):
        raise InputError(f"{where}: result {unknown[0]}: image_id {found.image_ids[unknown[0]]} is not in the ground truth "
                         f"({len(images)} images)")
    known = np.isin(found.category_ids, [item["id"] for item in truth["categories"]])
    if iou_type == "segm":
        _check_sizes(where, found, known, images)
    if not known.all():
        others = found.category_ids[~known]
        some = ", ".join(map(str, np.unique(others)[:5].tolist())) + (" ..." if len(np.unique(others)) > 5 else "")
        notes.append(f"{len(others)} detections not counted: category_id {some} not in the ground truth")
        found = found.keep(np.flatnonzero(known))
    if not len(found):
        notes.append("no detections: AP and AR are 0 wherever the ground truth has objects")
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


def _check_sizes(where: str, found: Detections, known: np.ndarray, images: Mapping[int, dict[str, Any]]) -> None:
    rles = present(found.rles)
    for i in np.flatnonzero(known).tolist():
        image = images[int(found.image_ids[i])]
        size, got = [image["height"], image["width"]], list(rles[i].size)
        if got != size:
            raise InputError(f"{where}: result {i}: segmentation: an RLE of {got} for a picture of {size}")


def _read_columns(where: str, found: Detections, iou_type: str) -> Detections:
    """The columns that this kind of IoU needs."""
    bad = np.flatnonzero(~np.isfinite(found.scores))
    if len(bad):
        raise InputError(f"{where}: result {bad[0]}: score: expected a number, got {found.scores[bad[0]]}")
    if iou_type == "bbox":
        return replace(found, rles=None)
    if found.rles is None:
        raise InputError(f"{where}: no masks")
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
    if "bbox" not in item and item.get("segmentation"):     # results of masks alone: their boxes
        from pycocotools import mask as mask_utils
        item = {"bbox": mask_utils.toBbox(_rle(item)).tolist()}
    return _box(item)


def read_json(source: Any, what: str) -> Named:
    """Return the content of a path, or the content itself; InputError names file and line."""
    if not isinstance(source, (str, os.PathLike)):
        return Named(what, source)
    path = Path(source)
    if not path.is_file():
        raise InputError(f"{path}: no such file ({what})")
    try:
        return Named(str(path), json.loads(path.read_text(encoding="utf-8")))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: line {error.lineno}: not JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not JSON: {error.reason} at byte {error.start}") from error


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, list) else type(value).__name__


def _int(item: Any, key: str) -> int:
    """The id under `key`; whole numbers written as text or float are taken too, since such files are about."""
    try:
        value = item[key]
    except (TypeError, KeyError):
        value = None
    if type(value) is int:
        return value
    try:
        number = int(value)
        if isinstance(value, str) or number == value:
            return number
    except (TypeError, ValueError, OverflowError):
        pass
    raise InputError(f"{key}: expected a whole number, got {value!r}")


def _box(item: Any) -> list[float]:
    try:
        x, y, width, height = map(float, item["bbox"])
        if math.isfinite(x + y + width + height) and width >= 0 and height >= 0:
            return [x, y, width, height]
    except (KeyError, TypeError, ValueError):
        pass
    raise InputError(f"bbox: expected [x, y, width, height], got {item.get('bbox')!r}")


def _score(item: Any) -> float:
    try:
        score = float(item["score"])
        if math.isfinite(score):
            return score
    except (KeyError, TypeError, ValueError):
        pass
    raise InputError(f"score: expected a number, got {item.get('score')!r}")


def _rle(item: Any) -> dict[str, Any]:
    rle = item.get("segmentation")
    if not isinstance(rle, Mapping) or not isinstance(rle.get("counts"), (str, bytes)) or "size" not in rle:
        raise InputError("segmentation: expected a compressed RLE (size, counts)")
    return dict(rle)
