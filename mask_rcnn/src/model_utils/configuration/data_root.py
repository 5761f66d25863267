# Same as faster_rcnn/src/model_utils/configuration/data_root.py
"""Derive the keys that name the parts of a data set from the key of its root."""
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..own_utils import own_utils
from .schema import Entry, InputError, Key

# Roots with a fixed layout; data_root is for any layout.
ROOTS = ("coco_root", "voc_root")
EVALUATION = ("val_image_dir", "val_anno_path", "val_image_set")


def located(layer: Sequence[Entry], values: Mapping[str, Any], keys: Mapping[str, Key]) -> list[Entry]:
    """Return entries for the keys that the roots in a layer set; other entries of the layer override them.

    data_root sets all keys of the data. Another root clears folders of earlier layers, such as those of a run's config.yaml, which
    would otherwise override it. values: values of the earlier layers.

    Raises:
        InputError: if data_root holds no data, or several sets of which none is called train.
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
                changes["val_ratio"] = 0.0      # an evaluation set is given
            where = entry.where
            break
    return [Entry(name, value, f"{where}: {name}") for name, value in changes.items() if name in keys]


def _keys_of(entry: Entry) -> dict[str, Any]:
    """Return the keys of the data set that is found in data_root."""
    try:
        sets = own_utils("mindrecord.sets")
    except ImportError as error:
        raise InputError(f"{entry.where}: utils/mindrecord is missing; copy utils/ and the model's folder side by side") from error
    try:
        return sets.find_sets(Path(str(entry.value)).expanduser()).keys()
    except ValueError as error:
        raise InputError(f"{entry.where}: {error}") from None
