"""Read LabelMe annotations: a folder, searched recursively, with one JSON file per image.

Polygons, rectangles, circles and masks are objects with a box and a mask; shapes of the same label and group_id form one object.
The images lie beside the JSON files, or below image_dir in the same folders as the JSON files.
"""
import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy as np

from ...yaml_text import shown
from ..decoding import check_size
from ..errors import (
    BAD_JSON,
    BAD_OBJECT,
    BAD_VALUE,
    MISSING_IMAGE,
    MISSING_XML,
    OTHER_NAME,
    TAKEN_IMAGE,
    TWICE,
    DataError,
    Problem,
    no_class,
)
from ..file_names import EXTENSIONS, NameFinder
from ..format import Format, Place, decode_text, read_bytes
from ..image_files import ImageError
from ..records import HUGE, Annotations, ImageRecord, ObjectList, choose_classes, named_categories
from ..values import flag, numbers, short, side
from ._shapes import Point, area_of, box_of, circle_points, corners, flat, image_size, mask_pixels
from .voc import same_stem

# Labels of shapes that are not objects.
PASSED_OVER = frozenset(("__ignore__", "_background_"))


def digest(path: Path, image_set: Optional[str] = None) -> str:
    """Return a hash of the JSON files and of the list that selects them."""
    return _read_all(path, image_set, [])[1]


def read(image_dir: Path, path: Path, classes: Optional[list[str]] = None, image_set: Optional[str] = None) -> Annotations:
    """Read the folder; image ids are 1, 2, ... in the order of the file names."""
    problems: list[Problem] = []
    files, digest_of_all = _read_all(path, image_set, problems)
    parsed: list[tuple[str, dict[str, Any]]] = []
    for name, data in files:
        try:
            parsed.append((name, _parse(path / name, data)))
        except (ValueError, RecursionError) as error:
            problems.append(Problem(str(path / name), "", f"not a LabelMe file: {error}", BAD_JSON))
    if not parsed:
        raise DataError(f"{path}: holds no LabelMe file: {problems[0] if problems else 'no JSON'}")
    found = {shape["label"].strip() for _, content in parsed for shape in content["shapes"]
             if isinstance(shape, dict) and isinstance(shape.get("label"), str)}
    classes = choose_classes(path, classes, found - PASSED_OVER - {""})
    labels = {name: label for label, name in enumerate(classes) if label}
    taken: dict[str, str] = {}
    images = _Images(image_dir)
    records = []
    for image_id, (name, content) in enumerate(parsed, 1):
        image = images.find(path / name, Path(name), content.get("imagePath"), problems)
        if image is None:
            continue
        if image in taken:
            problems.append(Problem(str(path / name), "imagePath", f"{image} is also the image of {taken[image]}", TAKEN_IMAGE))
        taken.setdefault(image, name)
        records.append(_record(image_id, path / name, image, content, image_dir, labels, problems))
    return Annotations(records, named_categories(classes[1:]), problems, digest_of_all)


def _read_all(path: Path, image_set: Optional[str], problems: list[Problem]) -> tuple[list[tuple[str, bytes]], str]:
    """Return ([(name relative to the folder, bytes)] sorted by name, hash of them all)."""
    total = hashlib.sha256()
    names = sorted(os.path.relpath(os.path.join(here, file), path) for here, _, files in os.walk(path) for file in files
                   if file.lower().endswith(".json") and not file.startswith("."))
    if not names:
        raise DataError(f"{path}: holds no JSON file")
    if image_set and (path / image_set).is_dir():
        names = [name for name in names if Path(image_set) in Path(name).parents]
        if not names:
            raise DataError(f"{path / image_set}: holds no JSON file")
    elif image_set:
        names = _chosen(path, Path(image_set), names, problems, total)
    files = [(name, read_bytes(path / name)) for name in names]
    for name, data in files:
        total.update(f"{name}\0{len(data)}\0".encode(errors="surrogateescape") + data)
    return files, total.hexdigest()


def _chosen(path: Path, image_set: Path, names: list[str], problems: list[Problem], total: "hashlib._Hash") -> list[str]:
    """Return the JSON files that a list names, with or without their extensions."""
    if not image_set.is_file():
        raise DataError(f"{image_set}: no such list of images, and no folder {path / image_set}")
    data = read_bytes(image_set)
    total.update(data)
    present = {os.path.splitext(name)[0]: name for name in names}
    chosen = set()
    for number, line in enumerate(decode_text(image_set, data).splitlines(), 1):
        name = line.strip().replace("\\", "/")
        stem = next((stem for stem in (name, os.path.splitext(name)[0]) if stem in present), None)
        if stem:
            chosen.add(present[stem])
        elif name:
            problems.append(Problem(f"{image_set}:{number}", "", f"{path} holds no JSON file of {name}", MISSING_XML))
    if not chosen:
        raise DataError(f"{image_set}: names no JSON file of {path}")
    return sorted(chosen)


