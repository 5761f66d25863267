"""Draw the demo's data set: fish, starfish and shells on sand, wood, water, with boxes and masks in COCO's layout.

    python -m utils.demo.shapes OUTPUT_DIR [--train 400] [--val 60] [--size 320] [--seed 1]

The three classes differ only in shape: colours, patterns, sizes and rotations have the same distribution for all. Objects
overlap, and unlabelled pebbles and weed lie between them. An object's box and mask cover its visible part. Image n of a split
depends only on (seed, split, n), not on the number of images or workers.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Optional, Union

import cv2
import numpy as np
from pycocotools import mask as rle

from ..mindrecord.errors import counted
from . import paint
from .forms import FORMS

CLASSES = tuple(FORMS)
MIN_VISIBLE = 0.35      # minimum visible fraction of an object's area
VERSION = 1             # of the drawing code; a new version redraws the data set
_SPLITS = {"train2017": 0, "val2017": 1}


@dataclass(frozen=True)
class DrawnObject:
    """The visible part of one object: label 1..K, mask (H, W) bool."""

    label: int
    mask: np.ndarray


# ------------------------------------------------------------------------------------------- objects


def _silhouette(polygons: Iterable[np.ndarray], radius: float, turn: float, side: int) -> np.ndarray:
    """Return the coverage (side, side), 0..1, of a form, drawn at three times the size for antialiasing."""
    cos, sin = np.cos(turn), np.sin(turn)
    big = np.zeros((side * 3, side * 3), np.uint8)
    for polygon in polygons:
        points = polygon @ np.array([[cos, sin], [-sin, cos]]) * radius + side / 2
        cv2.fillPoly(big, [np.round(points * 3 * 16).astype(np.int32)], (255,), cv2.LINE_8, 4)
    return cv2.resize(big, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def _paints(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return two matching colours and a dark one for lines."""
    hue, light, chroma = rng.uniform(0, 360), rng.uniform(0.54, 0.86), rng.uniform(0.08, 0.19)
    partner = hue + rng.choice([-35, 25, 60, 150, 180])
    other = np.clip(light + rng.choice([-0.2, 0.16, 0.22]), 0.38, 0.93)
    return (paint.colour(light, chroma, hue), paint.colour(other, chroma * rng.uniform(0.4, 1.0), partner),
            paint.colour(0.28, 0.05, hue))


