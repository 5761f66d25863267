# Same as faster_rcnn/src/model_utils/weights/pickled_arrays.py
"""Objects that a pickle may call and build: they check their arguments, and build NumPy arrays."""
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from ..yaml_text import shown

# (module, name) in a pickle -> its replacement
Globals = dict[tuple[str, str], Any]


class Fixed:
    """An object whose attributes a pickle cannot set. Without __setstate__, BUILD would write them past every check."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise ValueError(f"sets a state on a {type(self).__name__.lower()}")


class Builder(Fixed):
    """A function that a pickle may call; `spend` is called with the arguments first."""

    __slots__ = ("_function", "_spend")

    def __init__(self, function: Callable[..., Any], spend: Callable[[Any], None] | None = None):
        self._function, self._spend = function, spend

    def __call__(self, *args: Any) -> Any:
        if self._spend:
            self._spend(args)
        return self._function(*args)

    def counted(self, spend: Callable[[Any], None]) -> "Builder":
        return Builder(self._function, spend)


class DType:
    """numpy.dtype in a pickle: numbers, booleans and fixed-width text, but no Python objects or records."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any, _align: Any = False, _copy: Any = True):
        if not isinstance(code, str) or not re.fullmatch(r"[?biufSU]\d{0,9}", code):
            raise ValueError(f"array type {shown(code)} is not supported (numbers only)")
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        if state[1] not in ("<", ">", "|", "=") or any(state[2:5]):
            raise ValueError(f"array type {shown(state)} is not supported (numbers only)")
        self.order = state[1]

    def numpy(self) -> np.dtype:
        return np.dtype(self.order + self.code)


class Array:
    """numpy.ndarray in a pickle; `value` is the array, read-only."""

    __slots__ = ("value",)

    def __init__(self, value: np.ndarray | None = None):
        self.value = value

    def __setstate__(self, state: Any) -> None:
        shape, dtype, fortran, raw = state[-4:]  # preceded by the version, except in the oldest files
        self.value = array_from_bytes(raw, dtype, shape, "F" if fortran else "C")


def array_from_bytes(raw: Any, dtype: Any, shape: Any, order: str = "C") -> np.ndarray:
    """Return an array over `raw`. Raises ValueError unless type, shape and number of bytes agree."""
    if not isinstance(dtype, DType):
        raise ValueError(f"an array of type {shown(dtype)}")
    if isinstance(raw, str):  # bytes of a Python 2 pickle, decoded as latin-1
        raw = raw.encode("latin1")
    if not isinstance(raw, (bytes, bytearray)):
        raise ValueError("an array without bytes")
    shape, kind = whole_numbers(shape, "shape of an array"), dtype.numpy()
    if math.prod(shape) * kind.itemsize != len(raw):
        raise ValueError(f"an array of shape {shape} and type {kind} with {len(raw)} bytes")
    value = np.frombuffer(raw, kind) if raw else np.zeros(0, kind)
    value.flags.writeable = False
    return value.reshape(shape, order="F" if order == "F" else "C")


def whole_numbers(values: Any, what: str) -> tuple[int, ...]:
    """Return `values` as a tuple of ints >= 0. Raises ValueError for anything else."""
    values = values if isinstance(values, (tuple, list)) else (values,)
    if not all(type(value) is int and value >= 0 for value in values):
        raise ValueError(f"{what}: {shown(values)}")
    return tuple(values)


def _reconstruct(_subtype: Any, _shape: Any, _typecode: Any) -> Array:
    return Array()


def _from_buffer(raw: Any, dtype: Any, shape: Any, order: Any) -> Array:
    return Array(array_from_bytes(raw, dtype, shape, order))


def _scalar(dtype: Any, raw: Any) -> Array:
    return _from_buffer(raw, dtype, (), "C")


def numpy_globals() -> Globals:
    table = {("numpy", "dtype"): Builder(DType), ("numpy", "ndarray"): Fixed()}
    for package in ("numpy.core", "numpy._core"):  # numpy._core since NumPy 2
        table[package + ".multiarray", "_reconstruct"] = Builder(_reconstruct)
        table[package + ".multiarray", "scalar"] = Builder(_scalar)
        table[package + ".numeric", "_frombuffer"] = Builder(_from_buffer)
    return table
