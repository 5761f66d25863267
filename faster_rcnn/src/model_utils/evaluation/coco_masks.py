"""Image sizes and masks for scoring. pycocotools needs masks of equal size, so other masks are dropped."""
import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...util import counted
from ..config import InputError
from ..own_utils import own_utils
from .detections import Detections, present


def settle_sizes(truth: Mapping[str, Any], found: Detections | None) -> list[str]:
    """Set height and width of every image in place, and return notes about the images whose size was missing or swapped.

    Detections are made on the image itself, so the size of their masks is used if the ground truth has no size or a swapped
    one. An image with neither a size nor detections gets the extent of its objects.

    Args:
        truth: COCO ground truth, modified in place.
        found: detections with RLE, or None.
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
        (mask_size, _), = seen[image["id"]].most_common(1) or [((None, None), 0)]
        if None in size:
            missing += mask_size[0] is not None
            size = mask_size if mask_size[0] is not None else _extent(objects[image["id"]])
        elif (size != mask_size and size == mask_size[::-1] and len(seen[image["id"]]) == 1
              and _fits(objects[image["id"]], *mask_size)):
            swapped.append(image["id"])
            size = mask_size
        image["height"], image["width"] = size
    notes = []
    if missing:
        notes.append(f"{counted(missing, 'image')} of the ground truth without height and width; the sizes of their "
                     "detections are used")
    if swapped:
        notes.append(f"{counted(len(swapped), 'image')} of the ground truth with height and width swapped compared to the masks of "
                     f"their detections, whose sizes are used; the first: image {swapped[0]}")
    return notes


def _extent(objects: list[dict[str, Any]]) -> tuple[int, int]:
    """Return (height, width) from the RLE of an object, or else the smallest size that holds all boxes."""
    for item in objects:
        if isinstance(item.get("segmentation"), Mapping) and len(item["segmentation"].get("size") or ()) == 2:
            return tuple(item["segmentation"]["size"])
    corners = [(item["bbox"][1] + item["bbox"][3], item["bbox"][0] + item["bbox"][2]) for item in objects]
    bottom, right = (max([1, *map(math.ceil, side)]) for side in zip(*corners)) if corners else (1, 1)
    return bottom, right


def _fits(objects: list[dict[str, Any]], height: int, width: int) -> bool:
    """Return whether all objects lie within an image of this size, with a tolerance of one pixel."""
    return all(x + w <= width + 1 and y + h <= height + 1 for x, y, w, h in (item["bbox"] for item in objects))


def keep_masks(where: str, truth: dict[str, Any]) -> list[str]:
    """Drop the annotations without a usable mask from `truth` in place, and return notes about them.

    Args:
        where: name of the ground truth in messages.
        truth: COCO ground truth whose images have height and width.

    Raises:
        InputError: there are annotations, but none has a usable mask.
    """
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
        raise InputError(f"{where}: {faults[0]}, so masks cannot be scored; expected a polygon or an RLE")
    truth["annotations"] = kept
    return [f"{counted(len(faults), 'annotation')} of the ground truth dropped: no mask; the first: {faults[0]}"] if faults else []


def _as_text(segmentation: Any) -> Any:
    """Decode the counts of an RLE if they are bytes, as pycocotools returns them."""
    if isinstance(segmentation, Mapping) and isinstance(segmentation.get("counts"), bytes):
        return {**segmentation, "size": list(segmentation["size"]), "counts": segmentation["counts"].decode("ascii", "replace")}
    return segmentation


def match_image_size(found: Detections, known: np.ndarray, images: Mapping[int, dict[str, Any]],
                     notes: list[str]) -> np.ndarray:
    """Return which masks have the size of their image, (n,) bool.

    Args:
        found: n detections with RLE.
        known: (n,) bool, detections of known categories; only these are reported.
        images: COCO images by id, with height and width.
        notes: a message about masks of another size is appended to it.
    """
    rles = present(found.rles)
    fits = np.ones(len(found), bool)
    for i, image_id in enumerate(found.image_ids.tolist()):
        image = images[image_id]
        fits[i] = tuple(rles[i].size) == (image["height"], image["width"])
    bad = np.flatnonzero(~fits & known)
    if len(bad):
        image = images[int(found.image_ids[bad[0]])]
        notes.append(f"{counted(len(bad), 'detection')} dropped: mask and image differ in size; the first: result {bad[0]}: "
                     f"{list(rles[bad[0]].size)}, expected {[image['height'], image['width']]}")
    return fits
