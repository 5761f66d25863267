"""COCO average precision of detections, through faster-coco-eval or pycocotools.

Both libraries only match and accumulate. The ground truth is cleaned here, and the figures are taken here from their
precision and recall arrays: both give the same numbers, and neither sees what makes it fail (no detections, annotation
ids of 0 or given twice).

Axes: T IoU thresholds 0.50:0.05:0.95, R recall points 0:0.01:1, K classes, A areas (all, small, medium, large),
M detections per image (1, 10, 100). -1 stands for "no object of this kind in the ground truth", as in pycocotools.
"""
import contextlib
import gc
import io
import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .model_utils.config import InputError

AREAS = ("all", "small", "medium", "large")
MAX_DETECTIONS = (1, 10, 100)
# name, kind, IoU threshold (None = mean of all), area, detections per image: the order of the printed lines
FIGURES = (
    ("AP", "AP", None, 0, 2), ("AP50", "AP", 0.5, 0, 2), ("AP75", "AP", 0.75, 0, 2),
    ("APs", "AP", None, 1, 2), ("APm", "AP", None, 2, 2), ("APl", "AP", None, 3, 2),
    ("AR1", "AR", None, 0, 0), ("AR10", "AR", None, 0, 1), ("AR100", "AR", None, 0, 2),
    ("ARs", "AR", None, 1, 2), ("ARm", "AR", None, 2, 2), ("ARl", "AR", None, 3, 2),
)
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass
class Scores:
    """The 12 COCO figures of one kind of IoU, with those of each class and the precision curves behind them."""

    iou_type: str
    figures: dict                                           # {"AP": 0.36, "AP50": ..., ...}: the names of FIGURES
    per_class: dict                                         # {class name: {"AP": ..., "AP50": ..., "objects": n}}
    images: int
    detections: int
    notes: list = field(default_factory=list)               # lines for the reader: what was odd about the input
    precision: np.ndarray = field(default=None, repr=False)  # (T, R, K) of area "all", 100 detections

    def __getitem__(self, name: str) -> float:
        return self.figures[name]

    def lines(self) -> list:
        """The 12 lines as pycocotools prints them."""
        return [_format_line(self.figures[name], kind, iou, AREAS[area], MAX_DETECTIONS[most])
                for name, kind, iou, area, most in FIGURES]

    def class_table(self) -> list:
        """One line per class: AP, AP50, objects in the ground truth; `-` where there are none."""
        width = max([len("class"), *map(len, self.per_class)])
        rows = [f"{'class':<{width}}  {'AP':>6}  {'AP50':>6}  {'objects':>7}"]
        for name, row in self.per_class.items():
            cells = ["-" if row[key] < 0 else f"{row[key]:.3f}" for key in ("AP", "AP50")]
            rows.append(f"{name:<{width}}  {cells[0]:>6}  {cells[1]:>6}  {row['objects']:>7}")
        return rows

    def to_dict(self) -> dict:
        """What metrics.json holds; plain Python numbers."""
        per_class = {name: dict(row) for name, row in self.per_class.items()}
        return {self.iou_type: dict(self.figures), "per_class": per_class, "images": self.images,
                "detections": self.detections, "notes": list(self.notes)}


def coco_ap(ground_truth, results, iou_type: str = "bbox", scorer: str = "faster") -> Scores:
    """Score COCO results against COCO ground truth.

    ground_truth: the annotation file's path or its content. results: path, list of dicts, or anything that iterates
    over such dicts. iou_type: bbox or segm. scorer: faster (faster-coco-eval) or pycocotools. InputError names the
    entry that is wrong.
    """
    if iou_type not in ("bbox", "segm"):
        raise InputError(f"iou_type: expected bbox or segm, got {iou_type!r}")
    if scorer not in _LIBRARIES:
        raise InputError(f"scorer: expected one of {', '.join(_LIBRARIES)}, got {scorer!r}")
    with _no_garbage_collection():
        truth, notes = clean_ground_truth(ground_truth, iou_type)
        found = _clean_results(results, truth, iou_type, notes)
        precision, recall = _run(scorer, truth, found, iou_type)
    figures = {name: _mean((precision if kind == "AP" else recall)[_threshold_index(iou), ..., area, most])
               for name, kind, iou, area, most in FIGURES}
    return Scores(iou_type, figures, _per_class(precision, truth), len(truth["images"]), len(found), notes,
                  precision[..., 0, 2])


