"""Read annotations from text, one image per line: `PATH x1,y1,x2,y2,class[,crowd] x1,y1,x2,y2,class[,crowd] ...`.

A line without boxes is an image without objects. Empty lines and lines that start with # are skipped. Several lines of one
image are merged, since some tools write a line per box. A class is a label (1, 2, ...) or, if classes are given, a class name.
"""
import re
from pathlib import Path
from typing import Any, NamedTuple, Optional

from ...yaml_text import shown
from ..errors import BAD_LINE, DataError, Problem, unknown_category
from ..file_names import NameFinder, ends_as_image
from ..format import Format, decode_text, digest_of, read_bytes
from ..records import Annotations, ImageRecord, ObjectList, named_categories, no_overlap
from ..values import flag, whole_number
from ..values import number as read_number
from ._finding import find_txt

MOST_LABELS = 9999      # if no classes are given; a larger number is not taken for a label
FORM = "x1,y1,x2,y2,class[,crowd]"


class _Line(NamedTuple):
    number: int
    name: str           # of the image
    boxes: list[tuple[int, int, list[float], int]]      # (number in the line, label, four floats, crowd)


def read(image_dir: Path, path: Path, classes: Optional[list[str]] = None, image_set: Optional[str] = None) -> Annotations:
    """Read the file; image ids are 1, 2, ... in order of first occurrence. Without `classes`, labels serve as names."""
    data = read_bytes(path)
    problems: list[Problem] = []
    finder = NameFinder(image_dir)
    lines: list[_Line] = []
    by_name = {name: label for label, name in enumerate(classes or ())}
    for number, text in enumerate(decode_text(path, data).split("\n"), 1):
        if text.strip() and not text.lstrip().startswith("#"):
            name, words = _split(text)
            lines.append(_Line(number, finder.find(name), _boxes(path, number, words, by_name, problems)))
    if not lines:
        raise DataError(f"{path}: no line names an image")
    labels = {box[1] for line in lines for box in line.boxes}
    if classes is None:
        labels = {label for label in labels if label <= MOST_LABELS}
        classes = ["background", *(str(label) for label in range(1, max(labels, default=0) + 1))]
    elif labels and not any(0 < label < len(classes) for label in labels):
        raise no_overlap(path, classes, map(str, labels))
    images: dict[str, list[_Line]] = {}
    for line in lines:
        images.setdefault(line.name, []).append(line)
    records = [_record(path, image_id, own, len(classes), problems) for image_id, own in enumerate(images.values(), 1)]
    return Annotations(records, named_categories(classes[1:]), problems, digest_of(data))


def _record(path: Path, image_id: int, lines: list[_Line], count: int, problems: list[Problem]) -> ImageRecord:
    """Return the record of the image that all lines name. count: of the classes, with the background."""
    found = ObjectList()
    for line in lines:
        for number, label, box, crowd in line.boxes:
            place: Any = number if len(lines) == 1 else f"{line.number}, box {number}"
            if 0 < label < count:
                fault = found.add(box, label, crowd, place)
            else:
                what = "is the background" if label == 0 else f"is not one of the classes (1 to {count - 1})"
                fault = unknown_category(str(label)), f"class {label} {what}"
            if fault:
                problems.append(Problem(f"{path}:{line.number}", f"box {number}", fault[1], fault[0]))
    if len(lines) == 1:
        return found.record(lines[0].name, image_id, None, None, f"{path}:{lines[0].number}", "box")
    return found.record(lines[0].name, image_id, None, None, str(path), "line")


def _split(line: str) -> tuple[str, list[str]]:
    """Split a line into (path, words of the boxes). The path may hold spaces; it ends at the last word with an image extension.

    If no word has such an extension, the boxes start at the first word that is a number or has a comma.
    """
    words = list(re.finditer(r"\S+", line))
    ends = [word.end() for word in words if ends_as_image(word.group())]
    if ends:
        return line[:ends[-1]].strip(), line[ends[-1]:].split()
    for word in words[1:]:
        if "," in word.group() or read_number(word.group()) is not None:
            return line[:word.start()].strip(), line[word.start():].split()
    return line.strip(), []


def _boxes(path: Path, line: int, words: list[str], classes: dict[str, int],
           problems: list[Problem]) -> list[tuple[int, int, list[float], int]]:
    """Return [(number, label, four floats, crowd)]. A malformed word is fatal, since the file is then in another format."""
    boxes = []
    for number, word in enumerate(words, 1):
        try:
            boxes.append((number, *_box(word, classes)))
        except _WordError as error:
            what = f"box {number} {shown(word)!r} {error}, expected {FORM}"
            problems.append(Problem(f"{path}:{line}", "", what, BAD_LINE, fatal=True))
    return boxes


class _WordError(Exception):
    pass


def _box(word: str, classes: dict[str, int]) -> tuple[int, list[float], int]:
    parts = word.split(",")
    if not 5 <= len(parts) <= 6:
        raise _WordError(f"has {len(parts)} number{'s' if len(parts) > 1 else ''}")
    box = [_number(part) for part in parts[:4]]
    label: Optional[int]
    if parts[4] in classes:
        label = classes[parts[4]]
    else:
        label = whole_number(parts[4])
        if label is None:
            _number(parts[4])
            raise _WordError(f"has the class {parts[4]}, which is not an integer")
    crowd = 0 if len(parts) == 5 else flag(parts[5]) if parts[5] else None
    if crowd is None:
        raise _WordError(f"has the crowd flag {parts[5]}, which is neither 0 nor 1")
    return label, box, crowd


def _number(text: str) -> float:
    found = read_number(text)
    if found is None:
        raise _WordError(f"has {shown(text)!r}, which is not a number")
    return found


FORMAT = Format("other", "text", "text file", read, find=find_txt, revision=2)