def _object(rng: np.random.Generator, name: str, radius: float, light: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draw one object; return its colours (S, S, 3) and coverage (S, S) in a square patch around its centre."""
    form = FORMS[name](rng)
    mirrored, turn = rng.random() < 0.5, rng.uniform(0, 2 * np.pi)
    polygons = [polygon * [1, -1 if mirrored else 1] for polygon in form.polygons]
    side = 2 * int(radius) + 8
    alpha = _silhouette(polygons, radius, turn, side)
    ys, xs = (np.mgrid[0:side, 0:side].astype(np.float32) + 0.5 - side / 2) / np.float32(radius)
    u, v = xs * np.cos(turn) + ys * np.sin(turn), -xs * np.sin(turn) + ys * np.cos(turn)
    relief, ink, white = form.surface(u, -v if mirrored else v)
    first, second, dark = _paints(rng)
    albedo = first + paint.pattern(rng, u, v)[..., None] * (second - first)
    albedo = albedo * (0.93 + 0.14 * paint.smooth_noise(rng, side, side, 5, 2))[..., None]
    albedo += white[..., None] * (paint.colour(0.96, 0.015, 90) - albedo)
    albedo += ink[..., None] * (dark - albedo)
    body = alpha if len(polygons) == 1 else _silhouette(polygons[-1:], radius, turn, side)
    roundness = rng.uniform(0.6, 1.0)
    height = np.maximum(0.75 * paint.dome(body, roundness), 0.22 * paint.dome(alpha, 0.5)) + relief * radius
    return paint.shade(albedo, height.astype(np.float32), light, rng.uniform(0.05, 0.4)), alpha


def _cast_shadow(canvas: np.ndarray, alpha: np.ndarray, left: int, top: int, light: np.ndarray, height: float) -> None:
    """Darken the ground beside an object: a soft shadow away from the light, and a tight one at the edge."""
    pad = int(3 * height) + 6
    wide = cv2.copyMakeBorder(alpha, pad, pad, pad, pad, cv2.BORDER_CONSTANT)
    shift_x, shift_y = -light[0] * height, -light[1] * height
    far = cv2.GaussianBlur(wide, (0, 0), 0.75 * height + 0.8)
    near = cv2.GaussianBlur(wide, (0, 0), 1.6)
    tone = np.array([0.10, 0.07, 0.06], np.float32)
    paint.blend(canvas, tone, 0.5 * far, left - pad + round(shift_x), top - pad + round(shift_y))
    paint.blend(canvas, tone, 0.35 * near, left - pad, top - pad)


# ------------------------------------------------------------------------------------------- clutter


def _pebble(rng: np.random.Generator, canvas: np.ndarray, light: np.ndarray) -> None:
    radius = rng.uniform(0.015, 0.05) * canvas.shape[0]
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    wobble = 1 + sum(rng.uniform(-0.12, 0.12) * np.cos(k * angle + rng.uniform(0, 6)) for k in (1, 2, 3))
    outline = np.stack([wobble * np.cos(angle), rng.uniform(0.55, 1) * wobble * np.sin(angle)], -1)
    side = 2 * int(radius * 1.4) + 6
    alpha = _silhouette([outline], radius, rng.uniform(0, 6), side)
    tone = paint.colour(rng.uniform(0.35, 0.85), rng.uniform(0, 0.08), rng.uniform(0, 360))
    speckle = paint.smooth_noise(rng, side, side, 4, 2)
    stone = paint.shade(tone * (0.8 + 0.4 * speckle[..., None]), 0.7 * paint.dome(alpha, 1.0), light, 0.12)
    left, top = (rng.uniform(0, canvas.shape[0], 2) - side / 2).astype(int)
    _cast_shadow(canvas, alpha, left, top, light, 0.25 * radius)
    paint.blend(canvas, stone, alpha, left, top)


def _weed(rng: np.random.Generator, canvas: np.ndarray, light: np.ndarray) -> None:
    """Draw a blade of weed across the image."""
    size = canvas.shape[0]
    start, heading = rng.uniform(0, size, 2), rng.uniform(0, 2 * np.pi)
    curl, steps = rng.uniform(-0.06, 0.06), int(rng.integers(24, 60))
    headings = heading + np.cumsum(curl + 0.07 * np.sin(np.arange(steps) * rng.uniform(0.2, 0.5)))
    path = start + np.cumsum(np.stack([np.cos(headings), np.sin(headings)], -1) * size / 75, 0)
    across = np.stack([-np.sin(headings), np.cos(headings)], -1)
    width = size * rng.uniform(0.006, 0.016) * np.sin(np.linspace(0.5, np.pi, steps))[:, None]
    outline = np.concatenate([path + width * across, (path - width * across)[::-1]])
    big = np.zeros((size * 2, size * 2), np.uint8)
    cv2.fillPoly(big, [np.round(outline * 2 * 16).astype(np.int32)], (255,), cv2.LINE_8, 4)
    alpha = cv2.resize(big, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    tone = paint.colour(rng.uniform(0.35, 0.65), rng.uniform(0.04, 0.11), rng.uniform(100, 170))
    _cast_shadow(canvas, alpha, 0, 0, light, 3)
    paint.blend(canvas, paint.shade(tone, 0.5 * paint.dome(alpha, 1.0), light, 0.1), alpha, 0, 0)


# -------------------------------------------------------------------------------------------- scenes


def _place(rng: np.random.Generator, owner: np.ndarray, totals: list[int], alpha: np.ndarray) -> Optional[tuple[int, int]]:
    """Return a corner (left, top) where enough of the patch and of all objects below it stays visible, or None."""
    size, side = owner.shape[0], alpha.shape[0]
    solid = alpha > 0.5
    for _ in range(12):
        left, top = (rng.uniform(0.08, 0.92, 2) * size - side / 2).astype(int)
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, size), min(top + side, size)
        inside = solid[y0 - top:y1 - top, x0 - left:x1 - left]
        if inside.sum() < 0.65 * solid.sum():
            continue
        hidden = np.bincount(owner[y0:y1, x0:x1][inside], minlength=len(totals) + 1)[1:]
        left_over = np.bincount(owner.ravel(), minlength=len(totals) + 1)[1:] - hidden
        if np.all(left_over >= (MIN_VISIBLE + 0.05) * np.array(totals)):
            return left, top
    return None


def draw_scene(rng: np.random.Generator, size: int) -> tuple[np.ndarray, list[DrawnObject]]:
    """Draw one image; return it, BGR uint8 (size, size, 3), and its objects."""
    canvas = paint.background(rng, size)
    direction, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0.55, 0.8)
    light = np.array([slope * np.cos(direction), slope * np.sin(direction), np.sqrt(1 - slope ** 2)], np.float32)
    for _ in range(rng.integers(0, 7)):
        (_pebble if rng.random() < 0.75 else _weed)(rng, canvas, light)
    owner = np.zeros((size, size), np.uint8)        # number of the object that a pixel shows, from 1; 0 = none
    labels: list[int] = []
    totals: list[int] = []
    wanted = int(rng.integers(2, 7))
    for label in rng.permutation(np.arange(wanted) + rng.integers(3)) % len(CLASSES) + 1:      # balanced over the classes
        radius = size * rng.uniform(0.11, 0.27 if wanted < 5 else 0.21)
        patch, alpha = _object(rng, CLASSES[label - 1], radius, light)
        corner = _place(rng, owner, totals, alpha)
        if corner is None:
            continue
        _cast_shadow(canvas, alpha, *corner, light, 0.09 * radius + 1)
        paint.blend(canvas, patch, alpha, *corner)
        cover = np.zeros((size, size), np.float32)
        paint.blend(cover[..., None], 1.0, alpha, *corner)
        labels.append(int(label))
        totals.append(int((alpha > 0.5).sum()))
        owner[cover > 0.5] = len(labels)
    canvas += rng.uniform(0.003, 0.012) * rng.standard_normal(canvas.shape, np.float32)     # sensor noise
    image = (np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8)
    return image, [DrawnObject(label, owner == n) for n, label in enumerate(labels, 1)]


# ------------------------------------------------------------------------------------------ data set


def box_of(mask: np.ndarray) -> list[float]:
    """Return the smallest (x, y, width, height) around a mask, in continuous pixels."""
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return [float(x), float(y), float(width), float(height)]


def _draw_file(index: int, folder: str, split: str, size: int, seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Draw and write image `index` of a split; return its COCO entries. The caller assigns annotation ids."""
    image, objects = draw_scene(np.random.default_rng([seed, _SPLITS[split], index]), size)
    name = f"{index + 1:06d}.jpg"
    if not cv2.imwrite(str(Path(folder) / name), image, [cv2.IMWRITE_JPEG_QUALITY, 93]):
        raise OSError(f"{Path(folder) / name}: cannot be written")
    entries = []
    for drawn in objects:
        code = rle.encode(np.asfortranarray(drawn.mask.astype(np.uint8)))
        entries.append({"image_id": index + 1, "category_id": drawn.label, "iscrowd": 0, "bbox": box_of(drawn.mask),
                        "area": float(drawn.mask.sum()),
                        "segmentation": {"size": [size, size], "counts": code["counts"].decode("ascii")}})
    return {"id": index + 1, "file_name": name, "height": size, "width": size}, entries


def draw_dataset(folder: Union[str, Path], train: int = 400, val: int = 60, size: int = 320, seed: int = 1,
                 workers: int = 2) -> dict[str, Any]:
    """Draw the data set into `folder` unless the same data set is complete there.

    Writes train2017/, val2017/ and annotations/instances_{train,val}2017.json. Returns {"pictures": images per split, "objects":
    objects per split, "drawn": whether anything was drawn}.
    """
    folder = Path(folder)
    wish = {"version": VERSION, "train": train, "val": val, "size": size, "seed": seed}
    stamp = folder / "drawn.json"           # written last, so its presence means that the data set is complete
    if stamp.is_file():
        known = json.loads(stamp.read_text(encoding="utf-8"))
        if known.get("wish") == wish:
            return {**known, "drawn": False}
        stamp.unlink()
    info = {"wish": wish, "pictures": {}, "objects": {}}
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(max_workers=workers) as pool:
        for split, count in (("train2017", train), ("val2017", val)):
            (folder / split).mkdir(exist_ok=True)
            draw = partial(_draw_file, folder=str(folder / split), split=split, size=size, seed=seed)
            results = list(pool.map(draw, range(count)))
            current = {folder / split / image["file_name"] for image, _ in results}
            for left_over in set((folder / split).glob("??????.jpg")) - current:
                left_over.unlink()      # from a larger data set drawn here before
            annotations = [entry for _, entries in results for entry in entries]
            for number, entry in enumerate(annotations, 1):
                entry["id"] = number
            coco = {"info": {"description": "fish, starfish and shells, drawn by utils.demo.shapes", "seed": seed},
                    "categories": [{"id": n, "name": name} for n, name in enumerate(CLASSES, 1)],
                    "images": [image for image, _ in results], "annotations": annotations}
            (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(coco), encoding="utf-8")
            info["pictures"][split], info["objects"][split] = count, len(annotations)
    stamp.write_text(json.dumps(info), encoding="utf-8")
    return {**info, "drawn": True}


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Draw a data set from the command line."""
    parser = argparse.ArgumentParser(prog="utils.demo.shapes", description=__doc__.split("\n", 1)[0])
    parser.add_argument("output_dir")
    for name, default in (("train", 400), ("val", 60), ("size", 320), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default, help="default: %(default)s")
    args = parser.parse_args(argv)
    info = draw_dataset(args.output_dir, args.train, args.val, args.size, args.seed)
    for split, count in info["pictures"].items():
        print(f"{Path(args.output_dir) / split}: {counted(count, 'image')}, {counted(info['objects'][split], 'object')}")


if __name__ == "__main__":
    main()
