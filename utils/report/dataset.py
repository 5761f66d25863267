"""The page of check.py: contents and problems of a data set, and some of its images with boxes and masks."""
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import printable
from ..mindrecord.decoding import DecodeError, decode_image
from ..mindrecord.errors import count_kinds
from .examples import describe, outlines, shrink
from .page import write_page
from .summary import SIZES, names_of_ranges

if TYPE_CHECKING:
    from ..mindrecord.doctor import Diagnosis
    from ..mindrecord.fitting import Fitted
    from ..mindrecord.records import ImageRecord

SHAPES = (1 / 3, 1 / 2, 0.8, 1.25, 2, 3)        # height / width
SHAPE_NAMES = ("< 1/3", "1/3–1/2", "1/2–0.8", "0.8–1.25", "1.25–2", "2–3", "≥ 3")
MOST_SIZES, MOST_PROBLEMS = 8, 2000


class Gallery:
    """Collects thumbnails of some images, spread evenly over the data set. Several threads may call `add`."""

    def __init__(self, count: int = 40):
        self.count = count
        self.chosen: dict[int, int] = {}            # id() of a record -> position on the page
        self.images: dict[int, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def choose(self, records: list["ImageRecord"], categories: list[dict[str, Any]]) -> None:
        """Select the images to show."""
        places = np.unique(np.linspace(0, len(records) - 1, min(self.count, len(records))).round().astype(int)) if records else []
        self.chosen = {id(records[place]): number for number, place in enumerate(places)}

    def add(self, record: "ImageRecord", data: bytes, fitted: "Fitted") -> None:
        """Keep a thumbnail of the record's image with its objects if the image is selected."""
        number = self.chosen.get(id(record))
        if number is None:
            return
        try:
            image = decode_image(data, upright=not fitted.frame.stored)
        except DecodeError:     # check.py reports it
            return
        small = shrink(image)
        boxes = np.concatenate([fitted.boxes[:, :2], fitted.boxes[:, 2:] - fitted.boxes[:, :2]], 1) * small.scale
        drawn = [outlines(pixels(mask, *image.shape[:2]), small.scale) for mask in fitted.masks or ()]
        objects = [[int(label) - 1, int(crowd), box, drawn[i] if drawn else 0] for i, (label, crowd, box) in enumerate(
            zip(record.labels[fitted.stay], record.crowds[fitted.stay], boxes.round(1).tolist()))]
        shown = {**describe({"id": record.image_id, "file_name": record.file_name}, small), "objects": objects}
        with self._lock:
            self.images[number] = shown


def pixels(mask: Any, height: int, width: int) -> np.ndarray:
    """Return a record's mask, polygons or RLE, as (height, width) uint8."""
    from pycocotools import mask as mask_utils

    return mask_utils.decode(mask if isinstance(mask, dict) else mask_utils.merge(mask_utils.frPyObjects(mask, height, width)))


def write_dataset(path: Path, title: str, found: "Diagnosis", gallery: Gallery, facts: Mapping[str, str]) -> None:
    """Write the page. facts: {name: value}, shown below the title."""
    classes = sorted(found.categories, key=lambda item: item["label"])
    widths, heights = (found.boxes[:, 2:] - found.boxes[:, :2]).T
    sides = np.sqrt(widths * heights)
    rows = []
    for item in classes:
        of_class = sides[found.labels == item["label"]]
        middle = float(np.median(of_class)) if len(of_class) else -1.0
        rows.append({"objects": len(of_class), "side": middle, "small": int((of_class < SIZES[1]).sum())})
    common = Counter(tuple(size) for size in found.image_sizes.astype(int).tolist()).most_common(MOST_SIZES)
    sizes: list[list[Any]] = [[f"{width}×{height}", count] for (width, height), count in common]
    others = len(found.image_sizes) - sum(count for _, count in common)
    sizes += [["other", others]] if others else []
    problems = [[problem.kind, str(problem)] for problem in [*found.problems, *found.notes][:MOST_PROBLEMS]]
    data = {
        "classes": [printable(item["name"]) for item in classes], "rows": rows, "problems": problems,
        "cards": [["images", found.images], ["usable", found.usable], ["without objects", found.empty],
                  ["objects", len(found.boxes)], ["crowd regions", found.crowds], ["problems", len(found.problems)]],
        "charts": [["Size of the images", sizes], ["Side √(w·h) of the objects", _counts(sides, SIZES, names_of_ranges(SIZES))],
                   ["Shape h / w of the objects", _counts(heights / np.maximum(widths, 1e-9), SHAPES, SHAPE_NAMES)]],
        "kinds": [[kind, count] for kind, count in count_kinds([*found.problems, *found.notes]).items()],
        "images": [gallery.images[number] for number in sorted(gallery.images)]}
    write_page(path, "dataset", data, title=printable(title), notes=[], shown=len(gallery.images), usable=found.usable,
               facts={name: printable(str(value)) for name, value in facts.items() if value},
               findings=len(found.problems) + len(found.notes), most=MOST_PROBLEMS)


def _counts(values: np.ndarray, edges: tuple, names: Any) -> list[list[Any]]:
    counts = np.bincount(np.digitize(values, edges), minlength=len(edges) + 1)
    return [[name, int(count)] for name, count in zip(names, counts)]
