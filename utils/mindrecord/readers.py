"""One way to read all sources, whatever their format."""
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional, Union

from .errors import DataError, Problem
from .format import Format
from .formats import all_formats, find_format
from .formats.coco import read_content
from .pictures import inspect, read_picture
from .records import Annotations, ImageRecord, check_classes, clip_objects, is_dropped, pack_arrays, records_to_coco
from .splitting import Split, take_side

AnyPath = Union[str, os.PathLike[str]]
Classes = Optional[Sequence[str]]
Sizes = Mapping[int, tuple[int, int]]       # image id -> height, width


def read_annotations(source: str, image_dir: AnyPath, anno_path: AnyPath, classes: Classes = None,
                     image_set: Optional[str] = None,
                     split: Optional[Split] = None) -> tuple[list[ImageRecord], list[dict[str, Any]], list[Problem]]:
    """Return (records, categories, problems).

    Args:
        source: name of a format, see formats/.
        image_dir: the folder of images; "" = where the annotations say. Formats in which boxes are fractions, or sizes are
            missing, look into the images.
        anno_path: the annotations, a file or a folder as the format has it.
        classes: names with "background" first, label = index; None = all that the source has, in the order of their ids
            or names.
        image_set: the images to take, for a format that has such lists.
        split: the side of them to take.

    Objects and images that cannot be used are left out and listed in `problems`. DataError: nothing is left.
    """
    found = read_source(source, image_dir, anno_path, classes, image_set, split)
    refuse_fatal(found.problems)
    if not found.records:
        raise nothing_left(anno_path, found.problems)
    return found.records, found.categories, found.problems


def read_source(source: str, image_dir: AnyPath, anno_path: AnyPath, classes: Classes = None,
                image_set: Optional[str] = None, split: Optional[Split] = None) -> Annotations:
    """As `read_annotations`, with fatal problems among the others: for those who want them all."""
    image_dir, anno_path = check_paths(source, image_dir, anno_path, image_set)
    found = find_format(source).read(image_dir, anno_path, check_classes(classes), image_set or None)
    if split:
        found.records = take_side(found.records, image_dir, split)
    pack_arrays(found.records)
    return found


def read_ground_truth(source: str, image_dir: AnyPath, anno_path: AnyPath, classes: Classes = None,
                      image_set: Optional[str] = None, sizes: Optional[Sizes] = None,
                      problems: Optional[list[Problem]] = None, split: Optional[Split] = None,
                      exif_orientation: str = "auto") -> dict[str, Any]:
    """Return COCO ground truth of the objects that a conversion keeps; arguments as for `read_annotations`.

    If the annotations can be scored against without the images, image_dir is not needed.

    Args:
        sizes: {image id: (height, width)} of the images themselves. They replace those of the annotations, and a box that lies
            outside the image is left out. One that reaches out of it stays as annotated, as pycocotools scores it.
        problems: a list to add to, what was left out and why.
        exif_orientation: one of EXIF_RULES; without `sizes` it says which size the fractions of YOLO are of.
    """
    own = find_format(source).ground_truth
    if own and not split:
        found = own(Path(anno_path), check_classes(classes))
        pack_arrays(found.records)
    else:
        found = read_source(source, image_dir, anno_path, classes, image_set, split)
        if exif_orientation == "ignore" and not sizes:
            sizes = _stored_sizes(found.records, check_paths(source, image_dir, anno_path, image_set)[0])
    refuse_fatal(found.problems)
    if not found.records:
        raise nothing_left(anno_path, found.problems)
    left_out = list(found.problems)
    for record in found.records:
        if sizes and record.image_id in sizes:
            left_out += _take_size(record, *sizes[record.image_id])
    if problems is not None:
        problems += left_out
    return records_to_coco(found.records, found.categories)


