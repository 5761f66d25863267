"""Read YOLO annotations: one text file per image, one line per object, in fractions of the image's sides.

    CLASS CENTRE_X CENTRE_Y WIDTH HEIGHT            a box; classes count from 0
    CLASS X1 Y1 X2 Y2 X3 Y3 ...                     a polygon, which gives box and mask
    CLASS CENTRE_X CENTRE_Y WIDTH HEIGHT X Y ...    with kpt_shape in data.yaml: a box with key points, which are ignored

A data set is described by data.yaml or darknet's obj.data, and image_set selects from its train, val and test; or it is a folder of
labels and a folder of images. An image without a label file has no objects.
"""
import math
import os
from pathlib import Path
from typing import Any, NamedTuple, Optional

from ..errors import BAD_LINE, MISSING_IMAGE, TWICE, DataError, Problem, no_class, unknown_category
from ..format import Format, Place, decode_text, read_bytes
from ..image_files import ImageError
from ..records import BACKGROUND, Annotations, ImageRecord, ObjectList, named_categories, no_overlap
from ..values import number as read_number
from ._shapes import area_of, box_of, flat, image_size
from ._yolo_sets import DESCRIPTIONS, YoloSet, description_of, folders, open_set, read_description, walk

FARTHEST = 1.0      # a value this far outside of 0..1 cannot be a fraction
MOST_CLASSES = 9999     # if nothing names the classes


def digest(path: Path, image_set: Optional[str] = None) -> str:
    """Return a hash of the description, the lists and the label files."""
    return open_set(path, image_set).digest()


def read(image_dir: Path, path: Path, classes: Optional[list[str]] = None, image_set: Optional[str] = None) -> Annotations:
    """Read the labels; image ids are 1, 2, ... in the order of the lists and file names."""
    found = open_set(path, image_set, image_dir)
    problems: list[Problem] = []
    parsed = [(image, _parse(label, found.keypoints, problems)) for image, label in found.images if label.is_file()]
    if not parsed:
        raise DataError(f"{path}: none of the {len(found.images)} images has a label file: {found.images[0][1]} does not exist")
    problems += _stray(found, image_dir)
    rows = dict(parsed)
    used = {row.number for lines in rows.values() for row in lines}
    names, classes = _classes(path, found.names, classes, used)
    by_name = {name: label for label, name in enumerate(classes) if label}
    labels = {number: by_name[name] for number, name in enumerate(names) if name in by_name}
    records = []
    for image_id, (image, label) in enumerate(found.images, 1):
        record = _record(image_id, image, label, rows.get(image, []), image_dir, labels, names, problems)
        if record:
            records.append(record)
    return Annotations(records, named_categories(classes[1:]), problems, found.digest())


class _Row(NamedTuple):
    """A line of a label file, in fractions of the image's sides."""

    line: int
    number: int                             # class, from 0
    box: Optional[tuple[float, ...]]        # centre x, centre y, width, height
    polygon: list[tuple[float, float]]      # of an object without `box`


def _parse(path: Path, keypoints: bool, problems: list[Problem]) -> list[_Row]:
    """Return the usable lines of a label file."""
    rows: list[_Row] = []
    seen: dict[Any, int] = {}      # object -> line
    for line, text in enumerate(decode_text(path, read_bytes(path)).splitlines(), 1):
        words = tuple(text.split())
        if not words:
            continue
        try:
            row = _row(line, words, keypoints)
        except ValueError as error:
            problems.append(Problem(str(path), f"line {line}", str(error), BAD_LINE))
            continue
        first = seen.setdefault((row.number, row.box, *row.polygon), line)
        if first == line:
            rows.append(row)
        else:
            problems.append(Problem(str(path), f"line {line}", f"the same object as line {first}", TWICE))
    return rows


def _row(line: int, words: tuple[str, ...], keypoints: bool) -> _Row:
    """Parse a line; ValueError says what is wrong."""
    values = [_number(word) for word in words]
    number, rest = values[0], values[1:]
    if number != int(number) or number < 0:
        raise ValueError(f"class {words[0]} is not a whole number >= 0")
    box = len(rest) == 4 or (keypoints and len(rest) > 4)
    if not box and (len(rest) < 6 or len(rest) % 2):
        hint = "; a sixth value is the confidence in a detector's results" if len(rest) == 5 else ""
        raise ValueError(f"has {len(words)} values: expected class, centre x, centre y, width, height, or class and x, y of at "
                         f"least 3 points{hint}")
    wild = next((word for word, value in zip(words[1:5] if box else words[1:], rest) if abs(value - 0.5) >= 0.5 + FARTHEST), None)
    if wild is not None:
        raise ValueError(f"{wild} is not a fraction of the image's side: expected 0 to 1, not pixels")
    points = [] if box else list(zip(rest[::2], rest[1::2]))
    return _Row(line, int(number), tuple(rest[:4]) if box else None, points)


