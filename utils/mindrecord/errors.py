"""Errors of data sets: a `DataError` ends the command with one line; a `Problem` is dropped, counted and reported."""
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..files import printable
from ..yaml_text import shown

LONGEST = 5000      # characters of each part of a message; paths have up to 4096


class DataError(ValueError):
    """A fault of the data or of the arguments that nothing can work around; the message is one line naming file and place."""

    user_error = True


@dataclass(frozen=True)
class Problem:
    """One fault in the data; `str()` gives "file: place: what". Counted by `kind`; a fatal one ends in a DataError."""

    file: str
    place: str
    what: str
    kind: str
    fatal: bool = False

    def __str__(self) -> str:
        parts = (part if len(part) <= LONGEST else f"{part[:LONGEST]}..." for part in (self.file, self.place, self.what) if part)
        # One printable line, regardless of the characters in a file name or a library's message.
        return printable(" ".join(": ".join(parts).split()))


NO_FILE = "not a regular file"      # FIFOs, devices and folders are never opened

# Kinds of problems. A problem with an image drops the image, one with a box drops the object.
MISSING_IMAGE = "missing image"
UNREADABLE_IMAGE = "unreadable image"
TRUNCATED_IMAGE = "truncated image"
LARGE_IMAGE = "image too large"
UNDECODABLE, NAMED = (UNREADABLE_IMAGE, TRUNCATED_IMAGE, LARGE_IMAGE), 100       # up to 100 of each are listed
OTHER_SIZE = "size differs from the annotation"
STORED = "EXIF orientation not applied"
DARK = "16-bit image that uses few bits"
TAKEN_IMAGE = "image named by two annotation files"
REPEATED_IMAGE = "image named by two image entries"
OTHER_NAME = "annotation file and its image are named differently"
BAD_VALUE = "value not usable"
BAD_IMAGE = "image entry not usable"
BAD_XML = "XML not usable"
BAD_JSON = "JSON not usable"
MISSING_XML = "no annotation file"
BAD_LINE = "line not usable"
BAD_OBJECT = "object not usable"
TWICE = "duplicate object"
UNKNOWN_IMAGE = "annotation of an unknown image"
NOT_FINITE = "box with a non-finite number"
NO_AREA = "box without area"
OUTSIDE = "box outside the image"
CLIPPED = "box partly outside the image"
# A problem with a mask drops the polygon, and the object if no polygon is left.
NO_MASK = "object without segmentation"
EMPTY_MASK = "empty segmentation"
UNUSABLE_MASK = "segmentation not usable"
TEXT_POLYGON = "polygon with a value that is not a number"
ODD_POLYGON = "polygon with an odd number of coordinates"
SHORT_POLYGON = "polygon of fewer than 3 points"
OUTSIDE_POLYGON = "polygon outside the image"
FLAT_POLYGON = "polygon without area"
BROKEN_RLE = "broken RLE"
OTHER_RLE_SIZE = "RLE size differs from the image"
NAME = 200      # characters of a name in a message
# Problems that drop neither image nor object, and what happens instead.
KEPT_KINDS = {
    OTHER_SIZE: "the image's own size is used", TAKEN_IMAGE: "kept", REPEATED_IMAGE: "kept", CLIPPED: "clipped",
    OTHER_NAME: "the image with the annotation file's name is used", BAD_VALUE: "ignored", DARK: "kept, and dark",
    STORED: "the annotations have the size of the stored image; for inference, set exif_orientation: ignore",
}


def unknown_category(name: object) -> str:
    """Return the kind of problem for a category without a label."""
    return f"unknown category {_quoted(name)}"


def no_class(name: object) -> tuple[str, str]:
    """Return (kind, what) of the problem that a category has no label."""
    return unknown_category(name), f"category {_quoted(name)} is not one of the classes"


def _quoted(name: object) -> str:
    """Quote a name, shortened since many objects may repeat it."""
    return repr(name if len(name) <= NAME else f"{name[:NAME - 3]}...") if isinstance(name, str) else shown(name)


def counted(number: int, noun: str) -> str:
    """Format a number with its noun: "1 image", "2 images", "2 classes", "2 boxes"."""
    plural = "" if number == 1 else "es" if noun.endswith(("s", "x", "ch", "sh")) else "s"
    return f"{number} {noun}{plural}"


def count_kinds(problems: Iterable[Problem]) -> dict[str, int]:
    """Return {kind: count}, most frequent first."""
    counts: dict[str, int] = {}
    for problem in problems:
        counts[problem.kind] = counts.get(problem.kind, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def warn_of(problems: Sequence[Problem], log: logging.Logger, examples: int = 3) -> None:
    """Log one warning per kind with its count and a few examples; images that do not decode are listed up to NAMED."""
    first: dict[str, list[Problem]] = {}
    for problem in problems:
        first.setdefault(problem.kind, [])
        if len(first[problem.kind]) < (NAMED if problem.kind in UNDECODABLE else examples):
            first[problem.kind].append(problem)
    for kind, count in count_kinds(problems).items():
        log.warning("%d x %s: %s", count, kind, KEPT_KINDS.get(kind, "dropped"))
        for problem in first[kind]:
            log.warning("    %s", problem)
        if count > len(first[kind]):
            log.warning("    ... and %d more; utils/mindrecord/check.py lists them all", count - len(first[kind]))
