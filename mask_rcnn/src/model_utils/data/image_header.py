# Same as faster_rcnn/src/model_utils/data/image_header.py
"""Read the header of an encoded image without decoding it: size, bits per value, and EXIF orientation.

Orientations 2 to 8 tell viewers how to turn the stored pixels: 3 by 180 degrees, 6 by 90 degrees clockwise. Sizes are those of the
stored pixels.
"""
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple, Optional, Union

PNG = b"\x89PNG\r\n\x1a\n"
TIFF_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
# Start-of-frame markers of JPEG; C4, C8 and CC in between have other meanings.
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
WIDTH, HEIGHT, BITS, ORIENTATION, SAMPLES, SAMPLE_FORMAT = 0x100, 0x101, 0x102, 0x112, 0x115, 0x153     # tags of TIFF and EXIF
SHORT, LONG = 3, 4      # types of the tags' values
FLOATING = 3            # value of SAMPLE_FORMAT
PNG_BITS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}       # valid bits for each colour type
PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}


class Header(NamedTuple):
    """Header of an image; sizes are those of the stored pixels."""

    height: int
    width: int
    channels: int
    bits: int               # per value
    floating: bool = False  # values are floating-point numbers
    usual: bool = False     # a kind that every decoder reads, unless the file is damaged


class Tag(NamedTuple):
    """A number in the tables of TIFF and EXIF."""

    value: int
    place: int              # position of its bytes in the data
    order: str              # "<" or ">"
    kind: int               # SHORT or LONG


def read_header(data: bytes) -> Optional[Header]:
    """Return the header of a JPEG, PNG, BMP or TIFF, or None if the format is another one or the header is invalid."""
    if data.startswith(b"\xff\xd8"):
        return _jpeg_header(data)
    if data.startswith(PNG) and data[12:16] == b"IHDR" and len(data) >= 29:
        width, height, bits, colour, *methods = struct.unpack(">IIBBBBB", data[16:29])
        usual = bits in PNG_BITS.get(colour, ()) and methods in ([0, 0, 0], [0, 0, 1])
        return Header(height, width, PNG_CHANNELS.get(colour, 0), bits, usual=usual)
    if data.startswith(b"BM") and len(data) >= 34 and struct.unpack("<I", data[14:18])[0] >= 40:
        width, height, planes, bits, compression = struct.unpack("<iiHHI", data[18:34])
        usual = planes == 1 and bits in (8, 24, 32) and not compression
        return Header(abs(height), width, max(1, bits // 8), 8, usual=usual)
    return _tiff_header(data) if data[:4] in TIFF_ORDERS else None


def _jpeg_header(data: bytes) -> Optional[Header]:
    for marker, start, end in jpeg_segments(data):
        if marker in FRAMES and end - start >= 6:
            bits, height, width, channels = struct.unpack(">BHHB", data[start:start + 6])
            usual = marker <= 0xC2 and bits == 8 and channels in (1, 3, 4)      # baseline and progressive
            return Header(height, width, channels, bits, usual=usual) if height else None   # 0: a later segment declares the height
    return None


def _tiff_header(data: bytes) -> Optional[Header]:
    width, height, bits, channels, kind = (read_tag(data, tag) for tag in (WIDTH, HEIGHT, BITS, SAMPLES, SAMPLE_FORMAT))
    if width is None or height is None:
        return None
    return Header(height.value, width.value, channels.value if channels else 1, bits.value if bits else 1,
                  floating=kind is not None and kind.value == FLOATING)


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, start, end) of the segments before the first scan."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:                          # padding
            position += 1
        elif 0xD0 <= marker <= 0xD9 or marker == 0x01:
            position += 2
        elif marker == 0xDA:
            return
        else:
            end = position + 2 + struct.unpack(">H", data[position + 2:position + 4])[0]
            yield marker, position + 4, end
            position = end


def read_tag(data: Union[bytes, memoryview], number: int, start: int = 0, end: Optional[int] = None) -> Optional[Tag]:
    """Return the first value of a tag of the TIFF structure in data[start:end], or None if it is missing or damaged."""
    block = memoryview(data)[start:end]
    order = TIFF_ORDERS.get(bytes(block[:4]))
    if order is None:
        return None
    try:
        table = struct.unpack_from(f"{order}I", block, 4)[0]
        for entry in range(table + 2, table + 2 + 12 * struct.unpack_from(f"{order}H", block, table)[0], 12):
            found, kind, count = struct.unpack_from(f"{order}HHI", block, entry)
            if found != number:
                continue
            if kind not in (SHORT, LONG) or not count:
                return None
            place = entry + 8
            if count * (2 if kind == SHORT else 4) > 4:     # the values lie elsewhere
                place = struct.unpack_from(f"{order}I", block, place)[0]
            return Tag(struct.unpack_from(f"{order}{'H' if kind == SHORT else 'I'}", block, place)[0], start + place, order, kind)
    except struct.error:        # beyond the end
        pass
    return None


def find_orientation(data: bytes) -> Optional[Tag]:
    """Return the EXIF orientation of a JPEG, PNG, WebP or TIFF, 2 to 8, or None if the image need not be turned."""
    span = _exif_span(data)
    tag = read_tag(data, ORIENTATION, *span) if span else None
    return tag if tag and 2 <= tag.value <= 8 else None


def without_orientation(data: bytes) -> bytes:
    """Return the same file with orientation 1, so that decoders do not turn the image."""
    tag = find_orientation(data)
    if tag is None:
        return data
    changed = bytearray(data)
    struct.pack_into(f"{tag.order}{'H' if tag.kind == SHORT else 'I'}", changed, tag.place, 1)
    if data.startswith(PNG):
        start, end = next((start, end) for kind, start, end in png_chunks(data) if kind == b"eXIf")
        changed[end:end + 4] = struct.pack(">I", zlib.crc32(changed[start - 4:end]))
    return bytes(changed)


def _exif_span(data: bytes) -> Optional[tuple[int, int]]:
    """Return (start, end) of the TIFF structure that holds the EXIF data, or None."""
    if data.startswith(b"\xff\xd8"):
        return next(((start + 6, end) for marker, start, end in jpeg_segments(data)
                     if marker == 0xE1 and data[start:start + 6] == b"Exif\0\0"), None)
    if data.startswith(PNG):
        if b"eXIf" not in data:     # faster than a loop over the chunks
            return None
        return next(((start, end) for kind, start, end in png_chunks(data) if kind == b"eXIf"), None)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return next(((start + 6 if data[start:start + 6] == b"Exif\0\0" else start, end)
                     for kind, start, end in _riff_chunks(data) if kind == b"EXIF"), None)
    return (0, len(data)) if data[:4] in TIFF_ORDERS else None


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield (kind, start, end) of the content of each chunk."""
    position = len(PNG)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if position + 12 + length > len(data):
            return
        yield kind, position + 8, position + 8 + length
        position += 12 + length


def cut_png_chunk(data: bytes) -> Optional[tuple[bytes, int, int]]:
    """Return (kind, claimed bytes, bytes left) of a PNG chunk that extends beyond the end of the file, or None."""
    whole = list(png_chunks(data))
    if whole and whole[-1][0] == b"IEND":
        return None
    # Behind the checksum of the last whole chunk, and behind the length and kind of the next.
    start = (whole[-1][2] if whole else len(PNG) - 4) + 12
    if start > len(data):
        return None
    length, kind = struct.unpack_from(">I4s", data, start - 8)
    return kind, length, len(data) - start


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    position = 12
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        yield kind, position + 8, position + 8 + length
        position += 8 + length + length % 2
