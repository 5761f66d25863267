"""Masks of ground truth and results: of one size with their images, or left out."""
import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..config import InputError
from ..own_utils import own_utils
from .detections import Detections, present


def settle_sizes(truth: Mapping[str, Any], found: Detections | None) -> list[str]:
    """Give every image a height and a width, and return what to tell of that.

    Detections were made on the image itself. So the size of their masks counts where the ground truth has none, or has height and
    width swapped. An image without detections and without size is as large as its objects.
    """
    seen: dict[int, Counter] = defaultdict(Counter)
    if found is not None:
        for image_id, rle in zip(found.image_ids.tolist(), present(found.rles)):
            seen[image_id][tuple(rle.size)] += 1
    objects = defaultdict(list)
    for item in truth["annotations"]:
        objects[item["image_id"]].append(item)
    swapped, missing = [], 0
    for image in truth["images"]:
        size = image.get("height"), image.get("width")
        (own, _), = seen[image["id"]].most_common(1) or [((None, None), 0)]
        if None in size:
            missing += own[0] is not None
            size = own if own[0] is not None else _extent(objects[image["id"]])
        elif size != own and size == own[::-1] and len(seen[image["id"]]) == 1 and _fits(objects[image["id"]], *own):
            swapped.append(image["id"])
            size = own
        image["height"], image["width"] = size
    notes = []
    if missing:
        notes.append(f"{missing} images of the ground truth have no height and width: those of their detections count")
    if swapped:
        notes.append(f"{len(swapped)} images of the ground truth have height and width swapped, as their detections show "
                     f"(the first: image {swapped[0]}): those of the detections count")
    return notes


def _extent(objects: list[dict[str, Any]]) -> tuple[int, int]:
    """The size that the masks of an image say, else one that its boxes fit into."""
    for item in objects:
        if isinstance(item.get("segmentation"), Mapping) and len(item["segmentation"].get("size") or ()) == 2:
            return tuple(item["segmentation"]["size"])
    corners = [(item["bbox"][1] + item["bbox"][3], item["bbox"][0] + item["bbox"][2]) for item in objects]
    bottom, right = (max([1, *map(math.ceil, side)]) for side in zip(*corners)) if corners else (1, 1)
    return bottom, right


def _fits(objects: list[dict[str, Any]], height: int, width: int) -> bool:
    """Whether all objects lie in an image of this size, but for a pixel."""
    return all(x + w <= width + 1 and y + h <= height + 1 for x, y, w, h in (item["bbox"] for item in objects))


def keep_masks(where: str, truth: dict[str, Any]) -> list[str]:
    """Leave out the annotations without a usable mask, and return what to tell of that; InputError where none is left."""
    usable_mask = own_utils("mindrecord.masks").usable_mask
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    kept: list[dict[str, Any]] = []
    faults: list[str] = []
    for item in truth["annotations"]:
        mask, problems = usable_mask(_as_text(item.get("segmentation")), *sizes[item["image_id"]])
        if mask is None:
            faults.append(f"an object of image {item['image_id']}: {problems[-1][1]}")
        else:
            kept.append({**item, "id": len(kept) + 1, "segmentation": mask})
    if faults and not kept:
        raise InputError(f"{where}: {faults[0]}, so masks cannot be scored")
    truth["annotations"] = kept
    return [f"{len(faults)} annotations of the ground truth left out: no mask; the first: {faults[0]}"] if faults else []


def _as_text(segmentation: Any) -> Any:
    """Run lengths as pycocotools makes them hold bytes."""
    if isinstance(segmentation, Mapping) and isinstance(segmentation.get("counts"), bytes):
        return {**segmentation, "size": list(segmentation["size"]), "counts": segmentation["counts"].decode("ascii", "replace")}
    return segmentation


def of_their_images_size(found: Detections, known: np.ndarray, images: Mapping[int, dict[str, Any]],
                         notes: list[str]) -> np.ndarray:
    """Return which masks have the size of their image, (n,) bool; the others, if `known`, go into the notes."""
    rles = present(found.rles)
    fits = np.ones(len(found), bool)
    for i, image_id in enumerate(found.image_ids.tolist()):
        image = images[image_id]
        fits[i] = tuple(rles[i].size) == (image["height"], image["width"])
    bad = np.flatnonzero(~fits & known)
    if len(bad):
        image = images[int(found.image_ids[bad[0]])]
        notes.append(f"{len(bad)} detections not counted: masks of another size than the image; the first: result {bad[0]}: "
                     f"{list(rles[bad[0]].size)}, the image has {[image['height'], image['width']]}")
    return fits
