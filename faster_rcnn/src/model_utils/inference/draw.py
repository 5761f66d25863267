"""Draw detections: boxes, masks and label plates. Pillow renders the text, since OpenCV renders ASCII only.

Boxes are (x1, y1, x2, y2) in pixels of the image; label 0 is background. Plates stay inside the image and avoid each other. Where
space is short, a plate loses its class name, then is left out, and a legend in a corner names the classes without a full plate.
"""
import colorsys
import importlib.util
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

from ..files import printable

# Colours that differ from each other and from most images. Further classes get generated hues.
BASE_COLOURS = ("#ff5a36", "#22a7ff", "#35d46a", "#ffc21f", "#b07bff", "#00d8d0", "#ff5fb9", "#b5e61d", "#ffa061",
                "#7189ff", "#f0427f", "#86f0bd")
ASIAN_FONTS = ("NotoSansCJK-Regular.ttc", "NotoSansSC-Regular.otf", "wqy-microhei.ttc", "wqy-zenhei.ttc", "SimHei.ttf",
               "simhei.ttf", "msyh.ttc", "PingFang.ttc", "DroidSansFallbackFull.ttf")
# Maximum fractions: of a plate that other plates overlap, of a box that plates cover, and of the image that plates fill.
TOUCH_LIMIT, HIDE_LIMIT, PLATES_LIMIT = 0.04, 0.4, 0.16
Colour = tuple[int, ...]                # BGR
Mask = np.ndarray | dict[str, Any]      # bool (H, W), or COCO RLE


