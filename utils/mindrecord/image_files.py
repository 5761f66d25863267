"""Inspect image files for conversion and check.py: size, EXIF orientation, and whether training can decode them.

Common JPEG, PNG and BMP files are not decoded unless they show signs of damage (completeness.py); all others are decoded as
training decodes them (decoding.py).
"""
import os
import stat
from dataclasses import dataclass, replace
from typing import NamedTuple, Optional, Union

import cv2
import numpy as np

from .completeness import lacks_part, seems_whole
from .decoding import DecodeError, check_size, decode_stored
from .errors import LARGE_IMAGE, NO_FILE, TRUNCATED_IMAGE, UNREADABLE_IMAGE, DataError
from .image_header import PNG, TIFF_ORDERS, Header, find_orientation, read_header

KINDS = {"unreadable": UNREADABLE_IMAGE, "truncated": TRUNCATED_IMAGE, "large": LARGE_IMAGE}
# Handling of the EXIF orientation. `auto` applies it unless only the stored size matches the annotations.
EXIF_RULES = ("auto", "apply", "ignore")
# For messages: (annotated size matches the turned image, the stored image) -> which of them it matches.
_SUPPORTED = {(True, False): "the turned image", (False, True): "the stored image", (True, True): "both", (False, False): "neither"}
DARK_BITS = 14      # 16-bit images that use no more bits look dark after division by 256


@dataclass(frozen=True)
class ImageInfo:
    """The properties of an image as stored, before its orientation is applied."""

    height: int
    width: int
    channels: int = 0
    orientation: int = 1            # EXIF orientation; 2 to 8 turn the image
    bits: Optional[int] = None      # bits that the values of a 16-bit image use

    def turned(self) -> "ImageInfo":
        """Return the properties of the image as viewers show it."""
        height, width = (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)
        return replace(self, height=height, width=width, orientation=1)


class Frame(NamedTuple):
    """The image in whose pixels the boxes are given. All but `info` are set only if the image has an orientation."""

    info: ImageInfo
    stored: bool = False        # the orientation is not applied
    support: str = ""           # which of the two the annotated size supports
    note: str = ""              # a summary in one line


class ImageError(Exception):
    """An unusable image. `kind` is a kind of errors.py; the text says what is wrong."""

    def __init__(self, kind: str, what: str):
        super().__init__(what)
        self.kind = kind


def read_image(path: Union[str, os.PathLike[str]]) -> bytes:
    """Read a regular file like Path.read_bytes, with a third of the system calls; opening a FIFO would block."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ImageError(UNREADABLE_IMAGE, NO_FILE)
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
        try:
            size = os.fstat(fd).st_size
            data = os.read(fd, size)
        finally:
            os.close(fd)
    except OSError as error:
        raise ImageError(UNREADABLE_IMAGE, error.strerror or str(error)) from error
    if len(data) < size:
        raise ImageError(UNREADABLE_IMAGE, f"{len(data)} of {size} bytes were read")
    return data


def inspect(data: bytes, whole: bool = False) -> ImageInfo:
    """Return the properties of an image file's bytes; ImageError if training cannot use it. whole: decode it in any case."""
    header = read_header(data)
    try:
        if header:
            check_size(header.height, header.width)
        if header and header.usual and header.bits <= 8 and not whole and seems_whole(data):
            info = ImageInfo(header.height, header.width, header.channels)
        else:
            image = decode_stored(data).image
            if lacks_part(data):
                raise DecodeError("a JPEG whose last part is lost: its data ends before the last pixel", "truncated")
            info = ImageInfo(image.shape[0], image.shape[1], header.channels if header else image.shape[2])
    except DecodeError as error:
        raise ImageError(KINDS[error.kind], str(error)) from error
    tag = find_orientation(data)
    return replace(info, orientation=tag.value if tag else 1, bits=_used_bits(data, header))


def check_rule(rule: str) -> str:
    """Return the rule for EXIF orientations; DataError if it is unknown."""
    if rule not in EXIF_RULES:
        raise DataError(f"exif_orientation: expected one of {', '.join(EXIF_RULES)}, got {rule!r}")
    return rule


def choose_frame(info: ImageInfo, height: Optional[int], width: Optional[int], rule: str = "auto") -> Frame:
    """Return the image that the boxes refer to. height, width: annotated size, None if missing."""
    if info.orientation == 1:
        return Frame(info)
    turned, size = info.turned(), (height, width)
    as_turned, as_stored = size == (turned.height, turned.width), size == (info.height, info.width)
    stored = rule == "ignore" or (rule == "auto" and as_stored and not as_turned)
    support = f"the annotated size is that of {_SUPPORTED[as_turned, as_stored]}" if height and width else "no size is annotated"
    note = (f"EXIF orientation {info.orientation}: stored as {info.width}x{info.height}, turned {turned.width}x"
            f"{turned.height}; {support}; the orientation is {'not applied' if stored else 'applied'}")
    return Frame(info if stored else turned, stored, support, note)


def _used_bits(data: bytes, header: Optional[Header]) -> Optional[int]:
    """Return the bits that the largest value of a decodable 16-bit image uses; None for other images."""
    deep = header is not None and header.bits == 16 and (data.startswith(PNG) or data[:4] in TIFF_ORDERS)
    if not deep and not data.startswith((b"P5", b"P6")):
        return None
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if image is None or image.dtype != np.uint16:
        return None
    colours = image[..., :3] if image.ndim == 3 else image
    return int(colours.max()).bit_length()
