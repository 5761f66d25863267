# Same as faster_rcnn/src/model_utils/data/decoding.py
"""Decode images; checks, conversion, training, evaluation and inference all use this decoder and refuse the same images.

OpenCV decodes, and Pillow decodes the formats that OpenCV does not know. Of an animation, the first frame is used. The image is
turned according to its EXIF orientation, as viewers and most annotation tools do.
"""
import io
from pathlib import Path
from typing import NamedTuple, Union

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .image_header import PNG, TIFF_ORDERS, cut_png_chunk, find_orientation, read_header, without_orientation

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".avif", ".tga", ".pcx", ".ico", ".pgm", ".ppm",
            ".jfif", ".jp2")
MOST_PIXELS = 1 << 28       # 800 MB once decoded; larger files are assumed to be damaged
LONGEST_SIDE = 1_000_000    # libpng's limit
# IMREAD_COLOR converts grey, palette, 16-bit and transparent images to 3 channels of 8 bits (alpha is dropped).
OPENCV_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
PILLOW_FORMATS = ("AVIF", "BMP", "GIF", "ICO", "JPEG2000", "PCX", "PPM", "TGA", "TIFF", "WEBP")
OPENCV_FORMATS = ("JPEG", "PNG")        # Pillow is only asked what is wrong with them
FLOATING = "floating-point or 32-bit values, whose range is unknown; scale them to 8 or 16 bits and save the image again"


class DecodeError(ValueError):
    """An image that is refused; the message says why. kind: "unreadable", "truncated" or "large"."""

    def __init__(self, what: str, kind: str = "unreadable"):
        super().__init__(what)
        self.kind = kind


class Stored(NamedTuple):
    """A decoded image before it is turned."""

    image: np.ndarray       # (h, w, 3) uint8 BGR
    orientation: int        # EXIF orientation, 1 to 8, see `turn`


def decode_image(data: Union[bytes, np.ndarray], upright: bool = True) -> np.ndarray:
    """Decode an image file to (h, w, 3) uint8 BGR.

    Args:
        data: the file, as bytes or as an array of them.
        upright: turn the image according to its EXIF orientation.

    Raises:
        DecodeError: if the image is refused.
    """
    # `tobytes` keeps all bytes of an array; its elements would lose zero bytes at the end, which a BMP may well have.
    stored = decode_stored(data.tobytes() if isinstance(data, np.ndarray) else data)
    return turn(stored.image, stored.orientation) if upright else stored.image


def decode_stored(data: bytes) -> Stored:
    """Decode an image without turning it. Raises DecodeError if it is refused."""
    if not data:
        raise DecodeError("the file is empty")
    header = read_header(data)
    if header:
        check_size(header.height, header.width)
        if header.floating or (data[:4] in TIFF_ORDERS and header.bits > 16):
            raise DecodeError(FLOATING)
    if data[:3] in (b"PF\n", b"Pf\n"):      # PFM
        raise DecodeError(FLOATING)
    cut = cut_png_chunk(data) if data.startswith(PNG) else None
    if cut:     # OpenCV would first allocate what the chunk claims, up to 2 GB
        kind, claimed, left = cut
        raise DecodeError(f"truncated or damaged: PNG chunk {kind!r} claims {claimed} bytes, but only {left} are left", "truncated")
    tag = find_orientation(data)
    # OpenCV and Pillow always apply the orientation of a TIFF, so it is removed first.
    plain = without_orientation(data) if data[:4] in TIFF_ORDERS else data
    try:
        image = cv2.imdecode(np.frombuffer(plain, np.uint8), OPENCV_FLAGS)
    except cv2.error:
        image = None
    if image is None:
        image = _decode_by_pillow(plain)
    check_size(*image.shape[:2])
    return Stored(image, tag.value if tag else 1)


def check_size(height: int, width: int) -> None:
    """Raise DecodeError if an image of this size is refused."""
    if height <= 0 or width <= 0:
        raise DecodeError(f"its header declares {width}x{height} pixels")
    if height * width > MOST_PIXELS or max(height, width) > LONGEST_SIDE:
        raise DecodeError(f"{width}x{height} pixels; the limits are {MOST_PIXELS} pixels and {LONGEST_SIDE} per side; scale it "
                          "down, or cut it into tiles", "large")


def turn(image: np.ndarray, orientation: int) -> np.ndarray:
    """Return the image as a viewer shows it. orientation: EXIF, 1 to 8."""
    if orientation in (5, 7):
        image = cv2.transpose(image)
    quarters = {3: cv2.ROTATE_180, 6: cv2.ROTATE_90_CLOCKWISE, 7: cv2.ROTATE_180, 8: cv2.ROTATE_90_COUNTERCLOCKWISE}
    if orientation in quarters:
        return cv2.rotate(image, quarters[orientation])
    return cv2.flip(image, 1 if orientation == 2 else 0) if orientation in (2, 4) else image


def _decode_by_pillow(data: bytes) -> np.ndarray:
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS        # Pillow warns beyond this number, and refuses twice as many
    try:
        with Image.open(io.BytesIO(data), formats=PILLOW_FORMATS + OPENCV_FORMATS) as image:
            check_size(image.height, image.width)
            image.load()
            if image.format in OPENCV_FORMATS:
                raise DecodeError(f"{image.format} of a kind that OpenCV does not decode, or damaged; save the image again")
            if image.mode == "F" or image.mode.startswith("I"):
                raise DecodeError(FLOATING)
            # AVIF stores the orientation in the format itself, and every decoder applies it.
            shown = ImageOps.exif_transpose(image) if image.format == "AVIF" else image
            return cv2.cvtColor(np.asarray(shown.convert("RGB")), cv2.COLOR_RGB2BGR)
    except DecodeError:
        raise
    except UnidentifiedImageError:
        raise DecodeError(f"not an image of a known format, or damaged ({len(data)} bytes)") from None
    except Image.DecompressionBombError as error:
        raise DecodeError(f"more than {MOST_PIXELS} pixels: {error}", "large") from error
    except Exception as error:      # decoders raise OSError, SyntaxError, struct.error, ...
        raise DecodeError(str(error), "truncated" if "truncated" in str(error).lower() else "unreadable") from error


def is_animation(path: Path) -> bool:
    """Return whether a file is an animated GIF."""
    try:
        with Image.open(path, formats=["GIF"]) as image:
            return getattr(image, "n_frames", 1) > 1
    except Exception:               # another format, or damaged: `decode_image` reports it
        return False
