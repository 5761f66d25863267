"""Annotations against the picture itself, whose size they may have wrong: which objects stay, and what is cut off."""
import numpy as np

from .errors import OTHER_SIZE, Problem
from .masks import usable_mask
from .pictures import Picture
from .records import ImageRecord, clip_objects


def fit(record: ImageRecord, picture: Picture, masks: bool = False) -> tuple:
    """(index of the m objects that stay, their boxes cut to the picture (m, 4), their masks, problems).

    masks: objects without a usable one do not stay; without it there are none, and nobody looks.
    """
    stay, boxes, problems = clip_objects(record, picture.height, picture.width)
    if record.height and record.width and (record.height, record.width) != (picture.height, picture.width):
        what = f"annotated as {record.width}x{record.height}, the picture has {picture.width}x{picture.height}"
        problems.append(Problem(record.origin, record.file_name, what, OTHER_SIZE))
    if not masks:
        return stay, boxes, [], problems
    places, kept, found = np.arange(len(record.labels))[stay].tolist(), [], []
    for row, index in enumerate(places):
        mask, faults = usable_mask(record.segmentations[index], picture.height, picture.width)
        problems += [Problem(record.origin, record.place(index), f"{what} ({record.file_name})", kind)
                     for kind, what in faults]
        if mask is not None:
            kept.append(row)
            found.append(mask)
    if len(kept) < len(places):
        stay, boxes = np.array(places, np.int64)[kept], boxes[kept]
    return stay, boxes, found, problems
