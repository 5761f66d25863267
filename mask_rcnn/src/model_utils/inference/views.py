# Same as faster_rcnn/src/model_utils/inference/views.py
"""Views of an image: the whole of it and its tiles, mirrored or not, at several scales; and boxes on their way between a view and
the image.

Shapes: D detections. Boxes are (x1, y1, x2, y2), width = x2 - x1, in pixels of the image or of the network's input. A window is
the part of the image (x1, y1, x2, y2), whole pixels, that a view shows.

Tiles. A row of tiles begins at the left edge of the image and ends at the right one, at equal distances; neighbours share
`overlap` of their width or more. Columns likewise. A tile is resized to the network's input as an image would be. Its borders
inside the image cut objects, of which a neighbour shows the whole: a detection that comes closer to such a border than CUT of
the tile's side is left out. So an object that is smaller than what neighbours share, less 2 * CUT, is found in some tile.
Larger ones are found in the whole image, which is a view too.
"""
from typing import NamedTuple

import numpy as np

from ..configuration.view_keys import Augmentation, Tile
from ..data.transforms import boxes_on_image

CUT = 0.01

Window = tuple[int, int, int, int]


class View(NamedTuple):
    """What the network sees of an image."""

    window: Window
    flip: bool              # mirrored, left and right
    scale: float

    def show(self, image: np.ndarray) -> np.ndarray:
        """Return the pixels (h, w, 3) of the view."""
        x1, y1, x2, y2 = self.window
        part = image[y1:y2, x1:x2]
        return np.ascontiguousarray(part[:, ::-1]) if self.flip else part


def views_of(height: int, width: int, augmentation: Augmentation, tile: Tile | None, overlap: float) -> list[View]:
    """Return the views of an image of this size, those of a scale one after the other."""
    windows = windows_of(height, width, tile, overlap)
    flips = (False, True) if augmentation.flip else (False,)
    return [View(window, flip, scale) for scale in augmentation.scales for window in windows for flip in flips]


def windows_of(height: int, width: int, tile: Tile | None, overlap: float) -> list[Window]:
    """Return the whole image, then its tiles, if it is larger than one. overlap: see `starts`."""
    whole = (0, 0, width, height)
    if tile is None or (height <= tile.height and width <= tile.width):
        return [whole]
    rows, columns = starts(height, tile.height, overlap), starts(width, tile.width, overlap)
    return [whole, *((x, y, min(x + tile.width, width), min(y + tile.height, height)) for y in rows for x in columns)]


def starts(side: int, tile: int, overlap: float) -> list[int]:
    """Return where tiles of this side begin that cover a side of the image. overlap: the part of a tile that neighbours share, at
    least."""
    if side <= tile:
        return [0]
    count = 1 + -(-(side - tile) // max(1, tile - round(overlap * tile)))
    return [round(i * (side - tile) / (count - 1)) for i in range(count)]


def to_image(boxes: np.ndarray, info: np.ndarray, view: View, offset: float = 0.0) -> np.ndarray:
    """Return boxes (D, 4) of the network's input in pixels of the image, float64, clipped to the window.

    Args:
        info: (6,) of the view's input, see data/transforms.py.
        offset: 1 where the last pixel of a box belongs to it, so that its mirror image has it first.
    """
    found = boxes_on_image(boxes, info)
    x1, y1, x2, y2 = view.window
    if view.flip:
        found = _mirrored(found, x2 - x1 - offset / float(info[3]))
    return np.clip(found, 0, [x2 - x1, y2 - y1] * 2) + [x1, y1, x1, y1]


def to_view(boxes: np.ndarray, info: np.ndarray, view: View, offset: float = 0.0) -> np.ndarray:
    """Return boxes (D, 4) of the image in pixels of the network's input, float32; the arguments are those of `to_image`."""
    x1, y1, x2, _ = view.window
    local = boxes - [x1, y1, x1, y1]
    if view.flip:
        local = _mirrored(local, x2 - x1 - offset / float(info[3]))
    return (local * np.asarray(info, np.float64)[[3, 2, 3, 2]]).astype(np.float32)


def _mirrored(boxes: np.ndarray, width: float) -> np.ndarray:
    return np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], -1)


def cut_off(boxes: np.ndarray, window: Window, height: int, width: int) -> np.ndarray:
    """Return which boxes (D, 4) in pixels of the image come close to a border of the window inside the image: bool (D,)."""
    x1, y1, x2, y2 = window
    near_x, near_y = CUT * (x2 - x1), CUT * (y2 - y1)
    near = [boxes[:, 0] < x1 + near_x, boxes[:, 1] < y1 + near_y, boxes[:, 2] > x2 - near_x, boxes[:, 3] > y2 - near_y]
    inside = [x1 > 0, y1 > 0, x2 < width, y2 < height]
    return (np.stack(near, -1) & inside).any(-1)


def within(boxes: np.ndarray, window: Window) -> np.ndarray:
    """Return which boxes (D, 4) lie in the window: bool (D,)."""
    x1, y1, x2, y2 = window
    return (boxes[:, :2] >= [x1, y1]).all(-1) & (boxes[:, 2:] <= [x2, y2]).all(-1)
