"""Check a data set: read it as conversion does, decode every image in full, and collect all problems."""
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, Protocol

import numpy as np

from ..files import printable
from .conversion import size_fault
from .errors import Problem, count_kinds, counted
from .fitting import Fitted, fit
from .image_files import ImageError, check_rule, inspect, read_image
from .manifest import image_file_sizes
from .progress import Crew, Progress, Report, default_workers
from .readers import AnyPath, Classes, check_paths, check_source, read_source
from .records import ImageRecord
from .splitting import Split

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Viewer(Protocol):
    """Shows a selection of the images. Several threads call `add`."""

    def choose(self, records: list[ImageRecord], categories: list[dict[str, Any]]) -> None:
        """Select the images to show."""

    def add(self, record: ImageRecord, data: bytes, fitted: Fitted) -> None:
        """Show the record's image if it is selected."""


@dataclass
class Diagnosis:
    """All problems of a data set, and statistics of its usable part."""

    problems: list[Problem]
    categories: list[dict[str, Any]]
    images: int                 # annotated images
    usable: int
    empty: int                  # usable images without objects
    crowds: int
    image_sizes: np.ndarray        # (usable, 2) width, height
    boxes: np.ndarray           # (objects, 4) clipped, crowds left out
    labels: np.ndarray          # (objects,)
    notes: list[Problem]        # images with an EXIF orientation and how it was handled; not problems

    def lines(self) -> list[str]:
        """Return the summary as text."""
        text = [f"images: {self.usable} usable of {self.images}, {self.empty} of them without objects",
                f"objects: {len(self.boxes)}, and {counted(self.crowds, 'crowd region')}"]
        counts = np.bincount(self.labels, minlength=len(self.categories) + 1)
        for category in sorted(self.categories, key=lambda item: -counts[item["label"]]):
            text.append(f"    {counts[category['label']]:8d}  {printable(category['name'])}")
        widths, heights = (self.boxes[:, 2:] - self.boxes[:, :2]).T
        text.append("quantiles".ljust(26) + "".join(f"{f'{quantile:.0%}':>9}" for quantile in QUANTILES))
        table = {"image width": self.image_sizes[:, 0], "image height": self.image_sizes[:, 1], "box width": widths,
                 "box height": heights, "box side, sqrt(w * h)": np.sqrt(widths * heights),
                 "box shape, h / w": heights / widths}
        for name, values in table.items():
            if len(values):
                text.append(f"    {name:22}" + "".join(f"{value:9.2f}" for value in np.quantile(values, QUANTILES)))
        if self.notes:
            text.append(f"EXIF orientation: {counted(len(self.notes), 'image')}")
            text += [f"    {count:8d}  {kind}" for kind, count in count_kinds(self.notes).items()]
        text.append(f"problems: {len(self.problems) or 'none'}")
        text += [f"    {count:8d}  {kind}" for kind, count in count_kinds(self.problems).items()]
        return text


@dataclass
class _Part:
    records: list[ImageRecord]
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)
    image_sizes: list[tuple[int, int]] = field(default_factory=list)
    boxes: list[np.ndarray] = field(default_factory=list)
    labels: list[np.ndarray] = field(default_factory=list)
    empty: int = 0
    crowds: int = 0


def diagnose(source: str, image_dir: AnyPath, anno_path: AnyPath, classes: Optional[Classes] = None,
             image_set: Optional[str] = None, workers: Optional[int] = None, progress: Optional[Report] = None,
             masks: bool = False, exif_orientation: str = "auto", split: Optional[Split] = None,
             drawings: Sequence[Viewer] = ()) -> Diagnosis:
    """Check a data set without writing. Arguments as for `convert`; DataError if the annotations cannot be read at all.

    drawings: viewers that show some of the images.
    """
    check_source(source, masks)
    check_rule(exif_orientation)
    image_dir, anno_path = check_paths(source, image_dir, anno_path, image_set)
    found = read_source(source, image_dir, anno_path, classes, image_set, split)
    workers = max(1, int(workers or default_workers()))
    sizes, _ = image_file_sizes(image_dir, [record.file_name for record in found.records])
    # Images take unequal time to decode; several parts per worker balance the load.
    step = max(1, len(found.records) // (workers * 8))
    parts = [_Part(found.records[start:start + step]) for start in range(0, len(found.records), step)]
    for drawing in drawings:
        drawing.choose(found.records, found.categories)
    bar = Progress(len(found.records), "check", progress)
    try:
        with Crew(workers) as crew:
            crew.run(lambda part, tick: _examine(part, image_dir, sizes, masks, exif_orientation, drawings, tick), parts, bar)
    finally:
        bar.close()
    problems = found.problems + [problem for part in parts for problem in part.problems]
    notes = [note for part in parts for note in part.notes]
    image_sizes = [size for part in parts for size in part.image_sizes]
    boxes, labels = ([array for part in parts for array in getattr(part, name)] for name in ("boxes", "labels"))
    return Diagnosis(
        problems, found.categories, len(found.records), len(image_sizes), sum(part.empty for part in parts),
        sum(part.crowds for part in parts), np.array(image_sizes, np.float64).reshape(-1, 2),
        np.concatenate([np.zeros((0, 4)), *boxes]), np.concatenate([np.zeros(0, np.int64), *labels]), notes)


def _examine(part: _Part, image_dir: Path, sizes: dict[str, Optional[int]], masks: bool, exif_orientation: str,
             drawings: Sequence[Viewer], tick: Callable[[], None]) -> None:
    for record in part.records:
        tick()
        problem = size_fault(record, sizes[record.file_name], image_dir)
        if problem:
            part.problems.append(problem)
            continue
        try:
            data = read_image(os.path.join(image_dir, record.file_name))
            stored = inspect(data, whole=True)
        except ImageError as error:
            part.problems.append(Problem(str(image_dir / record.file_name), "", str(error), error.kind))
            continue
        fitted = fit(record, stored, masks, exif_orientation)
        for drawing in drawings:
            drawing.add(record, data, fitted)
        stay, boxes, _, problems, frame = fitted
        part.problems += problems
        if frame.note:
            part.notes.append(Problem(str(image_dir / record.file_name), "", frame.note, frame.support))
        single = record.crowds[stay] == 0
        part.image_sizes.append((frame.info.width, frame.info.height))
        part.boxes.append(boxes[single])
        part.labels.append(record.labels[stay][single])
        part.crowds += int((~single).sum())
        part.empty += not single.any()
