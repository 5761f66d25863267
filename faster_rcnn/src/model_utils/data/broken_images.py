"""Images that break after their conversion: each costs its place in a batch and a warning, and the run goes on."""
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mindspore.dataset as ds
import numpy as np

from ..config import InputError
from ..files import printable

MOST_TRIED = 100        # images in a row that are tried in place of a broken one
log = logging.getLogger(__name__)


class BrokenImageError(ValueError):
    """An image that does not decode."""

    def __init__(self, file_name: str, what: str):
        super().__init__(f"{file_name}: {what}")
        self.file_name = file_name


class BrokenImages:
    """Warns about each broken image once; threads may share it."""

    def __init__(self) -> None:
        self._lock, self._names = threading.Lock(), set[str]()

    def warn(self, error: BrokenImageError, consequence: str) -> None:
        with self._lock:
            known = error.file_name in self._names
            self._names.add(error.file_name)
        if not known:       # an error, as ranks other than the first log no warnings
            log.error("%s: %s", printable(str(error)), consequence)


class Replacing:
    """Loads a record, or the next one that decodes: which one that is depends on nothing but the records.

    Args:
        load: from the columns of a record to those of a row; BrokenImageError if its image does not decode.
        columns: names of the record's columns; "index" is among them.
        files, count: the MindRecord files, and their records in all.
        broken: what warns.
    """

    def __init__(self, load: Callable[..., tuple[np.ndarray, ...]], columns: Sequence[str], files: Sequence[Path], count: int,
                 broken: BrokenImages):
        self.load, self.columns, self.files, self.count, self.broken = load, list(columns), files, count, broken

    def __call__(self, *record: Any) -> tuple[np.ndarray, ...]:
        try:
            return self.load(*record)
        except BrokenImageError as error:
            self.broken.warn(error, "another image takes its place in each batch")
            first = error
        index = int(record[self.columns.index("index")])
        for step in range(1, min(self.count, MOST_TRIED + 1)):
            try:
                return self.load(*self._read((index + step) % self.count))
            except BrokenImageError as error:
                self.broken.warn(error, "another image takes its place in each batch")
        raise InputError(f"{first}; nor do the {min(self.count - 1, MOST_TRIED)} images after it decode")

    def _read(self, index: int) -> list[np.ndarray]:
        data = ds.MindDataset([str(file) for file in self.files], self.columns, 1, sampler=ds.SubsetSampler([index]))
        return next(iter(data.create_tuple_iterator(num_epochs=1, output_numpy=True)))
