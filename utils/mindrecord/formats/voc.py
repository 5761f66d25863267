"""Read Pascal VOC annotations: a folder with one XML file per image, and optionally a list that selects some of them.

The list is a file, or NAME for ImageSets/Main/NAME.txt beside the folder.
"""
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Optional, Union
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException

from ..errors import (
    BAD_OBJECT,
    BAD_XML,
    MISSING_IMAGE,
    MISSING_XML,
    OTHER_NAME,
    TAKEN_IMAGE,
    DataError,
    Problem,
    no_class,
)
from ..file_names import EXTENSIONS, LONGEST, NameFinder, without_extension
from ..format import Format, Layout, decode_text
from ..records import Annotations, ImageRecord, ObjectList, choose_classes, named_categories
from ..values import flag, side
from ..values import number as read_number
from ._finding import find_voc

ENCODING = re.compile(rb"\s*<\?xml[^>]*?\sencoding\s*=\s*[\"']([\w.:-]+)[\"'][^>]*>")
SIDES = ("xmin", "ymin", "xmax", "ymax")


def digest(path: Path, image_set: Optional[str] = None) -> str:
    """Return a hash of the XML files and of the list that selects them."""
    return _read_all(path, image_set, [])[1]


def read(image_dir: Path, path: Path, classes: Optional[list[str]] = None, image_set: Optional[str] = None) -> Annotations:
    """Read the folder; image ids are 1, 2, ... in the order of the file names."""
    problems: list[Problem] = []
    files, digest_of_all = _read_all(path, image_set, problems)
    parsed = []
    for name, data in files:
        try:
            parsed.append((name, _parse(data)))
        except _XmlError as error:
            problems.append(Problem(str(path / name), error.place, str(error), BAD_XML))
    found = {item.name for _, image in parsed for item in image.objects if item.name}
    classes = choose_classes(path, classes, found)
    labels = {name: label for label, name in enumerate(classes) if label}
    finder = ImageFinder(image_dir)
    records = [_record(number, path / name, image, labels, finder, problems)
               for number, (name, image) in enumerate(parsed, 1)]
    return Annotations([record for record in records if record], named_categories(classes[1:]), problems, digest_of_all)


def _read_all(path: Path, image_set: Optional[str], problems: list[Problem]) -> tuple[list[tuple[str, bytes]], str]:
    """Return ([(name, bytes)] sorted by name, hash of them all)."""
    try:
        names = sorted(entry.name for entry in os.scandir(path) if entry.name.lower().endswith(".xml") and entry.is_file())
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}: expected a folder of XML files") from error
    if not names:
        raise DataError(f"{path}: holds no XML file")
    total = hashlib.sha256()
    if image_set:
        names = _chosen(path, Path(image_set), names, problems, total)
    files = []
    for name in names:
        data = (path / name).read_bytes()
        total.update(f"{name}\0{len(data)}\0".encode(errors="surrogateescape") + data)
        files.append((name, data))
    return files, total.hexdigest()


def _chosen(path: Path, image_set: Path, names: list[str], problems: list[Problem], total: "hashlib._Hash") -> list[str]:
    """Return the XML files that the list names."""
    if not image_set.is_file():
        beside = path.parent / "ImageSets" / "Main" / f"{image_set}.txt"
        if image_set.name != str(image_set) or not beside.is_file():
            raise DataError(f"{image_set}: no such list of images, and no {beside}")
        image_set = beside
    data = image_set.read_bytes()
    total.update(data)
    present = {Path(name).stem: name for name in names}
    chosen = []
    for number, line in enumerate(decode_text(image_set, data, "surrogateescape").splitlines(), 1):
        if not line.strip():
            continue
        stem = next((stem for stem in _stems(line) if stem in present), None)
        if stem is not None:
            chosen.append(present[stem])
        else:
            what = f"{path} holds no {without_extension(line.split()[0])}.xml"
            problems.append(Problem(f"{image_set}:{number}", "", what, MISSING_XML))
    if not chosen:
        raise DataError(f"{image_set}: names no XML file of {path}")
    return sorted(set(chosen))


def lists_beside(path: Path) -> list[str]:
    """Return the names of the lists in ImageSets/Main beside the folder of XML files."""
    return sorted(file.stem for file in (path.parent / "ImageSets" / "Main").glob("*.txt"))


def _stems(line: str) -> Iterator[str]:
    """Yield the stems of XML files that a line of a list may mean, most likely first.

    A line is a name, which may hold spaces; the path of an image or XML file; both paths, separated by a space; or, in a list for
    one class, a name followed by 1, 0 or -1.
    """
    words = line.split()
    parts = [line]
    if len(line) > LONGEST:
        return
    if words[-1] in ("1", "0", "-1"):
        parts.append(line.rsplit(None, 1)[0])
    pairs = [(line.split(None, count)[-1], line.rsplit(None, len(words) - count)[0]) for count in range(1, len(words))]
    parts += [part for pair in pairs for part in pair if without_extension(part) != part]
    for part in parts:
        name = part.strip().replace("\\", "/").rsplit("/", 1)[-1]
        yield name
        yield without_extension(name)


class _XmlError(Exception):
    def __init__(self, what: str, place: str = ""):
        super().__init__(what)
        self.place = place


class _Image:
    """The content of one XML file."""

    def __init__(self, root: Element):
        self.file_name = (root.findtext("filename") or "").strip()
        self.height, self.width = (side(root.findtext(f"size/{name}")) or None for name in ("height", "width"))
        self.objects = [_Object(node) for node in root.findall("object")]


