"""The configuration that a file of weights was made with, found beside it."""
import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...model import MODELS, NAME
from ..config import InputError, config_file
from .mindspore_file import read_mindspore

# Ending of a file of weights -> the key of the configuration that names it.
KEYS = {".ckpt": "checkpoint_path", ".mindir": "mindir_path", ".onnx": "onnx_path"}


def key_of(weights: Path) -> str:
    """Return the key that names this kind of file; InputError if there is no such kind, or no such file."""
    if weights.suffix.lower() not in KEYS:
        raise InputError(f"{weights}: expected a file of {', '.join(KEYS)}")
    if not weights.is_file():
        raise InputError(f"{weights}: no such file")
    return KEYS[weights.suffix.lower()]


def config_beside(exported: Path) -> Path:
    """Return where export.py writes the configuration of a file, NAME.onnx.yaml: NAME.yaml may be that of a checkpoint."""
    return exported.with_name(f"{exported.name}.yaml")


def places_of_config(weights: Path) -> list[Path]:
    """Return where the configuration may be: as export.py, a conversion and a training run write it."""
    folder = weights.absolute().parent
    places = [config_beside(weights), weights.with_suffix(".yaml"), folder / "config.yaml"]
    return [*places, folder.parent / "config.yaml"] if folder.name == "checkpoint" else places


def find_config(weights: Path, config_path: str | os.PathLike | None = None) -> Path:
    """Return config_path if it is given, else the configuration beside the weights; InputError if there is none."""
    key_of(weights)
    if config_path is not None:
        return config_file(config_path)
    places = places_of_config(weights)
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise InputError(f"{weights}: no configuration beside it, neither {' nor '.join(map(os.path.relpath, places))}: give "
                         "config_path")
    return found


@contextlib.contextmanager
def own_model(weights: Path | None) -> Iterator[None]:
    """Within, the configuration of weights is read: where that fails because they are another model's, InputError names this."""
    try:
        yield
    except InputError:
        if weights is not None and weights.suffix.lower() == ".ckpt":
            require_own_model(read_mindspore(weights) or (), weights)
        raise


def require_own_model(names: Iterable[str], weights: Path | str) -> None:
    """InputError if the names of parameters are those of another model of this repository."""
    names = list(names)
    model = next((model for prefix, model in MODELS.items() if any(name.startswith(prefix) for name in names)), NAME)
    if model != NAME:
        raise InputError(f"{weights}: weights of {model}, and this is {NAME}: use {model}.Detector, or the commands in {model}/")
