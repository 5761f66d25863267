"""Read the class names that a checkpoint was trained on, from the file or from the YAML that belongs to it."""
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import Config, DamagedError, InputError
from ..yaml_text import read_mapping, read_text
from .mindspore_file import read_texts

# Entry of a checkpoint that holds the class names as JSON, background first.
CLASS_NAMES = "class_names"


def class_names_of(content: Mapping[str, Any], path: Path | str) -> list[str] | None:
    """Return the class names, background first, or None if they are unknown.

    Converted checkpoints and those of earlier versions do not hold the names. They are then read from the YAML beside the
    checkpoint, or from the config.yaml of the run that wrote it.

    Args:
        content: the result of `ms.load_checkpoint`.
        path: the checkpoint.
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
    """Return `config`; if it names no classes, with the checkpoint's class names, provided that num_classes fits them."""
    if config.coco_classes:
        return config
    content = read_texts(path)
    if content is None:     # loading the weights reports why
        return config
    names = class_names_of(content, path)
    if not names or len(names) != config.num_classes:
        return config
    return Config({**config.to_dict(), "coco_classes": names})


def check_order(names: Sequence[str] | None, classes: Sequence[str], path: Path | str) -> str | None:
    """Return a warning if the checkpoint has other class names than the configuration, or None.

    Raises:
        InputError: if the names are the same in another order: every result would get a wrong name.
    """
    if not names or not classes or len(names) != len(classes) or list(names) == list(classes):
        return None
    if set(names) == set(classes):
        raise InputError(f"coco_classes: {path} was trained on [{', '.join(names)}], in this order, not on [{', '.join(classes)}]; "
                         "set coco_classes in its order, or leave it empty ([])")
    return f"{path} was trained on {first_difference(names, classes)}"


def first_difference(names: Sequence[str], classes: Sequence[str]) -> str:
    """Describe the first label at which two lists of names differ."""
    label = next(label for label, pair in enumerate(zip(names, classes)) if pair[0] != pair[1])
    return f"other classes: label {label} is {names[label]!r} in the checkpoint and {classes[label]!r} in coco_classes"
