# Same as faster_rcnn/src/model_utils/data/resampling.py
"""Repeat images with rare classes: repeat factor sampling (Gupta et al., "LVIS", 2019, app. B). Read columns of all records."""
import math
from collections.abc import Iterable
from pathlib import Path

import mindspore.dataset as ds
import numpy as np


def repeat_factors(present: np.ndarray, threshold: float) -> np.ndarray:
    """Return how often each image occurs in an epoch on average, at least 1: (N,) float64.

    The factor of a class that a fraction f of all images contains is max(1, sqrt(threshold / f)); the factor of an image is the
    largest of its classes. present: (N, C) bool, whether an image has an object of a class.
    """
    part = present.mean(axis=0)
    classes = np.sqrt(threshold / np.where(part > 0, part, 1.0)).clip(min=1.0)
    return np.where(present, classes, 1.0).max(axis=1, initial=1.0)


def resample(factors: np.ndarray, offset: float) -> np.ndarray:
    """Return the images of an epoch, sorted: each floor or ceil of its factor times, round(sum of factors) in total.

    Systematic resampling: over offsets drawn uniformly from [0, 1), an image occurs as often as its factor says, up to the rounding
    of the sum.
    """
    ends = np.cumsum(factors)
    total = resampled_count(factors)
    return np.searchsorted(ends, (np.arange(total) + offset) * (ends[-1] / total), side="right")


def resampled_count(factors: np.ndarray) -> int:
    """Return the number of images in an epoch."""
    return math.floor(factors.sum() + 0.5)


def occurrences(sorted_indices: np.ndarray) -> np.ndarray:
    """Return for each element how many equal ones precede it."""
    return np.arange(len(sorted_indices)) - np.searchsorted(sorted_indices, sorted_indices)


def read_presence(files: Iterable[Path | str], count: int, classes: int) -> np.ndarray:
    """Return which labels 1 to `classes` the objects of each record have, without crowds: bool (count, classes)."""
    present = np.zeros((count, classes), bool)
    data = ds.MindDataset([str(file) for file in files], ["labels", "crowds", "count"], shuffle=False)
    for row, (labels, crowds, size) in enumerate(data.create_tuple_iterator(num_epochs=1, output_numpy=True)):
        real = (np.arange(len(labels)) < int(size)) & (crowds == 0)
        present[row, labels[real] - 1] = True
    return present


def read_sizes(files: Iterable[Path | str]) -> dict[int, tuple[int, int]]:
    """Return {image id: (height, width)} of all records."""
    names = [str(file) for file in files]
    if not names:
        return {}
    data = ds.MindDataset(names, ["image_id", "height", "width"], shuffle=False)
    rows = data.create_tuple_iterator(num_epochs=1, output_numpy=True)
    return {int(image_id): (int(height), int(width)) for image_id, height, width in rows}
