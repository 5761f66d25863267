# Same as faster_rcnn/src/model_utils/evaluation/coco_scores.py
"""COCO average precision of detections, through faster-coco-eval or pycocotools.

The libraries only match and accumulate. coco_inputs.py cleans ground truth and results first, because the libraries fail on
empty results and on annotation ids that are 0 or repeated. The figures are computed here from the precision and recall arrays,
so that both libraries give the same numbers.

Axes: T IoU thresholds 0.50:0.05:0.95, R recall points 0:0.01:1, K classes, A areas (all, small, medium, large),
M detections per image and class (1, 10, max_dets). -1 means that the ground truth has no such object, as in pycocotools.
"""
import contextlib
import gc
import io
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ...util import counted
from ..config import InputError
from ..files import printable
from .coco_inputs import Detections, GroundTruth, Results, clean_ground_truth, clean_results, read_results

AREAS = ("all", "small", "medium", "large")
MAX_DETECTIONS = (1, 10)        # followed by max_dets, which defaults to COCO_MOST
COCO_MOST = 100
# Name, kind, IoU threshold (None = mean over all), index into AREAS, index on the M axis; in the order of the printed lines.
FIGURES = (
    ("AP", "AP", None, 0, 2), ("AP50", "AP", 0.5, 0, 2), ("AP75", "AP", 0.75, 0, 2),
    ("APs", "AP", None, 1, 2), ("APm", "AP", None, 2, 2), ("APl", "AP", None, 3, 2),
    ("AR1", "AR", None, 0, 0), ("AR10", "AR", None, 0, 1), ("AR100", "AR", None, 0, 2),
    ("ARs", "AR", None, 1, 2), ("ARm", "AR", None, 2, 2), ("ARl", "AR", None, 3, 2),
)
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
# Detections to score at once, unless a single class has more. A detection takes about 1.6 KB of memory in a scorer.
PART = 100_000


class Libraries(NamedTuple):
    """COCO and COCOeval classes of a scorer."""

    coco: Any
    evaluation: Any


class Curves(NamedTuple):
    """Arrays that a scorer accumulates; see the top of this file for the axes."""

    precision: np.ndarray       # (T, R, K, A, M)
    recall: np.ndarray          # (T, K, A, M)


@dataclass
class Scores:
    """The 12 COCO figures of one IoU type, the figures of each class, and the precision curves."""

    iou_type: str
    figures: dict[str, float]                               # {"AP": 0.36, "AP50": ..., ...}, names as in FIGURES
    per_class: dict[str, dict[str, Any]]                    # {class name: {"AP": ..., "AP50": ..., "objects": n}}
    images: int
    detections: int
    notes: list[str] = field(default_factory=list)          # messages about problems in the input
    precision: np.ndarray | None = field(default=None, repr=False)  # (T, R, K): area "all", max_dets detections
    max_dets: int = COCO_MOST       # renames AR100 if it is not 100
    truth: Mapping[str, Any] | None = field(default=None, repr=False)      # cleaned COCO ground truth
    found: Detections | None = field(default=None, repr=False)             # detections that were scored
    # Further scores of the evaluation: "segm", the Scores of masks; "voc", VocScores.
    others: dict[str, Any] = field(default_factory=dict, repr=False)

    def __getitem__(self, name: str) -> float:
        return self.figures[name]

    def lines(self) -> list[str]:
        """Return the 12 lines that pycocotools prints."""
        most_of = (*MAX_DETECTIONS, self.max_dets)
        return [_format_line(self.figures[_name(name, self.max_dets)], kind, iou, AREAS[area], most_of[most])
                for name, kind, iou, area, most in FIGURES]

    def to_dict(self) -> dict[str, Any]:
        """Return the content of metrics.json, JSON-serializable."""
        per_class = {name: dict(row) for name, row in self.per_class.items()}
        return {self.iou_type: dict(self.figures), "per_class": per_class, "images": self.images,
                "detections": self.detections, "notes": list(self.notes)}


