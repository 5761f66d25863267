# Same as faster_rcnn/src/model_utils/inference/found.py
"""What is found in an image, for programs: arrays, masks made when they are asked for, and a drawing to look at.

Shapes: D detections in an image of H x W. Boxes are (x1, y1, x2, y2) in pixels of the image: its left edge is 0, its right one W.
Label 0 is background.
"""
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..config import InputError
from ..data.transforms import boxes_on_image
from ..evaluation.detections import SCORE_DECIMALS, MaskEncoder, as_results
from .draw import draw_detections
from .media import WRITTEN, Frame, write_picture


@dataclass(eq=False)
class Found:
    """The detections in an image, in the order of the network's scores, best first."""

    name: str                   # of the file, below the folder that was given; of an array image_1.png, image_2.png, ...
    image: np.ndarray = field(repr=False)       # (H, W, 3) uint8: blue, green, red
    boxes: np.ndarray           # (D, 4) float64
    scores: np.ndarray          # (D,) float64, 0 to 1
    labels: np.ndarray          # (D,) int64, from 1
    classes: Sequence[str] = field(repr=False)  # the name of each label, background first
    frame: int | None = None    # of a video, from 0
    time: float | None = None   # of a video, seconds
    path: Path | None = None    # the file that it was read from
    runs: "Runs | None" = field(default=None, repr=False)   # the masks; None: the network has none

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def names(self) -> list[str]:
        """The class of each detection."""
        return [self.classes[label] for label in self.labels.tolist()]

    @property
    def masks(self) -> np.ndarray:
        """(D, H, W) bool, made at each access: D times the size of the image. AttributeError if the network has no masks."""
        if self.runs is None:
            raise AttributeError("the network finds boxes only: there are no masks")
        from pycocotools import mask as mask_utils

        masks = np.zeros((len(self), *self.image.shape[:2]), bool)
        for mask, rle in zip(masks, self.runs.rles):
            mask[:] = mask_utils.decode(rle)
        return masks

    def results(self) -> list[dict[str, Any]]:
        """Return the detections as COCO results: label, bbox (x, y, width, height), score, of masks also segmentation (RLE)."""
        boxes = as_results(self.boxes).tolist()
        found: list[dict[str, Any]] = [{"label": label, "bbox": box, "score": score} for label, box, score in zip(
            self.labels.tolist(), boxes, self.scores.tolist())]
        for result, rle in zip(found, self.runs.rles if self.runs else ()):
            result["segmentation"] = dict(rle)
        return found

    def draw(self) -> "Drawing":
        """Draw boxes, labels, scores and masks on a copy of the image."""
        image = draw_detections(self.image, self.boxes, self.labels, self.scores, self.classes,
                                self.runs.rles if self.runs else None)
        name = Path(self.name)
        if self.frame is not None:
            name = name.with_name(f"{name.stem}_{self.frame:06d}.jpg")
        return Drawing(image, str(name), self.path)


@dataclass(eq=False)
class Runs:
    """The masks of an image as the network gives them, and as run lengths where these are asked for."""

    masks: np.ndarray           # (D, ...)
    corners: np.ndarray         # (D, 4): the boxes that they belong to
    size: tuple[int, int]       # H, W
    encode: MaskEncoder

    @functools.cached_property
    def rles(self) -> list[dict[str, Any]]:
        """COCO's compressed run lengths of each mask: size (H, W) and counts (text)."""
        counts = [rle["counts"] for rle in self.encode(self.masks, self.corners, *self.size)] if len(self.corners) else []
        return [{"size": list(self.size), "counts": text.decode("ascii") if isinstance(text, bytes) else text} for text in counts]


@dataclass(eq=False)
class Drawing:
    """An image with what was found in it. Notebooks show it."""

    image: np.ndarray = field(repr=False)       # (H, W, 3) uint8: blue, green, red
    name: str
    source: Path | None = field(default=None, repr=False)

    def save(self, path: Path | str) -> Path:
        """Write it and return the path of the file.

        path: a file, or a folder, in which it gets the name of the image, and of a video that of the frame: clip_000012.jpg.
        InputError where it would overwrite the image that was read.
        """
        target = Path(path)
        if target.is_dir() or str(path).endswith(("/", "\\")) or target.suffix.lower() not in WRITTEN:
            target /= self.name
        if self.source is not None and target.exists() and target.samefile(self.source):
            raise InputError(f"{target}: the image itself; save the drawing in another folder")
        return write_picture(target, self.image)

    def _repr_png_(self) -> bytes:
        return cv2.imencode(".png", self.image)[1].tobytes()


def found_in(frame: Frame, info: np.ndarray, outputs: Mapping[str, np.ndarray], score_thr: float, classes: Sequence[str],
             encode: MaskEncoder | None, keep_empty: bool = False) -> Found:
    """Return what a network finds in a frame.

    Args:
        info: (6,), see data/transforms.py.
        outputs: boxes (S, 4) in pixels of the input, scores, labels and valid (S,), of masks also masks (S, ...).
        score_thr: detections below are left out.
        classes: the name of each label, background first.
        encode, keep_empty: see evaluation/detections.py.
    """
    corners = boxes_on_image(outputs["boxes"], info)
    found = as_results(corners)
    # What an evaluation counts: written so that a NaN is left out too.
    solid = (found[:, 2:] >= 0 if keep_empty else found[:, 2:] > 0).all(-1)
    keep = outputs["valid"].astype(bool) & (outputs["scores"] >= score_thr) & solid
    labels, found = outputs["labels"][keep].astype(np.int64), found[keep]
    unknown = labels[(labels < 1) | (labels >= len(classes))]
    if unknown.size:
        raise InputError(f"num_classes: the network gives label {unknown[0]}, and the configuration has labels 1 to "
                         f"{len(classes) - 1}")
    image = frame.image
    if image is None:
        raise ValueError(f"{frame.file_name}: there is no image")
    height, width = image.shape[:2]
    runs = Runs(outputs["masks"][keep], corners[keep], (height, width), encode) if encode else None
    boxes = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], -1)
    scores = outputs["scores"][keep].astype(np.float64).round(SCORE_DECIMALS)
    return Found(frame.file_name, image, boxes, scores, labels, classes, path=frame.path, runs=runs, **(frame.where or {}))
