# Same as faster_rcnn/src/model_utils/weights/own_config.py
"""Find the configuration that belongs to a file of weights, beside it."""
import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...model import MODELS, NAME
from ..config import InputError, config_file
from .mindspore_file import read_mindspore

# Suffix of a weights file -> the configuration key that takes it.
KEYS = {".ckpt": "checkpoint_path", ".mindir": "mindir_path", ".onnx": "onnx_path"}


def key_of(weights: Path) -> str:
    """Return the configuration key for this kind of file. Raises InputError if the kind is unknown or the file is missing."""
    if weights.suffix.lower() not in KEYS:
        raise InputError(f"{weights}: expected a file with suffix {', '.join(KEYS)}")
    if not weights.is_file():
        raise InputError(f"{weights}: no such file")
    return KEYS[weights.suffix.lower()]


def config_beside(exported: Path) -> Path:
    """Return where export.py writes the configuration, NAME.onnx.yaml, since NAME.yaml may belong to a checkpoint."""
    return exported.with_name(f"{exported.name}.yaml")


def places_of_config(weights: Path) -> list[Path]:
    """Return where export.py, a conversion and a training run write the configuration of weights."""
    folder = weights.absolute().parent
    places = [config_beside(weights), weights.with_suffix(".yaml"), folder / "config.yaml"]
    return [*places, folder.parent / "config.yaml"] if folder.name == "checkpoint" else places


def find_config(weights: Path, config_path: str | os.PathLike | None = None) -> Path:
    """Return `config_path`, else the configuration beside the weights. Raises InputError if there is none."""
    key_of(weights)
    if config_path is not None:
        return config_file(config_path)
    places = places_of_config(weights)
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise InputError(f"{weights}: no configuration beside it, neither {' nor '.join(map(os.path.relpath, places))}; give "
                         "config_path")
    return found


@contextlib.contextmanager
def own_model(weights: Path | None) -> Iterator[None]:
    """Report weights of another model, if reading the configuration of `weights` fails within the block."""
    try:
        yield
    except InputError:
        if weights is not None and weights.suffix.lower() == ".ckpt":
            require_own_model(read_mindspore(weights) or (), weights)
        raise


def require_own_model(names: Iterable[str], weights: Path | str) -> None:
    """Raise InputError if the parameter names belong to another model of this repository."""
    names = list(names)
    model = next((model for prefix, model in MODELS.items() if any(name.startswith(prefix) for name in names)), NAME)
    if model != NAME:
        raise InputError(f"{weights}: holds weights of {model}, not of {NAME}; use {model}.Detector, or the commands in {model}/")
