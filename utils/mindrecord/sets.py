"""Find the sets of a data set in a folder: what to train on, and what to evaluate on."""
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Optional

from .detection import Found, find_data
from .errors import DataError

# Words in the names of sets, the likeliest first.
TRAINING = ("train", "training", "trainval")
EVALUATION = ("val", "valid", "validation", "test")
# COCO's folder has three files of annotations for a set; this one holds the boxes and masks.
DETECTION = "instances"
DIVISION = 0.2


class Sets(NamedTuple):
    """What a folder holds. ratio: the part of `train` that is for evaluation; 0: there is a set for it, `val`."""

    train: Found
    val: Found
    ratio: float

    def keys(self) -> dict[str, object]:
        """Return the values of the configuration's keys: {name: value}."""
        values: dict[str, object] = {"dataset": self.train.entry.name, "val_ratio": self.ratio}
        for prefix, found in (("", self.train), ("val_", None if self.ratio else self.val)):
            place = found.place._asdict() if found else dict.fromkeys(self.train.place._fields)
            values.update({f"{prefix}{name}": str(value or "") for name, value in place.items()})
        return values


def find_sets(folder: Path) -> Sets:
    """Return the sets in a folder; DataError if it holds none, or several of which none can be told to be for training."""
    found = _with_lists(find_data(folder))
    train, val = _choose(found, TRAINING, folder), _choose(found, EVALUATION, folder)
    if train is None and len(found) > 1:
        names = ", ".join(_name(item, folder) for item in found)
        raise DataError(f"{folder}: holds {len(found)} sets, {names}, none of them called train: give --image_dir and --anno_path")
    train = train or found[0]
    return Sets(train, val or train, 0.0 if val and val != train else DIVISION)


def _with_lists(found: Sequence[Found]) -> list[Found]:
    """The data sets; one that has lists of images beside its annotations in as many parts, if one of these is for training.

    Lists of other names, such as VOC's of a class, are left out.
    """
    parts = []
    for item in found:
        names = item.entry.lists(item.place.anno_path) if item.entry.lists else []
        lists = [item._replace(place=item.place._replace(image_set=name)) for name in names if name in (*TRAINING, *EVALUATION)]
        parts += lists if set(names) & set(TRAINING) else [item]
    return parts


def _choose(found: Sequence[Found], words: Sequence[str], folder: Path) -> Optional[Found]:
    """The set with the first of these words in its name; DataError if there are several."""
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
    """What the set is called: its image_set, else its annotations."""
    return item.place.image_set or os.path.relpath(item.place.anno_path, folder)


def _words(item: Found, folder: Path) -> list[str]:
    return re.findall(r"[a-z]+", _name(item, folder).lower())
