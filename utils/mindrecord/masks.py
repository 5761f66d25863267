"""Validate the masks of COCO annotations and encode them for records.

A mask is a list of polygons [[x1, y1, x2, y2, ...], ...] in pixels, or RLE {"size": [height, width], "counts"}: run lengths in
column-major order that start with background; `counts` is a list, or the string that pycocotools makes of it.
"""
import functools
import json
import math
from collections.abc import Iterable
from typing import Any, NamedTuple, Optional

import numpy as np

from .errors import (
    BROKEN_RLE,
    EMPTY_MASK,
    FLAT_POLYGON,
    NO_MASK,
    ODD_POLYGON,
    OTHER_RLE_SIZE,
    OUTSIDE_POLYGON,
    SHORT_POLYGON,
    TEXT_POLYGON,
    UNUSABLE_MASK,
)
from .records import HUGE
from .values import numbers, short, whole_number

_NUMBERS = frozenset((int, float))      # excludes bool, which isinstance counts as int
_shown = functools.partial(short, most=40)
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


class UsableMask(NamedTuple):
    """The usable part of an object's segmentation."""

    mask: Any                           # polygons or compressed RLE; None if nothing is usable
    faults: list[tuple[str, str]]       # (kind, what is wrong)


def usable_mask(segmentation: Any, height: int, width: int) -> UsableMask:
    """Return the part of a segmentation that fits an image of this size, and what is wrong with the rest."""
    if segmentation is None:
        return UsableMask(None, [(NO_MASK, "segmentation is null or missing")])
    if type(segmentation) is dict:
        return _usable_runs(segmentation, height, width)
    if type(segmentation) is not list:
        return UsableMask(None, [(UNUSABLE_MASK, f"segmentation is neither polygons nor RLE: {_shown(segmentation)}")])
    if not segmentation:
        return UsableMask(None, [(EMPTY_MASK, "segmentation is empty")])
    faults: list[tuple[str, str]] = []
    usable: list[Any] = []
    for number, given in enumerate(segmentation, 1):
        polygon = _as_numbers(given)
        fault = _polygon_fault(polygon, height, width)
        if fault is None:
            usable.append(polygon)
        else:
            faults.append((fault[0], f"polygon {number} of {len(segmentation)} {fault[1]}"))
    if not usable:
        faults.append((UNUSABLE_MASK, "none of its polygons is usable"))
    return UsableMask(usable or None, faults)


def _as_numbers(polygon: Any) -> Any:
    """Convert coordinates given as text to numbers; return the polygon unchanged if that fails."""
    if type(polygon) is not list or _NUMBERS.issuperset(map(type, polygon)):
        return polygon
    return numbers(polygon, len(polygon)) or polygon


def _polygon_fault(polygon: Any, height: int, width: int) -> Optional[tuple[str, str]]:
    """Return what is wrong with a polygon as (kind, what), or None."""
    if type(polygon) is not list or not _NUMBERS.issuperset(map(type, polygon)):
        return TEXT_POLYGON, f"is not a list of numbers: {_shown(polygon)}"
    if len(polygon) % 2:
        return ODD_POLYGON, f"has {len(polygon)} coordinates, an odd number"
    if len(polygon) < 6:
        return SHORT_POLYGON, f"has {len(polygon) // 2} points, expected at least 3"
    xs, ys = polygon[::2], polygon[1::2]
    left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
    # Plain Python, since creating arrays would take longer. Comparisons with nan are false, and a sum with nan is nan.
    bounded = all(-HUGE < side < HUGE for side in (left, right, top, bottom))
    if not bounded or math.isnan(sum(polygon)):
        return TEXT_POLYGON, f"has a number that is not finite or beyond {HUGE:g}"
    if left >= width or right <= 0 or top >= height or bottom <= 0:
        return OUTSIDE_POLYGON, f"lies outside the image of {width}x{height}"
    if left == right or top == bottom:
        return FLAT_POLYGON, "has no area"
    return None