def _parse(path: Path, data: bytes) -> dict[str, Any]:
    content = json.loads(decode_text(path, data))
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        known = isinstance(content, dict) and {"images", "annotations", "categories"} <= set(content)
        raise ValueError(f"it has no list 'shapes'{'; it is a COCO file' if known else ''}")
    return content


class _Images:
    """Finds the image of a JSON file: the image of the same name, or else the image that imagePath names."""

    def __init__(self, image_dir: Path):
        self.image_dir = image_dir
        self.finders: dict[Path, NameFinder] = {}       # for each folder below image_dir

    def find(self, file: Path, name: Path, image_path: Any, problems: list[Problem]) -> Optional[str]:
        """Return the image relative to image_dir. name: of the JSON file relative to the folder; image_path: its imagePath."""
        image_path = image_path.replace("\\", "/") if isinstance(image_path, str) else ""
        folder = self.image_dir / name.parent
        finder = self.finders.setdefault(folder, NameFinder(folder))
        own = [f"{name.stem}{ending}" for extension in EXTENSIONS for ending in (extension, extension.upper())]
        named = [finder.find(image_path)] if image_path else []
        # If several images share the stem, imagePath decides.
        first = [image for image in named if same_stem(image, name.stem)]
        for image in (*first, *own, *named):
            if (folder / image).is_file():
                found = os.path.relpath(folder / image, self.image_dir)
                if image_path and not same_stem(image_path, name.stem):
                    problems.append(Problem(str(file), "imagePath", f"names {image_path!r}; {found} is used", OTHER_NAME))
                return found
        what = f"{self.image_dir} holds no image called {name.stem}" + (f" or {image_path!r}" if image_path else "")
        problems.append(Problem(str(file), "", what, MISSING_IMAGE))
        return None


_Size = tuple[Optional[int], Optional[int]]     # height and width


class _Part(NamedTuple):
    """The area that one shape covers."""

    box: list[float]
    area: float
    mask: Any               # vertices of a polygon, or RLE


def _record(image_id: int, file: Path, image: str, content: dict[str, Any], image_dir: Path, labels: dict[str, int],
            problems: list[Problem]) -> ImageRecord:
    annotated = _side(file, content, "imageHeight", problems), _side(file, content, "imageWidth", problems)
    size: _Size = annotated
    if None in annotated:
        try:
            size = image_size(image_dir / image)
        except ImageError:        # conversion reports the image
            size = None, None
    found = ObjectList()
    for place, label, parts, difficult in _objects(file, content["shapes"], labels, size, problems):
        boxes = np.array([part.box for part in parts])
        box = [*boxes[:, :2].min(0).tolist(), *boxes[:, 2:].max(0).tolist()]
        mask = parts[0].mask if isinstance(parts[0].mask, dict) else [flat(part.mask) for part in parts]
        fault = found.add(box, label, 0, place, sum(part.area for part in parts), mask, difficult)
        if fault:
            problems.append(Problem(str(file), f"shapes[{place}]", fault[1], fault[0]))
    return found.record(image, image_id, *annotated, str(file), "shape", with_coco=True)


def _objects(file: Path, shapes: list[Any], labels: dict[str, int], size: _Size,
             problems: list[Problem]) -> list[tuple[int, int, list[_Part], bool]]:
    """Return [(index of the first shape, label, parts, difficult)]; unusable shapes are reported."""
    objects: dict[Any, tuple[int, int, list[_Part], bool]] = {}
    seen: dict[str, int] = {}       # shape -> index
    for index, shape in enumerate(shapes):
        try:
            name = _name(shape)
            if name in PASSED_OVER:
                continue
            if name not in labels:
                kind, what = no_class(name)
                problems.append(Problem(str(file), f"shapes[{index}]", what, kind))
                continue
            part, group = _part(shape, size), shape.get("group_id")
            if not isinstance(group, (int, float, str, type(None))):
                raise ValueError(f"group_id {short(group)} is neither a number nor text")
            first = seen.setdefault(repr((name, group, part)), index)
            if first != index:
                problems.append(Problem(str(file), f"shapes[{index}]", f"the same object as shapes[{first}]", TWICE))
                continue
        except ValueError as error:
            problems.append(Problem(str(file), f"shapes[{index}]", str(error), BAD_OBJECT))
            continue
        # RLE cannot be merged with polygons, so a mask stays an object of its own.
        key = index if group is None or isinstance(part.mask, dict) else (name, str(group))
        objects.setdefault(key, (index, labels[name], [], flag(shape.get("difficult")) == 1))[2].append(part)
    return list(objects.values())


