# Same as faster_rcnn/src/model_utils/weights/own_config.py
"""The configuration that a file of weights was made with, found beside it."""
import os
from pathlib import Path

from ..config import InputError, config_file

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
