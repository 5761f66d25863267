"""Annotations against the picture itself, whose size they may have wrong: which objects stay, and what is cut off."""
from typing import Any, NamedTuple, Union

import numpy as np

from .errors import OTHER_SIZE, Problem
from .masks import usable_mask
from .pictures import Picture
from .records import ImageRecord, clip_objects


class Fitted(NamedTuple):
    """The m objects of an image that stay."""

    stay: Union[slice, np.ndarray]      # their index
    boxes: np.ndarray                   # (m, 4), cut to the image
    masks: list[Any]                    # m usable ones; empty where nobody asked for masks
    problems: list[Problem]


def fit(record: ImageRecord, picture: Picture, masks: bool = False) -> Fitted:
    """Return the objects that stay. masks: objects without a usable one do not."""
    stay, boxes, problems = clip_objects(record, picture.height, picture.width)
    if record.height and record.width and (record.height, record.width) != (picture.height, picture.width):
        what = f"annotated as {record.width}x{record.height}, the picture has {picture.width}x{picture.height}"
        problems.append(Problem(record.origin, record.file_name, what, OTHER_SIZE))
    if not masks:
        return Fitted(stay, boxes, [], problems)
    places: list[int] = np.arange(len(record.labels))[stay].tolist()
    kept: list[int] = []
    found: list[Any] = []
    segmentations = record.segmentations or [None] * len(record.labels)
    for row, index in enumerate(places):
        mask, faults = usable_mask(segmentations[index], picture.height, picture.width)
        problems += [Problem(record.origin, record.place(index), f"{what} ({record.file_name})", kind)
                     for kind, what in faults]
        if mask is not None:
            kept.append(row)
            found.append(mask)
    if len(kept) < len(places):
        stay, boxes = np.array(places, np.int64)[kept], boxes[kept]
    return Fitted(stay, boxes, found, problems)
