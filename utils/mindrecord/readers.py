"""Read a data set of any format."""
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional, Union

from .errors import DataError, Problem, counted
from .format import Format
from .formats import all_formats, find_format
from .formats.coco import read_content
from .image_files import inspect, read_image
from .records import Annotations, ImageRecord, check_classes, clip_objects, is_dropped, pack_arrays, records_to_coco
from .splitting import Split, take_side

AnyPath = Union[str, os.PathLike[str]]
Classes = Optional[Sequence[str]]
Sizes = Mapping[int, tuple[int, int]]       # image id -> height, width


def read_annotations(source: str, image_dir: AnyPath, anno_path: AnyPath, classes: Classes = None,
                     image_set: Optional[str] = None,
                     split: Optional[Split] = None) -> tuple[list[ImageRecord], list[dict[str, Any]], list[Problem]]:
    """Read the annotations of a data set and return (records, categories, problems).

    Args:
        source: name of a format in formats/.
        image_dir: folder of the images; "" = locate it from the annotations. Formats with fractional boxes or without sizes
            read the images.
        anno_path: annotation file or folder, depending on the format.
        classes: names with "background" first, so that the index is the label; None = all classes of the source, in the order
            of their ids or names.
        image_set: the images to read, for formats with image lists.
        split: the side of a train/val split to read.

    Unusable objects and images are left out and listed in `problems`.

    Raises:
        DataError: a problem is fatal, or no image is usable.
    """
    found = read_source(source, image_dir, anno_path, classes, image_set, split)
    refuse_fatal(found.problems)
    if not found.records:
        raise nothing_left(anno_path, found.problems)
    return found.records, found.categories, found.problems


def read_source(source: str, image_dir: AnyPath, anno_path: AnyPath, classes: Classes = None,
                image_set: Optional[str] = None, split: Optional[Split] = None) -> Annotations:
    """Read the annotations like `read_annotations`, but return fatal problems among the others instead of raising."""
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
    """Return the objects that a conversion keeps as COCO ground truth. Arguments as for `read_annotations`.

    image_dir is not needed for formats that have `ground_truth`.

    Args:
        sizes: {image id: (height, width)} of the images, which replace the annotated sizes. A box outside the image is left
            out; a box that extends beyond it is kept as annotated, as pycocotools scores it.
        problems: list that receives what was left out and why.
        exif_orientation: one of EXIF_RULES. Without `sizes`, it decides which size YOLO's fractions refer to.
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
    """Clean COCO ground truth in memory as `read_ground_truth` cleans a file. origin: its name in messages."""
    found = read_content(origin, content)
    pack_arrays(found.records)
    problems += found.problems
    if not found.records:
        raise nothing_left(origin, found.problems)
    return records_to_coco(found.records, found.categories)


def _stored_sizes(records: Iterable[ImageRecord], image_dir: Path) -> dict[int, tuple[int, int]]:
    """Return the stored sizes of images annotated in fractions; their reader has already opened all of them."""
    infos = {record.image_id: inspect(read_image(image_dir / record.file_name)) for record in records if record.fractions}
    return {image_id: (info.height, info.width) for image_id, info in infos.items()}


def _take_size(record: ImageRecord, height: int, width: int) -> list[Problem]:
    """Set the record's size to that of the image, drop objects outside it, and return what was dropped."""
    record.take_size(height, width)
    stay, _, problems = clip_objects(record, height, width)
    if not isinstance(stay, slice) and len(stay) < len(record.labels):
        record.keep(stay)
    return [problem for problem in problems if is_dropped(problem)]


def source_digest(source: str, anno_path: AnyPath, image_set: Optional[str] = None) -> str:
    """Return a hash of the annotation files without parsing them."""
    return find_format(source).digest(Path(anno_path), image_set or None)


def check_paths(source: str, image_dir: AnyPath, anno_path: AnyPath, image_set: Optional[str] = None) -> tuple[Path, Path]:
    """Return (image_dir, anno_path) as Path; DataError names the one that is missing."""
    entry = find_format(source)
    if image_set and not entry.image_set:
        names = ", ".join(name for name, other in all_formats().items() if other.image_set)
        raise DataError(f"image_set: {source} has no image sets; only {names} have them")
    if not image_dir and anno_path and entry.find_images:
        _check_annotations(entry, Path(anno_path))
        image_dir = entry.find_images(Path(anno_path), image_set or None)
    for name, value in (("image_dir", image_dir), ("anno_path", anno_path)):
        if not value:
            raise DataError(f"{name} is required")
    image_dir, anno_path = Path(image_dir), Path(anno_path)
    if not image_dir.is_dir():
        raise DataError(f"image_dir: {_missing(image_dir, 'folder')}")
    _check_annotations(entry, anno_path)
    return image_dir, anno_path


def _check_annotations(entry: Format, path: Path) -> None:
    """Raise DataError, saying what anno_path should be, if it does not exist."""
    kind = {None: "file or folder", True: "folder", False: "file"}[entry.anno_is_folder]
    there = {None: path.exists, True: path.is_dir, False: path.is_file}[entry.anno_is_folder]
    if not there():
        expected = "" if entry.anno_is_folder is False else f" ({entry.name}: the {entry.anno})"
        raise DataError(f"anno_path: {_missing(path, kind)}{expected}")


def check_source(source: str, masks: bool = False) -> None:
    """Raise DataError if the format is unknown, or lacks masks that are requested."""
    entry = find_format(source)
    if masks and not entry.masks:
        names = [name for name, other in all_formats().items() if other.masks]
        have = "has" if len(names) == 1 else "have"
        raise DataError(f"masks: {source} has boxes only; {', '.join(names)} {have} masks")


def _missing(path: Path, kind: str) -> str:
    return f"{path} is not a {kind}" if path.exists() else f"no such {kind}: {path}"


def refuse_fatal(problems: Iterable[Problem]) -> None:
    """Raise DataError with the first fatal problem, if there is one."""
    fatal = [problem for problem in problems if problem.fatal]
    if fatal:
        more = f" (and {len(fatal) - 1} more such)" if len(fatal) > 1 else ""
        raise DataError(f"{fatal[0]}{more}")


def nothing_left(anno_path: AnyPath, problems: Sequence[Problem]) -> DataError:
    """Return the error that no image is usable, with the first reason."""
    reason = f": {problems[0]}" if problems else ""
    more = f" (and {counted(len(problems) - 1, 'more problem')})" if len(problems) > 1 else ""
    return DataError(f"{anno_path}: no usable image{reason}{more}")
