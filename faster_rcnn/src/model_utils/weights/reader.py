"""Read the checkpoint files of other frameworks: from a path to {name: array}.

The first bytes decide which container it is; the suffix only matters if they are ambiguous.
"""
import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..config import InputError
from ..yaml_text import shown
from .checksum import load_checked, require_finite
from .pickled_arrays import Array
from .safe_pickle import load_pickle
from .safetensors_file import is_safetensors, read_safetensors
from .state_dicts import COUNTERS, bare_names, choose_state_dict
from .torch_file import MAGIC, Parameter, Tensor, TorchStream, TorchZip

PICKLE_SUFFIXES = (".pkl", ".pickle")
# A zip file that unpacks to more than MOST_UNPACKED times its size, plus some MB, is refused as a bomb.
MOST_UNPACKED, FREE_UNPACKED, FREE_TENSORS = 50, 2 ** 24, 2 ** 28
# Stricter for a pickle in a zip file, which PyTorch does not compress: reading one takes 1000 times as long as unpacking it.
MOST_UNPACKED_PICKLE, FREE_UNPACKED_PICKLE = 20, 2 ** 16
# First bytes of files that are often mistaken for checkpoints -> what they are.
MISTAKEN = {
    b"version https://git-lfs": "a Git LFS pointer, not the file itself: fetch it with `git lfs pull`",
    b"<!doctype": "a web page: the download failed",
    b"<html": "a web page: the download failed",
    b"\x89HDF": "an HDF5 file, which is not supported",
    b"\x1f\x8b": "a gzip file: unpack it first",
}


@dataclass(frozen=True)
class Checkpoint:
    """Content of a file. The arrays are views and must not be written to."""

    path: Path
    container: str  # "PyTorch zip", "PyTorch stream", "pickle", "NumPy npz", "safetensors", "MindSpore checkpoint"
    arrays: dict[str, np.ndarray]  # name -> array, in the order of the file
    extras: tuple[str, ...]  # names of the other entries, which are not arrays
    meta: dict[str, Any] = field(default_factory=dict)  # mmdet's meta data, unchecked
    notes: tuple[str, ...] = ()     # choices made in reading the file, a line each