def colour_of(index: int) -> Colour:
    """Return the BGR colour, 0 to 255, of class or instance `index`, from 0. It is the same in every image."""
    if index < len(BASE_COLOURS):
        text = BASE_COLOURS[index]
        return int(text[5:7], 16), int(text[3:5], 16), int(text[1:3], 16)
    # Steps by the golden ratio never repeat a hue. Varying lightness and saturation separates close hues.
    k = index - len(BASE_COLOURS)
    rgb = np.array(colorsys.hls_to_rgb((0.07 + 0.618034 * k) % 1, (0.62, 0.52, 0.72)[k % 3], (0.95, 0.8)[k // 3 % 2]))
    luminance = float(rgb @ [0.299, 0.587, 0.114])
    rgb += (1 - rgb) * max(0.0, float((0.5 - luminance) / (1 - luminance)))      # blue and violet look darker than other hues
    return tuple(round(255 * value) for value in rgb[::-1].tolist())


def draw_detections(image_bgr: np.ndarray, boxes_xyxy: ArrayLike, labels: ArrayLike, scores: ArrayLike | None,
                    class_names: Sequence[str], masks: Sequence[Mask] | None = None) -> np.ndarray:
    """Draw detections on a copy of an image and return it. Colours are per class, or per instance if there are masks.

    Args:
        image_bgr: (H, W, 3) uint8, BGR.
        boxes_xyxy: (D, 4) in pixels of the image.
        labels: (D,) int, indices into class_names.
        scores: (D,), 0 to 1, or None to draw the names only.
        class_names: the name of each label, background first.
        masks: D masks of the image's size, bool (H, W) or COCO RLE, or None.

    Raises:
        ValueError: a mask and the image differ in size.
    """
    canvas = np.ascontiguousarray(image_bgr).copy()
    height, width = canvas.shape[:2]
    boxes = np.clip(np.asarray(boxes_xyxy, np.float64).reshape(-1, 4), 0, [width, height, width, height])
    labels = np.asarray(labels, np.int64).reshape(-1)
    if not len(labels):
        return canvas
    names = [printable(str(class_names[k])) if 0 <= k < len(class_names) else f"class {k}" for k in labels.tolist()]
    colours = [colour_of(i if masks is not None else max(k - 1, 0)) for i, k in enumerate(labels.tolist())]
    if masks is not None:
        _draw_masks(canvas, masks, colours)
    _draw_boxes(canvas, boxes, colours, thin=masks is not None)
    size = font_size(height, width)
    scores = None if scores is None else np.asarray(scores, np.float64)
    named = _draw_plates(canvas, boxes, names, scores, colours, size)
    unnamed = {name: colour for name, colour in zip(names, colours) if name not in named}
    if unnamed:
        _draw_legend(canvas, boxes, Counter(names), unnamed, size, swatches=masks is None)
    return canvas


def font_size(height: int, width: int) -> int:
    """Return the font size in pixels for an image of this size: at least 10, growing with the square root of the area."""
    return max(10, round(4 + 0.0135 * (height * width) ** 0.5))


def line_width(height: int, width: int) -> int:
    return max(1, round((height * width) ** 0.5 / 330))


def _draw_masks(canvas: np.ndarray, masks: Sequence[Mask], colours: Sequence[Colour]) -> None:
    """Tint and outline the masks, large ones first, so that small ones stay visible.

    Masks are decoded one at a time, since all of them together would take D x H x W bytes.
    """
    outline = line_width(*canvas.shape[:2])
    for i in sorted(range(len(masks)), key=lambda i: -_mask_area(masks[i])):
        mask = _decode(masks[i], canvas.shape[:2])
        x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
        if not width:
            continue
        inside = mask[y:y + height, x:x + width]
        part = canvas[y:y + height, x:x + width]
        part[inside] = (0.55 * part[inside] + 0.45 * np.array(colours[i])).astype(np.uint8)
        contours, _ = cv2.findContours(np.ascontiguousarray(inside).view(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE,
                                       offset=(x, y))
        cv2.drawContours(canvas, contours, -1, colours[i], outline, cv2.LINE_AA)


def _mask_area(mask: Mask) -> int:
    if isinstance(mask, dict):
        from pycocotools import mask as mask_utils
        return int(mask_utils.area(mask))
    return int(np.count_nonzero(mask))


def _decode(mask: Mask, shape: tuple[int, ...]) -> np.ndarray:
    if isinstance(mask, dict):
        from pycocotools import mask as mask_utils
        mask = mask_utils.decode(mask)
    mask = np.ascontiguousarray(mask).astype(bool)
    if mask.shape != tuple(shape):
        raise ValueError(f"masks: expected the image's size {tuple(shape)}, got {mask.shape}")
    return mask


def _draw_boxes(canvas: np.ndarray, boxes: np.ndarray, colours: Sequence[Colour], thin: bool) -> None:
    """Draw the boxes, large ones first. A dark rim keeps a line visible on a background of the same colour."""
    line = line_width(*canvas.shape[:2])
    sides = np.sqrt(_areas(boxes))
    lines = np.minimum(line, np.round(sides / 12))      # thick lines would hide small objects
    lines = np.clip(lines, 1, 1 if thin else None).astype(int)
    half = lines[:, None] / 2
    limits = np.array([canvas.shape[1], canvas.shape[0]] * 2)
    # Clip so that the whole line is inside the image. Lines are crisp if odd widths are centred on a pixel and even widths
    # between two. OpenCV's integer coordinates are pixel centres, hence the -0.5.
    shift = np.where(lines % 2 == 1, 0.5, 0.0)[:, None]
    corners = np.round(np.clip(boxes, half, np.maximum(limits - half, half)) - shift) + shift - 0.5
    corners = np.round(corners * 16).astype(int).tolist()
    order = np.argsort(-sides, kind="stable").tolist()
    rim = canvas.copy()
    for i in order:
        cv2.rectangle(rim, corners[i][:2], corners[i][2:], (0, 0, 0), int(lines[i]) + 2, cv2.LINE_AA, 4)
    cv2.addWeighted(rim, 0.4, canvas, 0.6, 0, dst=canvas)
    for i in order:
        cv2.rectangle(canvas, corners[i][:2], corners[i][2:], colours[i], int(lines[i]), cv2.LINE_AA, 4)


class _Plates:
    """Places the label plates of an image one by one, each where it hides least."""

    def __init__(self, canvas: np.ndarray, boxes: np.ndarray):
        self.canvas, self.boxes = canvas, boxes
        self.areas = np.maximum(_areas(boxes), 1)
        self.placed = np.zeros((0, 4))
        self.covered = np.zeros(len(boxes))     # area of each box under plates, in pixels

    def put(self, own: int, alpha: np.ndarray, colour: Colour) -> bool:
        """Draw a plate at its best free position and return True; return False if it would hide other plates or an object.

        Args:
            own: the index of the plate's box.
            alpha: (h, w) uint8, the opacity of the text.
            colour: the plate's BGR colour.
        """
        h, w = alpha.shape
        height, width = self.canvas.shape[:2]
        if h > height or w > width:
            return False
        x1, y1, x2, y2 = self.boxes[own]
        right, low = x2 - w, y2 - h
        # In order of preference: above the box, inside its top edge, below it, then its other corners and sides.
        corners = np.array([(x1, y1 - h), (x1, y1), (right, y1 - h), (x1, y2), (right, y1), (x1, low),
                            (right, y2), (right, low), (x2, y1), (x1 - w, y1), (x2, low), (x1 - w, low)])
        inside = np.round(np.clip(corners, 0, [width - w, height - h]))
        moved = np.abs(inside - corners) > [w / 2, 1]   # a plate may slide along the box's edge, but not off it
        rectangles = np.concatenate([inside, inside + [w, h]], 1)
        touch = _overlap(rectangles, self.placed).sum(1) / (w * h)
        hides = _overlap(rectangles, self.boxes)
        worst = ((self.covered + hides) / self.areas).max(1)
        usable = ~moved.any(1) & (touch <= TOUCH_LIMIT) & (worst <= HIDE_LIMIT)
        if not usable.any():
            return False
        cost = 0.02 * np.arange(len(corners)) + 4 * touch + (hides / self.areas).sum(1)
        best = int(np.where(usable, cost, np.inf).argmin())
        self.placed = np.concatenate([self.placed, rectangles[best:best + 1]])
        self.covered += hides[best]
        _draw_plate(self.canvas, rectangles[best], alpha, colour)
        return True


def _draw_plates(canvas: np.ndarray, boxes: np.ndarray, names: list[str], scores: np.ndarray | None, colours: Sequence[Colour],
                 size: int) -> set[str]:
    """Label the boxes, best score first, and return the class names that appear on at least one plate."""
    plates, named = _Plates(canvas, boxes), set()
    texts = [[name] for name in names]
    if scores is not None:
        texts = [[f"{name} {score:.2f}", f"{score:.2f}"] for name, score in zip(names, scores.tolist())]
    space = PLATES_LIMIT * canvas.shape[0] * canvas.shape[1]
    taken = [sum(_text(text[min(length, len(text) - 1)], size).size for text in texts) for length in (0, 1)]
    for i in range(len(names)) if scores is None else np.argsort(-scores, kind="stable").tolist():
        for length, text in enumerate(texts[i]):
            alpha = _text(text, size)
            # Labels would hide a crowd of small objects, so in a crowd only boxes larger than their label get one.
            wide = alpha.shape[1] <= boxes[i, 2] - boxes[i, 0] and alpha.size < 0.2 * plates.areas[i]
            if (wide or taken[length] <= space) and plates.put(i, alpha, colours[i]):
                if length == 0:
                    named.add(names[i])
                break
    return named


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the pairwise intersection areas (A, B) of boxes (A, 4) and (B, 4)."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.clip(high - low, 0, None).prod(-1)


def _draw_plate(canvas: np.ndarray, rectangle: np.ndarray, alpha: np.ndarray, colour: Colour) -> None:
    """Draw a plate with its text in black or white, by the plate's luminance."""
    x1, y1, x2, y2 = (int(value) for value in rectangle)
    blue, green, red = colour
    ink = 0.0 if 0.114 * blue + 0.587 * green + 0.299 * red > 120 else 255.0
    weight = alpha[..., None] / 255.0
    canvas[y1:y2, x1:x2] = (np.array(colour) * (1 - weight) + ink * weight).round().astype(np.uint8)


@lru_cache(maxsize=4096)
def _text(text: str, size: int) -> np.ndarray:
    """Render a line of text with a margin and return its opacity (h, w) uint8. The height depends on `size` only."""
    font = _font(size, text.isascii())
    pad = max(2, round(size * 0.28))
    ascent = -font.getbbox("X", anchor="ls")[1]
    left, _, right, _ = font.getbbox(text, anchor="ls")
    descent = max(1, round(size * 0.22))
    image = Image.new("L", (right - left + 2 * pad, ascent + descent + pad))
    ImageDraw.Draw(image).text((pad - left, pad // 2 + 1 + ascent), text, fill=255, font=font, anchor="ls")
    return np.asarray(image)


@lru_cache(maxsize=32)
def _font(size: int, ascii_only: bool) -> Any:
    candidates: list[Path | str] = [] if ascii_only else list(ASIAN_FONTS)
    matplotlib = importlib.util.find_spec("matplotlib")     # it ships a font; importing it would take half a second
    if matplotlib is not None and matplotlib.origin:
        candidates.append(Path(matplotlib.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf")
    for candidate in [*candidates, "DejaVuSans.ttf"]:
        try:
            return ImageFont.truetype(str(candidate), size)
        except OSError:
            continue
    return ImageFont.load_default(size)


def _draw_legend(canvas: np.ndarray, boxes: np.ndarray, counts: Mapping[str, int], colours: Mapping[str, Colour], size: int,
                 swatches: bool) -> None:
    """Draw class names and counts in the corner that hides least; `swatches` adds each class's colour."""
    lines = [_text(f"{name} × {counts[name]}", size) for name in colours]
    height, width = canvas.shape[:2]
    h, swatch = lines[0].shape[0], lines[0].shape[0] // 2 if swatches else 0
    lines = lines[:max(1, (height // 2) // h)]
    w, total = max(line.shape[1] for line in lines) + (swatch * 3 // 2), h * len(lines) + h // 3
    if w > width or total > height:
        return
    corners = np.array([(0, 0), (width - w, 0), (0, height - total), (width - w, height - total)])
    covered = _overlap(np.concatenate([corners, corners + [w, total]], 1).astype(float), boxes).sum(1)
    x, y = corners[int(covered.argmin())].tolist()
    ground = canvas[y:y + total, x:x + w]
    ground[:] = (ground * 0.25).astype(np.uint8)
    for row, (alpha, colour) in enumerate(zip(lines, colours.values())):
        top = y + h // 6 + row * h
        area = canvas[top:top + h, x + swatch * 3 // 2:x + swatch * 3 // 2 + alpha.shape[1]]
        weight = alpha[..., None] / 255.0
        area[:] = (area * (1 - weight) + 255 * weight).round().astype(np.uint8)
        if swatches:
            edge = top + (h - swatch) // 2
            canvas[edge:edge + swatch, x + swatch // 2:x + swatch // 2 + swatch] = colour
