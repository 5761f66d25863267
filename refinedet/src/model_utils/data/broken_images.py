# Same as faster_rcnn/src/model_utils/data/broken_images.py
"""Handle images that can no longer be decoded after their conversion: log each once, and continue without it."""
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mindspore.dataset as ds
import numpy as np

from ..config import InputError
from ..files import printable

MOST_TRIED = 100        # subsequent images that are tried instead of a broken one
log = logging.getLogger(__name__)


class BrokenImageError(ValueError):
    """An image that cannot be decoded."""

    def __init__(self, file_name: str, what: str):
        super().__init__(f"{file_name}: {what}")
        self.file_name = file_name


class BrokenImages:
    """Reports each broken image once; thread-safe."""

    def __init__(self) -> None:
        self._lock, self._names = threading.Lock(), set[str]()

    def warn(self, error: BrokenImageError, consequence: str) -> None:
        with self._lock:
            known = error.file_name in self._names
            self._names.add(error.file_name)
        if not known:       # an error, because ranks other than 0 log no warnings
            log.error("%s: %s", printable(str(error)), consequence)


class Replacing:
    """Load a record; if its image is broken, load the next one that decodes. The choice depends on the records only.

    Args:
        load: maps the columns of a record to those of a row. Raises BrokenImageError if the image cannot be decoded.
        columns: names of the record's columns, including "index".
        files, count: the MindRecord files, and their total number of records.
        broken: reports broken images.
    """

    def __init__(self, load: Callable[..., tuple[np.ndarray, ...]], columns: Sequence[str], files: Sequence[Path], count: int,
                 broken: BrokenImages):
        self.load, self.columns, self.files, self.count, self.broken = load, list(columns), files, count, broken

    def __call__(self, *record: Any) -> tuple[np.ndarray, ...]:
        try:
            return self.load(*record)
        except BrokenImageError as error:
            self.broken.warn(error, "another image takes its place in every batch")
            first = error
        index = int(record[self.columns.index("index")])
        for step in range(1, min(self.count, MOST_TRIED + 1)):
            try:
                return self.load(*self._read((index + step) % self.count))
            except BrokenImageError as error:
                self.broken.warn(error, "another image takes its place in every batch")
        raise InputError(f"{first}; the next {min(self.count - 1, MOST_TRIED)} images cannot be decoded either")

    def _read(self, index: int) -> list[np.ndarray]:
        data = ds.MindDataset([str(file) for file in self.files], self.columns, 1, sampler=ds.SubsetSampler([index]))
        return next(iter(data.create_tuple_iterator(num_epochs=1, output_numpy=True)))