@contextlib.contextmanager
def _no_garbage_collection():
    """Half a million dicts without a cycle among them: looking for cycles over and over took a quarter of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


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
    kept, dropped = [], Counter()
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
        if iou_type == "segm" and not item.get("segmentation"):
            raise InputError(f"{where}: annotations[{i}]: no segmentation, so masks cannot be scored")
        # Renumbered: an id of 0 means "not matched" inside the scorers, and one given twice would hide the first.
        entry = {**ids, "id": len(kept) + 1, "bbox": box, "iscrowd": int(item.get("iscrowd") or 0),
                 "area": float(item["area"] if item.get("area") is not None else box[2] * box[3])}
        if iou_type == "segm":
            entry["segmentation"] = item["segmentation"]
        kept.append(entry)
    notes = [f"{count} annotations of the ground truth left out: {key} not listed" for key, count in dropped.items()]
    if not kept:
        notes.append("the ground truth has no objects: every figure is -1")
    return kept, notes


def _clean_results(results, truth, iou_type, notes) -> list:
    where, results = read_json(results, "detections")
    if isinstance(results, Mapping):
        raise InputError(f"{where}: expected a list of COCO results, got an object")
    images = {image["id"] for image in truth["images"]}
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


def _load_faster() -> tuple:
    from faster_coco_eval import COCO, COCOeval_faster
    return COCO, COCOeval_faster


def _load_pycocotools() -> tuple:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    return COCO, COCOeval


_LIBRARIES = {"faster": _load_faster, "pycocotools": _load_pycocotools}


def _run(scorer: str, truth: dict, found: list, iou_type: str) -> tuple:
    """precision (T, R, K, A, M) and recall (T, K, A, M)."""
    try:
        coco_class, eval_class = _LIBRARIES[scorer]()
    except ImportError as error:
        package = "faster-coco-eval" if scorer == "faster" else scorer
        raise InputError(f"scorer={scorer}: {error}; pip install {package}") from error
    with contextlib.redirect_stdout(io.StringIO()):         # both report their progress by print
        sides = []
        for annotations in (truth["annotations"], found):
            side = coco_class()
            side.dataset = {**truth, "annotations": annotations}
            side.createIndex()
            sides.append(side)
        evaluation = eval_class(*sides, iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
    precision, recall = (np.asarray(evaluation.eval[key], np.float64) for key in ("precision", "recall"))
    shape = len(truth["categories"]), len(AREAS), len(MAX_DETECTIONS)
    return precision.reshape(len(IOU_THRESHOLDS), len(RECALLS), *shape), recall.reshape(len(IOU_THRESHOLDS), *shape)


def _threshold_index(iou):
    return slice(None) if iou is None else [int(np.abs(IOU_THRESHOLDS - iou).argmin())]


def _mean(values: np.ndarray) -> float:
    values = values[values > -1]
    return float(values.mean()) if values.size else -1.0


def _per_class(precision: np.ndarray, truth: dict) -> dict:
    """In the order of the category ids, which is the K axis of both scorers."""
    objects = Counter(item["category_id"] for item in truth["annotations"] if not item["iscrowd"])
    categories = sorted(truth["categories"], key=lambda item: item["id"])
    names = [str(item.get("name", item["id"])) for item in categories]
    rows = {}
    for k, (item, name) in enumerate(zip(categories, names)):
        name = name if names.count(name) == 1 else f"{name} ({item['id']})"
        rows[name] = {"AP": _mean(precision[:, :, k, 0, 2]), "AP50": _mean(precision[0, :, k, 0, 2]),
                      "objects": objects[item["id"]]}
    return rows


def _format_line(value: float, kind: str, iou, area: str, most: int) -> str:
    title = "Average Precision" if kind == "AP" else "Average Recall"
    threshold = "0.50:0.95" if iou is None else f"{iou:0.2f}"
    return f" {title:<18} ({kind}) @[ IoU={threshold:<9} | area={area:>6s} | maxDets={most:>3d} ] = {value:0.3f}"