def _number(word: str) -> float:
    value = read_number(word)
    if value is None or not math.isfinite(value):
        raise ValueError(f"{word!r} is not a number")
    return value


def _classes(path: Path, names: Optional[list[str]], classes: Optional[list[str]], used: set[int]) -> tuple[list[str], list[str]]:
    """Return (the name of each class number, the classes with the background first)."""
    if names is None:       # nothing names the classes: use the requested names, else the numbers
        if classes is not None:
            return classes[1:], classes
        most = max((number for number in used if number <= MOST_CLASSES), default=-1)
        names = [str(number) for number in range(most + 1)]
    if classes is None:
        return names, [BACKGROUND, *(name for name in names if name != BACKGROUND)]
    if not set(names) & set(classes[1:]):
        raise no_overlap(path, classes, names)
    return names, classes


def _record(image_id: int, image: Path, label: Path, rows: list[_Row], image_dir: Path, labels: dict[int, int],
            names: list[str], problems: list[Problem]) -> Optional[ImageRecord]:
    name = os.path.relpath(image, image_dir)
    try:
        height, width = image_size(image)
    except ImageError as error:
        gone = not image.exists()
        problems.append(Problem(str(image), "", "no such image" if gone else str(error), MISSING_IMAGE if gone else error.kind))
        return None
    found = ObjectList()
    for row in rows:
        class_label = labels.get(row.number)
        if class_label is None:
            fault: Optional[tuple[str, str]] = _unknown(row.number, names)
        else:
            box, area, segmentation = _scaled(row, height, width)
            fault = found.add(box, class_label, 0, row.line, area, segmentation)
        if fault:
            problems.append(Problem(str(label), f"line {row.line}", fault[1], fault[0]))
    record = found.record(name, image_id, height, width, str(label), "line", with_coco=True)
    record.fractions = True
    return record


def _unknown(number: int, names: list[str]) -> tuple[str, str]:
    if number < len(names):
        return no_class(names[number])
    return unknown_category(str(number)), f"class {number} has no name: the names are those of classes 0 to {len(names) - 1}"


def _scaled(row: _Row, height: int, width: int) -> tuple[list[float], Optional[float], Any]:
    """Return (box, area, segmentation) in pixels."""
    if row.box:
        x, y, w, h = row.box
        return [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height], None, None
    points = [(x * width, y * height) for x, y in row.polygon]
    return box_of(points), area_of(points), [flat(points)]


def _stray(found: YoloSet, image_dir: Path) -> list[Problem]:
    """Return a problem for each label file without an image."""
    known = {label for _, label in found.images}
    return [Problem(str(label), "", f"no image of this name in {image_dir}", MISSING_IMAGE)
            for label in found.labels if label not in known]


def find_images(anno_path: Path, image_set: Optional[str]) -> Path:
    """Return the folder of a set's images: the set's folder if it has just one, else the root of the data set."""
    path = description_of(anno_path)
    if path is None:
        return folders(anno_path, image_set)[1]
    found = read_description(path)
    places = [found.locate(name, entry) for name in found.choose(image_set) for entry in found.sets[name]]
    return places[0] if len(places) == 1 and places[0].is_dir() else found.root


def default_set(anno_path: Path, train: bool) -> Optional[str]:
    """Return the set to train or evaluate on if none is named."""
    path = description_of(anno_path)
    if path is not None:
        return "train" if train else "val"
    labels, _ = folders(anno_path, None)
    names = ("train",) if train else ("val", "valid", "validation")
    return next((name for name in names if (labels / name).is_dir()), None)


def find(folder: Path) -> list[Place]:
    """Return the data sets that a folder describes, or the data set in it."""
    for path in sorted(path for path in folder.iterdir() if path.suffix in DESCRIPTIONS and path.is_file()):
        try:
            found = read_description(path)
        except DataError:
            continue
        return [Place(find_images(path, name), path, name) for name in found.choose(None)]
    labels, images = folders(folder, None)
    if not labels.is_dir() or not images.is_dir():
        return []
    label = next((path for path in sorted(labels.rglob("*.txt")) if path.name.lower() != "classes.txt"), None)
    if label is None or not walk(images):
        return []
    problems: list[Problem] = []
    return [Place(images, folder if labels != folder else labels)] if _parse(label, False, problems) else []


FORMAT = Format("yolo", "YOLO text", "data.yaml, or a folder of label files", read, digest, anno_is_folder=None, masks=True,
                image_set="train, val or test of data.yaml, or a folder of this name", find_images=find_images,
                default_set=default_set, find=find)
