"""Read several COCO files as one data set: all JSON files of a folder, or those that image_set names.

Categories are matched by name. Entries of the same image in several files are merged. Images are searched in image_dir, then beside
the file that annotates them.
"""
import fnmatch
import hashlib
import os
from pathlib import Path
from typing import Any, Optional

from ..errors import TWICE, DataError, Problem, no_class
from ..file_names import NameFinder
from ..format import Format, digest_of, read_bytes
from ..records import BACKGROUND, Annotations, ImageRecord, named_categories, no_overlap
from . import coco

# The per-object columns of a record.
COLUMNS = ("boxes", "labels", "crowds", "areas", "segmentations", "places", "difficult")


def digest(path: Path, image_set: Optional[str] = None) -> str:
    """Return a hash of all files that are read."""
    total = hashlib.sha256()
    for file in _files(path, image_set):
        total.update(f"{os.path.relpath(file, path)}\0{digest_of(read_bytes(file))}\n".encode(errors="surrogateescape"))
    return total.hexdigest()


def read(image_dir: Path, path: Path, classes: Optional[list[str]] = None, image_set: Optional[str] = None) -> Annotations:
    """Read the files; image ids are 1, 2, ... in the order of the files."""
    parts = [(file, coco.read(image_dir, file)) for file in _files(path, image_set)]
    found = list(dict.fromkeys(item["name"] for _, part in parts for item in part.categories))
    if classes is None:
        classes = [BACKGROUND, *(name for name in found if name != BACKGROUND)]
    elif not set(found) & set(classes[1:]):
        raise no_overlap(path, classes, found)
    labels = {name: label for label, name in enumerate(classes) if label}
    records: dict[str, ImageRecord] = {}
    problems: list[Problem] = []
    for file, part in parts:
        problems += part.problems
        names = {item["label"]: item["name"] for item in part.categories}
        beside = NameFinder(file.parent)
        for record in part.records:
            record.difficult = record.difficult or (False,) * len(record.labels)
            problems += _relabel(record, names, labels)
            record.file_name = _locate(record.file_name, beside, image_dir)
            if record.file_name in records:
                problems += _join(records[record.file_name], record)
            else:
                record.image_id = len(records) + 1
                records[record.file_name] = record
    return Annotations(list(records.values()), named_categories(classes[1:]), problems, digest(path, image_set))


def _relabel(record: ImageRecord, names: dict[int, str], labels: dict[str, int]) -> list[Problem]:
    """Assign the labels of the merged categories; objects of other classes are dropped and reported."""
    found = [labels.get(names[label]) for label in record.labels]
    problems = []
    for index, label in enumerate(record.labels):
        if found[index] is None:
            kind, what = no_class(names[label])
            problems.append(Problem(record.origin, record.place(index), what, kind))
    columns: Any = record       # still tuples here; pack_arrays converts them later
    columns.labels = found
    _keep(record, [index for index, label in enumerate(found) if label is not None])
    return problems


def _keep(record: ImageRecord, chosen: list[int]) -> None:
    for column in COLUMNS:
        values = getattr(record, column)
        setattr(record, column, tuple(values[index] for index in chosen) if values is not None else None)


def _files(path: Path, image_set: Optional[str]) -> list[Path]:
    """Return the JSON files in and below the folder that image_set selects."""
    files = sorted(file for file in path.rglob("*.json") if not file.name.startswith("."))
    if not files:
        raise DataError(f"{path}: holds no JSON file")
    if not image_set:
        return files
    patterns = [pattern.strip() for pattern in image_set.split(",") if pattern.strip()]
    chosen: dict[Path, None] = {}
    for pattern in patterns:
        matching = [file for file in files if any(fnmatch.fnmatch(name, pattern) for name in (
            file.name, file.stem, file.relative_to(path).as_posix()))]
        if not matching:
            raise DataError(f"image_set: {pattern!r} matches no JSON file of {path}: "
                            f"{', '.join(file.relative_to(path).as_posix() for file in files[:8])}")
        chosen.update(dict.fromkeys(matching))
    return list(chosen)


def _locate(name: str, beside: NameFinder, image_dir: Path) -> str:
    """Return the path of an image relative to image_dir. beside: finder for the folder of the annotation file."""
    if not (image_dir / name).is_file():
        place = os.path.join(beside.image_dir, beside.find(name))
        if os.path.isfile(place):
            return os.path.relpath(place, image_dir)
    return name


def _join(first: ImageRecord, other: ImageRecord) -> list[Problem]:
    """Merge the objects that another file has for the same image; duplicates are reported."""
    known = set(zip(map(tuple, first.boxes), first.labels))
    problems, new = [], []
    for index, key in enumerate(zip(map(tuple, other.boxes), other.labels)):
        if key in known:
            what = f"same box and category of {other.file_name} as in {first.origin}"
            problems.append(Problem(other.origin, other.place(index), what, TWICE))
        else:
            new.append(index)
    other.places = tuple(f"{place} of {other.origin}" for place in other.places)
    _keep(other, new)
    for column in COLUMNS:
        mine, more = getattr(first, column), getattr(other, column)
        setattr(first, column, (*mine, *more) if mine is not None and more is not None else None)
    return problems


def find_images(anno_path: Path, image_set: Optional[str]) -> Path:
    """Return the folder of the JSON files."""
    return anno_path


FORMAT = Format("coco_files", "COCO JSON, several files", "folder of JSON files", read, digest, anno_is_folder=True, masks=True,
                image_set="names of JSON files in anno_path, such as a.json,b.json or train_*", find_images=find_images)
