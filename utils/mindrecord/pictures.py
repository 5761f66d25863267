"""What a picture file says of itself, without decoding it: its size, and whether it is whole.

Of JPEG, PNG and BMP some hundred bytes are looked at. A file that does not end as its format ends, and one of another
format, is decoded after all, by Pillow, which accepts no half picture (OpenCV and MindSpore do at times). Pillow comes
with matplotlib.
"""
import io
import os
import struct
from dataclasses import dataclass
from typing import Optional, Union

from .errors import LARGE_PICTURE, TRUNCATED_PICTURE, UNREADABLE_PICTURE

PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
MAX_SIDE = 2**31 - 1
# Start-of-frame markers of JPEG; C4, C8 and CC in between are others.
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True)
class Picture:
    """Size as stored: a camera's orientation flag is not applied."""

    height: int
    width: int
    channels: int = 0


class PictureError(Exception):
    """`kind` is one of errors.py's, the text what is wrong."""

    def __init__(self, kind: str, what: str):
        super().__init__(what)
        self.kind = kind


def read_picture(path: Union[str, os.PathLike[str]]) -> bytes:
    """As Path.read_bytes, with a third of its calls of the system."""
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
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


def inspect(data: bytes) -> Picture:
    """The picture in the bytes of a file; PictureError where it cannot be used."""
    if not data:
        raise PictureError(UNREADABLE_PICTURE, "the file is empty")
    picture = _from_header(data)
    if picture is None:
        return decode_strictly(data)
    if not (0 < picture.height <= MAX_SIDE and 0 < picture.width <= MAX_SIDE):
        raise PictureError(UNREADABLE_PICTURE, f"its header says {picture.width}x{picture.height} pixels")
    if not _ends_well(data):
        decode_strictly(data)
    return picture


def _from_header(data: bytes) -> Optional[Picture]:
    """Picture, or None where the format is another or the header makes no sense."""
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR" and len(data) >= 26:
        width, height, _, colour = struct.unpack(">IIBB", data[16:26])
        return Picture(height, width, {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}.get(colour, 0))
    if data.startswith(b"BM") and len(data) >= 30 and struct.unpack("<I", data[14:18])[0] >= 40:
        width, height, _, bits = struct.unpack("<iiHH", data[18:30])
        return Picture(abs(height), width, max(1, bits // 8))
    return None


def _jpeg(data: bytes) -> Optional[Picture]:
    """Walks from marker to marker up to the frame header."""
    position = 2
    while position + 10 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker in FRAMES:
            height, width, channels = struct.unpack(">HHB", data[position + 5:position + 10])
            return Picture(height, width, channels) if height else None     # 0: a later segment tells
        if marker == 0xFF:                      # padding
            position += 1
        elif 0xD0 <= marker <= 0xD9 or marker == 0x01:
            position += 2
        elif marker == 0xDA:                    # picture data without a frame header
            return None
        else:
            position += 2 + struct.unpack(">H", data[position + 2:position + 4])[0]
    return None


def _ends_well(data: bytes) -> bool:
    if data.startswith(b"\xff\xd8"):
        return data[-64:].rstrip(b"\0\r\n ").endswith(b"\xff\xd9")     # some tools fill up the last block
    if data.startswith(b"BM"):
        return len(data) >= struct.unpack("<I", data[2:6])[0]
    return data.endswith(PNG_END)


def decode_strictly(data: bytes) -> Picture:
    """Decode all of it; PictureError where that fails."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        return _decode_by_opencv(data)
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            channels = len(image.getbands())
            image.load()
    except UnidentifiedImageError:
        return _decode_by_opencv(data)          # a format that Pillow was built without
    except Image.DecompressionBombError as error:
        raise PictureError(LARGE_PICTURE, f"more pixels than Pillow decodes: {error}") from error
    except Exception as error:                  # decoders raise OSError, SyntaxError, struct.error, ...
        kind = TRUNCATED_PICTURE if "truncated" in str(error).lower() else UNREADABLE_PICTURE
        raise PictureError(kind, str(error)) from error
    return Picture(height, width, channels)


def _decode_by_opencv(data: bytes) -> Picture:
    import cv2
    import numpy as np

    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise PictureError(UNREADABLE_PICTURE, "not a picture of a known format, or damaged")
    height, width = image.shape[:2]
    return Picture(height, width, image.shape[2] if image.ndim == 3 else 1)
