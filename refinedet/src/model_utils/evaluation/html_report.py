# Same as faster_rcnn/src/model_utils/evaluation/html_report.py
"""report.html: what utils/report needs to know of an evaluation."""
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ...model import NAME
from ..config import Config
from ..data.source import find_source
from .coco_scores import Scores
from .detections import present
from .voc_ap import VocScores

if TYPE_CHECKING:       # utils/ may be missing
    from utils.report.evaluation import Scored


def write_html(path: Path, scores: list[Scores], others: Mapping[str, VocScores], config: Config) -> None:
    """Write the page; the images are read where the configuration says they are."""
    from utils.report.evaluation import write_evaluation  # Jinja2 is only needed here

    source = find_source(config, train=False)
    folder = Path(source.image_dir) if source.image_dir else None
    model = next((config[key] for key in ("checkpoint_path", "mindir_path", "onnx_path", "detections") if config[key]), "")
    facts = {"evaluated": model, "ground truth": source.anno_path, "images": str(scores[0].images)}
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
