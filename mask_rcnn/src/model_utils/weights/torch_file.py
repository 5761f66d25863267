# Same as faster_rcnn/src/model_utils/weights/torch_file.py
"""Read PyTorch's two checkpoint containers without PyTorch.

Zip (since PyTorch 1.6): `NAME/data.pkl` is the pickle, `NAME/data/KEY` the bytes of storage KEY, `NAME/byteorder` their
byte order.
Stream (before): pickles of the magic number, protocol 1001, system facts, the object, and the list of storage keys; then
for each key an int64 element count and the bytes, little-endian.
In both, the pickle rebuilds a tensor from (storage, offset, size, stride), counted in elements; tensors may share storages.
"""
import io
import math
import re
import zipfile
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from ..config import InputError
from ..yaml_text import shown
from .pickled_arrays import Builder, Fixed, Globals, whole_numbers
from .safe_pickle import ReadPast, load_pickle

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
# Limits of one tensor: with a stride of 0 any size fits into any storage, and NumPy has limits that a pickle does not have.
MOST_ELEMENTS, MOST_AXES = 2 ** 36, 32
DTYPES = {
    "DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2", "BFloat16Storage": "bf16", "LongStorage": "i8",
    "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "?",
}
# Names of torch.dtype, which occur in saved settings.
ELEMENT_TYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")


class StorageType(Fixed):
    """torch.FloatStorage and its family in a pickle: the name of a type, not callable."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: str):
        self.dtype = dtype

    @property
    def stored(self) -> np.dtype:
        """Return the type of the bytes; bfloat16, which NumPy lacks, is read as 16-bit integers."""
        return np.dtype("u2" if self.dtype == "bf16" else self.dtype)


class Storage(Fixed):
    """A one-dimensional block of `count` elements, which begins at `start` of block `key` (not 0 only for old views)."""

    __slots__ = ("kind", "key", "count", "start")

    def __init__(self, kind: StorageType, key: str, count: int, start: int = 0):
        self.kind, self.key, self.count, self.start = kind, key, count, start


class Tensor(Fixed):
    """A tensor in the pickle whose data is not read yet."""

    __slots__ = ("storage", "offset", "size", "stride")

    def __init__(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any):
        if not isinstance(storage, Storage):
            raise ValueError("a tensor without a storage")
        self.storage = storage
        self.offset = whole_numbers(offset, "offset of a tensor")[0]
        self.size = whole_numbers(size, "size of a tensor")
        self.stride = whole_numbers(stride, "stride of a tensor")
        if len(self.size) != len(self.stride):
            raise ValueError(f"a tensor of size {self.size} with stride {self.stride}")
        if math.prod(max(n, 1) for n in self.size) > MOST_ELEMENTS or len(self.size) > MOST_AXES:
            raise ValueError(f"a tensor of size {shown(self.size)}")
        if math.prod(self.size) and self.last >= storage.count:
            raise ValueError(f"a tensor of size {self.size} reaches element {self.last} of storage "
                             f"{shown(storage.key)}, which has {storage.count}")

    @property
    def last(self) -> int:
        """Return the index of the last element of the storage that the tensor uses."""
        return self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride))

    def array(self, block: np.ndarray) -> np.ndarray:
        """Return the tensor as a read-only array over `block`, its storage's elements; bfloat16 becomes float32."""
        start = self.storage.start
        block = block[start + self.offset:start + self.last + 1]
        if self.storage.kind.dtype == "bf16":  # the upper half of a float32
            block = (block.astype(np.uint32) << 16).view(np.float32)
        if not math.prod(self.size):
            return np.zeros(self.size, block.dtype)
        steps = [step * block.itemsize if n > 1 else 0 for n, step in zip(self.size, self.stride)]
        return np.lib.stride_tricks.as_strided(block, self.size, steps, writeable=False)


class Parameter:
    """torch.nn.Parameter in the oldest files: called with a tensor, or created empty and filled by BUILD."""

    __slots__ = ("data",)

    def __new__(cls, data: Any = None, *_: Any) -> Self:
        made = super().__new__(cls)
        made.data = data
        return made

    def __setstate__(self, state: Any) -> None:  # (requires_grad, volatile, hooks); before PyTorch 0.2 preceded by (data, _)
        if len(state) == 5:
            self.data = state[0]


def _rebuild_parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def _torch_globals() -> Globals:
    table = {
        ("torch._utils", "_rebuild_tensor"): Builder(Tensor),
        ("torch._utils", "_rebuild_tensor_v2"): Builder(Tensor),
        ("torch._utils", "_rebuild_parameter"): Builder(_rebuild_parameter),
        ("torch._utils", "_rebuild_parameter_with_state"): Builder(_rebuild_parameter),
        ("torch.nn.parameter", "Parameter"): Parameter,
        ("torch", "Size"): Builder(tuple),
        ("torch", "device"): ReadPast, ("torch.torch_version", "TorchVersion"): ReadPast,
        **{("torch", name): Fixed() for name in ELEMENT_TYPES},
    }
    for name, dtype in DTYPES.items():
        for module in ("torch", "torch.cuda"):
            table[module, name] = StorageType(dtype)
    return table


TORCH_GLOBALS = _torch_globals()


def _load_storage(pid: Any) -> Storage:
    """Return the storage of ("storage", type, key, place, count[, view]); view: None, or (key, start, count) within the block."""
    if not (isinstance(pid, tuple) and len(pid) in (5, 6) and pid[0] == "storage" and isinstance(pid[1], StorageType)):
        raise ValueError(f"a reference that is not a storage: {shown(pid)}")
    kind, key, count = pid[1], pid[2], whole_numbers(pid[4], "size of a storage")[0]
    if not isinstance(key, str):
        raise ValueError(f"a storage with key {shown(key)}")
    if len(pid) == 5 or pid[5] is None:
        return Storage(kind, key, count)
    start, part = whole_numbers(pid[5][1:3], "view of a storage")
    if start + part > count:
        raise ValueError(f"a view of {part} elements from {start} of storage {shown(key)}, which has {count}")
    return Storage(kind, key, part, start)