class _Object:
    def __init__(self, node: Element):
        self.name = (node.findtext("name") or "").strip()
        self.texts = [(node.findtext(f"bndbox/{side}") or "").strip() for side in SIDES]
        # findtext reads the node's own text only, so stray text between nodes is ignored.
        self.difficult = flag(node.findtext("difficult")) == 1

    def box(self) -> Union[list[float], str]:
        """Return [x1, y1, x2, y2], or a text saying what is wrong."""
        if not self.name:
            return "has no name"
        box = []
        for name, text in zip(SIDES, self.texts):
            value = read_number(text)
            if value is None:
                return f"{name} {text!r} is not a number" if text else f"has no {name}"
            box.append(value)
        return box


def _parse(data: bytes) -> _Image:
    try:
        root = _root(data)
    except ParseError as error:
        line, column = error.position
        raise _XmlError(f"not valid XML: {str(error).split(':')[0]}", f"line {line}, column {column + 1}") from error
    except DefusedXmlException as error:
        raise _XmlError(f"refused because it declares entities: {type(error).__name__}") from error
    except (ValueError, LookupError) as error:     # the declared encoding is unknown or does not match
        raise _XmlError(f"not valid XML: {error}") from error
    if root.tag != "annotation":
        raise _XmlError(f"the root is <{root.tag}>, expected <annotation>")
    return _Image(root)


def _root(data: bytes) -> Element:
    try:
        return defusedxml.ElementTree.fromstring(data)
    except ValueError:
        # The parser refuses multi-byte encodings such as GBK, which Python can decode.
        declared = ENCODING.match(data)
        if declared is None:
            raise
        return defusedxml.ElementTree.fromstring(data[declared.end():].decode(declared[1].decode()))


def file_name_of(data: bytes) -> str:
    """Return the <filename> of an XML file, or "" if it is missing or the file cannot be parsed."""
    try:
        return _parse(data).file_name
    except _XmlError:
        return ""


class ImageFinder:
    """Finds the image of an XML file: the image of the same name, or else the image that <filename> names.

    Images and XML files are often renamed together, which leaves a stale <filename>.
    """

    def __init__(self, image_dir: Path):
        self.top: set[str] = set()
        self.by_stem: dict[str, str] = {}
        self.taken: dict[str, str] = {}
        rank = {extension: number for number, extension in enumerate(EXTENSIONS)}
        for entry in os.scandir(image_dir):
            stem, extension = os.path.splitext(entry.name)
            self.top.add(entry.name)
            if extension.lower() in rank:
                known = self.by_stem.get(stem)
                if known is None or rank[extension.lower()] < rank[os.path.splitext(known)[1].lower()]:
                    self.by_stem[stem] = entry.name
        self.image_dir = image_dir
        self.names = NameFinder(image_dir)

    def find(self, file_name: str, stem: str) -> Optional[str]:
        """Return the image's name, or None if there is no image."""
        named = self.names.find(file_name)
        if named not in self.top and not ("/" in named and (self.image_dir / named).is_file()):
            return self.by_stem.get(stem)
        return named if same_stem(named, stem) else self.by_stem.get(stem, named)


def same_stem(file_name: str, stem: str) -> bool:
    """Return whether <filename> names the image with the stem of the XML file."""
    name = file_name.replace("\\", "/").rsplit("/", 1)[-1]
    return stem in (name, without_extension(name))


def _record(image_id: int, xml: Path, image: _Image, labels: dict[str, int], finder: ImageFinder,
            problems: list[Problem]) -> Optional[ImageRecord]:
    name = finder.find(image.file_name, xml.stem)
    if name is None:
        named = f"{image.file_name!r} or called {xml.stem}" if image.file_name else f"called {xml.stem}"
        problems.append(Problem(str(xml), "", f"{finder.image_dir} holds no image {named}", MISSING_IMAGE))
        return None
    if image.file_name and same_stem(name, xml.stem) and not same_stem(image.file_name, xml.stem):
        problems.append(Problem(str(xml), "filename", f"is {image.file_name!r}, but the image is {name}", OTHER_NAME))
    if name in finder.taken:
        what = f"{name} is also the image of {finder.taken[name]}"
        problems.append(Problem(str(xml), "filename", what, TAKEN_IMAGE))
    finder.taken.setdefault(name, xml.name)
    found = ObjectList()
    for number, item in enumerate(image.objects, 1):
        box = item.box()
        label = labels.get(item.name)
        fault: Optional[tuple[str, str]]
        if isinstance(box, str):
            fault = BAD_OBJECT, box
        elif label is None:
            fault = no_class(item.name)
        else:
            fault = found.add(box, label, 0, number, difficult=item.difficult)
        if fault:
            problems.append(Problem(str(xml), f"object {number}", fault[1], fault[0]))
    return found.record(name, image_id, image.height, image.width, str(xml), "object")


def _layout(config: Mapping[str, Any], train: bool) -> tuple[str, str]:
    return "JPEGImages", "Annotations"


FORMAT = Format(
    "voc", "Pascal VOC XML", "folder of XML files", read, digest, anno_is_folder=True,
    image_set="list of images, or the name of one in ImageSets/Main", layout=Layout("voc_root", _layout, separate_sets=False),
    find=find_voc, lists=lists_beside, revision=2)
