"""Read the safetensors container without its library.

Layout: the length of the header, an unsigned little-endian 64-bit number; the header, JSON of name -> {"dtype", "shape",
"data_offsets": [begin, end]}, and "__metadata__" -> {text: text}; then the tensors' bytes, little-endian, without gaps.
"""
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..config import InputError
from ..yaml_text import shown
from .pickled_arrays import whole_numbers

# The limit of the format's own library.
LONGEST_HEADER = 100_000_000
METADATA = "__metadata__"
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
          "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?"}


class Span(NamedTuple):
    """Position of a tensor's bytes, with their type and shape."""

    begin: int
    end: int
    dtype: str
    shape: tuple[int, ...]


class Safetensors(NamedTuple):
    """Content of a file."""

    arrays: dict[str, np.ndarray]       # in the order of the file; bfloat16 as float32
    metadata: dict[str, Any]


def is_safetensors(path: Path, head: bytes) -> bool:
    """Decide by the suffix, or by a header that begins like JSON. MindSpore's files have no signature, but a suffix."""
    return path.suffix.lower() == ".safetensors" or (head[8:10] in (b'{"', b"{}") and path.suffix.lower() != ".ckpt")


def read_safetensors(path: Path) -> Safetensors:
    """Read a file. Raises InputError if it is damaged."""
    raw = path.read_bytes()
    try:
        header, start = _header(raw)
        metadata = header.pop(METADATA, {})
        if not isinstance(metadata, dict):
            raise ValueError(f"{METADATA} {shown(metadata)}")
        spans = {name: _span(name, entry) for name, entry in header.items()}
        _check_spans(spans, len(raw) - start)
        arrays = {name: _array(raw, start + span.begin, span.dtype, span.shape) for name, span in spans.items()}
        return Safetensors(arrays, metadata)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a safetensors file, or a damaged one: {shown(str(error))}") from error


def _header(raw: bytes) -> tuple[dict[str, Any], int]:
    """Return (header, position where the data begins)."""
    length, left = int.from_bytes(raw[:8], "little"), len(raw) - 8
    if left < 2 or length > min(left, LONGEST_HEADER):
        raise ValueError(f"a header of {length} bytes, but {max(left, 0)} are left in the file")
    header = json.loads(raw[8:8 + length].decode("utf-8"), object_pairs_hook=_without_repeats)
    if not isinstance(header, dict):
        raise ValueError("a header that is not a JSON object")
    return header, 8 + length


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name that occurs twice")
    return found


def _span(name: str, entry: Any) -> Span:
    """Return the span of a tensor. Raises ValueError if the entry is malformed."""
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise ValueError(f"{shown(name)}: {shown(entry)}")
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in DTYPES:
        raise ValueError(f"{shown(name)}: type {shown(entry['dtype'])} is not supported")
    shape, offsets = (whole_numbers(entry[key], f"{key} of {shown(name)}") for key in ("shape", "data_offsets"))
    size = math.prod(shape) * np.dtype(DTYPES[entry["dtype"]]).itemsize
    if len(offsets) != 2 or offsets[1] - offsets[0] != size:
        raise ValueError(f"{shown(name)}: {size} bytes by its shape, at {shown(offsets)}")
    return Span(*offsets, entry["dtype"], shape)


def _check_spans(spans: Mapping[str, Span], size: int) -> None:
    """Raise ValueError unless the tensors cover the data without gaps; overlaps could declare far more than the file holds."""
    end = 0
    for name, span in sorted(spans.items(), key=lambda item: item[1][:2]):
        if span.begin != end:
            raise ValueError(f"{shown(name)} begins at {span.begin}, the tensor before it ends at {end}")
        end = span.end
    if end != size:
        raise ValueError(f"tensors of {end} bytes, and {size} in the file")


def _array(raw: bytes, start: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    kind = np.dtype(DTYPES[dtype])
    block = np.frombuffer(raw, kind, math.prod(shape), start) if math.prod(shape) else np.zeros(0, kind)
    if dtype == "BF16":  # the upper half of a float32
        block = (block.astype(np.uint32) << 16).view(np.float32)
    return block.reshape(shape)