class TorchFile:
    """A checkpoint of PyTorch. `tree`: the unpickled object, which contains `Tensor`s; `array(tensor)` reads one."""

    def __init__(self, path: Path):
        self.path = path
        self.blocks: dict[str, Any] = {}  # storage key -> its bytes or elements

    def array(self, tensor: Tensor) -> np.ndarray:
        storage = tensor.storage
        block = self._block(storage)
        if storage.start + storage.count > len(block):
            raise InputError(f"{self.path}: damaged: storage {shown(storage.key)} has {len(block)} elements, "
                             f"expected at least {storage.start + storage.count}")
        return tensor.array(block)

    def _block(self, storage: Storage) -> np.ndarray:
        raise NotImplementedError


class TorchZip(TorchFile):
    """The zip container. A storage is read when one of its tensors is."""

    def __init__(self, path: Path, archive: zipfile.ZipFile):
        super().__init__(path)
        self.zip = archive
        names = archive.namelist()
        roots = [name[:-len("data.pkl")] for name in names if re.fullmatch(r"([^/]+/)?data\.pkl", name)]
        if len(roots) != 1:
            raise InputError(f"{path}: a zip file without PyTorch's data.pkl")
        self.root = roots[0]
        if self.root + "constants.pkl" in names:
            raise InputError(f"{path}: a TorchScript program, not a checkpoint; save its state_dict()")
        order = self._read("byteorder") if self.root + "byteorder" in names else b"little"
        if order not in (b"little", b"big"):
            raise InputError(f"{path}: damaged: byte order {shown(order)}")
        self.order: Literal["<", ">"] = "<" if order == b"little" else ">"
        self.tree = load_pickle(io.BytesIO(self._read("data.pkl")), path, TORCH_GLOBALS, _load_storage)

    def _read(self, name: str, needed: int | None = None) -> bytes:
        """Return the bytes of a member. Raises InputError if it has more than `needed`."""
        try:
            size = self.zip.getinfo(self.root + name).file_size
            if needed is not None and size > needed:
                raise InputError(f"{self.path}: damaged: {shown(name)} has more than the {needed} bytes of its storage")
            with self.zip.open(self.root + name) as member:
                return member.read(size)  # without a number, zipfile unpacks everything, regardless of the declared size
        except KeyError:
            raise InputError(f"{self.path}: damaged: {shown(name)} is missing in the zip file") from None
        except InputError:
            raise
        except Exception as error:  # for damaged members, zipfile raises errors of its own, zlib, struct and OSError
            raise InputError(f"{self.path}: damaged: {shown(name)}: {shown(str(error))}") from error

    def _block(self, storage: Storage) -> np.ndarray:
        kind = storage.kind.stored.newbyteorder(self.order)
        if storage.key not in self.blocks:
            needed = (storage.start + storage.count) * kind.itemsize
            self.blocks[storage.key] = self._read(f"data/{storage.key}", needed)
        raw = self.blocks[storage.key]
        return np.frombuffer(raw, kind, len(raw) // kind.itemsize)


class TorchStream(TorchFile):
    """The container before PyTorch 1.6, which is read completely."""

    def __init__(self, path: Path):
        super().__init__(path)
        self.storages: dict[str, tuple[np.dtype, int]] = {}  # key -> element type and element count of the whole block
        raw = path.read_bytes()
        file = io.BytesIO(raw)
        magic, protocol, system = (load_pickle(file, path) for _ in range(3))
        if magic != MAGIC or protocol != PROTOCOL or not isinstance(system, dict):
            raise InputError(f"{path}: not a PyTorch stream of protocol {PROTOCOL}: {shown((magic, protocol))}")
        self.tree = load_pickle(file, path, TORCH_GLOBALS, self._note_storage)
        keys = load_pickle(file, path)
        if not isinstance(keys, list):
            raise InputError(f"{path}: damaged: no list of storages")
        start = file.tell()
        for key in keys:
            start = self._read_block(raw, start, key)

    def _note_storage(self, pid: Any) -> Storage:
        storage = _load_storage(pid)
        known = self.storages.setdefault(storage.key, (storage.kind.stored, pid[4]))
        if known != (storage.kind.stored, pid[4]):
            raise ValueError(f"storage {shown(storage.key)} with two types or sizes")
        return storage

    def _read_block(self, raw: bytes, start: int, key: Any) -> int:
        """Store the block that begins at `start` with its element count; return where it ends."""
        if not isinstance(key, str) or key not in self.storages:
            raise InputError(f"{self.path}: damaged: data of storage {shown(key)}, which no tensor uses")
        kind, count = self.storages[key]
        written, start = int.from_bytes(raw[start:start + 8], "little"), start + 8
        left = len(raw) - start
        if written != count or count * kind.itemsize > left:
            raise InputError(f"{self.path}: damaged or truncated: storage {shown(key)} has {count} elements of "
                             f"{kind.itemsize} bytes, its header says {written}, {left} bytes are left in the file")
        self.blocks[key] = np.frombuffer(raw[start:start + count * kind.itemsize], kind.newbyteorder("<"))
        return start + count * kind.itemsize

    def _block(self, storage: Storage) -> np.ndarray:
        if storage.key not in self.blocks:
            raise InputError(f"{self.path}: damaged: storage {shown(storage.key)} has no data")
        return self.blocks[storage.key]
