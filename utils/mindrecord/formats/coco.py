"""Reads COCO annotations: one JSON file with images, annotations and categories."""
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from ..errors import BAD_IMAGE, BAD_OBJECT, UNKNOWN_IMAGE, DataError, Problem, unknown_category
from ..format import Format, Layout, digest_of, read_bytes
from ..records import BACKGROUND, Annotations, ImageRecord, ObjectList, no_overlap
from ._finding import find_coco

# bool is an int to isinstance, and no number here. A string is no id either: it is told as one that no image has.
_NUMBERS, _IDS = frozenset((int, float)), frozenset((int, str))
_HUGE = 1e18


def read(image_dir: Path, path: Path, classes: Optional[list[str]] = None, image_set: Optional[str] = None) -> Annotations:
    """Read the file; `classes` are matched with the categories by name."""
    data = read_bytes(path)
    content = _parse(path, data)
    labels, categories, names = _categories(path, content["categories"], classes)
    problems: list[Problem] = []
    images, lost = _images(path, content["images"], problems)
    objects = _objects(path, content["annotations"], images, lost, labels, names, problems)
    records: list[ImageRecord] = []
    for image_id, image in images.items():
        found = objects.get(image_id) or ObjectList()
        records.append(found.record(image["file_name"], image_id, image.get("height"), image.get("width"), str(path),
                                    "annotation", with_coco=True))
    return Annotations(records, categories, problems, digest_of(data))


def ground_truth(path: Path, classes: Optional[list[str]] = None) -> dict[str, Any]:
    """Return the content of the file, limited to `classes`."""
    content = _parse(path, read_bytes(path))
    others = {item["id"] for item in content["categories"] if classes and item["name"] not in classes[1:]}
    if not others:
        return content
    return {**content, "categories": [item for item in content["categories"] if item["id"] not in others],
            "annotations": [item for item in content["annotations"] if item.get("category_id") not in others]}


def _layout(config: Mapping[str, Any], train: bool) -> tuple[str, str]:
    folder = config["train_data_type" if train else "val_data_type"]
    return folder, config["instance_set"].format(folder)


def _parse(path: Path, data: bytes) -> dict[str, Any]:
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
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {_kind(content)}, expected an object with images, annotations and categories")
    for key in ("images", "annotations", "categories"):
        if key not in content:
            found = ", ".join(map(repr, list(content)[:8])) or "no key at all"
            raise DataError(f"{path}: has no {key!r}; it has {found}")
        if not isinstance(content[key], list):
            raise DataError(f"{path}: {key}: is a {_kind(content[key])}, expected a list")
    return content


def _categories(path: Path, entries: list[Any],
                classes: Optional[list[str]]) -> tuple[dict[int, int], list[dict[str, Any]], dict[int, str]]:
    """({category id: label}, categories, {category id: name})."""
    names: dict[int, str] = {}
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not _is_integer(entry.get("id")) or not isinstance(entry.get("name"), str):
            raise DataError(f"{path}: categories[{number}]: expected an integer id and a name, got {_short(entry)}")
        if entry["id"] in names:
            raise DataError(f"{path}: categories[{number}]: id {entry['id']} is given twice")
        if entry["name"] in names.values():
            raise DataError(f"{path}: categories[{number}]: name {entry['name']!r} is given twice")
        names[entry["id"]] = entry["name"]
    if not names:
        raise DataError(f"{path}: categories: is empty")
    if classes is None:
        classes = [BACKGROUND] + [names[category_id] for category_id in sorted(names)]
    ids = {name: category_id for category_id, name in names.items()}
    if not set(classes[1:]) & set(ids):
        raise no_overlap(path, classes, ids)
    categories, labels = [], {}
    free_id = max(names)
    for label, name in enumerate(classes[1:], 1):
        category_id = ids.get(name)
        if category_id is None:         # the file has no such objects, detections of it need an id all the same
            free_id += 1
            category_id = free_id
        categories.append({"id": category_id, "name": name, "label": label})
        labels[category_id] = label
    return labels, categories, names


def _images(path: Path, entries: list[Any], problems: list[Problem]) -> tuple[dict[int, dict[str, Any]], set[Any]]:
    """({id: entry}, ids of the entries that are not usable)."""
    images: dict[int, dict[str, Any]] = {}
    lost: set = set()
    for number, entry in enumerate(entries):
        what = _image_fault(entry)
        if what:
            problems.append(Problem(str(path), f"images[{number}]", what, BAD_IMAGE))
            lost.update(_possible_ids(entry))
            continue
        if entry["id"] in images:
            names = f"{images[entry['id']]['file_name']} and {entry['file_name']}"
            raise DataError(f"{path}: images[{number}]: id {entry['id']} is given twice ({names})")
        images[entry["id"]] = entry
    return images, lost - set(images)


