"""What is wrong with a data set: `DataError` ends the work with one line, a `Problem` is dropped, counted and told."""
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..files import printable
from ..yaml_text import shown

LONGEST = 5000      # characters of a part of a message; paths have up to 4096


class DataError(ValueError):
    """A fault of the data or of the call that leaves nothing to go on with: one line with file, place and what."""

    user_error = True


@dataclass(frozen=True)
class Problem:
    """One fault in the data: `str()` is "file: place: what". Counted by `kind`; a fatal one raises DataError."""

    file: str
    place: str
    what: str
    kind: str
    fatal: bool = False

    def __str__(self) -> str:
        parts = (part if len(part) <= LONGEST else f"{part[:LONGEST]}..." for part in (self.file, self.place, self.what) if part)
        # One line that prints, whatever a file name or a message of a library holds.
        return printable(" ".join(": ".join(parts).split()))


NO_FILE = "is no regular file"      # a FIFO, a device, a folder: none of them is opened

# Kinds of problems. Those of pictures drop the image, those of boxes the object.
MISSING_PICTURE = "missing picture"
UNREADABLE_PICTURE = "unreadable picture"
TRUNCATED_PICTURE = "truncated picture"
LARGE_PICTURE = "picture too large"
UNDECODABLE, NAMED = (UNREADABLE_PICTURE, TRUNCATED_PICTURE, LARGE_PICTURE), 100       # of each of these so many are named
OTHER_SIZE = "size differs from the annotation"
STORED = "EXIF orientation not applied"
DARK = "16-bit image of few bits"
TAKEN_PICTURE = "picture of two annotation files"
REPEATED_PICTURE = "picture of two image entries"
OTHER_NAME = "annotation file and its image are named differently"
BAD_VALUE = "value not usable"
BAD_IMAGE = "image entry not usable"
BAD_XML = "XML not usable"
BAD_JSON = "JSON not usable"
MISSING_XML = "no annotation file"
BAD_LINE = "line not usable"
BAD_OBJECT = "object not usable"
TWICE = "object given twice"
UNKNOWN_IMAGE = "annotation of an unknown image"
NOT_FINITE = "box with a number that is not finite"
NO_AREA = "box without area"
OUTSIDE = "box outside the picture"
CLIPPED = "box partly outside the picture"
# Those of masks drop a polygon, and the object where none is left.
NO_MASK = "object without segmentation"
EMPTY_MASK = "empty segmentation"
UNUSABLE_MASK = "segmentation not usable"
TEXT_POLYGON = "polygon with what is no number"
ODD_POLYGON = "polygon with an odd number of coordinates"
SHORT_POLYGON = "polygon of fewer than 3 points"
OUTSIDE_POLYGON = "polygon outside the picture"
FLAT_POLYGON = "polygon without area"
BROKEN_RLE = "broken RLE"
OTHER_RLE_SIZE = "RLE of another size than the picture"
NAME = 200      # characters of a name in a message
# Problems that cost neither image nor object, and what happens instead.
KEPT_KINDS = {
    OTHER_SIZE: "the picture's own counts", TAKEN_PICTURE: "kept", REPEATED_PICTURE: "kept", CLIPPED: "clipped",
    OTHER_NAME: "the image that is called like the annotation file counts", BAD_VALUE: "passed over", DARK: "kept, and dark",
    STORED: "the annotations have the size of the stored image; for inference, set exif_orientation: ignore",
}


def unknown_category(name: object) -> str:
    """Kind of the problem that a category has no label."""
    return f"unknown category {_quoted(name)}"


def no_class(name: object) -> tuple[str, str]:
    """(kind, what) of the problem that a category has no label."""
    return unknown_category(name), f"category {_quoted(name)} is none of the classes"


def _quoted(name: object) -> str:
    """A name of any length, as many objects may have it."""
    return repr(name if len(name) <= NAME else f"{name[:NAME - 3]}...") if isinstance(name, str) else shown(name)


def count_kinds(problems: Iterable[Problem]) -> dict[str, int]:
    """{kind: count}, the most frequent first."""
    counts: dict[str, int] = {}
    for problem in problems:
        counts[problem.kind] = counts.get(problem.kind, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def warn_of(problems: Sequence[Problem], log: logging.Logger, examples: int = 3) -> None:
    """One warning per kind with its count, and the first few of the kind in full; of images that do not decode, many."""
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
