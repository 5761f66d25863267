"""One way to read all sources: COCO JSON ("coco"), Pascal VOC XML ("voc"), text ("other")."""
from pathlib import Path

from . import coco, txt, voc
from .errors import DataError
from .records import Annotations, check_classes, pack_arrays

SOURCES = {"coco": coco, "voc": voc, "other": txt}


def read_annotations(source, image_dir, anno_path, classes=None, image_set=None) -> tuple:
    """(records, categories, problems).

    source: "coco", "voc" or "other". image_dir: the folder of pictures; anno_path: JSON file, folder of XML files,
    text file. classes: names with "background" first, label = index; None: all that the source has, in the order of
    their ids or names. image_set ("voc"): a list of pictures, or the name of one in ImageSets/Main.
    Pictures are not opened. Objects and images that cannot be used are left out, and told in `problems`; DataError
    where nothing is left.
    """
    found = read_source(source, image_dir, anno_path, classes, image_set)
    refuse_fatal(found.problems)
    if not found.records:
        raise nothing_left(anno_path, found.problems)
    return found.records, found.categories, found.problems


def read_source(source, image_dir, anno_path, classes=None, image_set=None) -> Annotations:
    """As `read_annotations`, with fatal problems among the others: for those who want them all."""
    image_dir, anno_path = check_paths(source, image_dir, anno_path, image_set)
    found = SOURCES[source].read(image_dir, anno_path, check_classes(classes), image_set or None)
    pack_arrays(found.records)
    return found


def source_digest(source, anno_path, image_set=None) -> str:
    """A hash of the annotation files, without making sense of them."""
    if source == "voc":
        return voc.digest(Path(anno_path), image_set or None)
    return SOURCES[source].digest(Path(anno_path))


def check_paths(source, image_dir, anno_path, image_set=None) -> tuple:
    """(image_dir, anno_path) as Path; DataError that names what is not there."""
    check_source(source)
    if image_set and source != "voc":
        raise DataError(f"image_set: is for voc, not for {source}")
    for name, value in (("image_dir", image_dir), ("anno_path", anno_path)):
        if not value:
            raise DataError(f"{name}: is not given")
    image_dir, anno_path = Path(image_dir), Path(anno_path)
    if not image_dir.is_dir():
        raise DataError(f"image_dir: {_missing(image_dir, 'folder')}")
    if source == "voc" and not anno_path.is_dir():
        raise DataError(f"anno_path: {_missing(anno_path, 'folder')} (voc: the folder of XML files)")
    if source != "voc" and not anno_path.is_file():
        raise DataError(f"anno_path: {_missing(anno_path, 'file')}")
    return image_dir, anno_path


def check_source(source, masks: bool = False) -> None:
    if source not in SOURCES:
        raise DataError(f"source: {source!r} is none of {', '.join(SOURCES)}")
    if masks and source != "coco":
        raise DataError(f"masks: only coco has them, {source} has boxes alone")


def _missing(path: Path, kind: str) -> str:
    return f"{path} is not a {kind}" if path.exists() else f"no such {kind}: {path}"


def refuse_fatal(problems) -> None:
    fatal = [problem for problem in problems if problem.fatal]
    if fatal:
        more = f" (and {len(fatal) - 1} more such)" if len(fatal) > 1 else ""
        raise DataError(f"{fatal[0]}{more}")


def nothing_left(anno_path, problems) -> DataError:
    """The error that no image can be used, with the first reason."""
    reason = f": {problems[0]}" if problems else ""
    more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
    return DataError(f"{anno_path}: no usable image{reason}{more}")
