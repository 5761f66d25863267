"""Locate the images and label files of a YOLO data set: by data.yaml, darknet's .data file, or folders of labels and images."""
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from ...yaml_text import TextLoader, YamlError, read_mapping, shown
from ..errors import DataError
from ..file_names import EXTENSIONS, NameFinder
from ..format import decode_text, read_bytes
from ..values import whole_number

SETS = ("train", "val", "test")
OTHER_NAMES = {"valid": "val", "validation": "val"}
DESCRIPTIONS = (".yaml", ".yml", ".data")
CLASS_FILES = ("classes.txt", "obj.names")
# Text files that tools store beside the labels.
NO_LABELS = {"classes.txt", "train.txt", "val.txt", "valid.txt", "test.txt", "notes.txt", "readme.txt"}


@dataclass
class YoloSet:
    """The images with their label files, which may be missing."""

    images: list[tuple[Path, Path]]
    names: Optional[list[str]]              # of classes 0, 1, ...; None if nothing names them
    where: Path                             # the file or folder that lists the images
    keypoints: bool = False                 # each line has key points after the box
    read: list[Path] = field(default_factory=list)      # files read besides the labels
    labels: list[Path] = field(default_factory=list)    # all label files

    def digest(self) -> str:
        """Return a hash of all files but the images, and of the image names if a file lists them."""
        total, root = hashlib.sha256(), self.where if self.where.is_dir() else self.where.parent
        listed = [] if self.where.is_dir() else [image for image, _ in self.images]
        for path in listed:
            total.update(f"{os.path.relpath(path, root)}\0".encode(errors="surrogateescape"))
        for path in (*self.read, *self.labels):
            data = read_bytes(path)
            total.update(f"{os.path.relpath(path, root)}\0{len(data)}\0".encode(errors="surrogateescape") + data)
        return total.hexdigest()


@dataclass
class Description:
    """The content of data.yaml or a .data file."""

    path: Path
    root: Path
    sets: dict[str, list[str]]
    names: Optional[list[str]]
    keypoints: bool
    read: list[Path]

    def choose(self, image_set: Optional[str]) -> list[str]:
        """Return the names of the sets to read: the requested set, or all.

        Many exports name a test set that does not exist; it is then left out.
        """
        if image_set is None:
            return [name for name in self.sets if name != "test" or self._holds_test()] or list(self.sets)
        name = OTHER_NAMES.get(image_set, image_set)
        if name not in self.sets:
            raise DataError(f"{self.path}: has no set {image_set!r}; it has {', '.join(self.sets)}")
        return [name]

    def _holds_test(self) -> bool:
        try:
            return bool([self.locate("test", entry) for entry in self.sets["test"]])
        except DataError:
            return False

    def locate(self, name: str, entry: str) -> Path:
        """Return the folder or list that an entry of set `name` refers to."""
        text = entry.replace("\\", "/")
        parts = [text, text.removeprefix("../")]                # Roboflow's paths start one folder too high
        if self.path.suffix == ".data":
            parts.append(text.partition("/")[2])                # darknet's start with the folder of the data set
        for part in filter(None, parts):
            for folder in (self.root, self.path.parent):
                place = folder / Path(part).expanduser()
                if place.exists():
                    return Path(os.path.normpath(place))
        raise DataError(f"{self.path}: {name}: no such folder or list of images: {entry}")


def description_of(anno_path: Path) -> Optional[Path]:
    """Return the file that describes the data set: anno_path itself or one in that folder; None if there is none."""
    if anno_path.is_file():
        return anno_path
    if not anno_path.is_dir():
        return None
    usual = [anno_path / name for name in ("data.yaml", "data.yml", "dataset.yaml", "obj.data")]
    return next((path for path in usual if path.is_file()), None)


def open_set(anno_path: Path, image_set: Optional[str], image_dir: Optional[Path] = None) -> YoloSet:
    """Return the images of a data set; DataError if its description or folders are unusable."""
    path = description_of(anno_path)
    if path is None:
        return _from_folder(anno_path, image_set, image_dir)
    found = read_description(path)
    result = YoloSet([], found.names, path, found.keypoints, found.read)
    images: dict[Path, None] = {}
    for name in found.choose(image_set):
        for entry in found.sets[name]:
            place = found.locate(name, entry)
            images.update(dict.fromkeys(walk(place) if place.is_dir() else _listed(place, found.root, result.read)))
            if place.is_dir():
                result.labels += _label_files(_beside(place, "images", "labels") or place)
    if not images:
        raise DataError(f"{path}: its sets ({', '.join(found.choose(image_set))}) contain no image")
    result.images = [(image, label_of(image)) for image in images]
    paired = [label for _, label in result.images if label.is_file()]
    result.labels = sorted({*result.labels, *paired})
    return result


def read_description(path: Path) -> Description:
    """Read data.yaml or a .data file."""
    text = decode_text(path, read_bytes(path))
    content = _data_file(text) if path.suffix == ".data" else _yaml_file(path, text)
    content = {OTHER_NAMES.get(key, key): value for key, value in content.items()}
    sets = {name: _texts(path, name, content[name]) for name in SETS if content.get(name)}
    if not sets:
        raise DataError(f"{path}: names no images: expected train, val or test, found {shown(', '.join(content)) or 'no key'}")
    root = path.parent / Path(_text(content.get("path")) or ".").expanduser()
    read = [path]
    root = root if root.is_dir() else path.parent       # the file comes from another machine
    names = content.get("names")
    result = Description(path, root, sets, None, bool(content.get("kpt_shape")), read)
    if path.suffix == ".data" and isinstance(names, str):
        file = result.locate("names", names)
        read.append(file)
        names = [line.strip() for line in decode_text(file, read_bytes(file)).splitlines() if line.strip()]
    result.names = _names(path, names, content.get("nc"))
    return result


