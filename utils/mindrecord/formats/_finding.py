"""Detect data sets in the formats of the old zoo in a folder: COCO, Pascal VOC and text."""
import codecs
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Optional

from ..errors import DataError
from ..file_names import NameFinder
from ..format import Place, read_bytes, read_head

LINE = re.compile(r"\S.*?\s+-?[\d.]+,-?[\d.]+,-?[\d.]+,-?[\d.]+,[^,\s]+(,[01])?(\s|$)")
LOOKED_AT = 5       # files inspected per kind
HEAD = 65536        # bytes read of a file
LINE_HEAD = 2000    # characters of a line; matching LINE takes quadratic time in runs of spaces


def find_coco(folder: Path) -> list[Place]:
    """Return a place for each COCO file in a folder, in its annotations/ and in the other folders below it."""
    places = []
    for path in [*sorted(folder.glob("*.json")), *sorted(folder.glob("*/*.json"))]:
        try:
            content = json.loads(read_bytes(path))
            names = [item["file_name"].replace("\\", "/") for item in content["images"]]
            is_coco = isinstance(content["annotations"], list) and isinstance(content["categories"], list)
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
            continue
        if is_coco and names:
            images = _holding(names[:LOOKED_AT], [path.parent, folder, *_inner(folder), *_inner(folder / "images")])
            places.append(Place(images or folder, path))
    return places


def find_voc(folder: Path) -> list[Place]:
    """Return the place of VOC XML files: the folder itself or one directly below it."""
    for annotations in (folder / "Annotations", folder / "annotations", folder, *_inner(folder)):
        files = sorted(annotations.glob("*.xml"))[:LOOKED_AT] if annotations.is_dir() else []
        if any("<annotation" in _head(path) and "<annotations" not in _head(path) for path in files):
            stems = {path.stem for path in annotations.glob("*.xml")}
            places = [folder / "JPEGImages", folder / "images", annotations, folder, *_inner(folder)]
            images = next((place for place in places if place.is_dir() and _has_image_of(place, stems)), None)
            return [Place(images or folder, annotations)]
    return []


def find_txt(folder: Path) -> list[Place]:
    """Return a place for each text file with one image per line."""
    places = []
    for path in sorted(folder.glob("*.txt")):
        lines = [line[:LINE_HEAD] for line in _head(path).splitlines() if line.strip() and line[0] != "#"]
        if lines and LINE.match(lines[0]):
            names = [re.split(r"\s+-?[\d.]+,", line)[0] for line in lines[:LOOKED_AT]]
            places.append(Place(_holding(names, [folder, *_inner(folder)]) or folder, path))
    return places


def _head(path: Path) -> str:
    try:
        data = read_head(path, HEAD)
    except DataError:
        return ""
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if wide else "utf-8-sig", "replace")


def _inner(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _holding(names: list[str], folders: Iterable[Path]) -> Optional[Path]:
    """Return the first folder that holds one of the files; failing that, one that does if leading folders are dropped."""
    folders = list(folders)
    exact = (folder for folder in folders if any((folder / name).is_file() for name in names))
    finders = ((folder, NameFinder(folder)) for folder in folders)
    shorter = (folder for folder, finder in finders if any((folder / finder.find(name)).is_file() for name in names))
    return next(exact, None) or next(shorter, None)


def _has_image_of(folder: Path, stems: set[str]) -> bool:
    others = (".xml", ".txt", ".json")
    return any(path.stem in stems and path.suffix.lower() not in others and path.is_file() for path in folder.iterdir())
