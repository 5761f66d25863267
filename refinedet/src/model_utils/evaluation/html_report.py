# Same as faster_rcnn/src/model_utils/evaluation/html_report.py
"""HTML pages of an evaluation (report.html) and of a training run (curves.html), rendered by utils/report."""
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...model import LOSS_SUMS, NAME
from ..config import Config
from ..data.source import find_source
from .coco_scores import Scores
from .detections import present
from .plots import flat, read_jsonl, read_series, thin
from .voc_ap import VocScores

if TYPE_CHECKING:       # a copied model directory may lack utils/
    from utils.report.evaluation import Scored

PAGE_POINTS = 400       # maximum number of points of a curve in curves.html


def write_html(path: Path, scores: list[Scores], others: Mapping[str, VocScores], config: Config) -> None:
    """Write report.html.

    Args:
        path: the page to write.
        scores: COCO scores of the boxes, then of the masks if the model has masks.
        others: further scores by name, as `other_scores` returns them.
        config: names the evaluated model and the folder of the images that the page shows.
    """
    from utils.report.evaluation import write_evaluation  # imported here, since only the report needs Jinja2

    source = find_source(config, train=False)
    folder = Path(source.image_dir) if source.image_dir else None
    model = next((config[key] for key in ("checkpoint_path", "mindir_path", "onnx_path", "detections") if config[key]), "")
    facts = {"evaluated": model, "ground truth": source.anno_path, "images": str(scores[0].images),
             "test-time augmentation": config.tta, "tiles": config.tile}
    facts.update({f"{key} {name}": f"{value:.3f}" for key, item in others.items() for name, value in item.figures.items()})
    notes = dict.fromkeys(note for item in scores for note in item.notes)
    write_evaluation(path, f"{NAME}: evaluation", [_scored(item) for item in scores],
                     {name: value for name, value in facts.items() if value}, list(notes), folder,
                     upright=config.exif_orientation != "ignore")


def _scored(scores: Scores) -> "Scored":
    from utils.report.evaluation import Scored

    found = present(scores.found)
    shapes = present(found.boxes) if scores.iou_type == "bbox" else present(found.rles)
    return Scored(scores.iou_type, scores.figures, scores.per_class, present(scores.precision), present(scores.truth),
                  found.image_ids, found.category_ids, found.scores, shapes, scores.max_dets)


def write_training(metrics_jsonl: Path, page: Path, running: bool) -> None:
    """Write curves.html.

    Args:
        metrics_jsonl: metrics.jsonl of the training run.
        page: the page to write.
        running: whether the run is still in progress.
    """
    from utils.report.curves import write_curves

    rows = read_jsonl(metrics_jsonl)
    series = {name: (*(side.tolist() for side in thin(*points, PAGE_POINTS)), points.y[-1])
              for name, points in read_series(rows, "step").items()}
    last = rows[-1] if rows else {}
    facts: dict[str, Any] = {name: last[name] for name in ("epoch", "step") if name in last}
    write_curves(page, f"{NAME}: training", series, [flat(row) for row in rows if row.get("kind") == "eval"],
                 {**facts, "state": "running" if running else "ended"}, running, tuple(LOSS_SUMS))
