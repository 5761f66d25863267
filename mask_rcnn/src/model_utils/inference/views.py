# Same as faster_rcnn/src/model_utils/inference/views.py
"""Compute the views of an image (whole image and tiles, mirrored or not, at several scales) and map boxes between view and image.

Shapes: D detections. Boxes are (x1, y1, x2, y2), width = x2 - x1, in pixels of the image or of the network's input. A window
(x1, y1, x2, y2) is the part of the image that a view shows, in whole pixels.

The tiles of a row are evenly spaced from the left edge of the image to the right edge. Neighbours share at least `overlap` of
their width. The same holds for columns. Each tile is resized to the network's input like an image. A tile border inside the image
cuts objects that a neighbouring tile shows completely, so a detection closer to such a border than CUT of the tile's side is
dropped. An object smaller than the overlap minus 2 * CUT is therefore complete in at least one tile. Larger objects are found in
the whole image, which is always one of the views.
"""
from typing import NamedTuple

import numpy as np

from ..configuration.view_keys import Augmentation, Tile
from ..data.transforms import boxes_on_image

CUT = 0.01      # fraction of the tile's side

Window = tuple[int, int, int, int]


class View(NamedTuple):
    """One version of an image to run the network on."""

    window: Window
    flip: bool              # mirrored horizontally
    scale: float            # relative to the configured input size

    def show(self, image: np.ndarray) -> np.ndarray:
        """Return the view's pixels (h, w, 3) from the image (H, W, 3)."""
        x1, y1, x2, y2 = self.window
        part = image[y1:y2, x1:x2]
        return np.ascontiguousarray(part[:, ::-1]) if self.flip else part


def views_of(height: int, width: int, augmentation: Augmentation, tile: Tile | None, overlap: float) -> list[View]:
    """Return the views of an image, grouped by scale.

    Args:
        height, width: size of the image, pixels.
        augmentation: the scales, and whether to mirror.
        tile: size of a tile in pixels, or None to use the whole image only.
        overlap: the minimum overlap of neighbouring tiles, as a fraction of a tile.
    """
    windows = windows_of(height, width, tile, overlap)
    flips = (False, True) if augmentation.flip else (False,)
    return [View(window, flip, scale) for scale in augmentation.scales for window in windows for flip in flips]


def windows_of(height: int, width: int, tile: Tile | None, overlap: float) -> list[Window]:
    """Return the window of the whole image, followed by its tiles if the image is larger than a tile.

    The arguments are those of `views_of`.
    """
    whole = (0, 0, width, height)
    if tile is None or (height <= tile.height and width <= tile.width):
        return [whole]
    rows, columns = starts(height, tile.height, overlap), starts(width, tile.width, overlap)
    return [whole, *((x, y, min(x + tile.width, width), min(y + tile.height, height)) for y in rows for x in columns)]


def starts(side: int, tile: int, overlap: float) -> list[int]:
    """Return the start positions of the tiles that cover one side of the image, in pixels.

    Args:
        side: the image's side, pixels.
        tile: the tile's side, pixels.
        overlap: the minimum overlap of neighbouring tiles, as a fraction of a tile.
    """
    if side <= tile:
        return [0]
    count = 1 + -(-(side - tile) // max(1, tile - round(overlap * tile)))
    return [round(i * (side - tile) / (count - 1)) for i in range(count)]


def to_image(boxes: np.ndarray, info: np.ndarray, view: View, offset: float = 0.0) -> np.ndarray:
    """Map boxes from the network's input to the image, clipped to the view's window.

    Args:
        boxes: (D, 4) in pixels of the network's input.
        info: (6,) image_info of the view's input, see data/transforms.py.
        view: the view.
        offset: 1 if x2 is the box's last pixel, 0 if it is the edge behind it; needed to mirror a box exactly.

    Returns:
        (D, 4) float64, in pixels of the image.
    """
    found = boxes_on_image(boxes, info)
    x1, y1, x2, y2 = view.window
    if view.flip:
        found = _mirrored(found, x2 - x1 - offset / float(info[3]))
    return np.clip(found, 0, [x2 - x1, y2 - y1] * 2) + [x1, y1, x1, y1]


def to_view(boxes: np.ndarray, info: np.ndarray, view: View, offset: float = 0.0) -> np.ndarray:
    """Map boxes (D, 4) from the image to the network's input, as float32: the inverse of `to_image`, without clipping."""
    x1, y1, x2, _ = view.window
    local = boxes - [x1, y1, x1, y1]
    if view.flip:
        local = _mirrored(local, x2 - x1 - offset / float(info[3]))
    return (local * np.asarray(info, np.float64)[[3, 2, 3, 2]]).astype(np.float32)


def _mirrored(boxes: np.ndarray, width: float) -> np.ndarray:
    return np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], -1)


def cut_off(boxes: np.ndarray, window: Window, height: int, width: int) -> np.ndarray:
    """Return a mask (D,) bool of the boxes that a window border inside the image may have cut.

    Args:
        boxes: (D, 4) in pixels of the image.
        window: the view's window.
        height, width: size of the image, pixels.
    """
    x1, y1, x2, y2 = window
    near_x, near_y = CUT * (x2 - x1), CUT * (y2 - y1)
    near = [boxes[:, 0] < x1 + near_x, boxes[:, 1] < y1 + near_y, boxes[:, 2] > x2 - near_x, boxes[:, 3] > y2 - near_y]
    inside = [x1 > 0, y1 > 0, x2 < width, y2 < height]
    return (np.stack(near, -1) & inside).any(-1)


def within(boxes: np.ndarray, window: Window) -> np.ndarray:
    """Return a mask (D,) bool of the boxes (D, 4) that are completely inside the window."""
    x1, y1, x2, y2 = window
    return (boxes[:, :2] >= [x1, y1]).all(-1) & (boxes[:, 2:] <= [x2, y2]).all(-1)
