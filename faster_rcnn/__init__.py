"""Faster R-CNN on MindSpore: `Detector`, `train`, `evaluate`, `export`.

    from faster_rcnn import Detector

    detector = Detector("output/checkpoint/best.ckpt")
    for found in detector("images/", score_thr=0.5):
        print(found.name, found.names, found.scores, found.boxes)
        found.draw().save("drawn/")

Names are imported on first use, and MindSpore only by the functions that need it.
"""
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"       # same as in pyproject.toml

if TYPE_CHECKING:
    from .src.model_utils.interface import (
        Config,
        Detector,
        Drawing,
        Found,
        InputError,
        Run,
        Scores,
        evaluate,
        export,
        load_config,
        train,
    )

__all__ = ["Config", "Detector", "Drawing", "Found", "InputError", "Run", "Scores", "evaluate", "export", "load_config",
           "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .src.model_utils import interface

    return getattr(interface, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
