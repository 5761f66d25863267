"""Crop the images of a parity set, and the objects in them.

Shapes: M objects. Boxes are (x, y, width, height) in pixels as in COCO annotations, corners (left, top), sizes (height, width).
"""
import json
from pathlib import Path

import cv2
import numpy as np

LEAST = 1 / 3       # share of a box within the crop; objects with less are dropped


def visible(boxes, corner, size):
    """Return the share of each box (M, 4) within a crop: (M,)."""
    low = np.maximum(boxes[:, :2], corner)
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], np.add(corner, size[::-1]))
    return np.maximum(high - low, 0).prod(1) / boxes[:, 2:].prod(1)


def crop_objects(objects: list, corner, size) -> list:
    """Return the COCO annotations within a crop, in its pixels. Corners of polygons beyond the border are moved onto it."""
    def inside(points):
        return np.clip(np.reshape(points, (-1, 2)) - np.array(corner), 0, size[::-1]).round(2)

    kept, boxes = [], np.array([item["bbox"] for item in objects], np.float64).reshape(-1, 4)
    for item, (x, y, width, height), share in zip(objects, boxes, visible(boxes, corner, size)):
        if share < LEAST:
            continue
        low, high = inside([x, y, x + width, y + height])
        polygons = [inside(flat) for flat in item["segmentation"]]
        area = sum(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2 for x, y in (points.T for points in polygons))
        kept.append({**item, "bbox": [*low.tolist(), *(high - low).tolist()], "area": float(area),
                     "segmentation": [points.ravel().tolist() for points in polygons]})
    return kept


def crop_images(source: Path, output: Path, crops: dict) -> tuple:
    """Write images/ and instances.json of a parity set: the upper right part of each image.

    Args:
        crops: {id of the new image: size}, in the order of the old ids.

    Returns:
        The content of instances.json, and the corners of the crops.
    """
    data = json.loads((source / "instances.json").read_text())
    images = sorted(data["images"], key=lambda image: image["id"])
    if len(images) != len(crops):
        raise ValueError(f"{source / 'instances.json'}: {len(images)} images, expected {len(crops)}")
    (output / "images").mkdir()
    cropped, annotations, corners = [], [], []
    for image, (number, size) in zip(images, crops.items()):
        pixels = cv2.imread(str(source / "images" / image["file_name"]))
        if np.any(np.less(pixels.shape[:2], size)):
            raise ValueError(f"{image['file_name']}: {pixels.shape[:2]} pixels, expected at least {size}")
        objects = [item for item in data["annotations"] if item["image_id"] == image["id"]]
        corners.append((pixels.shape[1] - size[1], 0))
        cropped.append({"id": number, "file_name": f"{number:012}.png", "height": size[0], "width": size[1]})
        cv2.imwrite(str(output / "images" / cropped[-1]["file_name"]), pixels[:size[0], corners[-1][0]:])
        annotations += [{**item, "image_id": number} for item in crop_objects(objects, corners[-1], size)]
    data.update(images=cropped, annotations=[{**item, "id": i} for i, item in enumerate(annotations, 1)])
    (output / "instances.json").write_text(json.dumps(data, indent=1))
    return data, corners
