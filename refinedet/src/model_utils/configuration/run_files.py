# Same as faster_rcnn/src/model_utils/configuration/run_files.py
"""Read the config.yaml of an earlier run that lacks newer keys."""
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .schema import Entry, Key

# First lines of a file that `save_config` writes, and of the config.yaml of a run.
HEAD = "# Every key as the run used it."
RUN_HEAD = "# Without those that belong to a command line:"


def keys_of_today(path: Path, entries: Iterable[Entry], keys: Mapping[str, Key],
                  presets: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[Entry]:
    """Return entries with the defaults of keys that presets set and that a run's config.yaml lacks; none for other files.

    A run's config.yaml holds every key that existed. A key that it lacks was added later, and the run computed with what is now its
    default, even if the preset in the file sets another value today.
    """
    with path.open(encoding="utf-8") as file:
        head = [next(file, "") for _ in range(2)]
    if head[0].rstrip() != HEAD or not head[1].startswith(RUN_HEAD):
        return []
    there = {entry.name for entry in entries}
    named = {key for table in presets.values() for preset in table.values() for key in preset}
    return [Entry(name, keys[name].default, f"{path}: {name}") for name in keys if name in named - there]
