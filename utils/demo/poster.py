"""The demo's poster: validation images with the detections, below a header with the results.

Text is set with Pillow in DejaVu Sans, which comes with Matplotlib. Lengths are in pixels of the finished image, which is meant for
a README about 900 wide on a screen of double density.
"""

import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..files import replacing

GROUND, TILE_RIM, LINE = (15, 21, 28), (38, 48, 60), (44, 55, 68)
BRIGHT, SOFT, FAINT, ACCENT = (242, 245, 248), (170, 182, 196), (120, 133, 148), (72, 199, 190)
MARGIN, GAP, TILE, COLUMNS, ROWS = 40, 16, 340, 4, 2
HEADER, FOOTER, CORNER = 168, 64, 12


@dataclass(frozen=True)
class Facts:
    """The text of the poster."""

    title: str
    subtitle: str
    figures: tuple[tuple[str, str], ...]    # (value, name), both short
    legend: tuple[tuple[str, Optional[tuple[int, ...]]], ...]   # (class name, BGR colour or None)
    note: str


def _font(size: int, bold: bool = False) -> Any:
    matplotlib = importlib.util.find_spec("matplotlib")     # found without importing it, which takes half a second
    if matplotlib is not None and matplotlib.origin:
        name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
        file = Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf" / name
        if file.is_file():
            return ImageFont.truetype(str(file), size)
    return ImageFont.load_default(size)