def _name(shape: Any) -> str:
    if not isinstance(shape, dict):
            raise ValueError("is not an object with label and points")
    name = shape.get("label")
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"label {shown(name)} is not a name")
    return name.strip()


def _part(shape: dict[str, Any], size: _Size) -> _Part:
    """Return the area that a shape covers; ValueError if it covers none."""
    kind = shape.get("shape_type") or "polygon"
    points = _points(shape.get("points"))
    if kind == "mask":
        return _mask(shape.get("mask"), points, *size)
    if kind == "circle":
        if len(points) != 2:
            raise ValueError(f"a circle needs 2 points, its centre and one on it, got {len(points)}")
        (x1, y1), (x2, y2) = points
        radius = ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5
        return _Part([x1 - radius, y1 - radius, x1 + radius, y1 + radius], np.pi * radius ** 2, circle_points(points[0], radius))
    if kind == "rectangle":
        if len(points) not in (2, 4):
            raise ValueError(f"a rectangle needs 2 or 4 corners, got {len(points)}")
        box = box_of(points)
        return _Part(box, area_of(corners(box)), corners(box))
    if kind not in ("polygon", "rotation"):
        raise ValueError(f"a {shown(kind)} has no area: expected polygon, rectangle, circle or mask")
    if len(points) < 3:
        raise ValueError(f"a polygon needs at least 3 points, got {len(points)}")
    return _Part(box_of(points), area_of(points), points)


def _points(points: Any) -> list[Point]:
    pairs = [numbers(point, 2) for point in points] if isinstance(points, list) else []
    found = [(pair[0], pair[1]) for pair in pairs if pair is not None]
    if not found or len(found) < len(pairs) or not all(-HUGE < value < HUGE for point in found for value in point):
        raise ValueError(f"points are not a list of pairs of numbers: {short(points)}")
    return found


def _mask(text: Any, points: list[Point], height: Optional[int], width: Optional[int]) -> _Part:
    """Return the area of a PNG mask placed between two corners."""
    from pycocotools import mask as mask_utils

    if not height or not width:
        raise ValueError("the size of the mask's image is unknown")
    check_size(height, width)
    pixels = mask_pixels(text, height, width)
    x, y = (int(value) for value in np.min(points, 0))
    if not (min(x, y) >= 0 and x + pixels.shape[1] <= width and y + pixels.shape[0] <= height):
        raise ValueError(f"mask of {pixels.shape[1]}x{pixels.shape[0]} at ({x}, {y}) lies outside the image of {width}x{height}")
    whole = np.zeros((height, width), np.uint8, order="F")
    whole[y:y + pixels.shape[0], x:x + pixels.shape[1]] = pixels > 0
    runs = mask_utils.encode(whole)
    x, y, w, h = mask_utils.toBbox(runs).tolist()
    return _Part([x, y, x + w, y + h], float(whole.sum()), {"size": [height, width], "counts": runs["counts"].decode()})


def _side(file: Path, content: dict[str, Any], key: str, problems: list[Problem]) -> Optional[int]:
    """Return height or width as annotated; None if missing or invalid."""
    value = side(content.get(key))
    if value is None:
        what = f"{short(content[key])} is not a valid image size; the image's own size is used"
        problems.append(Problem(str(file), key, what, BAD_VALUE))
    return value or None


def find_images(anno_path: Path, image_set: Optional[str]) -> Path:
    """Return the folder of the JSON files, since the images lie beside them."""
    return anno_path


def find(folder: Path) -> list[Place]:
    """Return the data set in a folder, if there is one."""
    for path in sorted(folder.rglob("*.json"))[:5]:
        try:
            content = _parse(path, read_bytes(path))
        except (ValueError, RecursionError):
            continue
        if "imagePath" in content or "imageData" in content:
            return [Place(folder, folder)]
    return []


FORMAT = Format("labelme", "LabelMe JSON", "folder of JSON files", read, digest, anno_is_folder=True, masks=True,
                image_set="folder below anno_path, or list of its files", find_images=find_images, find=find)
