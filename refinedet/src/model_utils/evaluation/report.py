# Same as faster_rcnn/src/model_utils/evaluation/report.py
"""What eval.py and postprocess.py do: score a network or a file of detections, print the figures, write them and the curves."""
import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...model import IOU_TYPES, closing_lines
from ..config import Config, InputError, require_path
from ..data.source import DataInfo, find_source, source_format
from ..files import printable, tell, write_text
from ..locks import RESULTS, writing_alone
from .coco_inputs import GroundTruth, Results, read_json
from .coco_scores import Scores, class_table, coco_ap
from .html_report import write_html
from .plots import plot_pr_curves
from .voc_ap import VocScores, voc_ap


def evaluate_file(config: Config) -> Scores:
    """Score the file of detections that the configuration names; print the figures, write them to output_path and return them."""
    start = time.monotonic()
    scores, others = score_file(config)
    output = Path(config.output_path)
    with writing_alone(output, RESULTS):
        report(scores, others, config, output, time.monotonic() - start)
    return with_others(scores, others)


def with_others(scores: Sequence[Scores], others: Mapping[str, VocScores]) -> Scores:
    """Return the scores of the boxes, with those of the masks and of `other_scores` as its `others`."""
    return replace(scores[0], others={**{item.iou_type: item for item in scores[1:]}, **others})


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


def report(scores: list[Scores], others: Mapping[str, VocScores], config: Config, output: Path, seconds: float) -> str:
    """Print the figures, then write them to eval.log and metrics.json, draw the curves and report.html; return eval.log's text.

    A full disk or a curve that cannot be drawn takes no figure away.
    """
    figures = [printable(line) for line in _lines(scores, others)]
    print("\n".join(figures), flush=True)
    main_figure = others["voc"].figures["mAP"] if "voc" in others else scores[0]["AP"]
    ending = [f"{scores[0].images} images, {scores[0].detections} detections, {seconds:.1f} s; written to {output}",
              *closing_lines(main_figure)]
    text = "".join(f"{line}\n" for line in [*figures, *ending])
    more = {key: item.to_dict() for key, item in others.items()}
    write_metrics(output / "metrics.json", scores, **more, config=config.to_dict(), seconds=round(seconds, 2))
    write_text(output / "eval.log", text)
    for item in scores:
        png = output / f"{'' if item.iou_type == 'bbox' else item.iou_type + '_'}pr_curves.png"
        _draw(png, functools.partial(plot_pr_curves, item, png))
    if config.report:
        page = output / "report.html"
        _draw(page, functools.partial(write_html, page, scores, others, config))
    print("\n".join(ending), flush=True)
    return text


def _lines(scores: list[Scores], others: Mapping[str, VocScores]) -> list[str]:
    """Return the figures and notes, line by line."""
    lines = []
    for item in scores:
        if len(IOU_TYPES) > 1:
            lines.append(f"Evaluate annotation type *{item.iou_type}*")
        lines += [*item.lines(), ""]
    lines += class_table(scores)
    for other in others.values():
        lines += ["", *other.lines()]
    lines += [f"note: {note}" for note in dict.fromkeys(note for item in scores for note in item.notes)]
    if len(scores) < len(IOU_TYPES):
        lines.append("note: the detections have no masks: boxes alone are scored")
    return lines


def _draw(path: Path, draw: Callable[[], Any]) -> None:
    """Draw curves or a page; a fault other than of the file system is a warning, as the figures are there without them."""
    try:
        draw()
    except OSError:
        raise
    except Exception as error:      # noqa: BLE001  (whatever the library raises)
        tell(f"warning: {path}: not drawn: {type(error).__name__}: {' '.join(str(error).split())}")


def write_metrics(path: Path | str, scores: list[Scores], **more: Any) -> dict[str, Any]:
    """Write metrics.json and return its content. scores: of the boxes, then of the masks (`segm_AP` per class)."""
    content = scores[0].to_dict()
    for extra in scores[1:]:
        content[extra.iou_type] = dict(extra.figures)
        for name, row in extra.per_class.items():
            content["per_class"][name].update({f"{extra.iou_type}_{key}": row[key] for key in ("AP", "AP50")})
    content.update(more)
    write_text(Path(path), json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return content
