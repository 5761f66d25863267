"""Read COCO annotations: one JSON file with images, annotations and categories.

Numbers may be written as 7, 7.0 or "7" (values.py).
"""
import itertools
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Optional

from ...yaml_text import shown
from ..errors import BAD_IMAGE, BAD_OBJECT, BAD_VALUE, REPEATED_IMAGE, UNKNOWN_IMAGE, DataError, Problem, no_class
from ..file_names import NameFinder
from ..format import Format, Layout, digest_of, read_bytes
from ..records import Annotations, ImageRecord, ObjectList, no_overlap
from ..values import flag, number, numbers, short, side, whole_number
from ._finding import find_coco

_NUMBERS = frozenset((int, float))      # excludes bool, which isinstance counts as int
_HUGE = 1e18


class _Image(NamedTuple):
    """A usable image entry."""

    number: int                 # index in the list
    file_name: str
    height: Optional[int]       # None: missing or not a valid size
    width: Optional[int]


def read(image_dir: Path, path: Path, classes: Optional[list[str]] = None, image_set: Optional[str] = None) -> Annotations:
    """Read the file; `classes` are matched with the categories by name."""
    return _read(path, classes, NameFinder(image_dir))


def ground_truth(path: Path, classes: Optional[list[str]] = None) -> Annotations:
    """Read the file as ground truth to score against: images need no file, and categories may share a name."""
    return _read(path, classes, None)


def read_content(origin: str, content: Mapping[str, Any]) -> Annotations:
    """Read content in memory as `ground_truth` reads a file. origin: its name in messages."""
    return _annotations(Path(origin), _checked(Path(origin), content), None, None, "")


def _read(path: Path, classes: Optional[list[str]], finder: Optional[NameFinder]) -> Annotations:
    data = read_bytes(path)
    return _annotations(path, _parse(path, data), classes, finder, digest_of(data))


def _annotations(path: Path, content: Mapping[str, Any], classes: Optional[list[str]], finder: Optional[NameFinder],
                 digest: str) -> Annotations:
    """Build the annotations. finder: None for ground truth, whose images are not looked up."""
    labels, categories, names = _categories(path, content, classes, strict=finder is not None)
    problems: list[Problem] = []
    images, lost = _images(path, content["images"], finder, problems)
    objects = _objects(path, content["annotations"], images, lost, labels, names, problems)
    records: list[ImageRecord] = []
    for image_id, image in images.items():
        found = objects.get(image_id) or ObjectList()
        records.append(found.record(image.file_name, image_id, image.height, image.width, str(path), "annotation",
                                    with_coco=True))
    return Annotations(records, categories, problems, digest)


def _layout(config: Mapping[str, Any], train: bool) -> tuple[str, str]:
    folder = config["train_data_type" if train else "val_data_type"]
    return folder, config["instance_set"].format(folder)


def _parse(path: Path, data: bytes) -> Mapping[str, Any]:
    if not data.strip():
        raise DataError(f"{path}: the file is empty")
    try:
        content = json.loads(data)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not valid JSON: byte {error.start} is not UTF-8") from error
    except ValueError as error:         # a number of thousands of digits
        raise DataError(f"{path}: not valid JSON: {error}") from error
    except RecursionError as error:
        raise DataError(f"{path}: not valid JSON: nested too deeply") from error
    return _checked(path, content)


def _checked(path: Path, content: Any) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        raise DataError(f"{path}: holds a {_kind(content)}, expected an object with images, annotations and categories")
    for key in ("images", "annotations", "categories"):
        if key not in content:
            found = ", ".join(repr(shown(name)) for name in list(content)[:8]) or "no key at all"
            raise DataError(f"{path}: has no {key!r}; it has {found}")
        if not isinstance(content[key], (list, tuple)):
            raise DataError(f"{path}: {key}: is a {_kind(content[key])}, expected a list")
    return content


def _categories(path: Path, content: Mapping[str, Any], classes: Optional[list[str]],
                strict: bool) -> tuple[dict[int, int], list[dict[str, Any]], dict[int, str]]:
    """Return ({category id: label}, categories, {category id: name})."""
    names = _category_names(path, content, strict)
    if classes is None:
        chosen = [(category_id, names[category_id]) for category_id in sorted(names)]
    else:
        ids = {name: category_id for category_id, name in names.items()}
        if not set(classes[1:]) & set(ids):
            raise no_overlap(path, classes, ids)
        # Detections of classes that the file lacks still need a category id.
        free = itertools.count(max(names) + 1)
        chosen = [(ids[name] if name in ids else next(free), name) for name in classes[1:]]
    categories = [{"id": category_id, "name": name, "label": label} for label, (category_id, name) in enumerate(chosen, 1)]
    return {category_id: label for label, (category_id, _) in enumerate(chosen, 1)}, categories, names


