"""Reads annotations from text: a line a picture, `PATH x1,y1,x2,y2,class[,crowd] x1,y1,x2,y2,class[,crowd] ...`.

A line without boxes is a picture without objects; empty lines and those that start with # are passed over. A class is
a label (1, 2, ...) or, where classes are given, one of their names.
"""
import re
from pathlib import Path
from typing import Optional

from ..errors import BAD_LINE, DataError, Problem, unknown_category
from ..format import Format, decode_text, digest_of, read_bytes
from ..records import Annotations, ObjectList, named_categories, no_overlap
from ._finding import find_txt

MOST_LABELS = 9999      # where no classes are given; a larger number is no label
FORM = "x1,y1,x2,y2,class[,crowd]"


def read(image_dir: Path, path: Path, classes: Optional[list[str]] = None, image_set: Optional[str] = None) -> Annotations:
    """Read the file; image ids are 1, 2, ... in the order of the lines. Without `classes` their labels are their names."""
    data = read_bytes(path)
    problems: list[Problem] = []
    lines = []
    for number, line in enumerate(decode_text(path, data).split("\n"), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            lines.append((number, *_split(line)))
    if not lines:
        raise DataError(f"{path}: no line names a picture")
    parsed = [(number, name, _boxes(path, number, words, classes, problems)) for number, name, words in lines]
    labels = {box[1] for _, _, boxes in parsed for box in boxes}
    if classes is None:
        labels = {label for label in labels if label <= MOST_LABELS}
        classes = ["background", *(str(label) for label in range(1, max(labels, default=0) + 1))]
    elif labels and not any(0 < label < len(classes) for label in labels):
        raise no_overlap(path, classes, map(str, labels))
    records = []
    for image_id, (number, name, boxes) in enumerate(parsed, 1):
        origin, found = f"{path}:{number}", ObjectList()
        for place, label, box, crowd in boxes:
            if 0 < label < len(classes):
                fault = found.add(box, label, crowd, place)
            else:
                what = "is the background" if label == 0 else f"is none of the classes (1 to {len(classes) - 1})"
                fault = unknown_category(str(label)), f"class {label} {what}"
            if fault:
                problems.append(Problem(origin, f"box {place}", fault[1], fault[0]))
        records.append(found.record(name, image_id, None, None, origin, "box"))
    return Annotations(records, named_categories(classes[1:]), problems, digest_of(data))


def _split(line: str) -> tuple[str, list[str]]:
    """(path, words of the boxes). A path may hold spaces: the boxes start where a word has a comma, or is a number."""
    words = list(re.finditer(r"\S+", line))
    for word in words[1:]:
        if "," in word.group() or _is_number(word.group()):
            return line[:word.start()].strip(), line[word.start():].split()
    return line.strip(), []


def _boxes(path: Path, line: int, words: list[str], classes: Optional[list[str]],
           problems: list[Problem]) -> list[tuple[int, int, list[float], int]]:
    """[(number, label, four floats, crowd)]. A word of another form is fatal: the file is not what it was taken for."""
    boxes = []
    for number, word in enumerate(words, 1):
        try:
            boxes.append((number, *_box(word, classes)))
        except _WordError as error:
            what = f"box {number} {word!r} {error}, expected {FORM}"
            problems.append(Problem(f"{path}:{line}", "", what, BAD_LINE, fatal=True))
    return boxes


class _WordError(Exception):
    pass


def _box(word: str, classes: Optional[list[str]]) -> tuple[int, list[float], int]:
    parts = word.split(",")
    if not 5 <= len(parts) <= 6:
        raise _WordError(f"has {len(parts)} number{'s' if len(parts) > 1 else ''}")
    box = [_number(part) for part in parts[:4]]
    label: float
    if classes and parts[4] in classes:
        label = classes.index(parts[4])
    else:
        label = _number(parts[4])
        if label != label or label in (float("inf"), float("-inf")) or label != int(label):
            raise _WordError(f"has the class {parts[4]}, which is not an integer")
    crowd = _number(parts[5]) if len(parts) == 6 else 0
    if crowd not in (0, 1):
        raise _WordError(f"has the crowd flag {parts[5]}, which is neither 0 nor 1")
    return int(label), box, int(crowd)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise _WordError(f"has {text!r}, which is not a number") from None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


FORMAT = Format("other", "text", "text file", read, find=find_txt)
