"""Detections in columns, the format between the network's outputs and the scorers.

    network outputs --Collector.add--> Detections --coco_inputs.clean_results--> Detections --coco_scores.coco_ap--> Scores

Shapes: N images, D detections per image (fixed; `valid` marks those that are not padding), n detections, K masks of one image.
The network's boxes are (x1, y1, x2, y2) in input-image pixels; label 0 is background. Boxes of Detections and of COCO results
are (x, y, width, height) in original-image pixels. A row of image_info is resized height, resized width, scale_y, scale_x
(resized / original), original height, original width.
"""
import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from ...util import Progress
from ..config import Config
from ..data.transforms import boxes_on_image
from ..files import replacing
from .results_writer import ResultsWriter

__all__ = ["COCO_IDS", "Collector", "Detections", "MaskEncoder", "Rle", "collect", "config_categories", "to_results"]

T = TypeVar("T")
# Box decimals are far below a pixel. Score decimals exceed the precision of float32, so that rounding creates no ties.
BOX_DECIMALS, SCORE_DECIMALS = 4, 8
# Category ids of COCO's 80 classes, in order; 10 of the ids from 1 to 90 are unused.
COCO_IDS = [number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]


class Rle(NamedTuple):
    """Mask in COCO's compressed run-length encoding."""

    size: tuple[int, int]       # height, width
    counts: str


# encode(masks (K, ...), boxes (K, 4), height, width) -> K RLE dicts; see Collector.
MaskEncoder = Callable[[np.ndarray, np.ndarray, int, int], Iterable[Mapping[str, Any]]]


def present(column: T | None) -> T:
    """Return a column of Detections; raise ValueError if it is None."""
    if column is None:
        raise ValueError("a required column of Detections is None")
    return column


@dataclass
class Detections:
    """Columns of n detections; iterating yields COCO result dicts in row order.

    A row takes 64 bytes plus the RLE of its mask, a tenth of the memory of a dict.
    """

    image_ids: np.ndarray                   # (n,) int64
    category_ids: np.ndarray                # (n,) int64
    scores: np.ndarray                      # (n,) float64
    boxes: np.ndarray | None = None         # (n, 4) float64: x, y, width, height
    rles: list[Rle] | None = None           # n masks; None if there are no masks
    areas: np.ndarray | None = None         # (n,) float64, in pixels; scorers derive small, medium and large from it

    def __len__(self) -> int:
        return len(self.image_ids)

    def __iter__(self) -> Iterator[dict]:
        boxes: Iterable[Any] = itertools.repeat(None) if self.boxes is None else self.boxes.tolist()
        rles: Iterable[Rle | None] = itertools.repeat(None) if self.rles is None else self.rles
        for image_id, category_id, box, score, rle in zip(self.image_ids.tolist(), self.category_ids.tolist(), boxes,
                                                          self.scores.tolist(), rles):
            result = {"image_id": image_id, "category_id": category_id}
            if box is not None:
                result["bbox"] = box
            result["score"] = score
            if rle is not None:
                result["segmentation"] = {"size": list(rle.size), "counts": rle.counts}
            yield result

    def keep(self, rows: np.ndarray) -> "Detections":
        """Return the given rows. rows: (m,) integer indices."""
        def part(column: Any) -> Any:
            return [column[row] for row in rows.tolist()] if isinstance(column, list) else column[rows]
        columns = {item.name: getattr(self, item.name) for item in fields(self)}
        return Detections(**{name: part(column) for name, column in columns.items() if column is not None})

    def of_categories(self, ids: Iterable[int]) -> list[dict]:
        """Return the detections of the given categories as scorer input: dicts in row order, with ids from 1."""
        found = self.keep(np.flatnonzero(np.isin(self.category_ids, list(ids))))
        return [{"id": number, **result, "area": area, "iscrowd": 0}
                for number, (result, area) in enumerate(zip(found, present(found.areas).tolist()), 1)]

    def save(self, path: Path | str) -> None:
        """Write the detections as a JSON list of COCO results, one result per line."""
        with replacing(Path(path)) as partial, ResultsWriter(partial) as writer:
            writer.add(self)