def _category_names(path: Path, content: Mapping[str, Any], strict: bool) -> dict[int, str]:
    """Return {category id: name}. If two categories share a name, the one without annotations is ignored.

    strict: raise DataError if both have annotations.
    """
    names: dict[int, str] = {}
    for index, entry in enumerate(content["categories"]):
        category_id = whole_number(entry.get("id")) if isinstance(entry, dict) else None
        name = entry.get("name", None if strict else str(category_id)) if category_id is not None else None
        if category_id is None or not -2**63 <= category_id < 2**63 or not isinstance(name, str):
            raise DataError(f"{path}: categories[{index}]: expected a whole number as id and a name, got {short(entry)}")
        if category_id in names:
            raise DataError(f"{path}: categories[{index}]: id {shown(category_id)} is given twice")
        names[category_id] = name
    if not names:
        raise DataError(f"{path}: categories: the list is empty")
    repeated = {name for name, count in Counter(names.values()).items() if count > 1}
    if repeated:
        used = {whole_number(entry.get("category_id")) for entry in content["annotations"] if isinstance(entry, dict)}
        same: dict[str, list[int]] = {}     # name -> ids
        for category_id, name in names.items():
            same.setdefault(name, []).append(category_id)
        for name in repeated:
            ids = same[name]
            wanted = [category_id for category_id in ids if category_id in used] or ids[:1]
            if strict and len(wanted) > 1:
                raise DataError(f"{path}: categories: name {shown(name)!r} is given twice, and annotations have the ids of both "
                                f"({wanted[0]} and {wanted[1]})")
            for category_id in set(ids) - set(wanted):
                del names[category_id]
    return names


def _images(path: Path, entries: list[Any], finder: Optional[NameFinder],
            problems: list[Problem]) -> tuple[dict[int, _Image], set[Any]]:
    """Return ({id: image}, ids of unusable entries)."""
    images: dict[int, _Image] = {}
    lost: set = set()
    taken: dict[str, int] = {}
    for index, entry in enumerate(entries):
        what = _image_fault(entry, named=finder is not None)
        if what:
            problems.append(Problem(str(path), f"images[{index}]", what, BAD_IMAGE))
            lost.update(_possible_ids(entry))
            continue
        image_id: Any = whole_number(entry["id"])
        name = finder.find(entry["file_name"]) if finder else str(entry.get("file_name", ""))
        if image_id in images:
            names = f"{shown(images[image_id].file_name)} and {shown(name)}"
            raise DataError(f"{path}: images[{index}]: id {image_id} is given twice ({names})")
        if finder and taken.setdefault(name, image_id) != image_id:
            what = f"{name} is also the image of images[{images[taken[name]].number}] (ids {taken[name]} and {image_id})"
            problems.append(Problem(str(path), f"images[{index}]", what, REPEATED_IMAGE))
        height, width = (_side(path, index, entry, key, problems) for key in ("height", "width"))
        images[image_id] = _Image(index, name, height, width)
    return images, lost - set(images)


def _image_fault(entry: Any, named: bool) -> Optional[str]:
    if not isinstance(entry, dict):
        return f"is a {_kind(entry)}, expected an object"
    image_id = whole_number(entry.get("id"))
    if image_id is None:
        return f"id {short(entry.get('id'))} is not a whole number" if "id" in entry else "has no id"
    if not -2**63 <= image_id < 2**63:
        return f"id {shown(image_id)} does not fit into 64 bits"
    if not named:
        return None
    if "file_name" not in entry:
        return "has no file_name"
    if not isinstance(entry["file_name"], str) or not entry["file_name"]:
        return f"file_name {short(entry['file_name'])} is not a name"
    return None


def _side(path: Path, index: int, entry: dict[str, Any], key: str, problems: list[Problem]) -> Optional[int]:
    """Return height or width as annotated; None if it is 0, as tools write for an unknown size, or invalid."""
    value = side(entry.get(key))
    if value is None:
        what = f"{key} {short(entry[key])} is not a valid image size; the image's own size is used"
        problems.append(Problem(str(path), f"images[{index}]", what, BAD_VALUE))
    return value or None


