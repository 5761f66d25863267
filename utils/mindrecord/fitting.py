"""Reconcile annotations with the image file, whose size they may state wrongly: drop and clip objects."""
from typing import Any, NamedTuple, Union

import numpy as np

from .errors import DARK, OTHER_SIZE, STORED, Problem
from .image_files import DARK_BITS, Frame, ImageInfo, choose_frame
from .masks import usable_mask
from .records import ImageRecord, clip_objects


class Fitted(NamedTuple):
    """The m objects of an image that are kept."""

    stay: Union[slice, np.ndarray]      # their indices
    boxes: np.ndarray                   # (m, 4), clipped to the image
    masks: list[Any]                    # m usable masks; empty if masks were not requested
    problems: list[Problem]
    frame: Frame                        # the image in whose pixels the boxes are given


def fit(record: ImageRecord, stored: ImageInfo, masks: bool = False, exif_rule: str = "auto") -> Fitted:
    """Return the objects to keep. stored: the image file; masks: drop objects without a usable mask."""
    height, width = (None, None) if record.fractions else (record.height, record.width)
    frame = choose_frame(stored, height, width, exif_rule)
    info = frame.info
    if record.fractions:
        record.take_size(info.height, info.width)
    stay, boxes, problems = clip_objects(record, info.height, info.width)
    problems += _image_problems(record, frame, exif_rule)
    if not masks:
        return Fitted(stay, boxes, [], problems, frame)
    places: list[int] = np.arange(len(record.labels))[stay].tolist()
    kept: list[int] = []
    found: list[Any] = []
    segmentations = record.segmentations or [None] * len(record.labels)
    for row, index in enumerate(places):
        mask, faults = usable_mask(segmentations[index], info.height, info.width)
        problems += [Problem(record.origin, record.place(index), f"{what} ({record.file_name})", kind)
                     for kind, what in faults]
        if mask is not None:
            kept.append(row)
            found.append(mask)
    if len(kept) < len(places):
        stay, boxes = np.array(places, np.int64)[kept], boxes[kept]
    return Fitted(stay, boxes, found, problems, frame)


def _image_problems(record: ImageRecord, frame: Frame, exif_rule: str) -> list[Problem]:
    """Return the problems of the image itself."""
    info, problems = frame.info, []
    if record.height and record.width and (record.height, record.width) != (info.height, info.width):
        what = f"annotated as {record.width}x{record.height}, the image has {info.width}x{info.height}"
        problems.append((OTHER_SIZE, what))
    if frame.stored and exif_rule == "auto":
        problems.append((STORED, frame.note))
    if info.bits is not None and info.bits <= DARK_BITS:
        used = max(8, info.bits + info.bits % 2)      # cameras use 8, 10, 12 or 14
        what = (f"the 16-bit image uses only {used} bits; dividing by 256 leaves it dark: multiply the values of all images by "
                f"{1 << 16 - used}")
        problems.append((DARK, what))
    return [Problem(record.origin, record.file_name, what, kind) for kind, what in problems]
