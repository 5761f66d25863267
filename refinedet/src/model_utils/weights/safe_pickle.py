# Same as faster_rcnn/src/model_utils/weights/safe_pickle.py
"""An unpickler that builds plain containers and NumPy arrays, and nothing else.

A pickle is a program: it may name any function of any module and call it. Here every name is looked up in a table of
our own; what is not in it is refused by name and nothing is imported. The table holds no foreign class either, not even
OrderedDict or ndarray: a pickle could set attributes on it (BUILD) or hand NumPy a state that contradicts itself. It
holds `Builder`s: small objects that check their arguments, and that, like all they return, a pickle cannot change.

A pickle may also name one object again and again, in itself (t = (t, t)) or as an argument: what then takes longer and longer,
hashing and copying, is refused or counted against the size of the file.
"""
import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Self

from ..config import InputError
from ..yaml_text import shown
from .pickled_arrays import Builder, Fixed, Globals, numpy_globals

MOST_IN_KEY = 32        # elements of a tuple that is a key
MOST_INTEGER = 1024     # bytes of an integer
# What calls may cost: elements and bytes of their arguments for each byte of the pickle, and some that are free.
COST, FREE_COST = 4, 1_000_000


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


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):  # how Python 3 writes bytes under protocol 2
        raise ValueError(f"bytes in encoding {shown(encoding)}")
    return text.encode("latin1")


def check_key(key: Any) -> None:
    """ValueError for a key that takes long to hash: a tuple in a tuple doubles the time, in a few bytes each."""
    if type(key) is tuple and (len(key) > MOST_IN_KEY or any(type(item) in (tuple, frozenset) for item in key)):
        raise ValueError("a nested or long tuple as a key")


def _as_keys(items: Any = ()) -> Any:
    if not isinstance(items, (list, tuple, set, dict)):
        raise ValueError("a set of what is no list")
    for item in items:
        check_key(item)
    return items


def _with_keys(pairs: Any = ()) -> Any:
    """What a dictionary is made of: another one, or pairs."""
    if not isinstance(pairs, dict):
        if not isinstance(pairs, (list, tuple)) or any(type(pair) not in (list, tuple) or len(pair) != 2 for pair in pairs):
            raise ValueError("a dictionary of what are no pairs")
        _as_keys([key for key, _ in pairs])
    return pairs


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
    ("collections", "OrderedDict"): Builder(lambda *pairs: Items(_with_keys(*pairs))),
    ("collections", "Counter"): Builder(lambda *pairs: dict(_with_keys(*pairs))),
    ("_codecs", "encode"): Builder(_encode),
    ("__builtin__", "bytes"): Builder(lambda: b""),  # how protocol 2 writes the empty one
    ("builtins", "set"): Builder(lambda *items: set(_as_keys(*items))),
    ("__builtin__", "set"): Builder(lambda *items: set(_as_keys(*items))),
    ("mmengine.logging.history_buffer", "HistoryBuffer"): HistoryBuffer,
    **numpy_globals(),
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
        self.left = COST * len(file.getbuffer()) + FREE_COST

    def spend(self, args: Any) -> None:
        """Count what a call or a state costs."""
        self.left -= sum(len(item) for item in args if isinstance(item, (str, bytes, bytearray, list, tuple, dict, set, frozenset)))
        if self.left < 0:
            raise ValueError("it takes far more work than its size explains")

    def find_class(self, module: str, name: str) -> Any:
        asked = f"{module}.{name}"
        if (module, name) in GETATTR:
            return Builder(lambda owner=None, *_: None if owner is HistoryBuffer else self._refuse(asked))
        found = self.allowed.get((module, name))
        found = self._refuse(asked) if found is None else found
        return found.counted(self.spend) if isinstance(found, Builder) else found

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

    def _check_keys(self) -> None:
        """Before the keys and values above the mark are put into a dictionary."""
        stack: Any = self
        for key in stack.stack[::2]:
            check_key(key)
        stack.load_setitems()

    def _check_one_key(self) -> None:
        stack: Any = self
        check_key(stack.stack[-2])
        stack.load_setitem()

    def _check_dict(self) -> None:
        stack: Any = self
        for key in stack.stack[::2]:
            check_key(key)
        stack.load_dict()

    def _check_items(self) -> None:
        """Before the items above the mark are put into a set."""
        stack: Any = self
        _as_keys(stack.stack)
        stack.load_additems()

    def _check_frozen(self) -> None:
        stack: Any = self
        _as_keys(stack.stack)
        stack.load_frozenset()

    def _load_integer(self) -> None:
        """LONG4: no number that a checkpoint holds takes more than some bytes."""
        stack: Any = self
        length = int.from_bytes(stack.read(4), "little", signed=True)
        if not 0 <= length <= MOST_INTEGER:
            raise ValueError(f"an integer of {length} bytes")
        stack.append(pickle.decode_long(stack.read(length)))

    def _build(self) -> None:
        """A state may be the bytes of an array."""
        stack: Any = self
        state = stack.stack[-1]
        self.spend(state if isinstance(state, tuple) else (state,))
        stack.load_build()

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **pickle._Unpickler.dispatch, pickle.BYTEARRAY8[0]: _load_bytes_to_change, pickle.SETITEMS[0]: _check_keys,
        pickle.SETITEM[0]: _check_one_key, pickle.DICT[0]: _check_dict, pickle.ADDITEMS[0]: _check_items,
        pickle.FROZENSET[0]: _check_frozen, pickle.LONG4[0]: _load_integer, pickle.BUILD[0]: _build}


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
