# Same as faster_rcnn/src/model_utils/evaluation/program.py
"""Settings for the C++ program of ascend310_infer, and the scores of its results."""
import json
import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...model import program_settings
from ..config import Config, InputError, require_path
from ..data.source import find_source, source_format
from ..files import tell, write_text
from ..locks import RESULTS, writing_alone
from ..own_utils import own_utils
from ..yaml_text import shown
from .detections import Collector
from .report import report, score_file

# What the program reads for every model.
SETTINGS = ("num_classes", "img_height", "img_width", "pad_to", "keep_ratio", "size_rounding", "resize_mode", "image_mean",
            "image_std", "to_rgb", "exif_orientation")
# What it reads for some.
MORE_SETTINGS = ("scale_rule", "pad_black")


class Annotated(NamedTuple):
    """The classes and images of the ground truth."""

    categories: list[dict[str, Any]]
    ids: dict[str, int]                 # file name -> image id


def postprocess(config: Config) -> None:
    """Write the program's settings to settings_path, or score results_path; exactly one of them must be given."""
    if bool(config.settings_path) == bool(config.results_path):
        raise InputError("give one of --settings_path, to write the program's settings, and --results_path, to score its results")
    if config.settings_path:
        check_annotations(config)
        write_settings(config)
        return
    start = time.monotonic()
    results = require_path(config, "results_path", "file")
    categories, ids = annotated(config)
    collector = read_results(results, categories, ids, config.get("keep_empty_boxes", False))
    output = Path(config.output_path)
    with writing_alone(output, RESULTS):
        collector.detections().save(output / "detections.json")
        write_text(output / "acc.log", scored(config, output, start))


def write_settings(config: Config) -> None:
    """Write a line `name value` for each of SETTINGS and those of the model; the numbers of a list stand between spaces."""
    if config.pad_to == "divisor":
        raise InputError("pad_to: an exported network takes inputs of one size: fixed or HEIGHTxWIDTH")
    values = {**{key: config[key] for key in SETTINGS}, **{key: config[key] for key in MORE_SETTINGS if key in config},
              **program_settings(config)}
    if config.runtime_num_threads:
        values["threads"] = config.runtime_num_threads
    lines = [f"{name} {' '.join(map(str, value)) if isinstance(value, tuple) else value}\n" for name, value in values.items()]
    try:
        write_text(Path(config.settings_path), "".join(lines))
    except OSError as error:
        raise InputError(f"settings_path: {config.settings_path} cannot be written: {error.strerror}") from error


def check_annotations(config: Config) -> None:
    """If the annotations are there, report their faults before the program runs, not after."""
    source = find_source(config, train=False)
    if all(path and Path(path).exists() for path in (source.image_dir, source.anno_path)):
        annotated(config)


def annotated(config: Config) -> Annotated:
    """Read the classes and images of the ground truth."""
    source = find_source(config, train=False)
    records, categories, _ = own_utils("mindrecord").read_annotations(
        source.source, source.image_dir, source.anno_path, source.classes, source.image_set, source.split)
    return Annotated(categories, {record.file_name: record.image_id for record in records})


def read_results(path: Path, categories: list[dict], ids: dict[str, int], keep_empty: bool = False) -> Collector:
    """Read the detections of the annotated images; say on stderr which are not annotated, and which are missing.

    keep_empty: see Collector.
    """
    collector = Collector(categories, _as_they_are, keep_empty)
    unannotated: list[str] = []
    seen: dict[str, int] = {}       # name -> line
    with path.open(encoding="utf-8", errors="surrogateescape") as stream:     # a file's name may be of any bytes
        for number, line in enumerate(stream, 1):
            try:
                item = json.loads(line)
                name = item["file_name"]
                if seen.setdefault(name, number) != number:
                    raise ValueError(f"{shown(name)} is given twice, before in line {seen[name]}")
                if name in ids and "problem" not in item:
                    add_image(collector, item, ids[name])
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
                what = f"{type(error).__name__}: {shown(str(error), 200)}"
                raise InputError(f"{path}: line {number}: not a line of results ({what})") from error
            if name not in ids:
                unannotated.append(name)
    missing = [name for name in ids if name not in seen]
    if unannotated:
        tell(f"{len(unannotated)} pictures are not annotated, so not scored, such as {unannotated[0]}")
    if missing:
        tell(f"{len(missing)} annotated pictures are not in the results: their objects count as missed, such as {missing[0]}")
    if len(missing) == len(ids):
        raise InputError(f"{path}: holds none of the {len(ids)} annotated pictures: other annotations, or another folder?")
    return collector


def _as_they_are(masks: Iterable[str], boxes: np.ndarray, height: int, width: int) -> list[dict[str, str]]:
    """The program has encoded them."""
    return [{"counts": counts} for counts in masks]


def add_image(collector: Collector, item: Mapping[str, Any], image_id: int) -> None:
    """Add the detections of a line; ValueError or TypeError if it is none of the program's."""
    count = len(item["scores"])
    boxes = [_numbers(box, "boxes", 4) for box in item["boxes"]]
    if not count == len(boxes) == len(item["labels"]) == len(item.get("masks", boxes)):
        raise ValueError("boxes, scores, labels and masks are not equally many")
    scores, info = _numbers(item["scores"], "scores", count), _numbers(item["image_info"], "image_info", 6)
    if not all(type(label) is int for label in item["labels"]):
        raise ValueError(f"labels: expected whole numbers, got {shown(item['labels'])}")
    if not all(side > 0 for side in info):
        raise ValueError(f"image_info: expected sizes and scales, got {shown(info)}")
    if not all(isinstance(counts, str) for counts in item.get("masks", ())):
        raise ValueError("masks: expected texts")
    masks = [np.array([item["masks"]], object)] if "masks" in item else []
    collector.add(np.array(boxes, np.float32).reshape(1, count, 4), np.array([scores], np.float32),
                  np.array([item["labels"]], np.int64).reshape(1, count), np.ones((1, count), bool), np.array([info], np.float32),
                  [image_id], *masks)


def _numbers(values: Any, key: str, count: int) -> list[float]:
    if not isinstance(values, list) or len(values) != count or not all(type(value) in (int, float) and math.isfinite(value)
                                                                       for value in values):
        raise ValueError(f"{key}: expected {count} numbers, got {shown(values)}")
    return values


def scored(config: Config, output: Path, start: float) -> str:
    """Print what eval.py prints about detections.json, and return it; metrics.json and the curves are written."""
    own = source_format(config).ground_truth is not None and not config.val_ratio
    ground_truth = find_source(config, train=False).anno_path if own else ""
    changes = {"detections": str(output / "detections.json"), "checkpoint_path": "", "mindir_path": "", "onnx_path": "",
               "val_anno_path": ground_truth or config.val_anno_path}
    config = Config({**config.to_dict(), **changes})
    return report(*score_file(config), config, output, time.monotonic() - start)