def _usable_runs(runs: dict[str, Any], height: int, width: int) -> UsableMask:
    size, counts = runs.get("size"), runs.get("counts")
    sides = [whole_number(side) for side in size] if type(size) is list else []
    if len(sides) != 2 or None in sides:
        return UsableMask(None, [(BROKEN_RLE, f"RLE size {_shown(size)} is not [height, width]")])
    if sides != [height, width]:
        what = f"RLE size is {sides[1]}x{sides[0]}, but the image is {width}x{height}"
        return UsableMask(None, [(OTHER_RLE_SIZE, what)])
    try:
        lengths = run_lengths(counts)
    except ValueError as error:
        return UsableMask(None, [(BROKEN_RLE, f"RLE counts {error}")])
    if (lengths < 0).any() or (lengths > height * width).any():
        return UsableMask(None, [(BROKEN_RLE, "RLE counts have a run that is negative or longer than the image")])
    if lengths.sum() != height * width:
        return UsableMask(None, [(BROKEN_RLE, f"RLE counts cover {lengths.sum()} of {height * width} pixels")])
    if not lengths[1::2].any():
        return UsableMask(None, [(EMPTY_MASK, "RLE counts contain no foreground pixel")])
    size = [height, width]
    return UsableMask({"size": size, "counts": counts if type(counts) is str else _compress(lengths, size)}, [])


def run_lengths(counts: Any) -> np.ndarray:
    """Decode `counts` to int64 run lengths; ValueError says what is wrong."""
    if type(counts) is list:
        counts = [whole_number(length) for length in counts]
        if any(type(length) is not int or not 0 <= length < 2**31 for length in counts):
            raise ValueError("have an entry that is not a run length")
        return np.array(counts, np.int64)
    if type(counts) is not str:
        raise ValueError(f"are neither a list nor a string: {_shown(counts)}")
    # pycocotools' format (maskApi.c): 5 bits per character, least significant first; bit 32 marks continuation, and bit 16 of
    # the last character is the sign. From the fourth run on, the value is the difference to the run two before.
    codes = np.frombuffer(counts.encode("utf-8", "replace"), np.uint8).astype(np.int64) - 48
    if not len(codes):
        raise ValueError("are an empty string")
    if codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise ValueError("are a string that is truncated or not written by pycocotools")
    ends = np.flatnonzero(codes & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if (ends - starts).max() > 6:       # over 35 bits, more pixels than any image has
        raise ValueError("have a number with too many digits")
    shifts = 5 * (np.arange(len(codes)) - np.repeat(starts, ends - starts + 1))
    values = np.add.reduceat((codes & 31) << shifts, starts)
    values -= (codes[ends] >> 4 & 1) << (5 * (ends - starts + 1))
    for first in (1, 2):
        values[first::2] = np.cumsum(values[first::2])
    return values


def _compress(lengths: np.ndarray, size: list[int]) -> str:
    from pycocotools import mask as mask_utils

    return mask_utils.frPyObjects({"size": size, "counts": lengths.tolist()}, *size)["counts"].decode()


def encode_masks(masks: list[Any]) -> bytes:
    """Encode the masks of an image's objects as a record stores them."""
    return _encode(masks).encode()


def most_bytes(segmentations: Iterable[Any]) -> int:
    """Return an upper bound of the length of `encode_masks`, for any annotations; a bounded number takes up to 25 bytes."""
    return 2 + sum(map(_most_bytes, segmentations))


def _most_bytes(segmentation: Any) -> int:
    if type(segmentation) is list:
        return 3 + sum(3 + 25 * len(polygon) for polygon in segmentation if type(polygon) is list)
    counts: Any = segmentation.get("counts") if type(segmentation) is dict else None
    return 96 + 14 * len(counts) if type(counts) in (str, list) else 8      # up to 7 characters, which JSON may escape as 2 each