def joined(chunks: list[Detections], masks: bool) -> Detections:
    """Concatenate chunks. Without chunks, return empty Detections, which have an RLE column if `masks` is true."""
    if not chunks:
        return Detections(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 4)), [] if masks else None)
    image_ids, category_ids, scores, boxes = (np.concatenate([getattr(chunk, name) for chunk in chunks])
                                              for name in ("image_ids", "category_ids", "scores", "boxes"))
    rles = None if chunks[0].rles is None else [rle for chunk in chunks for rle in chunk.rles or ()]
    return Detections(image_ids, category_ids, scores, boxes, rles)


def as_results(corners: np.ndarray) -> np.ndarray:
    """Convert boxes (..., 4) from (x1, y1, x2, y2) to (x, y, width, height), rounded to BOX_DECIMALS."""
    return np.concatenate([corners[..., :2], corners[..., 2:] - corners[..., :2]], -1).round(BOX_DECIMALS)


class Collector:
    """Accumulates the network's outputs batch by batch and converts them to Detections.

    Args:
        categories: {"id", "name", "label"} of each class.
        encode: encode(masks (K, ...), boxes (K, 4), height, width) -> K RLE dicts; encodes the mask outputs of one image at
            its original size. Boxes are (x1, y1, x2, y2) in original-image pixels. Only kept detections are encoded. None for
            a model without masks.
        keep_empty: keep detections whose boxes have no width or height after clipping to the image.
    """

    def __init__(self, categories: list[dict], encode: MaskEncoder | None = None, keep_empty: bool = False):
        self._encode, self._keep_empty = encode, keep_empty
        self._category_of_label = np.full(1 + max(item["label"] for item in categories), -1, np.int64)
        for item in categories:
            self._category_of_label[item["label"]] = item["id"]
        self._chunks: list[Detections] = []     # one per batch

    def __len__(self) -> int:
        return sum(map(len, self._chunks))

    def detections(self) -> Detections:
        """Return all detections added so far."""
        return joined(self._chunks, masks=self._encode is not None)

    def add(self, boxes: ArrayLike, scores: ArrayLike, labels: ArrayLike, valid: ArrayLike, image_info: ArrayLike,
            image_ids: ArrayLike, masks: np.ndarray | None = None) -> None:
        """Add the valid detections of a batch, without those whose boxes are empty after clipping unless keep_empty is set.

        Args:
            boxes: (N, D, 4) float32, x1, y1, x2, y2 in input-image pixels.
            scores: (N, D) float32.
            labels: (N, D) int32, from 1 on.
            valid: (N, D) bool.
            image_info: (N, 6) float32, see the top of this file.
            image_ids: (N,) int64; a negative id marks an image that pads the batch.
            masks: (N, D, ...), input of `encode`.

        Raises:
            ValueError: a label belongs to no category, or there are masks but `encode` is None.
        """
        image_ids = np.asarray(image_ids, np.int64)
        corners = boxes_on_image(boxes, image_info)                 # (N, D, 4)
        found = as_results(corners)
        # Comparisons with NaN are false, so NaN boxes are dropped as well.
        solid = (found[..., 2:] >= 0 if self._keep_empty else found[..., 2:] > 0).all(-1)
        keep = np.asarray(valid, bool) & solid & (image_ids[:, None] >= 0)
        image, _ = np.nonzero(keep)
        rles = None
        if masks is not None:
            sizes = np.asarray(image_info, np.float64)[:, 4:]
            rles = [rle for n in np.unique(image).tolist() for rle in self._encode_image(
                masks[n][keep[n]], corners[n][keep[n]], sizes[n])]
        score = np.asarray(scores, np.float64)[keep].round(SCORE_DECIMALS)
        self._chunks.append(Detections(image_ids[image], self._categories(np.asarray(labels)[keep]), score, found[keep], rles))

    def _categories(self, labels: np.ndarray) -> np.ndarray:
        known = len(self._category_of_label)
        bad = labels[(labels < 1) | (labels >= known) | (self._category_of_label[np.clip(labels, 0, known - 1)] < 0)]
        if bad.size:
            raise ValueError(f"labels: the network returned label {bad[0]}, but the data set has labels 1 to {known - 1}")
        return self._category_of_label[labels]

    def _encode_image(self, masks: np.ndarray, boxes: np.ndarray, size: np.ndarray) -> list[Rle]:
        """Encode the masks of one image. size: (2,), original height and width."""
        if self._encode is None:
            raise ValueError("masks: the network returned masks, but the Collector has no `encode`")
        height, width = (int(round(side)) for side in size.tolist())
        counts = [rle["counts"] for rle in self._encode(masks, boxes, height, width)]
        return [Rle((height, width), text.decode("ascii") if isinstance(text, bytes) else text) for text in counts]

    def pack(self) -> bytes:
        """Serialize all detections to bytes for `unpack`, with the size of each batch."""
        found = self.detections()
        rles = np.frombuffer(json.dumps(found.rles).encode("ascii"), np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, np.array([len(chunk) for chunk in self._chunks], np.int64), found.image_ids, found.category_ids,
                 found.scores, present(found.boxes), rles)
        return buffer.getvalue()

    def unpack(self, packed: list[bytes]) -> None:
        """Replace the content by that of all ranks, one `pack` per rank; interleaving the batches restores the order of the set."""
        self._chunks = [chunk for row in itertools.zip_longest(*map(_unpack, packed)) for chunk in row if chunk is not None]


