"""The names of the classes that a checkpoint was trained on: in the file itself, or in the YAML that belongs to it."""
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import Config, DamagedError, InputError
from ..yaml_text import read_mapping, read_text
from .mindspore_file import read_texts

# The entry of a checkpoint with the names as JSON, background first.
CLASS_NAMES = "class_names"


def class_names_of(content: Mapping[str, Any], path: Path | str) -> list[str] | None:
    """Return the names, background first, or None where nothing tells them. content: what `ms.load_checkpoint` gave.

    Checkpoints of earlier versions and converted ones do not hold them. Their names are in the YAML beside them, or in the
    config.yaml of the run that wrote them.
    """
    if isinstance(content.get(CLASS_NAMES), str):
        try:
            return _names(json.loads(content[CLASS_NAMES]))
        except (ValueError, RecursionError) as error:
            raise DamagedError(f"{path}: damaged: {CLASS_NAMES} is not JSON") from error
    path = Path(path).absolute()
    places = [path.with_suffix(".yaml")]
    if path.parent.name == "checkpoint":
        places.append(path.parent.parent / "config.yaml")
    for place in places:
        try:
            items, _ = read_mapping(read_text(place) if place.is_file() else "")
        except (OSError, ValueError):
            continue
        names = _names({item.key: item.value for item in items}.get("coco_classes"))
        if names:
            return names
    return None


def _names(value: Any) -> list[str] | None:
    return value if isinstance(value, list) and value and all(isinstance(name, str) for name in value) else None


def with_class_names(config: Config, path: Path | str) -> Config:
    """Return the configuration; if it names no classes, with those of the checkpoint, as long as their number is num_classes."""
    if config.coco_classes:
        return config
    content = read_texts(path)
    if content is None:     # what loads the weights says why
        return config
    names = class_names_of(content, path)
    if not names or len(names) != config.num_classes:
        return config
    return Config({**config.to_dict(), "coco_classes": names})


def check_order(names: Sequence[str] | None, classes: Sequence[str], path: Path | str) -> str | None:
    """Return what to warn about if a checkpoint's classes have other names than the configuration's.

    InputError if they have the same names in another order: every result would have a wrong name.
    """
    if not names or not classes or len(names) != len(classes) or list(names) == list(classes):
        return None
    if set(names) == set(classes):
        raise InputError(f"coco_classes: {path} was trained on [{', '.join(names)}], in this order, not on [{', '.join(classes)}]: "
                         "set coco_classes so, or leave it empty ([])")
    return f"{path} was trained on {first_difference(names, classes)}"


def first_difference(names: Sequence[str], classes: Sequence[str]) -> str:
    """Say in which label lists of names differ first."""
    label = next(label for label, pair in enumerate(zip(names, classes)) if pair[0] != pair[1])
    return f"other classes: label {label} is {names[label]!r} there and {classes[label]!r} in coco_classes"
