"""Masks of boxes -> run-length encoded masks of the whole picture, on the host.

Shapes: D detections, S side of a mask. Boxes are (x1, y1, x2, y2) in pixels of the original picture. RLE is COCO's: pixels column
by column from the upper left, runs of 0 and of 1 in turn, beginning with 0.

As detectron2 pastes masks: the probability at the centre of each pixel, interpolated between the centres of the box's S x S cells
and 0 outside of them, against a threshold. The interpolation is the product of one along x and one along y, so that two small
matrix products give the pixels of the box; those of the rest of the picture never exist. The others differ in the weights alone:
torchvision resizes the mask, with a rim of 0 around it, to a box of whole pixels, and mindspore-lab without the rim.
"""
import numpy as np
from pycocotools import mask as coco_mask

PIXELS_AT_ONCE = 1 << 20  # of a box, to bound the memory
MARGIN = 1  # pixels around a box, where detectron2 looks too


def paste_rle(masks, boxes, height: int, width: int, threshold: float = 0.5, rule: str = "grid") -> list:
    """[{"size": [height, width], "counts": str}, ...] of probabilities (D, S, S) in boxes (D, 4); an empty box has no pixel.

    rule: `grid`, detectron2's and mmdet's; `truncated`, torchvision's; `rounded`, mindspore-lab's, where a pixel of just the
    threshold is outside.
    """
    weights = {"grid": cell_weights, "truncated": truncated_weights, "rounded": rounded_weights}[rule]
    threshold = np.nextafter(np.float32(threshold), np.float32(2)) if rule == "rounded" else threshold
    masks, boxes = np.asarray(masks, np.float32), np.asarray(boxes, np.float64)
    height, width = int(height), int(width)
    runs = [{"size": [height, width], "counts": runs_of(*pair, height, width, threshold, weights)} for pair in zip(masks, boxes)]
    encoded = coco_mask.frPyObjects(runs, height, width) if runs else []
    return [{"size": [height, width], "counts": rle["counts"].decode("ascii")} for rle in encoded]


def runs_of(mask, box, height: int, width: int, threshold: float, weights=None) -> np.ndarray:
    """Lengths of the runs of one mask (S, S): uint32. weights: `cell_weights` or `truncated_weights`."""
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
        column, row = np.nonzero(edges[:, 1:] != edges[:, :-1])                # begin and end of a run in turn
        places.append((column + left + start) * height + row + top)
    places = np.concatenate(places)
    # A run that ends at the bottom goes on where the next column begins with one.
    apart = np.flatnonzero(places[1:-1:2] != places[2::2])
    places = np.concatenate([places[:1], np.stack([places[1 + 2 * apart], places[2 + 2 * apart]], 1).ravel(), places[-1:]])
    ends = [] if len(places) and places[-1] == height * width else [height * width]
    return np.diff(np.concatenate([[0], places, ends])).astype(np.uint32)


def cell_weights(start: float, stop: float, length: int, cells: int) -> tuple:
    """Along one axis: the first pixel of a box, the one behind its last, and the cells' weights in those between, (pixels, S)."""
    if not (np.isfinite([start, stop]).all() and stop > start):
        return 0, 0, None
    first, last = max(int(np.floor(start)) - MARGIN, 0), min(int(np.ceil(stop)) + MARGIN, length)
    place = (np.arange(first, last) + 0.5 - start) / (stop - start) * cells - 0.5
    weights = np.maximum(1 - np.abs(place[:, None] - np.arange(cells)), 0)
    return first, last, weights.astype(np.float32)


def truncated_weights(start: float, stop: float, length: int, cells: int) -> tuple:
    """As `cell_weights`, of a mask that is resized, with one cell of 0 on each side, to the box that grows with it and whose
    corners are cut to whole pixels (torchvision's paste_masks_in_image)."""
    if not (np.isfinite([start, stop]).all() and stop > start):
        return 0, 0, None
    start, stop, half = np.float32(start), np.float32(stop), np.float32(0.5)
    centre, reach = (start + stop) * half, (stop - start) * half * np.float32((cells + 2) / cells)
    low, high = int(centre - reach), int(centre + reach)       # towards 0
    pixels = max(high - low + 1, 1)
    first, last = max(low, 0), min(low + pixels, length)
    place = np.maximum((np.arange(first, last) - low + 0.5) * ((cells + 2) / pixels) - 0.5, 0)
    weights = np.maximum(1 - np.abs(np.minimum(place, cells + 1)[:, None] - np.arange(cells + 2)), 0)
    return first, max(last, first), weights[:, 1:-1].astype(np.float32)


def rounded_weights(start: float, stop: float, length: int, cells: int) -> tuple:
    """As `cell_weights`, of a mask that is resized to the rounded size of the box, without a rim, and lies at the box's truncated
    corner (mindspore-lab's DetectionEngine); what sticks out of the image is cut off."""
    if not np.isfinite([start, stop]).all():
        return 0, 0, None
    first, pixels = int(start), int(stop - start + 0.5)
    place = np.clip((np.arange(pixels) + 0.5) * (cells / max(pixels, 1)) - 0.5, 0, cells - 1)
    weights = np.maximum(1 - np.abs(place[:, None] - np.arange(cells)), 0)
    last = min(first + pixels, length)
    return first, max(last, first), weights[:max(last - first, 0)].astype(np.float32)
