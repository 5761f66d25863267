"""Write the demo's results from the outputs of its stages: detections.png, curves.png and metrics.json."""

import importlib
import json
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from ..files import write_text
from . import poster

TITLES = {"faster_rcnn": "Faster R-CNN", "mask_rcnn": "Mask R-CNN", "refinedet": "RefineDet"}
KINDS = {"bbox": "", "segm": "mask "}      # IoU types and the prefix of their AP; the last one that a model has is decisive
NOT_LEARNT = ("moving_mean", "moving_variance")     # parameters of norms that are statistics


class FinishedDemo(Protocol):
    """A run.Demo whose stages have finished."""

    model: str
    output: Path
    seed: int
    image_counts: tuple[int, int]       # numbers of training and validation images
    overrides: list[str]
    data: Path
    annotations: Path
    metrics: dict[str, Any]
    seconds: dict[str, float]       # per stage

    def checkpoint(self) -> Path:
        """Return the last weights."""


def duration(seconds: float) -> str:
    """Format a duration: 4.2 s, 3 min 07 s."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def main_kind(metrics: Mapping[str, Any]) -> str:
    """Return the IoU type whose AP decides whether the demo passes."""
    return [kind for kind in KINDS if kind in metrics][-1]


def count_parameters(model: str, checkpoint: Path) -> int:
    """Return the number of trainable values in a checkpoint of `model`."""
    importlib.import_module(f"{model}.src.model_utils.local_adapter").prepare_environment()     # before MindSpore is imported
    weights = importlib.import_module(f"{model}.src.model_utils.weights.loading").read_weights(checkpoint)
    return sum(int(value.size) for name, value in weights.items() if not name.endswith(NOT_LEARNT))


def write(demo: FinishedDemo, score_thr: float) -> dict[str, Any]:
    """Write the three files to demo.output and return the content of metrics.json."""
    plots = importlib.import_module(f"{demo.model}.src.model_utils.evaluation.plots")
    plots.plot_training(demo.output / "train" / "metrics.jsonl", demo.output / "curves.png")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    train, val = demo.image_counts
    values = {"model": demo.model, "seed": demo.seed, "overrides": demo.overrides,
              **{key: value for key, value in demo.metrics.items() if key not in ("config", "seconds")},
              "parameters": count_parameters(demo.model, demo.checkpoint()),
              "pictures": {"train": train, "val": val}, "seconds": {k: round(v, 1) for k, v in demo.seconds.items()},
              "cpu_cores": cores, "machine": platform.machine(), "python": platform.python_version(),
              "mindspore": metadata.version("mindspore")}
    write_text(demo.output / "metrics.json", json.dumps(values, indent=1))
    _write_poster(demo, values, score_thr)
    return values


def _write_poster(demo: FinishedDemo, values: dict[str, Any], score_thr: float) -> None:
    draw = importlib.import_module(f"{demo.model}.src.model_utils.inference.draw")
    tiles = poster.draw_tiles(draw.draw_detections, demo.data / "val2017", demo.annotations,
                              demo.output / "infer" / "detections.json", score_thr)
    kind = main_kind(values)
    what = f"{KINDS[kind]}AP"
    by_class = kind == "bbox"       # with masks, colours distinguish instances instead of classes
    minutes, seconds = divmod(round(values["seconds"]["train"]), 60)
    classes = json.loads(demo.annotations.read_text(encoding="utf-8"))["categories"]
    facts = poster.Facts(
        TITLES.get(demo.model, demo.model),
        f"trained from scratch on {values['pictures']['train']} drawn images, on {values['cpu_cores']} CPU cores, "
        f"with MindSpore {values['mindspore']};\nshown on images that it was not trained on",
        ((f"{values[kind]['AP50']:.3f}", f"{what}50"), (f"{values[kind]['AP']:.3f}", what),
         (f"{minutes}:{seconds:02d}", "min of training"), (_count(values["parameters"]), "parameters")),
        tuple((item["name"], draw.colour_of(n) if by_class else None) for n, item in enumerate(classes)),
        f"detections with a score of at least {score_thr}")
    poster.compose(tiles, facts, demo.output / "detections.png")


def _count(number: float) -> str:
    return f"{number / 1e6:.1f} M" if number >= 1e6 else f"{number / 1e3:.0f} k"
