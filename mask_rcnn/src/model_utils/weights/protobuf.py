# Same as faster_rcnn/src/model_utils/weights/protobuf.py
"""Protobuf's wire format without a schema, as used by MindSpore checkpoints and ONNX files."""
from collections.abc import Iterator
from typing import NamedTuple

VARINT, EIGHT_BYTES, LENGTH, FOUR_BYTES = 0, 1, 2, 5


class Field(NamedTuple):
    """A field of a message: start:end are its bytes with the key; `value` is where its content begins, or its number (varint)."""

    number: int
    start: int
    end: int
    value: int


def read_fields(data: bytes | memoryview, start: int = 0, end: int | None = None) -> Iterator[Field]:
    """Yield the fields of the message data[start:end]. Raises ValueError if it is not a message."""
    end = len(data) if end is None else end
    place = start
    while place < end:
        key, after = _varint(data, place)
        kind, value = key & 7, after
        if kind == VARINT:
            value, after = _varint(data, after)
        elif kind == LENGTH:
            length, value = _varint(data, after)
            after = value + length
        elif kind in (EIGHT_BYTES, FOUR_BYTES):
            after += 8 if kind == EIGHT_BYTES else 4
        else:
            raise ValueError(f"no valid field at byte {place}")
        if after > end:
            raise ValueError(f"the field at byte {place} is cut off")
        yield Field(key >> 3, place, after, value)
        place = after


def text_of(data: bytes | memoryview, field: Field) -> str:
    return str(data[field.value:field.end], "utf-8")


def field_head(number: int, length: int) -> bytes:
    """Return the bytes that precede a field's content of `length` bytes."""
    return _as_varint(number << 3 | LENGTH) + _as_varint(length)


def bytes_field(number: int, content: bytes) -> bytes:
    return field_head(number, len(content)) + content


def int_field(number: int, value: int) -> bytes:
    return _as_varint(number << 3 | VARINT) + _as_varint(value)


def _varint(data: bytes | memoryview, place: int) -> tuple[int, int]:
    """Return the number at `place`, and the position behind it."""
    value = shift = 0
    while place < len(data) and shift < 64:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, place
    raise ValueError(f"no valid number at byte {place}")


def _as_varint(value: int) -> bytes:
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    parts.append(value)
    return bytes(parts)