def _unpack(packed: bytes) -> list[Detections]:
    """Return the batches of Collector.pack."""
    with np.load(io.BytesIO(packed)) as content:
        sizes, *columns, rles = (content[name] for name in content.files)
    found = json.loads(rles.tobytes())
    masks = None if found is None else [Rle(tuple(size), counts) for size, counts in found]
    ends = np.cumsum(sizes).tolist()
    image_ids, category_ids, scores, boxes = columns
    return [Detections(image_ids[start:end], category_ids[start:end], scores[start:end], boxes[start:end],
                       None if masks is None else masks[start:end]) for start, end in zip([0, *ends], ends)]


def to_results(boxes: ArrayLike, scores: ArrayLike, labels: ArrayLike, valid: ArrayLike, image_info: ArrayLike,
               image_ids: ArrayLike, categories: list[dict], masks: np.ndarray | None = None,
               encode: MaskEncoder | None = None, keep_empty: bool = False) -> list[dict]:
    """Convert the outputs of one batch to COCO results, JSON-serializable dicts in the order of images and detections.

    See Collector and Collector.add for the arguments and errors.
    """
    collector = Collector(categories, encode, keep_empty)
    collector.add(boxes, scores, labels, valid, image_info, image_ids, masks)
    return list(collector.detections())


def config_categories(config: Config) -> list[dict]:
    """Return {"id", "name", "label"} of each class in the configuration, for inference without a data set.

    Ids start at first_category_id, except that COCO's 80 classes get COCO's ids, so that the results can be scored.
    """
    first = config.first_category_id
    names = config.coco_classes[1:] or [f"class {label}" for label in range(1, config.num_classes)]
    coco = (len(names), names[0], names[-1]) == (80, "person", "toothbrush")
    ids = COCO_IDS if coco else range(first, first + len(names))
    return [{"id": number, "name": name, "label": label} for label, (number, name) in enumerate(zip(ids, names), 1)]


def collect(predict: Callable[[Any, Any], Iterable], batches: Iterable[Iterable], categories: list[dict],
            total: int | None = None, label: str = "evaluate", encode: MaskEncoder | None = None,
            gather: Callable[[bytes], list[bytes]] | None = None, keep_empty: bool = False) -> Detections:
    """Run a network over batches and return its detections.

    Args:
        predict: predict(image, image_info) -> (boxes, scores, labels, valid[, masks]), arrays or Tensors with the shapes of
            Collector.add.
        batches: tuples (image, image_info, ..., image_id), the columns of the data set.
        categories: {"id", "name", "label"} of each class.
        total: number of images, for the progress bar.
        label: label of the progress bar.
        encode, keep_empty: see Collector; masks are encoded batch by batch to limit memory.
        gather: gather(bytes) -> list of the bytes of all ranks. If given, every rank must call this, and every rank returns
            the detections of all ranks.

    Raises:
        ValueError: see Collector.add.
    """
    collector = Collector(categories, encode, keep_empty)
    with Progress(total, label) as progress:
        for image, image_info, *_, image_id in batches:
            boxes, scores, labels, valid, *masks = (_to_numpy(output) for output in predict(image, image_info))
            image_id = _to_numpy(image_id)
            collector.add(boxes, scores, labels, valid, _to_numpy(image_info), image_id, *masks)
            progress.update(int((image_id >= 0).sum()))
    if gather:
        collector.unpack(gather(collector.pack()))
    return collector.detections()


def _to_numpy(value: Any) -> Any:
    return value.asnumpy() if hasattr(value, "asnumpy") else value
