# Same as faster_rcnn/src/model_utils/weights/checksum.py
"""Read and write MindSpore checkpoints with a checksum, the CRC-32 of the content, at the end of the file.

MindSpore 2.10 writes it (`crc_check`), but compares it only on request. Files of earlier versions of this project have no checksum
and are read without one.
"""
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..config import DamagedError

CRC_MARK, CRC_LENGTH = b"crc_num", 17   # the mark, then the CRC in ten bytes, big-endian
BLOCK = 1 << 22


def save_checked(path: Path, tensors: Mapping[str, Any], texts: Mapping[str, str] | None = None) -> None:
    """Write `tensors` (name -> Tensor) and `texts` (name -> text) to `path`, with a checksum."""
    import mindspore

    items = [{"name": name, "data": value} for name, value in tensors.items()]
    mindspore.save_checkpoint(items, str(path), append_dict=dict(texts) if texts else None, crc_check=True)


def load_checked(path: Path | str) -> dict[str, Any]:
    """Return what `mindspore.load_checkpoint` returns.

    Raises:
        DamagedError: if the checksum differs, or the file is not a MindSpore checkpoint.
        OSError: if the file cannot be read.
    """
    import mindspore

    require_sound(path)
    try:
        return mindspore.load_checkpoint(str(path))
    except Exception as error:  # ValueError for a damaged file, RuntimeError and others from C++
        if isinstance(error.__cause__, MemoryError):
            raise MemoryError(f"{path}: {error}") from error
        raise DamagedError(f"{path}: not a MindSpore checkpoint, or a damaged one") from error


def require_sound(path: Path | str) -> None:
    """Raise DamagedError if the file has a checksum that its content does not match."""
    with open(path, "rb") as file:
        left = file.seek(0, 2) - CRC_LENGTH
        file.seek(max(left, 0))
        end = file.read()
        if left < 0 or not end.startswith(CRC_MARK):
            return
        file.seek(0)
        found = 0
        while left > 0:
            block = file.read(min(BLOCK, left))
            if not block:
                break
            found, left = zlib.crc32(block, found), left - len(block)
    if found != int.from_bytes(end[len(CRC_MARK):], "big"):
        raise DamagedError(f"{path}: damaged: the content does not match its checksum; take another copy, or an earlier checkpoint")


def require_finite(values: Mapping[str, Any], path: Path | str) -> None:
    """Raise DamagedError for the first array or Tensor with a NaN or an infinity."""
    for name, value in values.items():
        array = value if isinstance(value, np.ndarray) else value.asnumpy()
        if array.dtype.name == "bfloat16":      # NumPy's kind of bfloat16 is "V"
            array = array.astype(np.float32)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            count = array.size - int(np.isfinite(array).sum())
            raise DamagedError(f"{path}: {name}: {count} of {array.size} values are not finite (NaN or infinity): training "
                               "diverged, or the file is damaged; take an earlier checkpoint")