def class_table(scores: Sequence[Scores]) -> list[str]:
    """Return the lines of a table with AP and AP50 of each Scores and the number of objects, per class; `-` without objects."""
    shown = {name: printable(name) for name in scores[0].per_class}
    width = max([len("class"), *map(len, shown.values())])
    titles = [key if item.iou_type == "bbox" else f"{item.iou_type} {key}" for item in scores for key in ("AP", "AP50")]
    rows = ["  ".join([f"{'class':<{width}}", *(f"{title:>6}" for title in titles), "objects"])]
    for name, row in scores[0].per_class.items():
        values = [item.per_class[name][key] for item in scores for key in ("AP", "AP50")]
        cells = ["-" if value < 0 else f"{value:.3f}" for value in values]
        cells = [f"{cell:>{max(6, len(title))}}" for cell, title in zip(cells, titles)]
        rows.append("  ".join([f"{shown[name]:<{width}}", *cells, f"{row['objects']:>7}"]))
    return rows


def coco_ap(ground_truth: GroundTruth, results: Results, iou_type: str = "bbox", scorer: str = "faster",
            max_dets: int = COCO_MOST) -> Scores:
    """Score COCO results against COCO ground truth.

    Args:
        ground_truth: path of the annotation file, or its content.
        results: path of a results file, Detections, or an iterable of COCO result dicts.
        iou_type: bbox or segm.
        scorer: faster (faster-coco-eval) or pycocotools.
        max_dets: number of detections per image and class that count, those with the highest scores.

    Raises:
        InputError: an argument or an entry of the ground truth or the results is invalid; the message names it.
    """
    if iou_type not in ("bbox", "segm"):
        raise InputError(f"iou_type: expected bbox or segm, got {iou_type!r}")
    if scorer not in _LIBRARIES:
        raise InputError(f"scorer: expected one of {', '.join(_LIBRARIES)}, got {scorer!r}")
    with _no_garbage_collection():
        read = read_results(results, iou_type)
        truth, notes = clean_ground_truth(ground_truth, iou_type, read.content)
        notes += crowded(truth, max_dets)
        found = clean_results(read, truth, iou_type, notes)
        precision, recall = _run(scorer, truth, found, iou_type, max_dets)
    figures = {_name(name, max_dets): _mean((precision if kind == "AP" else recall)[_threshold_index(iou), ..., area, most])
               for name, kind, iou, area, most in FIGURES}
    return Scores(iou_type, figures, _per_class(precision, truth), len(truth["images"]), len(found), notes,
                  precision[..., 0, 2], max_dets, truth, found)


def _name(name: str, max_dets: int) -> str:
    return f"AR{max_dets}" if name == f"AR{COCO_MOST}" else name


def crowded(truth: Mapping[str, Any], max_dets: int) -> list[str]:
    """Return a note if an image has more than max_dets objects of a class, so that detections of some cannot count."""
    counts = Counter((item["image_id"], item["category_id"]) for item in truth["annotations"] if not item["iscrowd"])
    (image_id, category_id), most = max(counts.items(), key=lambda item: item[1], default=((0, 0), 0))
    if most <= max_dets:
        return []
    images = len({image for (image, _), count in counts.items() if count > max_dets})
    name = next(item["name"] for item in truth["categories"] if item["id"] == category_id)
    return [f"{counted(images, 'image')} with more than {max_dets} objects of a class (image {image_id}: {most} x {name}), but AP "
            f"counts only the {max_dets} best detections per image and class, as COCO does; --max_dets={most} counts more"]


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Disable garbage collection: the many dicts form no cycles, but searching for cycles took a quarter of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _load_faster() -> Libraries:
    from faster_coco_eval import COCO, COCOeval_faster
    return Libraries(COCO, COCOeval_faster)


def _load_pycocotools() -> Libraries:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    return Libraries(COCO, COCOeval)


_LIBRARIES = {"faster": _load_faster, "pycocotools": _load_pycocotools}


