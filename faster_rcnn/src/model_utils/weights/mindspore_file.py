"""Read MindSpore's checkpoints without MindSpore, which takes seconds to import.

    Checkpoint: value (1), repeated: tag (1) text, tensor (2): dims (1), repeated; tensor_type (2) text; tensor_content (3)

Consecutive values with the same tag are parts of one tensor. What this module cannot read is left to MindSpore.
"""
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .checksum import CRC_LENGTH, CRC_MARK, require_sound
from .protobuf import read_fields, text_of
from .writer import UNUSED

# Entries that MindSpore's optimisers add to a checkpoint.
OPTIMISER_NAMES = ("learning_rate", "momentum", "global_step", "scale_sense", "current_iterator_step",
                   "last_overflow_iterator_step")
OPTIMISER_PREFIXES = ("moments.", "accum.", "stat.", "momentum.")
# A checkpoint with this entry holds the state of a run.
STATE_KEY = "run_state"
DTYPES = {"Float32": "<f4", "Float16": "<f2", "Float64": "<f8", "Int32": "<i4", "Int64": "<i8"}
TEXT = "str"    # encoded in UTF-32


class Value(NamedTuple):
    """One value of the file, or one part of a value."""

    name: str
    shape: tuple[int, ...]
    kind: str
    content: memoryview


def is_weight(name: str) -> bool:
    """Return whether an entry of a checkpoint belongs to the network."""
    return name not in OPTIMISER_NAMES and not name.startswith((*OPTIMISER_PREFIXES, UNUSED))


def read_mindspore(path: Path | str) -> dict[str, Any] | None:
    """Return {name: array or text} in file order, or None if MindSpore must read the file or refuse it."""
    try:
        require_sound(path)
        parts: dict[str, list[Value]] = {}
        for value in _values(Path(path)):
            parts.setdefault(value.name, []).append(value)
        return {name: _join(values) for name, values in parts.items()}
    except (OSError, ValueError, KeyError):
        return None


def read_texts(path: Path | str) -> dict[str, str] | None:
    """Return {name: text} of the entries that are text, without reading the tensors; None as in `read_mindspore`."""
    try:
        return {value.name: _join([value]) for value in _values(Path(path)) if value.kind == TEXT}
    except (OSError, ValueError, KeyError):
        return None


def _values(path: Path) -> Iterator[Value]:
    with path.open("rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))     # stays open as long as a view exists
    end = len(data)
    if data[end - CRC_LENGTH:end - CRC_LENGTH + len(CRC_MARK)] == CRC_MARK:
        end -= CRC_LENGTH
    for field in read_fields(data, 0, end):
        value = {item.number: item for item in read_fields(data, field.value, field.end)}
        if field.number != 1 or set(value) != {1, 2}:
            raise ValueError(f"{path}: not the values of a checkpoint")
        fields = list(read_fields(data, value[2].value, value[2].end))
        kind, content = ({item.number: item for item in fields}[number] for number in (2, 3))
        shape = tuple(item.value for item in fields if item.number == 1)
        yield Value(text_of(data, value[1]), shape, text_of(data, kind), data[content.value:content.end])


def _join(parts: list[Value]) -> Any:
    """Return the tensor (a copy) or the text that consists of the parts."""
    content = b"".join(part.content for part in parts)
    if parts[0].kind == TEXT:
        return content.decode("utf-32-le").rstrip("\0")
    shape = () if parts[0].shape == (0,) else parts[0].shape
    return np.frombuffer(content, DTYPES[parts[0].kind]).reshape(shape)
