# Same as faster_rcnn/src/model_utils/data/crops.py
"""SSD's crops (Liu et al., 2016, and its Caffe code): an enlarged canvas, and a window with enough of an object. NumPy only.

Shapes: O kinds of crops, T trials of each, n objects. Boxes are (x1, y1, x2, y2) in pixels of the image; a window is the same in
whole pixels, and extends beyond the image if the image lies on a larger canvas.
"""
import numpy as np

# Smallest IoU with an object for each kind of crop besides the whole canvas; the last kind takes any IoU.
MIN_IOUS = np.array([0.1, 0.3, 0.5, 0.7, 0.9, 0.0])
TRIALS = 50
# Relative to the canvas: geometric mean of the crop's sides, and its width / height.
SCALES, RATIOS = (0.3, 1.0), (0.5, 2.0)


def larger_canvas(window: tuple[int, ...], factor: float, y: float, x: float) -> tuple[int, ...]:
    """Return a window `factor` times as high and wide, in which the given one lies at y, x (fractions of the free space)."""
    height, width = window[3] - window[1], window[2] - window[0]
    outer = int(height * factor), int(width * factor)
    top, left = int(y * (outer[0] - height + 1)), int(x * (outer[1] - width + 1))
    return window[0] - left, window[1] - top, window[0] - left + outer[1], window[1] - top + outer[0]


def draw_window(canvas: tuple[int, ...], boxes: np.ndarray, trials: np.ndarray, which: float) -> tuple[int, ...]:
    """Return the canvas or one of the crops that qualify, each with the same probability; without boxes, the canvas.

    For each kind, the first trial that has its IoU with some box qualifies.

    Args:
        canvas: the window to crop.
        boxes: (n, 4).
        trials: (4, O, T) random numbers in [0, 1): scale, ratio, y, x.
        which: a random number in [0, 1).
    """
    windows = trial_windows(canvas, *trials)                                            # (O, T, 4)
    if not len(boxes):
        return canvas
    good = best_iou(windows, boxes) >= MIN_IOUS[:, None]                                # (O, T)
    found = np.flatnonzero(good.any(axis=1))
    choice = int(which * (1 + len(found)))
    if choice == len(found):
        return canvas
    kind = found[choice]
    return tuple(windows[kind, good[kind].argmax()].tolist())


def trial_windows(canvas: tuple[int, ...], scale: np.ndarray, ratio: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return windows (..., 4) int64 inside the canvas for random numbers (...) in [0, 1)."""
    origin, sides = np.array(canvas[:2]), np.array([canvas[2] - canvas[0], canvas[3] - canvas[1]])
    scale = SCALES[0] + scale * (SCALES[1] - SCALES[0])
    low, high = np.maximum(RATIOS[0], scale ** 2), np.minimum(RATIOS[1], scale ** -2)   # neither side exceeds the canvas
    root = np.sqrt(low + ratio * (high - low))
    share = np.stack([scale * root, scale / root], -1)                                  # (..., 2) width, height
    corner = np.stack([x, y], -1) * (1 - share)
    first = np.minimum((corner * sides).astype(np.int64), sides - 1)
    extent = np.clip((share * sides).astype(np.int64), 1, sides - first)
    return np.concatenate([first, first + extent], -1) + np.tile(origin, 2)


def best_iou(windows: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return the largest IoU of each window (..., 4) with n > 0 boxes."""
    windows, boxes = windows[..., None, :].astype(np.float64), boxes.astype(np.float64)
    sides = np.minimum(windows[..., 2:], boxes[:, 2:]) - np.maximum(windows[..., :2], boxes[:, :2])
    inner = sides.clip(0).prod(-1)                                                      # (..., n)
    areas = (windows[..., 2:] - windows[..., :2]).prod(-1) + (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return (inner / (areas - inner)).max(-1)
