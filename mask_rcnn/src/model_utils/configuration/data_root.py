# Same as faster_rcnn/src/model_utils/configuration/data_root.py
"""Keys of a data set's root: what one of them means for the keys that name its parts."""
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..own_utils import own_utils
from .schema import Entry, InputError, Key

# Roots with a fixed layout; data_root is for any.
ROOTS = ("coco_root", "voc_root")
EVALUATION = ("val_image_dir", "val_anno_path", "val_image_set")


def located(layer: Sequence[Entry], values: Mapping[str, Any], keys: Mapping[str, Key]) -> list[Entry]:
    """Return entries of the keys that the roots in a layer replace; the layer's own entries override them.

    data_root sets all keys of the data. Another root clears folders of earlier layers, such as those of a run's config.yaml, which
    would leave it without effect. values: of the earlier layers. InputError if data_root holds no data, or several sets and none of
    them is called train.
    """
    changes: dict[str, Any] = {}
    where = ""
    for entry in layer:
        if entry.name in ROOTS and entry.value:
            pairs = [(f"{prefix}image_dir", f"{prefix}anno_path") for prefix in ("", "val_")]
            changes.update({name: "" for pair in pairs if all(values.get(name) for name in pair) for name in pair})
            where = entry.where
        elif entry.name == "data_root" and entry.value:
            changes = {**_keys_of(entry), **dict.fromkeys(ROOTS, "")}
            if {entry.name for entry in layer} & set(EVALUATION):
                changes["val_ratio"] = 0.0      # there is a set for evaluation
            where = entry.where
            break
    return [Entry(name, value, f"{where}: {name}") for name, value in changes.items() if name in keys]


def _keys_of(entry: Entry) -> dict[str, Any]:
    """The keys that data_root stands for."""
    try:
        sets = own_utils("mindrecord.sets")
    except ImportError as error:
        raise InputError(f"{entry.where}: utils/mindrecord is not there: it stands beside the model's folder; copy both") from error
    try:
        return sets.find_sets(Path(str(entry.value)).expanduser()).keys()
    except ValueError as error:
        raise InputError(f"{entry.where}: {error}") from None
