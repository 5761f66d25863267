# Same as faster_rcnn/src/model_utils/weights/safe_pickle.py
"""An unpickler that builds plain containers and NumPy arrays, and nothing else.

A pickle is a program: it may name any function of any module and call it. Here every name is looked up in a table of
our own; what is not in it is refused by name and nothing is imported. The table holds no foreign class either, not even
OrderedDict or ndarray: a pickle could set attributes on it (BUILD) or hand NumPy a state that contradicts itself. It
holds `Builder`s: small objects that check their arguments, and that, like all they return, a pickle cannot change.
"""
import io
import math
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Self

import numpy as np

from ..config import InputError

# (module, name) in a pickle -> what stands for it
Globals = dict[tuple[str, str], Any]


class Fixed:
    """An object whose attributes a pickle cannot set: without a __setstate__, BUILD writes them past every check."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise ValueError(f"a state set on a {type(self).__name__.lower()}")


class Builder(Fixed):
    """A callable that a pickle may call."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)


class Items(OrderedDict):
    """The OrderedDict of a pickle, without the attributes that may come with it (PyTorch's `_metadata`)."""

    def __setstate__(self, state: Any) -> None:
        pass


class ReadPast(Fixed):
    """Stands for an object that a training keeps beside the weights: it takes what the pickle gives it and keeps nothing."""

    __slots__ = ()

    def __new__(cls, *_: Any) -> Self:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def extend(self, values: Any) -> None:
        pass

    append = extend


class HistoryBuffer(ReadPast):
    """Of mmengine's, which holds methods of its own class; see `SafeUnpickler.find_class`."""

    __slots__ = ()