def read_checkpoint(path: Path | str, weights: str | None = None) -> Checkpoint:
    """Read a checkpoint in any known container.

    Args:
        path: the file.
        weights: key of the dictionary to read, in files that hold several; None: where frameworks put the weights.

    Raises:
        InputError: if the file is damaged or not a checkpoint, in one line that begins with the path.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with open(path, "rb") as file:
            head = file.read(512)
        checkpoint = _reader_of(path, head)(path, weights)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or shown(str(error))}") from error
    require_finite(checkpoint.arrays, path)
    return checkpoint


def _reader_of(path: Path, head: bytes) -> Callable[[Path, str | None], Checkpoint]:
    for beginning, what in MISTAKEN.items():
        if head.lstrip().lower().startswith(beginning.lower()):
            raise InputError(f"{path}: {what}")
    if not head:
        raise InputError(f"{path}: the file is empty")
    if head.startswith(b"PK"):
        return _read_zip
    if head.startswith(b"\x80") or path.suffix.lower() in PICKLE_SUFFIXES:
        stream = MAGIC.to_bytes(10, "little") in head[:32]  # a pickled integer, after the pickle's header
        return _read_stream if stream else _read_pickle
    if head[257:262] == b"ustar":
        raise InputError(f"{path}: a tar file (PyTorch's container of 2016, or an archive to unpack), which is not supported")
    if is_safetensors(path, head):
        return _read_safetensors
    if path.suffix.lower() == ".ckpt":
        return _read_mindspore
    raise InputError(f"{path}: not a known kind of checkpoint (PyTorch .pth, pickle .pkl, NumPy .npz, safetensors, "
                     "MindSpore .ckpt)")


def _read_zip(path: Path, weights: str | None) -> Checkpoint:
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # for a damaged directory, zipfile also raises struct.error and others
        raise InputError(f"{path}: a damaged or truncated zip file: {shown(str(error))}") from error
    with archive:
        _check_unpacked(path, archive)
        if any(name.endswith(".npy") for name in archive.namelist()):
            return _read_npz(path, weights)
        torch_file = TorchZip(path, archive)
        return _checkpoint(path, weights, "PyTorch zip", torch_file.tree, torch_file.array)


def _check_unpacked(path: Path, archive: zipfile.ZipFile) -> None:
    """Raise InputError for a zip bomb; zipfile never unpacks more of a member than the directory declares."""
    declared, size = sum(member.file_size for member in archive.infolist()), path.stat().st_size
    if declared > MOST_UNPACKED * size + FREE_UNPACKED:
        raise InputError(f"{path}: refused: a zip file of {size} bytes that would unpack to {declared}")
    for member in archive.infolist():
        most = MOST_UNPACKED_PICKLE * member.compress_size + FREE_UNPACKED_PICKLE
        if member.filename.endswith(".pkl") and member.file_size > most:
            raise InputError(f"{path}: refused: {shown(member.filename)} of {member.compress_size} bytes would unpack to "
                             f"{member.file_size}")


def _read_stream(path: Path, weights: str | None) -> Checkpoint:
    torch_file = TorchStream(path)
    return _checkpoint(path, weights, "PyTorch stream", torch_file.tree, torch_file.array)


def _read_pickle(path: Path, weights: str | None) -> Checkpoint:
    return _checkpoint(path, weights, "pickle", load_pickle(io.BytesIO(path.read_bytes()), path), None)


def _read_npz(path: Path, weights: str | None) -> Checkpoint:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # for damaged files, np.load raises errors of zipfile, zlib and its own
        raise InputError(f"{path}: a damaged .npz file, or one with Python objects: {shown(str(error))}") from error
    return _checkpoint(path, weights, "NumPy npz", arrays, None)


def _read_safetensors(path: Path, weights: str | None) -> Checkpoint:
    arrays, metadata = read_safetensors(path)
    return _checkpoint(path, weights, "safetensors", {**arrays, **({"__metadata__": metadata} if metadata else {})}, None)


def _read_mindspore(path: Path, weights: str | None) -> Checkpoint:
    import mindspore  # takes seconds, and the other containers do not need it

    arrays = {}
    for name, value in load_checked(path).items():
        if isinstance(value, mindspore.Tensor):
            value = value.astype(mindspore.float32) if value.dtype == mindspore.bfloat16 else value
            arrays[name] = value.asnumpy()
        else:
            arrays[name] = None  # text appended to the checkpoint
    return _checkpoint(path, weights, "MindSpore checkpoint", arrays, None)


def _checkpoint(path: Path, weights: str | None, container: str, tree: Any,
                read_tensor: Callable[[Tensor], np.ndarray] | None) -> Checkpoint:
    """Find the dictionary of tensors in the container's content, and read the tensors."""
    if not isinstance(tree, Mapping):
        raise InputError(f"{path}: holds a {type(tree).__name__.lower()}, not a dictionary of name and tensor")
    chosen = choose_state_dict(path, tree, lambda value: isinstance(value, (Parameter, Tensor, Array, np.ndarray)), weights)
    extras = [shown(name) for name in tree if name not in (chosen.name, *chosen.all_names)] if chosen.name else []
    arrays = {}
    for name, value in chosen.values.items():
        value = None if name in COUNTERS else _array(value, read_tensor)
        if value is None or not isinstance(name, str):
            extras.append(shown(name))
        else:
            arrays[name] = value
    if not arrays:
        raise InputError(f"{path}: no tensors found; it holds {', '.join(extras[:5]) or 'nothing'}")
    total, size = sum(array.nbytes for array in arrays.values()), path.stat().st_size
    if total > MOST_UNPACKED * size + FREE_TENSORS:     # with a stride of 0, a tensor can have any size
        raise InputError(f"{path}: refused: {size} bytes declare tensors of {total} bytes")
    prefix, names = bare_names(arrays)
    notes = [chosen.note, f"names: prefix {prefix!r} removed" if prefix else ""]
    meta = tree.get("meta")
    return Checkpoint(path, container, dict(zip(names, arrays.values())), tuple(extras),
                      dict(meta) if isinstance(meta, Mapping) else {}, tuple(filter(None, notes)))


def _array(value: Any, read_tensor: Callable[[Tensor], np.ndarray] | None) -> np.ndarray | None:
    """Return the array of an entry, or None if it is not an array."""
    if isinstance(value, Parameter):
        value = value.data
    if isinstance(value, Tensor) and read_tensor is not None:
        return read_tensor(value)
    if isinstance(value, Array):
        return value.value
    return value if isinstance(value, np.ndarray) else None
