"""Paste masks of boxes into the image, on the host, and encode them as run lengths.

Shapes: D detections, S side of a mask. Boxes are (x1, y1, x2, y2) in pixels of the original image. RLE is COCO's: pixels column by
column from the upper left, runs of 0 and 1 in turn, beginning with 0.

Masks are pasted as in detectron2: the probability at the centre of each pixel is interpolated between the centres of the box's
S x S cells, 0 outside of them, and compared with a threshold. The interpolation is a product of one along x and one along y, so
two small matrix products give the pixels of the box, and the rest of the image is never computed. The other rules only differ
in the weights: torchvision resizes the mask, with a border of 0, to a box of whole pixels; mindspore-lab does so without border.
"""
import numpy as np
from pycocotools import mask as coco_mask

PIXELS_AT_ONCE = 1 << 20  # pixels of a box that are computed at once, to bound the memory
MARGIN = 1  # pixels around a box that detectron2 also considers


def paste_rle(masks, boxes, height: int, width: int, threshold: float = 0.5, rule: str = "grid") -> list:
    """Return [{"size": [height, width], "counts": str}, ...] for probabilities (D, S, S) in boxes (D, 4), which may be empty.

    rule: "grid": detectron2 and mmdet; "truncated": torchvision; "rounded": mindspore-lab, where a pixel exactly at the threshold
    is outside.
    """
    weights = {"grid": cell_weights, "truncated": truncated_weights, "rounded": rounded_weights}[rule]
    threshold = np.nextafter(np.float32(threshold), np.float32(2)) if rule == "rounded" else threshold
    masks, boxes = np.asarray(masks, np.float32), np.asarray(boxes, np.float64)
    height, width = int(height), int(width)
    runs = [{"size": [height, width], "counts": runs_of(*pair, height, width, threshold, weights)} for pair in zip(masks, boxes)]
    encoded = coco_mask.frPyObjects(runs, height, width) if runs else []
    return [{"size": [height, width], "counts": rle["counts"].decode("ascii")} for rle in encoded]


def runs_of(mask, box, height: int, width: int, threshold: float, weights=None) -> np.ndarray:
    """Return the run lengths of one mask (S, S): uint32. weights: `cell_weights`, `truncated_weights` or `rounded_weights`."""
    weights = weights or cell_weights
    left, right, across = weights(box[0], box[2], width, mask.shape[1])
    top, bottom, down = weights(box[1], box[3], height, mask.shape[0])
    if left >= right or top >= bottom:
        return np.array([height * width], np.uint32)
    cells = across @ mask.T                                                    # (columns, S)
    places = []
    step = max(1, PIXELS_AT_ONCE // (bottom - top))
    for start in range(0, right - left, step):
        inside = cells[start:start + step] @ down.T >= threshold               # (columns, rows)
        edges = np.pad(inside.astype(np.int8), ((0, 0), (1, 1)))
        column, row = np.nonzero(edges[:, 1:] != edges[:, :-1])                # alternately begin and end of a run
        places.append((column + left + start) * height + row + top)
    places = np.concatenate(places)
    # Join a run that ends at the bottom of a column with one that begins at the top of the next column.
    apart = np.flatnonzero(places[1:-1:2] != places[2::2])
    places = np.concatenate([places[:1], np.stack([places[1 + 2 * apart], places[2 + 2 * apart]], 1).ravel(), places[-1:]])
    ends = [] if len(places) and places[-1] == height * width else [height * width]
    return np.diff(np.concatenate([[0], places, ends])).astype(np.uint32)


def cell_weights(start: float, stop: float, length: int, cells: int) -> tuple:
    """Return, along one axis, a box's first pixel, the pixel behind its last, and the cells' weights in its pixels (pixels, S)."""
    if not (np.isfinite([start, stop]).all() and stop > start):
        return 0, 0, None
    first, last = max(int(np.floor(start)) - MARGIN, 0), min(int(np.ceil(stop)) + MARGIN, length)
    place = (np.arange(first, last) + 0.5 - start) / (stop - start) * cells - 0.5
    weights = np.maximum(1 - np.abs(place[:, None] - np.arange(cells)), 0)
    return first, last, weights.astype(np.float32)


def truncated_weights(start: float, stop: float, length: int, cells: int) -> tuple:
    """Return `cell_weights` for a mask that is resized, with a border of one cell of 0, to its enlarged box with corners
    truncated to whole pixels (torchvision's paste_masks_in_image)."""
    if not (np.isfinite([start, stop]).all() and stop > start):
        return 0, 0, None
    start, stop, half = np.float32(start), np.float32(stop), np.float32(0.5)
    centre, reach = (start + stop) * half, (stop - start) * half * np.float32((cells + 2) / cells)
    low, high = int(centre - reach), int(centre + reach)       # truncates
    pixels = max(high - low + 1, 1)
    first, last = max(low, 0), min(low + pixels, length)
    place = np.maximum((np.arange(first, last) - low + 0.5) * ((cells + 2) / pixels) - 0.5, 0)
    weights = np.maximum(1 - np.abs(np.minimum(place, cells + 1)[:, None] - np.arange(cells + 2)), 0)
    return first, max(last, first), weights[:, 1:-1].astype(np.float32)


def rounded_weights(start: float, stop: float, length: int, cells: int) -> tuple:
    """Return `cell_weights` for a mask that is resized without a border to the rounded size of its box and placed at the box's
    truncated corner (mindspore-lab's DetectionEngine); what lies outside the image is cut off."""
    if not np.isfinite([start, stop]).all():
        return 0, 0, None
    first, pixels = int(start), int(stop - start + 0.5)
    place = np.clip((np.arange(pixels) + 0.5) * (cells / max(pixels, 1)) - 0.5, 0, cells - 1)
    weights = np.maximum(1 - np.abs(place[:, None] - np.arange(cells)), 0)
    last = min(first + pixels, length)
    return first, max(last, first), weights[:max(last - first, 0)].astype(np.float32)
