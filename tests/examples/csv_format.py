"""Read boxes from a CSV file: the header `image,x1,y1,x2,y2,class`, then one row per box, in pixels."""
import csv
import io
from pathlib import Path
from typing import Optional

from ..errors import BAD_LINE, DataError, Problem, unknown_category
from ..format import Format, decode_text, digest_of, read_bytes
from ..records import Annotations, ObjectList, choose_classes, named_categories

COLUMNS = ["image", "x1", "y1", "x2", "y2", "class"]


def read(image_dir: Path, anno_path: Path, classes: Optional[list[str]] = None, image_set: Optional[str] = None) -> Annotations:
    """Read the file; image ids are 1, 2, ... in order of first occurrence."""
    data = read_bytes(anno_path)
    problems: list[Problem] = []
    boxes = _boxes(anno_path, decode_text(anno_path, data), problems)
    classes = choose_classes(anno_path, classes, {category for *_, category in boxes})
    images: dict[str, ObjectList] = {}
    for line, name, box, category in boxes:
        objects = images.setdefault(name, ObjectList())
        if category in classes[1:]:
            fault = objects.add(box, classes.index(category), crowd=0, place=line)
        else:
            fault = unknown_category(category), f"category {category!r} is not one of the classes"
        if fault:   # only this object is dropped
            problems.append(Problem(str(anno_path), f"line {line}", what=fault[1], kind=fault[0]))
    records = [objects.record(name, image_id, height=None, width=None, origin=str(anno_path), place_word="line")
               for image_id, (name, objects) in enumerate(images.items(), 1)]
    return Annotations(records, named_categories(classes[1:]), problems, digest_of(data))


def _boxes(path: Path, text: str, problems: list[Problem]) -> list[tuple[int, str, list[float], str]]:
    """Return (line, image, box, class) of each row. A malformed row is a fatal problem: nothing is converted."""
    rows, boxes = csv.reader(io.StringIO(text), strict=True), []
    try:
        if next(rows, None) != COLUMNS:
            raise DataError(f"{path}: line 1: expected the header {','.join(COLUMNS)}")
        for row in filter(None, rows):
            try:
                name, x1, y1, x2, y2, category = row
                boxes.append((rows.line_num, name, [float(side) for side in (x1, y1, x2, y2)], category))
            except ValueError as error:
                what = f"{','.join(row)!r} is not {','.join(COLUMNS)}: {error}"
                problems.append(Problem(str(path), f"line {rows.line_num}", what, BAD_LINE, fatal=True))
    except csv.Error as error:
        raise DataError(f"{path}: line {rows.line_num}: {error}") from error
    return boxes


FORMAT = Format(name="csv", title="CSV", anno="CSV file", read=read)
