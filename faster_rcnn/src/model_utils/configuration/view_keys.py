"""Parse the keys tta and tile: the views of an image that infer.py and eval.py detect in."""
import re
from collections.abc import Iterator
from typing import NamedTuple

from .rules import Fault
from .values import Config

EXAMPLE = "flip, scales=NUMBER,... or both, such as flip,scales=0.75,1.0,1.5"
NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?|\.[0-9]+")
SMALLEST_SCALE, LARGEST_SCALE = 0.1, 4.0
SMALLEST_TILE = 32


class Augmentation(NamedTuple):
    """Value of `tta`."""

    flip: bool
    scales: tuple[float, ...]       # factors of the size that an image is resized to


class Tile(NamedTuple):
    """Sides of a tile, in pixels of the image."""

    height: int
    width: int


def read_tta(text: str) -> Augmentation:
    """Parse a value of `tta`; empty text: no mirrored view, and scale 1. Raises ValueError with the fault."""
    flip, scales, in_scales = False, [], False
    for item in re.split(r"[,;]", text) if text.strip() else ():
        word = item.strip()
        if word.startswith("scales="):
            if in_scales:
                raise ValueError("scales: given twice")
            in_scales, word = True, word.removeprefix("scales=").strip()
        if word == "flip":
            if flip:
                raise ValueError("flip: given twice")
            flip = True
        elif in_scales and NUMBER.fullmatch(word):
            scales.append(float(word))
        else:
            raise ValueError(f"expected {EXAMPLE}, got {word!r}" + (f" in {text!r}" if word != text else ""))
    wrong = next((scale for scale in scales if not SMALLEST_SCALE <= scale <= LARGEST_SCALE or scales.count(scale) > 1), None)
    if wrong is not None:
        what = "given twice" if scales.count(wrong) > 1 else f"expected {SMALLEST_SCALE:g} to {LARGEST_SCALE:g}"
        raise ValueError(f"scales: {what}, got {wrong:g}")
    return Augmentation(flip, tuple(scales) or (1.0,))


def read_tile(text: str) -> Tile | None:
    """Parse a value of `tile`; empty text: None. Raises ValueError with the fault."""
    if not text.strip():
        return None
    match = re.fullmatch(r"([0-9]{1,6})x([0-9]{1,6})", text.strip())
    if not match or min(int(side) for side in match.groups()) < SMALLEST_TILE:
        raise ValueError(f"expected HEIGHTxWIDTH in pixels, both {SMALLEST_TILE} or more, such as 640x640, got {text!r}")
    return Tile(int(match[1]), int(match[2]))


def check_views(config: Config) -> Iterator[Fault]:
    """Check that tta and tile are valid."""
    for name, read in (("tta", read_tta), ("tile", read_tile)):
        try:
            read(config.get(name, ""))
        except ValueError as error:
            yield name, str(error)
