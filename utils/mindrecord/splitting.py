"""Split a set of images into training and validation, without lists and without copying files.

The rule is that of Faster R-CNN's split_data.py, which must work without this package: identical images stay on one side, neither
side is empty, and the same images are split in the same way on every machine. A test compares the two implementations.
"""
import functools
import hashlib
import os
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import DataError
from .manifest import image_file_sizes
from .records import ImageRecord

SEED = 1            # the default of split_data.py
SIDES = ("train", "val")


@dataclass(frozen=True)
class Split:
    """One side of a split data set."""

    val_ratio: float    # fraction for validation, between 0 and 1
    side: str           # one of SIDES


def take_side(records: list[ImageRecord], image_dir: Path, split: Split) -> list[ImageRecord]:
    """Return the records of one side in their order; DataError if the images cannot be split."""
    if not records:
        return records
    names = tuple(sorted({record.file_name for record in records}, key=lambda name: (os.path.splitext(name)[0], name)))
    # If sizes and times of the files are unchanged, the cached split is used without reading the images.
    state = image_file_sizes(image_dir, list(names)).state["digest"]
    chosen = _validation_names(names, str(image_dir), state, split.val_ratio)
    return [record for record in records if (record.file_name in chosen) == (split.side == "val")]


@functools.lru_cache(maxsize=4)
def _validation_names(names: tuple[str, ...], image_dir: str, state: str, val_ratio: float) -> frozenset[str]:
    groups = group_equal(names, Path(image_dir))
    if len(groups) < 2:
        what = "the only image cannot be split" if len(names) == 1 else f"all {len(names)} images are identical"
        raise DataError(f"val_ratio: {image_dir}: {what}")
    return frozenset(choose(groups, len(names), val_ratio))


def group_equal(names: Sequence[str], image_dir: Path) -> list[list[str]]:
    """Group names whose files are identical byte for byte, in the order of the names. A missing file is a group of its own."""
    sizes = image_file_sizes(image_dir, list(names)).sizes
    counts = Counter(sizes.values())
    groups: dict[object, list[str]] = {}
    for name in names:
        size = sizes[name]
        # Only files of equal size need to be compared.
        key: object = name if size is None or counts[size] == 1 else (size, _digest(image_dir / name))
        groups.setdefault(key, []).append(name)
    return list(groups.values())


def _digest(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:             # conversion reports the file
        return os.fsencode(path)


def choose(groups: list[list[str]], count: int, val_ratio: float) -> list[str]:
    """Return the names for validation: about val_ratio of `count`, at least one and not all."""
    groups = list(groups)
    random.Random(SEED).shuffle(groups)
    wanted = min(max(1, round(count * val_ratio)), count - 1)
    chosen: list[str] = []
    for group in groups:
        if len(chosen) + len(group) <= wanted:
            chosen += group
    return chosen or min(groups, key=len)
