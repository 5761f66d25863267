"""The detections in an image as arrays, COCO results and a drawing. Masks are decoded on demand.

Shapes: D detections in an image of H x W. Boxes are (x1, y1, x2, y2) in pixels of the image, from 0 at the left edge to W.
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
from .media import WRITTEN, Frame, write_image


@dataclass(eq=False)
class Found:
    """The detections in an image, sorted by descending score."""

    name: str                   # path relative to the input folder; image_1.png, image_2.png, ... for arrays
    image: np.ndarray = field(repr=False)       # (H, W, 3) uint8, BGR
    boxes: np.ndarray           # (D, 4) float64
    scores: np.ndarray          # (D,) float64, 0 to 1
    labels: np.ndarray          # (D,) int64, from 1
    classes: Sequence[str] = field(repr=False)  # the name of each label, background first
    frame: int | None = None    # index in the video, from 0
    time: float | None = None   # position in the video, seconds
    path: Path | None = None    # the input file
    runs: "Runs | None" = field(default=None, repr=False)   # None if the network has no masks

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def names(self) -> list[str]:
        """The class name of each detection."""
        return [self.classes[label] for label in self.labels.tolist()]

    @property
    def masks(self) -> np.ndarray:
        """The masks (D, H, W) bool. Every access decodes all of them, which takes D x H x W bytes.

        Raises:
            AttributeError: the network has no masks.
        """
        if self.runs is None:
            raise AttributeError("this network predicts boxes only, no masks")
        from pycocotools import mask as mask_utils

        masks = np.zeros((len(self), *self.image.shape[:2]), bool)
        for mask, rle in zip(masks, self.runs.rles):
            mask[:] = mask_utils.decode(rle)
        return masks

    def results(self) -> list[dict[str, Any]]:
        """Return the detections as COCO results.

        Each is a dict with label, bbox (x, y, width, height) in pixels, score, and segmentation (RLE) if the network has masks.
        """
        boxes = as_results(self.boxes).tolist()
        found: list[dict[str, Any]] = [{"label": label, "bbox": box, "score": score} for label, box, score in zip(
            self.labels.tolist(), boxes, self.scores.tolist())]
        for result, rle in zip(found, self.runs.rles if self.runs else ()):
            result["segmentation"] = dict(rle)
        return found

    def draw(self) -> "Drawing":
        """Draw the boxes, labels, scores and masks on a copy of the image."""
        image = draw_detections(self.image, self.boxes, self.labels, self.scores, self.classes,
                                self.runs.rles if self.runs else None)
        name = Path(self.name)
        if self.frame is not None:
            name = name.with_name(f"{name.stem}_{self.frame:06d}.jpg")
        return Drawing(image, str(name), self.path)


@dataclass(eq=False)
class Runs:
    """The masks of an image as the network predicts them, encoded as RLE on first access."""

    masks: np.ndarray           # (D, ...) float
    corners: np.ndarray         # (D, 4), the boxes of the masks, in pixels of the image
    size: tuple[int, int]       # H, W
    encode: MaskEncoder

    @functools.cached_property
    def rles(self) -> list[dict[str, Any]]:
        """The compressed COCO RLE of each mask: size (H, W) and counts (str)."""
        counts = [rle["counts"] for rle in self.encode(self.masks, self.corners, *self.size)] if len(self.corners) else []
        return [{"size": list(self.size), "counts": text.decode("ascii") if isinstance(text, bytes) else text} for text in counts]


@dataclass(eq=False)
class Drawing:
    """An image with its detections drawn. Jupyter displays it."""

    image: np.ndarray = field(repr=False)       # (H, W, 3) uint8, BGR
    name: str
    source: Path | None = field(default=None, repr=False)

    def save(self, path: Path | str) -> Path:
        """Write the drawing and return the path of the file.

        Args:
            path: a file or a folder. In a folder, the file takes the image's name; a video frame is named like clip_000012.jpg.

        Raises:
            InputError: the drawing would overwrite the input image.
        """
        target = Path(path)
        if target.is_dir() or str(path).endswith(("/", "\\")) or target.suffix.lower() not in WRITTEN:
            target /= self.name
        if self.source is not None and target.exists() and target.samefile(self.source):
            raise InputError(f"{target}: the drawing would overwrite the input image; save it to another folder")
        return write_image(target, self.image)

    def _repr_png_(self) -> bytes:
        return cv2.imencode(".png", self.image)[1].tobytes()


def found_in(frame: Frame, info: np.ndarray, outputs: Mapping[str, np.ndarray], score_thr: float, classes: Sequence[str],
             encode: MaskEncoder | None, keep_empty: bool = False) -> Found:
    """Convert the network's outputs for a frame to detections in pixels of the image.

    Args:
        frame: a frame that has been decoded.
        info: (6,) image_info of the frame, see data/transforms.py.
        outputs: boxes (S, 4) in pixels of the network's input; scores, labels and valid (S,); masks (S, ...), if any.
        score_thr: detections with a lower score are dropped.
        classes: the name of each label, background first.
        encode: encodes masks as RLE; None if the network has no masks.
        keep_empty: keep boxes without width or height.

    Raises:
        InputError: the network predicted a label that the configuration does not have.
        ValueError: the frame has no image.
    """
    corners = boxes_on_image(outputs["boxes"], info)
    found = as_results(corners)
    # The evaluation drops the same boxes. The comparisons are false for NaN, so NaN boxes are dropped too.
    solid = (found[:, 2:] >= 0 if keep_empty else found[:, 2:] > 0).all(-1)
    keep = outputs["valid"].astype(bool) & (outputs["scores"] >= score_thr) & solid
    labels, found = outputs["labels"][keep].astype(np.int64), found[keep]
    unknown = labels[(labels < 1) | (labels >= len(classes))]
    if unknown.size:
        raise InputError(f"num_classes: the network predicted label {unknown[0]}, but the configuration has labels 1 to "
                         f"{len(classes) - 1}; pass the configuration that the network was trained with")
    image = frame.image
    if image is None:
        raise ValueError(f"{frame.file_name}: the frame has no image; skip frames that cannot be decoded")
    height, width = image.shape[:2]
    runs = Runs(outputs["masks"][keep], corners[keep], (height, width), encode) if encode else None
    boxes = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], -1)
    scores = outputs["scores"][keep].astype(np.float64).round(SCORE_DECIMALS)
    return Found(frame.file_name, image, boxes, scores, labels, classes, path=frame.path, runs=runs, **(frame.where or {}))