def clean_content(origin: str, content: Mapping[str, Any], problems: list[Problem]) -> dict[str, Any]:
    """Return COCO ground truth in memory as `read_ground_truth` returns that of a file; origin: what messages call it."""
    found = read_content(origin, content)
    pack_arrays(found.records)
    problems += found.problems
    if not found.records:
        raise nothing_left(origin, found.problems)
    return records_to_coco(found.records, found.categories)


def _stored_sizes(records: Iterable[ImageRecord], image_dir: Path) -> dict[int, tuple[int, int]]:
    """The sizes of images as they are stored, of those annotated in fractions; their reader has found all of them readable."""
    pictures = {record.image_id: inspect(read_picture(image_dir / record.file_name)) for record in records if record.fractions}
    return {image_id: (picture.height, picture.width) for image_id, picture in pictures.items()}


def _take_size(record: ImageRecord, height: int, width: int) -> list[Problem]:
    """Give a record the size of the image itself, and leave out what lies outside it."""
    record.take_size(height, width)
    stay, _, problems = clip_objects(record, height, width)
    if not isinstance(stay, slice) and len(stay) < len(record.labels):
        record.keep(stay)
    return [problem for problem in problems if is_dropped(problem)]


def source_digest(source: str, anno_path: AnyPath, image_set: Optional[str] = None) -> str:
    """Return a hash of the annotation files, without parsing them."""
    return find_format(source).digest(Path(anno_path), image_set or None)


def check_paths(source: str, image_dir: AnyPath, anno_path: AnyPath, image_set: Optional[str] = None) -> tuple[Path, Path]:
    """Return (image_dir, anno_path) as Path; DataError that names what is missing."""
    entry = find_format(source)
    if image_set and not entry.image_set:
        names = ", ".join(name for name, other in all_formats().items() if other.image_set)
        raise DataError(f"image_set: is for {names}, not for {source}")
    if not image_dir and anno_path and entry.find_images:
        _check_annotations(entry, Path(anno_path))
        image_dir = entry.find_images(Path(anno_path), image_set or None)
    for name, value in (("image_dir", image_dir), ("anno_path", anno_path)):
        if not value:
            raise DataError(f"{name}: is not given")
    image_dir, anno_path = Path(image_dir), Path(anno_path)
    if not image_dir.is_dir():
        raise DataError(f"image_dir: {_missing(image_dir, 'folder')}")
    _check_annotations(entry, anno_path)
    return image_dir, anno_path


def _check_annotations(entry: Format, path: Path) -> None:
    """DataError that says what anno_path should be."""
    kind = {None: "file or folder", True: "folder", False: "file"}[entry.anno_is_folder]
    there = {None: path.exists, True: path.is_dir, False: path.is_file}[entry.anno_is_folder]
    if not there():
        expected = "" if entry.anno_is_folder is False else f" ({entry.name}: the {entry.anno})"
        raise DataError(f"anno_path: {_missing(path, kind)}{expected}")


def check_source(source: str, masks: bool = False) -> None:
    """DataError unless there is a format of this name, and it has masks if these are asked for."""
    entry = find_format(source)
    if masks and not entry.masks:
        names = [name for name, other in all_formats().items() if other.masks]
        have = "has" if len(names) == 1 else "have"
        raise DataError(f"masks: only {', '.join(names)} {have} them, {source} has boxes alone")


def _missing(path: Path, kind: str) -> str:
    return f"{path} is not a {kind}" if path.exists() else f"no such {kind}: {path}"


def refuse_fatal(problems: Iterable[Problem]) -> None:
    """DataError with the first fatal problem, if there is one."""
    fatal = [problem for problem in problems if problem.fatal]
    if fatal:
        more = f" (and {len(fatal) - 1} more such)" if len(fatal) > 1 else ""
        raise DataError(f"{fatal[0]}{more}")


def nothing_left(anno_path: AnyPath, problems: Sequence[Problem]) -> DataError:
    """Return the error that no image can be used, with the first reason."""
    reason = f": {problems[0]}" if problems else ""
    more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
    return DataError(f"{anno_path}: no usable image{reason}{more}")
