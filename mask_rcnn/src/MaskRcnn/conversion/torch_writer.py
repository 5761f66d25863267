# Same as faster_rcnn/src/FasterRcnn/conversion/torch_writer.py
"""Write files for other frameworks without importing them: PyTorch's zip container and pickles of NumPy arrays.

The zip holds `archive/data.pkl`, a pickle of protocol 2 in which a tensor is a call of torch._utils._rebuild_tensor_v2 on a
reference to storage KEY, and `archive/data/KEY`, the bytes of that storage; see torch_file.py. Python's pickler would import
the classes that it names, so this module emits the few opcodes itself.
"""
import contextlib
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ...model_utils.config import InputError
from ...model_utils.files import replacing

STORAGES = {"float32": "FloatStorage", "float64": "DoubleStorage", "float16": "HalfStorage", "int64": "LongStorage"}
ORDERED = b"ccollections\nOrderedDict\n"
ROOT = "archive/"
# Timestamp of the members, fixed so that equal weights give equal files.
DATE = (1980, 1, 1, 0, 0, 0)


def write_torch(tree, output: Path) -> None:
    """Write nested dictionaries of arrays, strings and numbers as PyTorch's zip container; arrays become tensors."""
    blocks = []
    content = b"\x80\x02" + _encode(tree, blocks) + b"."
    with _replacing(output) as partial, zipfile.ZipFile(partial, "w") as archive:
        members = {"data.pkl": content, "byteorder": b"little", **{f"data/{key}": raw for key, raw in enumerate(blocks)},
                   "version": b"3\n"}
        for name, raw in members.items():
            archive.writestr(zipfile.ZipInfo(ROOT + name, DATE), raw)


def write_pickle(tree, output: Path) -> None:
    """Write nested dictionaries of arrays and strings as a pickle."""
    with _replacing(output) as partial:
        partial.write_bytes(pickle.dumps(tree, protocol=4))


@contextlib.contextmanager
def _replacing(output: Path):
    """Yield a path to write to, which replaces `output` once everything is written."""
    try:
        with replacing(output) as partial:
            yield partial
    except OSError as error:
        raise InputError(f"--output_file: {output} cannot be written: {error.strerror}") from error


def _encode(value, blocks: list) -> bytes:
    """Return the opcodes that leave `value` on the unpickler's stack, and append the bytes of its storages to `blocks`."""
    if isinstance(value, np.ndarray):
        return _tensor(value, blocks)
    if isinstance(value, Mapping):
        items = b"".join(_encode(key, blocks) + _encode(item, blocks) for key, item in value.items())
        return b"}(" + items + b"u"
    if isinstance(value, (list, tuple)):
        items = b"".join(_encode(item, blocks) for item in value)
        return b"(" + items + b"t" if isinstance(value, tuple) else b"](" + items + b"e"
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, int):
        raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return b"\x8a" + bytes([len(raw)]) + raw
    if isinstance(value, str):
        raw = value.encode()
        return b"X" + struct.pack("<I", len(raw)) + raw
    raise TypeError(f"{type(value).__name__} cannot be written to a checkpoint")


def _tensor(array: np.ndarray, blocks: list) -> bytes:
    """Return the opcodes of a row-major tensor with its own storage."""
    array = np.asarray(array, order="C")
    kind = f"ctorch\n{STORAGES[array.dtype.name]}\n".encode()
    strides = tuple(step // array.itemsize for step in array.strides)
    storage = b"(" + _encode("storage", blocks) + kind + b"".join(
        _encode(item, blocks) for item in (str(len(blocks)), "cpu", array.size)) + b"tQ"
    blocks.append(array.astype(array.dtype.newbyteorder("<")).tobytes())
    arguments = b"".join(_encode(item, blocks) for item in (0, array.shape, strides, False))
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + arguments + ORDERED + b")RtR"
