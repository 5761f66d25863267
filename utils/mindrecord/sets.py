"""Find the training set and the validation set in a folder."""
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Optional

from .detection import Found, find_data
from .errors import DataError

# Words in the names of sets, most likely first.
TRAINING = ("train", "training", "trainval")
EVALUATION = ("val", "valid", "validation", "test")
# COCO has three annotation files per set; this word marks the one with boxes and masks.
DETECTION = "instances"
DIVISION = 0.2


class Sets(NamedTuple):
    """The sets in a folder. ratio: fraction of `train` to use for evaluation; 0 if there is a separate set `val`."""

    train: Found
    val: Found
    ratio: float

    def keys(self) -> dict[str, object]:
        """Return the configuration keys for these sets: {name: value}."""
        values: dict[str, object] = {"dataset": self.train.entry.name, "val_ratio": self.ratio}
        for prefix, found in (("", self.train), ("val_", None if self.ratio else self.val)):
            place = found.place._asdict() if found else dict.fromkeys(self.train.place._fields)
            values.update({f"{prefix}{name}": str(value or "") for name, value in place.items()})
        return values


def find_sets(folder: Path) -> Sets:
    """Return the sets in a folder; DataError if there is none, or if there are several and none is recognisable for training."""
    found = _with_lists(find_data(folder))
    train, val = _choose(found, TRAINING, folder), _choose(found, EVALUATION, folder)
    if train is None and len(found) > 1:
        names = ", ".join(_name(item, folder) for item in found)
        raise DataError(f"{folder}: holds {len(found)} sets, {names}, but none called train: give --image_dir and --anno_path")
    train = train or found[0]
    return Sets(train, val or train, 0.0 if val and val != train else DIVISION)


def _with_lists(found: Sequence[Found]) -> list[Found]:
    """Split each data set with lists of images beside its annotations into one set per list, if one of them is for training.

    Lists with other names, such as VOC's lists per class, are ignored.
    """
    parts = []
    for item in found:
        names = item.entry.lists(item.place.anno_path) if item.entry.lists else []
        lists = [item._replace(place=item.place._replace(image_set=name)) for name in names if name in (*TRAINING, *EVALUATION)]
        parts += lists if set(names) & set(TRAINING) else [item]
    return parts


def _choose(found: Sequence[Found], words: Sequence[str], folder: Path) -> Optional[Found]:
    """Return the set with the first of these words in its name, or None; DataError if several match."""
    for word in words:
        named = [item for item in found if word in _words(item, folder)]
        named = [item for item in named if DETECTION in _words(item, folder)] or named
        if len(named) > 1:
            names = ", ".join(_name(item, folder) for item in named)
            raise DataError(f"{folder}: {names} are all called {word}: give --image_dir and --anno_path")
        if named:
            return named[0]
    return None


def _name(item: Found, folder: Path) -> str:
    """Return the name of a set: its image_set, or else the path of its annotations."""
    return item.place.image_set or os.path.relpath(item.place.anno_path, folder)


def _words(item: Found, folder: Path) -> list[str]:
    return re.findall(r"[a-z]+", _name(item, folder).lower())
