"""Annotations against the image itself, whose size they may have wrong: which objects stay, and what is cut off."""
from typing import Any, NamedTuple, Union

import numpy as np

from .errors import DARK, OTHER_SIZE, STORED, Problem
from .masks import usable_mask
from .pictures import DARK_BITS, Frame, Picture, choose_frame
from .records import ImageRecord, clip_objects


class Fitted(NamedTuple):
    """The m objects of an image that stay."""

    stay: Union[slice, np.ndarray]      # their index
    boxes: np.ndarray                   # (m, 4), cut to the image
    masks: list[Any]                    # m usable ones; empty where nobody asked for masks
    problems: list[Problem]
    frame: Frame                        # the image as the boxes count its pixels


def fit(record: ImageRecord, stored: Picture, masks: bool = False, exif_rule: str = "auto") -> Fitted:
    """Return the objects that stay. stored: the image file; masks: objects without a usable one do not stay."""
    height, width = (None, None) if record.fractions else (record.height, record.width)
    frame = choose_frame(stored, height, width, exif_rule)
    picture = frame.picture
    if record.fractions:
        record.take_size(picture.height, picture.width)
    stay, boxes, problems = clip_objects(record, picture.height, picture.width)
    problems += _picture_problems(record, frame, exif_rule)
    if not masks:
        return Fitted(stay, boxes, [], problems, frame)
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
    return Fitted(stay, boxes, found, problems, frame)


def _picture_problems(record: ImageRecord, frame: Frame, exif_rule: str) -> list[Problem]:
    """Return what is to be said of the image itself."""
    picture, problems = frame.picture, []
    if record.height and record.width and (record.height, record.width) != (picture.height, picture.width):
        what = f"annotated as {record.width}x{record.height}, the picture has {picture.width}x{picture.height}"
        problems.append((OTHER_SIZE, what))
    if frame.stored and exif_rule == "auto":
        problems.append((STORED, frame.note))
    if picture.bits is not None and picture.bits <= DARK_BITS:
        used = max(8, picture.bits + picture.bits % 2)      # cameras have 8, 10, 12 or 14
        what = (f"16-bit image that uses {used} bits: its values are divided by 256, which leaves it dark; multiply those of all "
                f"images by {1 << 16 - used}")
        problems.append((DARK, what))
    return [Problem(record.origin, record.file_name, what, kind) for kind, what in problems]