def _possible_ids(entry: Any) -> set[Any]:
    """Return the ids by which annotations may refer to an unusable entry; the entry is reported, its annotations are not."""
    image_id = entry.get("id") if isinstance(entry, dict) else None
    found = whole_number(image_id)
    return {found} if found is not None else {image_id} if isinstance(image_id, (str, float)) else set()


def _objects(path: Path, entries: list[Any], images: dict[int, _Image], lost: set[Any], labels: dict[int, int],
             names: dict[int, str], problems: list[Problem]) -> dict[int, ObjectList]:
    """Return {image id: objects}."""
    objects: dict[int, ObjectList] = {}
    for index, entry in enumerate(entries):
        fault = _entry_fault(entry)
        if fault is None:
            image_id, category_id = whole_number(entry["image_id"]), whole_number(entry["category_id"])
            label = labels.get(category_id) if category_id is not None else None
            if image_id not in images:
                if image_id in lost or (image_id is None and entry["image_id"] in lost):
                    continue
                fault = UNKNOWN_IMAGE, f"image_id {short(entry['image_id'])} is the id of no image"
            elif label is None:
                fault = no_class(names.get(category_id, category_id) if category_id is not None else entry["category_id"])
            else:
                found = objects.get(image_id)
                if found is None:
                    found = objects[image_id] = ObjectList()
                fault = _add(found, entry, label, index, path, problems)
        if fault:
            problems.append(Problem(str(path), _place(entry, index), fault[1], fault[0]))
    return objects


def _entry_fault(entry: Any) -> Optional[tuple[str, str]]:
    if type(entry) is not dict:
        return BAD_OBJECT, f"is a {_kind(entry)}, expected an object"
    for key in ("image_id", "category_id", "bbox"):
        if key not in entry:
            return BAD_OBJECT, f"has no {key}"
    for key in ("image_id", "category_id"):
        value = entry[key]
        if type(value) is not int and whole_number(value) is None and type(value) is not str:
            return BAD_OBJECT, f"{key} {short(value)} is not a whole number"
    return None


def _add(found: ObjectList, entry: dict[str, Any], label: int, index: int, path: Path,
         problems: list[Problem]) -> Optional[tuple[str, str]]:
    """Add an annotation to the objects of its image; return (kind, what) if it is unusable."""
    box = entry["bbox"]
    if type(box) is not list or len(box) != 4 or not _NUMBERS.issuperset(map(type, box)):
        box = numbers(box, 4)
        if box is None:
            return BAD_OBJECT, f"bbox {short(entry['bbox'])} is not four numbers x, y, width, height"
    crowd, area = entry.get("iscrowd"), entry.get("area")
    if crowd not in (0, 1):
        crowd = flag(crowd)
        if crowd is None:
            what = f"iscrowd {short(entry['iscrowd'])} is neither 0 nor 1; the object is not treated as a crowd"
            problems.append(Problem(str(path), _place(entry, index), what, BAD_VALUE))
    if area == "":
        area = None
    if area is not None:
        area = number(area)
        if area is None or not -_HUGE < area < _HUGE:
            area = None
            what = f"area {short(entry['area'])} is not a valid area; the box's area is used"
            problems.append(Problem(str(path), _place(entry, index), what, BAD_VALUE))
    place = entry.get("id", index)
    place = place if type(place) is int else shown(place)
    return found.add(_corners(box), label, 1 if crowd else 0, place, area, entry.get("segmentation"),
                     difficult="difficult" in entry and flag(entry["difficult"]) == 1)


def _corners(box: list[float]) -> tuple[float, float, float, float]:
    x, y, width, height = box
    try:
        return x, y, x + width, y + height
    except OverflowError:       # an integer too large for a float
        return x, y, float("inf"), float("inf")


def _place(entry: Any, index: int) -> str:
    number = whole_number(entry.get("id")) if isinstance(entry, dict) else None
    return f"annotations[{index}]" if number is None else f"annotation {shown(number)}"


def _kind(value: Any) -> str:
    names = {dict: "JSON object", list: "list", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


FORMAT = Format("coco", "COCO JSON", "JSON file", read, masks=True, ground_truth=ground_truth, layout=Layout("coco_root", _layout),
                find=find_coco, revision=2)
