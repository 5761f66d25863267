# Same as faster_rcnn/src/model_utils/evaluation/report.py
"""Scoring of a file of detections, and the output of an evaluation: printed figures, metrics.json, curves and report.html."""
import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...model import IOU_TYPES, closing_lines
from ...util import counted
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
    """Score the file `config.detections`, print the figures and write them to output_path.

    Returns:
        Scores of the boxes, with further scores in `others`.

    Raises:
        InputError: the detections or the ground truth cannot be read or do not match.
        OSError: a file in output_path cannot be written.
    """
    start = time.monotonic()
    scores, others = score_file(config)
    output = Path(config.output_path)
    with writing_alone(output, RESULTS):
        report(scores, others, config, output, time.monotonic() - start)
    return with_others(scores, others)


def with_others(scores: Sequence[Scores], others: Mapping[str, VocScores]) -> Scores:
    """Return the scores of the boxes, with the scores of the masks and the further scores in `others`."""
    return replace(scores[0], others={**{item.iou_type: item for item in scores[1:]}, **others})


def score_file(config: Config) -> tuple[list[Scores], dict[str, VocScores]]:
    """Score the file of COCO results `config.detections`.

    Returns:
        (COCO scores, one per IoU type that the file has data for; further scores, see `other_scores`)

    Raises:
        InputError: a network is given as well, or the detections or the ground truth cannot be read or do not match.
    """
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
    """Return the scores other than COCO AP that apply to the data set, by their key in metrics.json."""
    return {"voc": voc_ap(ground_truth, results)} if config.dataset == "voc" else {}


def _kinds(detections: Path) -> tuple[str, ...]:
    """Return the IoU types that a file can be scored by. Files of other programs may have only boxes."""
    if len(IOU_TYPES) == 1:
        return IOU_TYPES
    _, found = read_json(detections, "detections")
    masks = not found or any(isinstance(item, dict) and "segmentation" in item for item in found)
    return IOU_TYPES if masks else ("bbox",)


def _coco_file(config: Config) -> Path:
    """Return the path of the annotation file; unlike `find_source`, this requires no images."""
    path = config.val_anno_path or config.anno_path
    if not path and config.coco_root:
        path = Path(config.coco_root) / config.instance_set.format(config.val_data_type)
    if not path:
        raise InputError("anno_path: scoring needs annotations; give --anno_path=GROUND_TRUTH.json or --coco_root=DIR")
    return Path(path)


def _limit_classes(path: Path, classes: Sequence[str]) -> Mapping[str, Any]:
    """Return the ground truth, limited to the configured classes if it has all of them."""
    truth: Any = read_json(path, "ground truth").content
    if not isinstance(truth, Mapping) or not isinstance(truth.get("categories"), list):
        return truth            # the scorer reports what is wrong with it
    named = [item for item in truth["categories"] if isinstance(item, Mapping) and item.get("name") in classes[1:]]
    found = {item["name"] for item in named}
    return {**truth, "categories": named} if found and len(found) == len(classes) - 1 else truth


def report(scores: list[Scores], others: Mapping[str, VocScores], config: Config, output: Path, seconds: float) -> str:
    """Print the figures and write metrics.json, eval.log, the curves and report.html.

    The figures are printed first, so that a full disk or a failure to draw does not lose them.

    Args:
        scores: COCO scores of the boxes, then of the masks if the model has masks.
        others: further scores by their key in metrics.json.
        config: saved in metrics.json; `report` says whether report.html is written.
        output: folder to write to.
        seconds: duration of the evaluation.

    Returns:
        The text of eval.log.

    Raises:
        OSError: a file cannot be written.
    """
    figures = [printable(line) for line in _lines(scores, others)]
    print("\n".join(figures), flush=True)
    main_figure = others["voc"].figures["mAP"] if "voc" in others else scores[0]["AP"]
    counts = f"{counted(scores[0].images, 'image')}, {counted(scores[0].detections, 'detection')}"
    ending = [f"{counts}, {seconds:.1f} s; written to {output}",
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
    """Return the lines to print: the figures, the table of classes and the notes."""
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
        lines.append("note: the detections have no masks, so only boxes are scored")
    return lines


def _draw(path: Path, draw: Callable[[], Any]) -> None:
    """Call draw(). Only file system errors propagate; others become a warning, since the figures are already written."""
    try:
        draw()
    except OSError:
        raise
    except Exception as error:      # noqa: BLE001  (drawing libraries raise exceptions of many types)
        tell(f"warning: {path}: not drawn: {type(error).__name__}: {' '.join(str(error).split())}")


def write_metrics(path: Path | str, scores: list[Scores], **more: Any) -> dict[str, Any]:
    """Write metrics.json and return its content.

    Args:
        path: the file to write.
        scores: COCO scores of the boxes, then of the masks; `per_class` holds the latter as `segm_AP` and `segm_AP50`.
        more: further entries of the file.
    """
    content = scores[0].to_dict()
    for extra in scores[1:]:
        content[extra.iou_type] = dict(extra.figures)
        for name, row in extra.per_class.items():
            content["per_class"][name].update({f"{extra.iou_type}_{key}": row[key] for key in ("AP", "AP50")})
    content.update(more)
    write_text(Path(path), json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return content
