"""Repeating the pictures of rare classes: repeat factor sampling (Gupta et al. 2019, LVIS, app. B). And what all records say."""
import math
from collections.abc import Iterable
from pathlib import Path

import mindspore.dataset as ds
import numpy as np


def repeat_factors(present: np.ndarray, threshold: float) -> np.ndarray:
    """How often an epoch has each picture, 1 or more on average: (N,) float64.

    present: (N, C) bool, whether a picture has an object of a class. The factor of a class that f of all pictures have is
    sqrt(threshold / f), but no less than 1, and that of a picture is the largest of its classes.
    """
    part = present.mean(axis=0)
    classes = np.sqrt(threshold / np.where(part > 0, part, 1.0)).clip(min=1.0)
    return np.where(present, classes, 1.0).max(axis=1, initial=1.0)


def resample(factors: np.ndarray, offset: float) -> np.ndarray:
    """Pictures of an epoch: each floor or ceil of its factor many times, round(sum of factors) in all; sorted.

    Systematic resampling; over offsets evenly drawn from [0, 1) a picture comes as often as its factor says, but for the
    rounding of the sum.
    """
    ends = np.cumsum(factors)
    total = resampled_count(factors)
    return np.searchsorted(ends, (np.arange(total) + offset) * (ends[-1] / total), side="right")


def resampled_count(factors: np.ndarray) -> int:
    """Pictures of an epoch."""
    return math.floor(factors.sum() + 0.5)


def occurrences(sorted_indices: np.ndarray) -> np.ndarray:
    """For each element how many equal ones stand before it."""
    return np.arange(len(sorted_indices)) - np.searchsorted(sorted_indices, sorted_indices)


def read_presence(files: Iterable[Path | str], count: int, classes: int) -> np.ndarray:
    """(count, classes) bool: which labels 1 to `classes` the objects of each record have, crowds left out."""
    present = np.zeros((count, classes), bool)
    data = ds.MindDataset([str(file) for file in files], ["labels", "crowds", "count"], shuffle=False)
    for row, (labels, crowds, size) in enumerate(data.create_tuple_iterator(num_epochs=1, output_numpy=True)):
        real = (np.arange(len(labels)) < int(size)) & (crowds == 0)
        present[row, labels[real] - 1] = True
    return present


def read_sizes(files: Iterable[Path | str]) -> dict[int, tuple[int, int]]:
    """{image id: (height, width)} of all records."""
    names = [str(file) for file in files]
    if not names:
        return {}
    data = ds.MindDataset(names, ["image_id", "height", "width"], shuffle=False)
    rows = data.create_tuple_iterator(num_epochs=1, output_numpy=True)
    return {int(image_id): (int(height), int(width)) for image_id, height, width in rows}
