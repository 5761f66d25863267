"""What conversion and check.py need to know of an image file: its size, how it is turned, and whether training can decode it.

The usual kinds of JPEG, PNG and BMP are not decoded. A file that shows damage (completeness.py), and one of another kind, is
decoded, as training does it (decoding.py).
"""
import os
import stat
from dataclasses import dataclass, replace
from typing import NamedTuple, Optional, Union

import cv2
import numpy as np

from .completeness import lacks_part, seems_whole
from .decoding import DecodeError, check_size, decode_stored
from .errors import LARGE_PICTURE, NO_FILE, TRUNCATED_PICTURE, UNREADABLE_PICTURE, DataError
from .image_header import PNG, TIFF_ORDERS, Header, find_orientation, read_header

KINDS = {"unreadable": UNREADABLE_PICTURE, "truncated": TRUNCATED_PICTURE, "large": LARGE_PICTURE}
# What is done with an EXIF orientation: `auto` turns the image unless only its stored size is the one in the annotations.
EXIF_RULES = ("auto", "apply", "ignore")
# Words for the sizes that are the annotated one, (turned, stored).
_SUPPORTED = {(True, False): "the turned image", (False, True): "the stored image", (True, True): "both", (False, False): "neither"}
DARK_BITS = 14      # 16-bit images that use no more are dark once they are divided by 256


@dataclass(frozen=True)
class Picture:
    """Size as it is stored, before it is turned."""

    height: int
    width: int
    channels: int = 0
    orientation: int = 1            # of EXIF: 2 to 8 turn the image
    bits: Optional[int] = None      # of a 16-bit image: those that its values use

    def turned(self) -> "Picture":
        """The image as a viewer shows it."""
        height, width = (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)
        return replace(self, height=height, width=width, orientation=1)


class Frame(NamedTuple):
    """The image whose pixels the boxes count. The last three are of an image with an orientation."""

    picture: Picture
    stored: bool = False        # the orientation is not applied
    support: str = ""           # which reading the annotated size supports
    note: str = ""              # all of it in a line


class PictureError(Exception):
    """`kind` is one of errors.py's, the text what is wrong."""

    def __init__(self, kind: str, what: str):
        super().__init__(what)
        self.kind = kind


def read_picture(path: Union[str, os.PathLike[str]]) -> bytes:
    """As Path.read_bytes, with a third of its calls of the system. FIFOs, which wait for a writer, and devices are not opened."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise PictureError(UNREADABLE_PICTURE, NO_FILE)
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
        try:
            size = os.fstat(fd).st_size
            data = os.read(fd, size)
        finally:
            os.close(fd)
    except OSError as error:
        raise PictureError(UNREADABLE_PICTURE, error.strerror or str(error)) from error
    if len(data) < size:
        raise PictureError(UNREADABLE_PICTURE, f"{len(data)} of {size} bytes were read")
    return data


def inspect(data: bytes, whole: bool = False) -> Picture:
    """Return what is in the bytes of an image file; PictureError if training cannot use it. whole: decode it in any case."""
    header = read_header(data)
    try:
        if header:
            check_size(header.height, header.width)
        if header and header.usual and header.bits <= 8 and not whole and seems_whole(data):
            picture = Picture(header.height, header.width, header.channels)
        else:
            image = decode_stored(data).image
            if lacks_part(data):
                raise DecodeError("a JPEG whose last part is lost: its data ends before the last pixel", "truncated")
            picture = Picture(image.shape[0], image.shape[1], header.channels if header else image.shape[2])
    except DecodeError as error:
        raise PictureError(KINDS[error.kind], str(error)) from error
    tag = find_orientation(data)
    return replace(picture, orientation=tag.value if tag else 1, bits=_used_bits(data, header))


def check_rule(rule: str) -> str:
    """Return the rule for EXIF orientations; DataError if there is none of this name."""
    if rule not in EXIF_RULES:
        raise DataError(f"exif_orientation: expected one of {', '.join(EXIF_RULES)}, got {rule!r}")
    return rule


def choose_frame(picture: Picture, height: Optional[int], width: Optional[int], rule: str = "auto") -> Frame:
    """Return the image as the boxes count its pixels. height, width: as annotated, None where they are not."""
    if picture.orientation == 1:
        return Frame(picture)
    turned, size = picture.turned(), (height, width)
    as_turned, as_stored = size == (turned.height, turned.width), size == (picture.height, picture.width)
    stored = rule == "ignore" or (rule == "auto" and as_stored and not as_turned)
    support = f"the annotated size is that of {_SUPPORTED[as_turned, as_stored]}" if height and width else "no size is annotated"
    note = (f"EXIF orientation {picture.orientation}: stored as {picture.width}x{picture.height}, turned {turned.width}x"
            f"{turned.height}; {support}; it is {'not turned' if stored else 'turned'}")
    return Frame(picture if stored else turned, stored, support, note)


def _used_bits(data: bytes, header: Optional[Header]) -> Optional[int]:
    """Of a 16-bit image that can be decoded, how many bits its largest value takes; None of others."""
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
