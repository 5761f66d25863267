"""Detect truncated and damaged image files that decoders accept: they fill in the lost part of a JPEG."""
import io
import re
import zlib

import numpy as np
from PIL import Image

from .image_header import PNG, jpeg_segments, png_chunks

PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
JPEG_END = b"\xff\xd9"
SCAN, END = 0xDA, 0xD9
# A marker within or after scan data. FF 00 is an escaped value there, and FF D0 to FF D7 restart the decoder.
MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
NOISE = np.random.default_rng(0).integers(1, 255, 600, np.uint8).tobytes()     # contains no FF
HOLE = bytes(2048)      # interrupted copies leave zeros in files of the right size


def seems_whole(data: bytes) -> bool:
    """Return whether a JPEG, PNG or BMP has its end marker and no sign of damage, without decoding it."""
    if data.startswith(b"\xff\xd8"):        # some tools pad the last block
        return data[-64:].rstrip(b"\0\r\n ").endswith(JPEG_END) and HOLE not in data
    if data.startswith(b"BM"):
        return len(data) >= max(int.from_bytes(data[2:6], "little"), _bmp_size(data))
    return data.endswith(PNG_END) and _png_sums_agree(data)


def lacks_part(data: bytes) -> bool:
    """Return whether a JPEG that decodes has lost the data of its last pixels.

    Decoders invent missing pixels. Noise inserted before the end marker changes the result only if pixels are missing.
    """
    if not data.startswith(b"\xff\xd8"):
        return False
    end = _end_of_scans(data)
    try:
        return _decode_small(data[:end] + JPEG_END) != _decode_small(data[:end] + NOISE + JPEG_END)
    except Exception:       # a JPEG variant that Pillow does not decode
        return False


def _decode_small(data: bytes) -> bytes:
    """Decode at an eighth of the size, which reads all data at little cost."""
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        image.draft("L", (1, 1))
        image.load()
        return image.tobytes()


def _end_of_scans(data: bytes) -> int:
    """Return the offset at which the image's end marker is, or should be."""
    # The header may hold a thumbnail, a JPEG with scans and an end.
    headers = max((end for _, _, end in jpeg_segments(data)), default=2)
    place = data.find(bytes((0xFF, SCAN)), headers)
    while place >= 0:
        if data[place + 1] == END:
            return place
        found = MARKER.search(data, place + 2 + int.from_bytes(data[place + 2:place + 4], "big"))
        place = found.start() if found else -1
    return len(data)


def _bmp_size(data: bytes) -> int:
    """Return the size in bytes of an uncompressed BMP. The header's own size field may be wrong."""
    start, width, height = (int.from_bytes(data[place:place + 4], "little", signed=True) for place in (10, 18, 22))
    bits = int.from_bytes(data[28:30], "little")
    return start + (width * bits + 31) // 32 * 4 * abs(height)


def _png_sums_agree(data: bytes) -> bool:
    """Return whether the PNG has image data and every critical chunk matches its checksum."""
    kinds = set()
    for kind, start, end in png_chunks(data):
        kinds.add(kind)
        if kind[:1].isupper() and zlib.crc32(memoryview(data)[start - 4:end]) != int.from_bytes(data[end:end + 4], "big"):
            return False
    return data.startswith(PNG) and kinds >= {b"IDAT", b"IEND"}
