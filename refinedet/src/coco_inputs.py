# Same as faster_rcnn/src/coco_inputs.py
"""COCO ground truth and results, read, checked and cleaned of what scorers stumble over."""
import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from .model_utils.config import InputError


def clean_ground_truth(ground_truth, iou_type: str = "bbox") -> tuple:
    """(copy without what the scorers stumble over, notes); InputError where it cannot be scored."""
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
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}, notes


def _with_ids(items, where: str) -> list:
    copies = []
    for i, item in enumerate(items):
        try:
            copies.append({**item, "id": _int(item, "id")})
        except (InputError, TypeError) as error:
            raise InputError(f"{where}[{i}]: {error}") from None
    return copies


def _clean_annotations(where, source, images, categories, iou_type) -> tuple:
    known = {"image_id": {image["id"] for image in images}, "category_id": {item["id"] for item in categories}}
    sizes = {image["id"]: (image.get("height"), image.get("width")) for image in images}
    kept, dropped, faults = [], Counter(), []
    for i, item in enumerate(source):
        try:
            ids = {key: _int(item, key) for key in known}
            strange = [key for key in known if ids[key] not in known[key]]
            if strange:
                dropped[strange[0]] += 1
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


def _clean_mask(segmentation, height: int, width: int):
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


def clean_results(results, truth, iou_type, notes) -> list:
    """Copies of COCO results that can be scored against what `clean_ground_truth` gave; adds to its notes."""
    where, results = read_json(results, "detections")
    if isinstance(results, Mapping):
        raise InputError(f"{where}: expected a list of COCO results, got an object")
    images = {image["id"]: image for image in truth["images"]}
    categories = {item["id"] for item in truth["categories"]}
    kept, strangers = [], Counter()
    for i, item in enumerate(results):
        try:
            entry = _clean_result(item, iou_type)
        except InputError as error:
            raise InputError(f"{where}: result {i}: {error}") from None
        if entry["image_id"] not in images:
            raise InputError(f"{where}: result {i}: image_id {entry['image_id']} is not in the ground truth "
                             f"({len(images)} images)")
        if entry["category_id"] not in categories:
            strangers[entry["category_id"]] += 1
            continue
        if iou_type == "segm":
            size = [images[entry["image_id"]][side] for side in ("height", "width")]
            if list(entry["segmentation"]["size"]) != size:
                raise InputError(f"{where}: result {i}: segmentation: an RLE of {list(entry['segmentation']['size'])} for a "
                                 f"picture of {size}")
        entry["id"] = len(kept) + 1
        kept.append(entry)
    if iou_type == "segm" and kept:
        from pycocotools import mask as mask_utils
        for entry, area in zip(kept, mask_utils.area([entry["segmentation"] for entry in kept])):
            entry["area"] = float(area)
    if strangers:
        some = ", ".join(map(str, sorted(strangers)[:5])) + (" ..." if len(strangers) > 5 else "")
        notes.append(f"{sum(strangers.values())} detections not counted: category_id {some} not in the ground truth")
    if not kept:
        notes.append("no detections: AP and AR are 0 wherever the ground truth has objects")
    return kept


def _clean_result(item, iou_type: str) -> dict:
    entry = {"image_id": _int(item, "image_id"), "category_id": _int(item, "category_id"), "score": _score(item),
             "iscrowd": 0}
    if iou_type == "segm":
        return {**entry, "segmentation": _rle(item)}
    if "bbox" not in item and item.get("segmentation"):     # results of masks alone: their boxes
        from pycocotools import mask as mask_utils
        item = {"bbox": mask_utils.toBbox(_rle(item)).tolist()}
    entry["bbox"] = box = _box(item)
    entry["area"] = box[2] * box[3]
    return entry


def read_json(source, what: str) -> tuple:
    """(name for messages, content) of a path, or of the content itself; InputError names file and line."""
    if not isinstance(source, (str, os.PathLike)):
        return what, source
    path = Path(source)
    if not path.is_file():
        raise InputError(f"{path}: no such file ({what})")
    try:
        return str(path), json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: line {error.lineno}: not JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not JSON: {error.reason} at byte {error.start}") from error


def _kind(value) -> str:
    return "a list" if isinstance(value, list) else type(value).__name__


def _int(item, key: str) -> int:
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


def _box(item) -> list:
    try:
        x, y, width, height = map(float, item["bbox"])
        if math.isfinite(x + y + width + height) and width >= 0 and height >= 0:
            return [x, y, width, height]
    except (KeyError, TypeError, ValueError):
        pass
    raise InputError(f"bbox: expected [x, y, width, height], got {item.get('bbox')!r}")


def _score(item) -> float:
    try:
        score = float(item["score"])
        if math.isfinite(score):
            return score
    except (KeyError, TypeError, ValueError):
        pass
    raise InputError(f"score: expected a number, got {item.get('score')!r}")


def _rle(item) -> dict:
    rle = item.get("segmentation")
    if not isinstance(rle, Mapping) or not isinstance(rle.get("counts"), (str, bytes)) or "size" not in rle:
        raise InputError("segmentation: expected a compressed RLE (size, counts)")
    return dict(rle)