def _image_fault(entry: Any) -> Optional[str]:
    if not isinstance(entry, dict):
        return f"is a {_kind(entry)}, expected an object"
    if not _is_integer(entry.get("id")):
        return f"id {_short(entry.get('id'))} is not an integer" if "id" in entry else "has no id"
    if not -2**63 <= entry["id"] < 2**63:
        return f"id {entry['id']} does not fit into 64 bits"
    if "file_name" not in entry:
        return "has no file_name"
    if not isinstance(entry["file_name"], str) or not entry["file_name"]:
        return f"file_name {_short(entry['file_name'])} is not a name"
    for key in ("height", "width"):
        value = entry.get(key)
        if value is not None and not (_is_integer(value) and value > 0):
            return f"{key} {_short(value)} is not a positive integer"
    return None


def _possible_ids(entry: Any) -> set[Any]:
    """What annotations may call an image whose entry is not usable: they are told with it, once."""
    image_id = entry.get("id") if isinstance(entry, dict) else None
    if isinstance(image_id, str):
        return {image_id, int(image_id)} if image_id.isdecimal() else {image_id}
    return {image_id} if _is_integer(image_id) else set()


def _objects(path: Path, entries: list[Any], images: dict[int, dict[str, Any]], lost: set[Any], labels: dict[int, int],
             names: dict[int, str], problems: list[Problem]) -> dict[int, ObjectList]:
    """{image id: ObjectList}."""
    objects: dict[int, ObjectList] = {}
    for number, entry in enumerate(entries):
        fault = _object_fault(entry)
        if fault is None:
            image_id = entry["image_id"]
            label = labels.get(entry["category_id"])
            if image_id not in images:
                if image_id in lost:
                    continue
                fault = UNKNOWN_IMAGE, f"image_id {_short(image_id)} is the id of no image"
            elif label is None:
                name = names.get(entry["category_id"], entry["category_id"])
                fault = unknown_category(name), f"category {name!r} is none of the classes"
            else:
                found = objects.get(image_id)
                if found is None:
                    found = objects[image_id] = ObjectList()
                fault = found.add(_corners(entry["bbox"]), label, 1 if entry.get("iscrowd") else 0,
                                  entry.get("id", number), _area(entry), entry.get("segmentation"))
        if fault:
            problems.append(Problem(str(path), _place(entry, number), fault[1], fault[0]))
    return objects


def _object_fault(entry: Any) -> Optional[tuple[str, str]]:
    if type(entry) is not dict:
        return BAD_OBJECT, f"is a {_kind(entry)}, expected an object"
    for key in ("image_id", "category_id", "bbox"):
        if key not in entry:
            return BAD_OBJECT, f"has no {key}"
    box = entry["bbox"]
    if type(box) is not list or len(box) != 4 or not _NUMBERS.issuperset(map(type, box)):
        return BAD_OBJECT, f"bbox {_short(box)} is not four numbers x, y, width, height"
    for key in ("image_id", "category_id"):
        if type(entry[key]) not in _IDS:
            return BAD_OBJECT, f"{key} {_short(entry[key])} is not an integer"
    return None


def _corners(box: list[float]) -> tuple[float, float, float, float]:
    x, y, width, height = box
    try:
        return x, y, x + width, y + height
    except OverflowError:       # an integer that no float can hold
        return x, y, float("inf"), float("inf")


def _place(entry: Any, number: int) -> str:
    if isinstance(entry, dict) and _is_integer(entry.get("id")):
        return f"annotation {entry['id']}"
    return f"annotations[{number}]"


def _area(entry: Any) -> Optional[float]:
    area = entry.get("area")
    return area if type(area) in _NUMBERS and -_HUGE < area < _HUGE else None


def _is_integer(value: Any) -> bool:
    return type(value) is int


def _kind(value: Any) -> str:
    names = {dict: "JSON object", list: "list", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


FORMAT = Format("coco", "COCO JSON", "JSON file", read, masks=True, ground_truth=ground_truth, layout=Layout("coco_root", _layout),
                find=find_coco)