def _run(scorer: str, truth: dict[str, Any], found: Detections, iou_type: str, max_dets: int) -> Curves:
    """Score a few classes at a time, which bounds memory; classes are scored independently of each other."""
    try:
        libraries = _LIBRARIES[scorer]()
    except ImportError as error:
        package = "faster-coco-eval" if scorer == "faster" else scorer
        raise InputError(f"scorer={scorer}: {error}; pip install {package}") from error
    objects = defaultdict(list)
    for item in truth["annotations"]:
        objects[item["category_id"]].append(item)
    parts = []
    for categories in _parts(truth["categories"], found):
        ids = [item["id"] for item in categories]
        annotations = [item for number in ids for item in objects[number]]
        parts.append(_run_part(libraries, {**truth, "categories": categories, "annotations": annotations},
                               found.of_categories(ids), iou_type, max_dets))
    return Curves(np.concatenate([part.precision for part in parts], axis=2),
                  np.concatenate([part.recall for part in parts], axis=1))


def _parts(categories: list[dict[str, Any]], found: Detections) -> list[list[dict[str, Any]]]:
    """Split the categories, ordered by id, into parts with at most PART detections or a single category."""
    counts = dict(zip(*(values.tolist() for values in np.unique(found.category_ids, return_counts=True))))
    parts: list[list[dict[str, Any]]] = []
    size = 0
    for item in sorted(categories, key=lambda item: item["id"]):
        size += counts.get(item["id"], 0)
        if not parts or size > PART:
            parts.append([])
            size = counts.get(item["id"], 0)
        parts[-1].append(item)
    return parts


def _run_part(libraries: Libraries, truth: dict[str, Any], found: list[dict[str, Any]], iou_type: str, max_dets: int) -> Curves:
    with contextlib.redirect_stdout(io.StringIO()):         # both libraries print their progress
        sides = []
        for annotations in (truth["annotations"], found):
            side = libraries.coco()
            side.dataset = {**truth, "annotations": annotations}
            side.createIndex()
            sides.append(side)
        evaluation = libraries.evaluation(*sides, iou_type)
        evaluation.params.maxDets = [*MAX_DETECTIONS, max_dets]
        evaluation.evaluate()
        evaluation.accumulate()
    precision, recall = (np.asarray(evaluation.eval[key], np.float64) for key in ("precision", "recall"))
    shape = len(truth["categories"]), len(AREAS), len(MAX_DETECTIONS) + 1
    return Curves(precision.reshape(len(IOU_THRESHOLDS), len(RECALLS), *shape), recall.reshape(len(IOU_THRESHOLDS), *shape))


def _threshold_index(iou: float | None) -> slice | list[int]:
    return slice(None) if iou is None else [int(np.abs(IOU_THRESHOLDS - iou).argmin())]


def _mean(values: np.ndarray) -> float:
    values = values[values > -1]
    return float(values.mean()) if values.size else -1.0


def _per_class(precision: np.ndarray, truth: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the figures by class name, in the order of category ids, which is the order of the K axis."""
    objects = Counter(item["category_id"] for item in truth["annotations"] if not item["iscrowd"])
    categories = sorted(truth["categories"], key=lambda item: item["id"])
    names = [str(item.get("name", item["id"])) for item in categories]
    rows, times = {}, Counter(names)
    for k, (item, name) in enumerate(zip(categories, names)):
        name = name if times[name] == 1 else f"{name} ({item['id']})"
        rows[name] = {"AP": _mean(precision[:, :, k, 0, 2]), "AP50": _mean(precision[0, :, k, 0, 2]),
                      "objects": objects[item["id"]]}
    return rows


def _format_line(value: float, kind: str, iou: float | None, area: str, most: int) -> str:
    title = "Average Precision" if kind == "AP" else "Average Recall"
    threshold = "0.50:0.95" if iou is None else f"{iou:0.2f}"
    return f" {title:<18} ({kind}) @[ IoU={threshold:<9} | area={area:>6s} | maxDets={most:>3d} ] = {value:0.3f}"
