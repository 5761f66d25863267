"""The config.yaml of a run: what it says of keys that came after it."""
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .schema import Entry, Key

# How a file of `save_config` begins, and how that of a run goes on.
HEAD = "# Every key as the run used it."
RUN_HEAD = "# Without those that belong to a command line:"


def keys_of_today(path: Path, entries: Iterable[Entry], keys: Mapping[str, Key],
                  presets: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[Entry]:
    """Return entries for the keys that presets set and that a run's config.yaml lacks: their defaults; none of other files.

    It holds every key that there was. One that it lacks came later, and its default is what the run computed with, whatever a
    preset that the file names sets today.
    """
    with path.open(encoding="utf-8") as file:
        head = [next(file, "") for _ in range(2)]
    if head[0].rstrip() != HEAD or not head[1].startswith(RUN_HEAD):
        return []
    there = {entry.name for entry in entries}
    named = {key for table in presets.values() for preset in table.values() for key in preset}
    return [Entry(name, keys[name].default, f"{path}: {name}") for name in keys if name in named - there]
