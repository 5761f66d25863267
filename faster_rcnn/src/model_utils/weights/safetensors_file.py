"""The safetensors container, read without its library.

An unsigned little-endian 64-bit number, the length of the header; the header, JSON of name -> {"dtype", "shape",
"data_offsets": [begin, end]}, and "__metadata__" -> {text: text}; then the tensors' bytes, little-endian, without gaps.
"""
import json
import math
from pathlib import Path

import numpy as np

from ..config import InputError
from .safe_pickle import shown, whole_numbers

# As the format's own library limits it.
LONGEST_HEADER = 100_000_000
METADATA = "__metadata__"
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
          "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?"}


def is_safetensors(path: Path, head: bytes) -> bool:
    """By its suffix, or by a header that begins as JSON; MindSpore's files have no beginning of their own, but a suffix."""
    return path.suffix.lower() == ".safetensors" or (head[8:10] in (b'{"', b"{}") and path.suffix.lower() != ".ckpt")


def read_safetensors(path: Path) -> tuple:
    """(name -> array in the order of the file, bfloat16 as float32; metadata); InputError where the file is damaged."""
    raw = path.read_bytes()
    try:
        header, start = _header(raw)
        metadata = header.pop(METADATA, {})
        if not isinstance(metadata, dict):
            raise ValueError(f"{METADATA} {shown(metadata)}")
        spans = {name: _span(name, entry) for name, entry in header.items()}
        _check_spans(spans, len(raw) - start)
        return {name: _array(raw, start + begin, *kind) for name, (begin, _, *kind) in spans.items()}, metadata
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a safetensors file, or a damaged one: {shown(str(error))}") from error


def _header(raw: bytes) -> tuple:
    """(the header, where the data begins)."""
    length, left = int.from_bytes(raw[:8], "little"), len(raw) - 8
    if left < 2 or length > min(left, LONGEST_HEADER):
        raise ValueError(f"a header of {length} bytes, {max(left, 0)} are left in the file")
    header = json.loads(raw[8:8 + length].decode("utf-8"), object_pairs_hook=_without_repeats)
    if not isinstance(header, dict):
        raise ValueError("a header that is no object")
    return header, 8 + length


def _without_repeats(pairs) -> dict:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name given twice")
    return found


def _span(name: str, entry) -> tuple:
    """(begin, end, type, shape) of a tensor."""
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise ValueError(f"{shown(name)}: {shown(entry)}")
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in DTYPES:
        raise ValueError(f"{shown(name)}: type {shown(entry['dtype'])} is not read")
    shape, offsets = (whole_numbers(entry[key], f"{key} of {shown(name)}") for key in ("shape", "data_offsets"))
    size = math.prod(shape) * np.dtype(DTYPES[entry["dtype"]]).itemsize
    if len(offsets) != 2 or offsets[1] - offsets[0] != size:
        raise ValueError(f"{shown(name)}: {size} bytes by its shape, at {shown(offsets)}")
    return (*offsets, entry["dtype"], shape)


def _check_spans(spans: dict, size: int) -> None:
    """One after the other from the first byte to the last: what overlaps would make much of little."""
    end = 0
    for name, (begin, stop, *_) in sorted(spans.items(), key=lambda item: item[1][:2]):
        if begin != end:
            raise ValueError(f"{shown(name)} begins at {begin}, the tensor before it ends at {end}")
        end = stop
    if end != size:
        raise ValueError(f"tensors of {end} bytes, and {size} in the file")


def _array(raw: bytes, start: int, dtype: str, shape: tuple) -> np.ndarray:
    kind = np.dtype(DTYPES[dtype])
    block = np.frombuffer(raw, kind, math.prod(shape), start) if math.prod(shape) else np.zeros(0, kind)
    if dtype == "BF16":  # the upper half of a float32
        block = (block.astype(np.uint32) << 16).view(np.float32)
    return block.reshape(shape)