def choose_images(image_dir: Path, ground_truth: dict[str, Any], count: int) -> list[str]:
    """Return the file names of `count` varied images with many objects, chosen by the ground truth only.

    Starts with the image with the most objects. Each further image is the one that differs most in colour from those chosen, among
    the half with the most objects.
    """
    objects = {image["id"]: 0 for image in ground_truth["images"]}
    for annotation in ground_truth["annotations"]:
        objects[annotation["image_id"]] += 1
    ranked = sorted(ground_truth["images"], key=lambda image: (-objects[image["id"]], image["id"]))
    rich = ranked[:max(count, (len(ranked) + 1) // 2)]
    colours = []
    for entry in rich:
        image = cv2.imread(str(Path(image_dir) / entry["file_name"]))
        if image is None:
            raise FileNotFoundError(f"{Path(image_dir) / entry['file_name']}: does not exist or cannot be read")
        small = cv2.resize(image, (16, 16), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        colours.append(np.median(cv2.cvtColor(small, cv2.COLOR_BGR2LAB).reshape(-1, 3), axis=0))
    taken = [0]
    while len(taken) < min(count, len(rich)):
        distance = [min(float(np.linalg.norm(colour - colours[k])) for k in taken) for colour in colours]
        taken.append(int(np.argmax([-1 if n in taken else value for n, value in enumerate(distance)])))
    return [rich[n]["file_name"] for n in taken]


def draw_tiles(draw: Callable[..., np.ndarray], image_dir: Path, annotations_file: Path, detections_file: Path,
               score_thr: float) -> list[np.ndarray]:
    """Return the tiles of the grid, each TILE x TILE, BGR. draw: draw_detections of the model."""
    ground_truth = json.loads(Path(annotations_file).read_text(encoding="utf-8"))
    labels = {c["id"]: n for n, c in enumerate(ground_truth["categories"], 1)}
    names = ["background", *(c["name"] for c in ground_truth["categories"])]
    found: dict[str, list[dict[str, Any]]] = {}
    for detection in json.loads(Path(detections_file).read_text(encoding="utf-8")):
        if detection["score"] >= score_thr:
            found.setdefault(Path(detection["file_name"]).name, []).append(detection)
    tiles = []
    for name in choose_images(image_dir, ground_truth, COLUMNS * ROWS):
        image = cv2.imread(str(Path(image_dir) / name))
        detections = found.get(name, [])
        scale = TILE / max(image.shape[:2])
        boxes = np.array([d["bbox"] for d in detections], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        masks = None
        if detections and all("segmentation" in d for d in detections):
            masks = [_enlarged_mask(d["segmentation"]) for d in detections]
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        tiles.append(draw(image, boxes * scale, [labels[d["category_id"]] for d in detections],
                          [d["score"] for d in detections], names, masks))
    return tiles


def _enlarged_mask(segmentation: dict[str, Any]) -> np.ndarray:
    from pycocotools import mask as rle
    mask = rle.decode(segmentation).astype(np.float32)
    scale = TILE / max(mask.shape)
    return cv2.resize(mask, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR) > 0.5


def compose(tiles: Sequence[np.ndarray], facts: Facts, png: Path) -> None:
    """Arrange the tiles and the text, and write the image with rounded, transparent corners."""
    rows = -(-len(tiles) // COLUMNS)
    width = 2 * MARGIN + COLUMNS * TILE + (COLUMNS - 1) * GAP
    height = HEADER + rows * TILE + (rows - 1) * GAP + FOOTER
    page = Image.new("RGB", (width, height), GROUND)
    pen = ImageDraw.Draw(page)
    _header(pen, width, facts)
    for n, tile in enumerate(tiles):
        left, top = MARGIN + n % COLUMNS * (TILE + GAP), HEADER + n // COLUMNS * (TILE + GAP)
        image = Image.fromarray(cv2.cvtColor(tile, cv2.COLOR_BGR2RGB))
        page.paste(image, (left, top), _rounded(image.size, CORNER))
        pen.rounded_rectangle((left, top, left + image.width - 1, top + image.height - 1), CORNER, outline=TILE_RIM)
    _footer(pen, width, height, facts)
    page.putalpha(_rounded(page.size, 2 * CORNER))
    with replacing(png) as partial:
        page.save(partial, optimize=True)


def _header(pen: ImageDraw.ImageDraw, width: int, facts: Facts) -> None:
    pen.text((MARGIN, 62), facts.title, fill=BRIGHT, font=_font(44, bold=True), anchor="lm")
    for row, line in enumerate(facts.subtitle.splitlines()):
        pen.text((MARGIN + 2, 106 + 24 * row), line, fill=SOFT, font=_font(17), anchor="lm")
    right: float = width - MARGIN
    for n, (value, what) in enumerate(reversed(facts.figures)):
        big, small = _font(38, bold=True), _font(15)
        column = max(pen.textlength(value, font=big), pen.textlength(what, font=small))
        first = n == len(facts.figures) - 1
        pen.text((right - column, 68), value, fill=ACCENT if first else BRIGHT, font=big, anchor="lm")
        pen.text((right - column + 1, 106), what, fill=FAINT, font=small, anchor="lm")
        right -= column + 28
        if not first:
            pen.line((right, 48, right, 118), fill=LINE, width=1)
            right -= 28


def _footer(pen: ImageDraw.ImageDraw, width: int, height: int, facts: Facts) -> None:
    left: float = MARGIN
    middle, font = height - FOOTER / 2, _font(16)
    for name, colour in facts.legend:
        if colour is not None:
            pen.rounded_rectangle((left, middle - 7, left + 14, middle + 7), 3, fill=tuple(colour[::-1]))
            left += 22
        pen.text((left, middle), name, fill=SOFT, font=font, anchor="lm")
        left += pen.textlength(name, font=font) + 26
    pen.text((width - MARGIN, middle), facts.note, fill=FAINT, font=font, anchor="rm")


def _rounded(size: tuple[int, int], radius: int) -> Image.Image:
    """Return an antialiased mask of a rounded rectangle."""
    big = Image.new("L", (size[0] * 4, size[1] * 4))
    ImageDraw.Draw(big).rounded_rectangle((0, 0, big.width - 1, big.height - 1), radius * 4, fill=255)
    return big.resize(size, Image.Resampling.LANCZOS)