class DType:
    """numpy.dtype of a pickle: numbers, booleans and fixed-width text; no Python objects, no records."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any, _align: Any = False, _copy: Any = True):
        if not isinstance(code, str) or not re.fullmatch(r"[?biufSU]\d{0,9}", code):
            raise ValueError(f"array type {shown(code)} is not read (numbers only)")
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        if state[1] not in ("<", ">", "|", "=") or any(state[2:5]):
            raise ValueError(f"array type {shown(state)} is not read (numbers only)")
        self.order = state[1]

    def numpy(self) -> np.dtype:
        return np.dtype(self.order + self.code)


class Array:
    """numpy.ndarray of a pickle; `.value` is the array, read-only."""

    __slots__ = ("value",)

    def __init__(self, value: np.ndarray | None = None):
        self.value = value

    def __setstate__(self, state: Any) -> None:
        shape, dtype, fortran, raw = state[-4:]  # before them: the version, which the oldest files lack
        self.value = array_from_bytes(raw, dtype, shape, "F" if fortran else "C")


def array_from_bytes(raw: Any, dtype: Any, shape: Any, order: str = "C") -> np.ndarray:
    """An array over `raw`, after a check that type, shape and bytes agree."""
    if not isinstance(dtype, DType):
        raise ValueError(f"an array of type {shown(dtype)}")
    if isinstance(raw, str):  # bytes of a Python 2 pickle, which is read as latin-1
        raw = raw.encode("latin1")
    if not isinstance(raw, (bytes, bytearray)):
        raise ValueError("an array without bytes")
    shape, kind = whole_numbers(shape, "shape of an array"), dtype.numpy()
    if math.prod(shape) * kind.itemsize != len(raw):
        raise ValueError(f"an array of shape {shape} and type {kind} with {len(raw)} bytes")
    value = np.frombuffer(bytes(raw), kind) if raw else np.zeros(0, kind)
    return value.reshape(shape, order="F" if order == "F" else "C")


def whole_numbers(values: Any, what: str) -> tuple[int, ...]:
    """`values` as a tuple of ints >= 0, or ValueError."""
    values = values if isinstance(values, (tuple, list)) else (values,)
    if not all(type(value) is int and value >= 0 for value in values):
        raise ValueError(f"{what}: {shown(values)}")
    return tuple(values)


def shown(value: Any) -> str:
    """A value of a file in an error message: printable, one line, short."""
    text = value if isinstance(value, str) else repr(value)
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= 80 else text[:77] + "..."


def _reconstruct(_subtype: Any, _shape: Any, _typecode: Any) -> Array:
    return Array()


def _from_buffer(raw: Any, dtype: Any, shape: Any, order: Any) -> Array:
    return Array(array_from_bytes(raw, dtype, shape, order))


def _scalar(dtype: Any, raw: Any) -> Array:
    return _from_buffer(raw, dtype, (), "C")


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):  # how Python 3 writes bytes under protocol 2
        raise ValueError(f"bytes in encoding {shown(encoding)}")
    return text.encode("latin1")


def _numpy_globals() -> Globals:
    table = {("numpy", "dtype"): Builder(DType), ("numpy", "ndarray"): Fixed()}
    for package in ("numpy.core", "numpy._core"):  # the second since NumPy 2
        table[package + ".multiarray", "_reconstruct"] = Builder(_reconstruct)
        table[package + ".multiarray", "scalar"] = Builder(_scalar)
        table[package + ".numeric", "_frombuffer"] = Builder(_from_buffer)
    return table


# What trainings save of their settings: module -> classes.
SETTINGS = {
    "argparse": ("Namespace",),
    "pathlib": ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"),
    "pathlib._local": ("PosixPath", "WindowsPath"),
    "collections": ("defaultdict",),
    "types": ("SimpleNamespace",),
    "typing": ("Any",),
    "addict.addict": ("Dict",),
    "fvcore.common.config": ("CfgNode",),
    "yacs.config": ("CfgNode",),
    "mmengine.config.config": ("Config", "ConfigDict"),
    "mmcv.utils.config": ("Config", "ConfigDict"),
    "lightning.fabric.utilities.data": ("AttributeDict",),
    "lightning_fabric.utilities.data": ("AttributeDict",),
    "lightning.pytorch.utilities.parsing": ("AttributeDict",),
    "pytorch_lightning.utilities.parsing": ("AttributeDict",),
    "omegaconf.base": ("ContainerMetadata", "Metadata"),
    "omegaconf.dictconfig": ("DictConfig",),
    "omegaconf.listconfig": ("ListConfig",),
    "omegaconf.nodes": ("AnyNode", "BooleanNode", "FloatNode", "IntegerNode", "StringNode"),
    **dict.fromkeys(("builtins", "__builtin__"), ("bool", "dict", "float", "int", "list", "str", "tuple")),
}
GLOBALS = {
    **{(module, name): ReadPast for module, names in SETTINGS.items() for name in names},
    ("collections", "OrderedDict"): Builder(Items),
    ("collections", "Counter"): Builder(dict),
    ("_codecs", "encode"): Builder(_encode),
    ("__builtin__", "bytes"): Builder(lambda: b""),  # how protocol 2 writes the empty one
    ("builtins", "set"): Builder(set),
    ("__builtin__", "set"): Builder(set),
    ("mmengine.logging.history_buffer", "HistoryBuffer"): HistoryBuffer,
    **_numpy_globals(),
}
# How protocol 2 names the methods that a HistoryBuffer holds; of anything else it is refused.
GETATTR = (("builtins", "getattr"), ("__builtin__", "getattr"))


class SafeUnpickler(pickle._Unpickler):
    """`path` is for messages; `extra`: more allowed globals; `load_storage(pid)`: what a persistent id stands for.

    Python's unpickler in Python: the one in C makes room for as many GB as one damaged memo index asks for.
    """

    def __init__(self, file: io.BytesIO, path: Path | str, extra: Globals | None = None,
                 load_storage: Callable[[Any], Any] | None = None):
        super().__init__(file, encoding="latin1")
        self.path = path
        self.allowed = {**GLOBALS, **(extra or {})}
        self.load_storage = load_storage

    def find_class(self, module: str, name: str) -> Any:
        asked = f"{module}.{name}"
        if (module, name) in GETATTR:
            return Builder(lambda owner=None, *_: None if owner is HistoryBuffer else self._refuse(asked))
        found = self.allowed.get((module, name))
        return self._refuse(asked) if found is None else found

    def _refuse(self, asked: str) -> NoReturn:
        raise InputError(f"{self.path}: refused: its pickle asks for {shown(asked)}; tensors, arrays and plain containers "
                         "alone are read (save a dictionary of name and tensor, nothing else)")

    def persistent_load(self, pid: Any) -> Any:
        if self.load_storage is None:
            raise ValueError("a reference to data outside of the pickle")
        return self.load_storage(pid)

    def _load_bytes_to_change(self) -> None:
        """BYTEARRAY8 without a buffer of the length that a damaged file may ask for."""
        reader: Any = self      # the stubs of the class lack what it reads by
        reader.append(reader.read(int.from_bytes(reader.read(8), "little")))

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {**pickle._Unpickler.dispatch,
                                                            pickle.BYTEARRAY8[0]: _load_bytes_to_change}


def load_pickle(file: io.BytesIO, path: Path | str, extra: Globals | None = None,
                load_storage: Callable[[Any], Any] | None = None) -> Any:
    """The next pickle of `file`. What is wrong with it is an InputError that begins with `path`.

    In memory, because a file on disk makes room for all the bytes that a damaged length asks for.
    """
    try:
        return SafeUnpickler(file, path, extra, load_storage).load()
    except InputError:
        raise
    except Exception as error:  # a damaged or hostile stream makes the unpickler raise almost anything
        reason = shown(str(error)) or type(error).__name__
        raise InputError(f"{path}: not a whole pickle, or a damaged one: {reason}") from error
