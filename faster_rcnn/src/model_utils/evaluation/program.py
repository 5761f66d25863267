"""Settings for the C++ program in ascend310_infer, and the evaluation of its results."""
import json
import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...model import program_settings
from ...util import counted
from ..config import Config, InputError, require_path
from ..data.source import find_source, source_format
from ..files import tell, write_text
from ..locks import RESULTS, writing_alone
from ..own_utils import own_utils
from ..yaml_text import shown
from .detections import Collector
from .report import report, score_file

# Settings that the program requires for every model.
SETTINGS = ("num_classes", "img_height", "img_width", "pad_to", "keep_ratio", "size_rounding", "resize_mode", "image_mean",
            "image_std", "to_rgb", "exif_orientation")
# Settings of some models only.
MORE_SETTINGS = ("scale_rule", "pad_black")


class Annotated(NamedTuple):
    """The classes and images of the ground truth."""

    categories: list[dict[str, Any]]
    ids: dict[str, int]                 # file name -> image id


def postprocess(config: Config) -> None:
    """Write the program's settings to settings_path, or score the program's results at results_path.

    Args:
        config: the configuration, with exactly one of settings_path and results_path set.

    Raises:
        InputError: both paths are set or none, the annotations or the results cannot be read, or settings_path cannot be written.
    """
    if bool(config.settings_path) == bool(config.results_path):
        raise InputError("settings_path, results_path: expected exactly one of them; give --settings_path=FILE to write the "
                         "program's settings, or --results_path=FILE to score its results")
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
    """Write one line `name value` per setting, common and model-specific, to settings_path; lists are separated by spaces."""
    if config.pad_to == "divisor":
        raise InputError("pad_to: an exported network takes inputs of one size, but got divisor; set fixed or HEIGHTxWIDTH")
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
    """Read the annotations, if they exist, so that their errors are reported before the program runs and not after it."""
    source = find_source(config, train=False)
    if all(path and Path(path).exists() for path in (source.image_dir, source.anno_path)):
        annotated(config)


def annotated(config: Config) -> Annotated:
    """Return the classes and images of the ground truth that the configuration names."""
    source = find_source(config, train=False)
    records, categories, _ = own_utils("mindrecord").read_annotations(
        source.source, source.image_dir, source.anno_path, source.classes, source.image_set, source.split)
    return Annotated(categories, {record.file_name: record.image_id for record in records})


def read_results(path: Path, categories: list[dict], ids: dict[str, int], keep_empty: bool = False) -> Collector:
    """Read the program's detections, and warn about images that are missing from the annotations or from the results.

    Args:
        path: JSON Lines file of the program, one image per line.
        categories: {"id", "name", "label"} of each class.
        ids: image id by file name, for every annotated image.
        keep_empty: see Collector.

    Raises:
        InputError: a line is malformed or repeats a file name, or no annotated image is in the results.
    """
    collector = Collector(categories, _already_encoded, keep_empty)
    unannotated: list[str] = []
    seen: dict[str, int] = {}       # name -> line
    with path.open(encoding="utf-8", errors="surrogateescape") as stream:     # file names need not be UTF-8
        for number, line in enumerate(stream, 1):
            try:
                item = json.loads(line)
                name = item["file_name"]
                if seen.setdefault(name, number) != number:
                    raise ValueError(f"{shown(name)} is given twice, first in line {seen[name]}")
                if name in ids and "problem" not in item:
                    add_image(collector, item, ids[name])
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
                what = f"{type(error).__name__}: {shown(str(error), 200)}"
                raise InputError(f"{path}: line {number}: not a line of the program's results ({what})") from error
            if name not in ids:
                unannotated.append(name)
    missing = [name for name in ids if name not in seen]
    if unannotated:
        tell(f"warning: {path}: {counted(len(unannotated), 'image')} without annotations, not scored; the first: {unannotated[0]}")
    if missing:
        tell(f"warning: {path}: has no results for {counted(len(missing), 'annotated image')}, whose objects count as missed; "
             f"the first: {missing[0]}")
    if len(missing) == len(ids):
        raise InputError(f"{path}: has results for none of the {len(ids)} annotated images; expected the annotations' file names: "
                         "check anno_path and the image folder that the program read")
    return collector


def _already_encoded(masks: Iterable[str], boxes: np.ndarray, height: int, width: int) -> list[dict[str, str]]:
    """Return RLE dicts of masks that the program has encoded. The parameters are those of a MaskEncoder."""
    return [{"counts": counts} for counts in masks]


def add_image(collector: Collector, item: Mapping[str, Any], image_id: int) -> None:
    """Add the detections of one image to the collector.

    Args:
        collector: receives the detections.
        item: parsed line of the program's results.
        image_id: COCO id of the image.

    Raises:
        ValueError, TypeError, KeyError: the line does not have the program's format.
    """
    count = len(item["scores"])
    boxes = [_numbers(box, "boxes", 4) for box in item["boxes"]]
    if not count == len(boxes) == len(item["labels"]) == len(item.get("masks", boxes)):
        raise ValueError("boxes, scores, labels and masks differ in length")
    scores, info = _numbers(item["scores"], "scores", count), _numbers(item["image_info"], "image_info", 6)
    if not all(type(label) is int for label in item["labels"]):
        raise ValueError(f"labels: expected integers, got {shown(item['labels'])}")
    if not all(side > 0 for side in info):
        raise ValueError(f"image_info: expected positive sizes and scales, got {shown(info)}")
    if not all(isinstance(counts, str) for counts in item.get("masks", ())):
        raise ValueError("masks: expected a list of strings")
    masks = [np.array([item["masks"]], object)] if "masks" in item else []
    collector.add(np.array(boxes, np.float32).reshape(1, count, 4), np.array([scores], np.float32),
                  np.array([item["labels"]], np.int64).reshape(1, count), np.ones((1, count), bool), np.array([info], np.float32),
                  [image_id], *masks)


def _numbers(values: Any, key: str, count: int) -> list[float]:
    if not isinstance(values, list) or len(values) != count or not all(type(value) in (int, float) and math.isfinite(value)
                                                                       for value in values):
        raise ValueError(f"{key}: expected {count} finite numbers, got {shown(values)}")
    return values


def scored(config: Config, output: Path, start: float) -> str:
    """Score detections.json in `output` as eval.py does, write the same files, and return the printed text."""
    own = source_format(config).ground_truth is not None and not config.val_ratio
    ground_truth = find_source(config, train=False).anno_path if own else ""
    changes = {"detections": str(output / "detections.json"), "checkpoint_path": "", "mindir_path": "", "onnx_path": "",
               "val_anno_path": ground_truth or config.val_anno_path}
    config = Config({**config.to_dict(), **changes})
    return report(*score_file(config), config, output, time.monotonic() - start)