def _yaml_file(path: Path, text: str) -> dict[str, Any]:
    try:
        items, _ = read_mapping(text, TextLoader)
    except YamlError as error:
        expected = " with train, val and names" if str(error).startswith("expected") else ""
        raise DataError(f"{path}{f':{error.line}' if error.line else ''}: {error}{expected}") from error
    return {item.key: item.value for item in items}


def _data_file(text: str) -> dict[str, Any]:
    """Parse the `key = value` lines of darknet."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _texts(path: Path, name: str, value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str) for item in values):
        raise DataError(f"{path}: {name}: expected a path or a list of paths")
    return values


def _names(path: Path, names: Any, count: Any) -> Optional[list[str]]:
    """Return the names of the classes 0, 1, ...; None if neither names nor their number are given."""
    if isinstance(names, dict):
        expected = f"{path}: names: expected `0: name`, `1: name` and so on"
        numbered: dict[int, str] = {}
        for key, name in names.items():
            number = whole_number(key)
            if number is None:
                raise DataError(f"{expected}: {key!r} is not a whole number")
            numbered[number] = name if isinstance(name, str) else shown(name)
        if min(numbered, default=0) < 0 or max(numbered, default=0) > 99999:
            raise DataError(f"{expected}, got {min(numbered)} to {max(numbered)}")
        names = [numbered.get(number, str(number)) for number in range(max(numbered, default=-1) + 1)]
    if not isinstance(names, list) or not names:
        if names:
            raise DataError(f"{path}: names: expected a list of class names, got {shown(names)!r}")
        number = whole_number(count)
        return None if number is None or not 0 < number <= 99999 else [str(index) for index in range(number)]
    names = [name if isinstance(name, str) else shown(name) for name in names]
    if count and whole_number(count) != len(names):
        raise DataError(f"{path}: nc is {shown(count)}, but names has {len(names)} classes")
    twice = next((name for name, times in Counter(names).items() if times > 1), None)
    if twice is not None:
        raise DataError(f"{path}: names: {twice!r} is given twice")
    return names


def _listed(path: Path, root: Path, read: list[Path]) -> Iterator[Path]:
    """Yield the images that a list names, or the path itself if it is an image."""
    if path.suffix.lower() in EXTENSIONS:
        yield path
        return
    read.append(path)
    finders = [(folder, NameFinder(folder)) for folder in (path.parent, root)]
    for line in decode_text(path, read_bytes(path)).splitlines():
        name = line.strip().replace("\\", "/")
        if not name:
            continue
        places = [folder / finder.find(name) for folder, finder in finders]
        yield Path(os.path.normpath(next((place for place in places if place.is_file()), places[0])))


def _from_folder(anno_path: Path, image_set: Optional[str], image_dir: Optional[Path]) -> YoloSet:
    """Return the images for a folder of labels, or for a folder that holds images/ and labels/."""
    labels, images = folders(anno_path, image_set, image_dir)
    if not labels.is_dir():
        raise DataError(f"{anno_path}: has no set {image_set!r}: no such folder: {labels}")
    if not images.is_dir():
        raise DataError(f"image_dir: no such folder: {images}")
    named = next((folder / name for folder in (labels, *list(labels.parents)[:2], images) for name in CLASS_FILES
                  if (folder / name).is_file()), None)
    names = None
    if named:
        lines = [line.strip() for line in decode_text(named, read_bytes(named)).splitlines()]
        names = _names(named, [line for line in lines if line], None)
    pairs = [(image, labels / image.relative_to(images).with_suffix(".txt")) for image in walk(images)]
    if not pairs:
        raise DataError(f"{images}: contains no image ({', '.join(EXTENSIONS)})")
    return YoloSet(pairs, names, labels, read=[named] if named else [], labels=_label_files(labels))


def folders(anno_path: Path, image_set: Optional[str], image_dir: Optional[Path] = None) -> tuple[Path, Path]:
    """Return the folders of labels and of images."""
    labels = anno_path
    if (anno_path / "labels").is_dir() and (anno_path / "images").is_dir():
        labels, image_dir = anno_path / "labels", image_dir or anno_path / "images"
    images = image_dir or _beside(labels, "labels", "images") or labels
    if image_set:
        labels = labels / image_set
        images = images / image_set if (images / image_set).is_dir() else images
    return labels, images


def _beside(path: Path, old: str, new: str) -> Optional[Path]:
    """Return the path with its last folder `old` replaced by `new`; None if that does not exist."""
    parts = list(path.parts)
    for index in range(len(parts) - 1, -1, -1):
        if parts[index] == old:
            place = Path(*parts[:index], new, *parts[index + 1:])
            return place if place.exists() else None
    return None


def label_of(image: Path) -> Path:
    """Return the label file of an image: beside it, or below labels/ if the image is below images/."""
    label = image.with_suffix(".txt")
    below = _beside(label.parent, "images", "labels")
    return below / label.name if below and not label.is_file() else label


def walk(folder: Path) -> list[Path]:
    """Return all images below a folder, sorted."""
    return sorted(path for path in _files(folder) if path.suffix.lower() in EXTENSIONS)


def _label_files(folder: Path) -> list[Path]:
    return sorted(path for path in _files(folder)
                  if path.suffix == ".txt" and path.name.lower() not in NO_LABELS and path.is_file())


def _files(folder: Path) -> Iterable[Path]:
    for here, _, names in os.walk(folder, followlinks=True):
        yield from (Path(here) / name for name in names if not name.startswith("."))
