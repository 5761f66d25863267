"""Whether the file of an image is all there, beyond what decoders say: they fill up what is lost of a JPEG."""
import io
import re
import zlib

import numpy as np
from PIL import Image

from .image_header import PNG, jpeg_segments, png_chunks

PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
JPEG_END = b"\xff\xd9"
SCAN, END = 0xDA, 0xD9
# A marker in or behind the data of a scan, in which FF 00 is a value and FF D0 to FF D7 restart the decoder.
MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
NOISE = np.random.default_rng(0).integers(1, 255, 600, np.uint8).tobytes()     # without FF
HOLE = bytes(2048)      # as interrupted copies leave it in files of the right size


def seems_whole(data: bytes) -> bool:
    """Return whether a JPEG, PNG or BMP has its end and no sign of damage, without decoding it."""
    if data.startswith(b"\xff\xd8"):        # some tools fill up the last block
        return data[-64:].rstrip(b"\0\r\n ").endswith(JPEG_END) and HOLE not in data
    if data.startswith(b"BM"):
        return len(data) >= max(int.from_bytes(data[2:6], "little"), _bmp_size(data))
    return data.endswith(PNG_END) and _png_sums_agree(data)


def lacks_part(data: bytes) -> bool:
    """Return whether the data of a JPEG that decodes ends before its last pixel.

    Decoders invent the rest. If nothing is lost, they do not look at what is inserted before the end marker.
    """
    if not data.startswith(b"\xff\xd8"):
        return False
    end = _end_of_scans(data)
    try:
        return _decode_small(data[:end] + JPEG_END) != _decode_small(data[:end] + NOISE + JPEG_END)
    except Exception:       # a kind of JPEG that Pillow does not decode
        return False


def _decode_small(data: bytes) -> bytes:
    """The image an eighth as large: everything is read, and little computed."""
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        image.draft("L", (1, 1))
        image.load()
        return image.tobytes()


def _end_of_scans(data: bytes) -> int:
    """Where the image's end marker stands, or should."""
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
    """Bytes of a BMP without compression; its own field may be wrong."""
    start, width, height = (int.from_bytes(data[place:place + 4], "little", signed=True) for place in (10, 18, 22))
    bits = int.from_bytes(data[28:30], "little")
    return start + (width * bits + 31) // 32 * 4 * abs(height)


def _png_sums_agree(data: bytes) -> bool:
    """Whether there is image data, and each chunk that decoders need agrees with its checksum."""
    kinds = set()
    for kind, start, end in png_chunks(data):
        kinds.add(kind)
        if kind[:1].isupper() and zlib.crc32(memoryview(data)[start - 4:end]) != int.from_bytes(data[end:end + 4], "big"):
            return False
    return data.startswith(PNG) and kinds >= {b"IDAT", b"IEND"}
