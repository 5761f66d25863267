# Same as faster_rcnn/src/model_utils/evaluation/report.py
"""What eval.py and postprocess.py do: score a network or a file of detections, print the figures, write them and the curves."""
import contextlib
import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...model import IOU_TYPES, closing_lines
from ..config import Config, InputError, require_path
from ..data.source import DataInfo, find_source, source_format
from .coco_inputs import GroundTruth, Results, read_json
from .coco_scores import Scores, class_table, coco_ap
from .plots import plot_pr_curves
from .voc_ap import VocScores, voc_ap


def evaluate_file(config: Config) -> None:
    """Score the file of detections that the configuration names; print the figures and write them to output_path."""
    start = time.monotonic()
    scores, others = score_file(config)
    report(scores, others, config, Path(config.output_path), time.monotonic() - start)


def score_file(config: Config) -> tuple[list[Scores], dict[str, VocScores]]:
    """Score a file of COCO results: (a COCO AP of each kind that the file has, see `other_scores`)."""
    others = [key for key in ("checkpoint_path", "mindir_path", "onnx_path") if config[key]]
    if others:
        raise InputError(f"give one of --detections and --{others[0]}, not both")
    detections = require_path(config, "detections", "file")
    if source_format(config).ground_truth is not None and not config.val_ratio:
        ground_truth = _limit_classes(_coco_file(config), config.coco_classes)
    else:
        ground_truth = DataInfo((), 0, [], find_source(config, train=False)).ground_truth()
    scores = [coco_ap(ground_truth, detections, kind, config.scorer, config.max_dets) for kind in _kinds(detections)]
    return scores, other_scores(config, ground_truth, detections)


def other_scores(config: Config, ground_truth: GroundTruth, results: Results) -> dict[str, VocScores]:
    """Return {key of metrics.json: scores that the data set has besides COCO AP, with `lines` and `to_dict`}."""
    return {"voc": voc_ap(ground_truth, results)} if config.dataset == "voc" else {}


def _kinds(detections: Path) -> tuple[str, ...]:
    """The kinds of AP that a file can be scored by: other programs may have written boxes only."""
    if len(IOU_TYPES) == 1:
        return IOU_TYPES
    _, found = read_json(detections, "detections")
    masks = not found or any(isinstance(item, dict) and "segmentation" in item for item in found)
    return IOU_TYPES if masks else ("bbox",)


def _coco_file(config: Config) -> Path:
    """The annotation file: scoring needs no images."""
    path = config.val_anno_path or config.anno_path
    if not path and config.coco_root:
        path = Path(config.coco_root) / config.instance_set.format(config.val_data_type)
    if not path:
        raise InputError("anno_path is needed: give --anno_path=GROUND_TRUTH.json or --coco_root=...")
    return Path(path)


def _limit_classes(path: Path, classes: Sequence[str]) -> Mapping[str, Any]:
    """The ground truth; if the configuration names a part of its classes, only with these."""
    truth: Any = read_json(path, "ground truth").content
    if not isinstance(truth, Mapping) or not isinstance(truth.get("categories"), list):
        return truth            # what scores it says so
    named = [item for item in truth["categories"] if isinstance(item, Mapping) and item.get("name") in classes[1:]]
    found = {item["name"] for item in named}
    return {**truth, "categories": named} if found and len(found) == len(classes) - 1 else truth


def report(scores: list[Scores], others: Mapping[str, VocScores], config: Config, output: Path, seconds: float) -> None:
    """Print the figures, and write them to eval.log, with metrics.json and the curves."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        _report(scores, others, config, output, seconds)
        main_figure = others["voc"].figures["mAP"] if "voc" in others else scores[0]["AP"]
        print("".join(f"{line}\n" for line in closing_lines(main_figure)), end="")
    (output / "eval.log").write_text(text.getvalue(), encoding="utf-8")
    print(text.getvalue(), end="", flush=True)


def _report(scores: list[Scores], others: Mapping[str, VocScores], config: Config, output: Path, seconds: float) -> None:
    output.mkdir(parents=True, exist_ok=True)
    more = {key: item.to_dict() for key, item in others.items()}
    write_metrics(output / "metrics.json", scores, **more, config=config.to_dict(), seconds=round(seconds, 2))
    for item in scores:
        plot_pr_curves(item, output / f"{'' if item.iou_type == 'bbox' else item.iou_type + '_'}pr_curves.png")
        if len(IOU_TYPES) > 1:
            print(f"Evaluate annotation type *{item.iou_type}*")
        print("\n".join([*item.lines(), ""]))
    print("\n".join(class_table(scores)))
    for other in others.values():
        print("\n".join(["", *other.lines()]))
    for note in dict.fromkeys(note for item in scores for note in item.notes):
        print(f"note: {note}")
    if len(scores) < len(IOU_TYPES):
        print("note: the detections have no masks: boxes alone are scored")
    print(f"{scores[0].images} images, {scores[0].detections} detections, {seconds:.1f} s; written to {output}")


def write_metrics(path: Path | str, scores: list[Scores], **more: Any) -> dict[str, Any]:
    """Write metrics.json and return its content. scores: of the boxes, then of the masks (`segm_AP` per class)."""
    content = scores[0].to_dict()
    for extra in scores[1:]:
        content[extra.iou_type] = dict(extra.figures)
        for name, row in extra.per_class.items():
            content["per_class"][name].update({f"{extra.iou_type}_{key}": row[key] for key in ("AP", "AP50")})
    content.update(more)
    Path(path).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return content
