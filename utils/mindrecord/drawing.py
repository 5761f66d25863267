"""Draw annotated images with the boxes, masks and class names that conversion keeps."""
import colorsys
import threading
from pathlib import Path
from typing import Any, Optional

import cv2
import numpy as np

from ..files import printable, replacing
from .decoding import DecodeError, decode_image
from .errors import DataError
from .fitting import Fitted
from .records import ImageRecord

SMALLEST = 320      # minimum length of the longer side; on smaller drawings the labels would hide the image


class Drawing:
    """Draws some images of a data set into a folder. Several threads may call `add`.

    Args:
        folder: receives a NAME.jpg per image; created if missing.
        count: maximum number of images, spread evenly over the data set.
    """

    def __init__(self, folder: Path, count: int = 50):
        self.folder, self.count = folder, count
        self.names: list[str] = []
        self.chosen: dict[int, int] = {}
        self.drawn = 0
        self._lock = threading.Lock()

    def choose(self, records: list[ImageRecord], categories: list[dict[str, Any]]) -> None:
        """Select the images to draw and note the class names."""
        places = np.unique(np.linspace(0, len(records) - 1, min(self.count, len(records))).round().astype(int)) if records else []
        self.chosen = {id(records[place]): number for number, place in enumerate(places)}
        self.names = ["", *(printable(item["name"]) for item in sorted(categories, key=lambda item: item["label"]))]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"draw: {self.folder}: {error.strerror}") from error

    def add(self, record: ImageRecord, data: bytes, fitted: Fitted) -> None:
        """Draw the record's image if it is selected."""
        number = self.chosen.get(id(record))
        if number is None:
            return
        try:
            image = decode_image(data, upright=not fitted.frame.stored)
        except DecodeError:     # check.py reports it
            return
        labels, crowds = record.labels[fitted.stay], record.crowds[fitted.stay]
        names = [f"{self.names[label]}{' (crowd)' if crowd else ''}" for label, crowd in zip(labels, crowds)]
        drawn = draw_objects(image, fitted.boxes, names, labels.tolist(), fitted.masks or None)
        path = self.folder / f"{number:04d}_{Path(record.file_name).stem}.jpg"
        with replacing(path, durable=False) as partial:
            partial.write_bytes(cv2.imencode(".jpg", drawn)[1].tobytes())
        with self._lock:
            self.drawn += 1


def draw_objects(image: np.ndarray, boxes: np.ndarray, names: list[str], labels: list[int],
                 masks: Optional[list[Any]] = None) -> np.ndarray:
    """Return a drawing of an image, (h, w, 3) uint8 BGR, with n objects. Small images are enlarged.

    boxes: (n, 4) in pixels of the image; masks: n lists of polygons, or RLE as records hold it.
    """
    scale = max(1, -(-SMALLEST // max(image.shape[:2])))
    drawn = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    for mask, label in zip(masks or [], labels):
        _tint(drawn, _pixels(mask, image.shape, scale), colour_of(label))
    for box, name, label in zip(boxes.tolist(), names, labels):
        x1, y1, x2, y2 = (round(side * scale) for side in box)
        cv2.rectangle(drawn, (x1, y1), (x2 - 1, y2 - 1), colour_of(label), 1 + max(drawn.shape[:2]) // 800)
        _write_name(drawn, name, (x1, y1), colour_of(label))
    return drawn


def colour_of(label: int) -> tuple[int, ...]:
    """Return the (blue, green, red) colour of a label."""
    red, green, blue = colorsys.hsv_to_rgb(label * 0.618034 % 1, 0.75, 1.0)
    return round(255 * blue), round(255 * green), round(255 * red)


def _pixels(mask: Any, shape: tuple[int, ...], scale: int) -> np.ndarray:
    """Return a mask as (h, w) bool at the size of the drawing."""
    height, width = shape[:2]
    if isinstance(mask, dict):
        from pycocotools import mask as mask_utils

        return mask_utils.decode(mask).astype(bool).repeat(scale, 0).repeat(scale, 1)
    pixels = np.zeros((height * scale, width * scale), np.uint8)
    for polygon in mask:
        points = np.clip(np.array(polygon, np.float64).reshape(-1, 2) * scale, -1e6, 1e6)
        cv2.fillPoly(pixels, [points.round().astype(np.int32)], (1,))
    return pixels.astype(bool)


def _tint(drawn: np.ndarray, inside: np.ndarray, colour: tuple[int, ...]) -> None:
    drawn[inside] = (0.5 * drawn[inside] + 0.5 * np.array(colour)).astype(np.uint8)


def _write_name(drawn: np.ndarray, name: str, corner: tuple[int, int], colour: tuple[int, ...]) -> None:
    """Draw a name plate at the corner of a box. Pillow renders the text, since OpenCV's fonts only have ASCII."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(12)
    left, top, right, bottom = (int(side) for side in font.getbbox(name))
    plate = Image.new("RGB", (right - left + 4, bottom - top + 4), colour)
    ImageDraw.Draw(plate).text((2 - left, 2 - top), name, fill=(0, 0, 0), font=font)
    pixels = np.asarray(plate)
    height, width = drawn.shape[:2]
    x = min(max(0, corner[0]), max(0, width - pixels.shape[1]))
    y = min(max(0, corner[1]), max(0, height - pixels.shape[0]))
    part = drawn[y:y + pixels.shape[0], x:x + pixels.shape[1]]
    part[:] = pixels[:part.shape[0], :part.shape[1]]
