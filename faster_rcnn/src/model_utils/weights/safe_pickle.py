"""An unpickler that builds plain containers and NumPy arrays, and nothing else.

A pickle is a program: it may name any function of any module and call it. This unpickler looks every name up in its own
table, and refuses names that are not in it without importing anything. The table holds no foreign classes either, not even
OrderedDict or ndarray: a pickle could set attributes on them (BUILD) or pass NumPy an inconsistent state. It holds
`Builder`s: small objects that check their arguments. A pickle can change neither them nor what they return.

A pickle may also refer to one object repeatedly, inside itself (t = (t, t)) or as an argument, so that hashing and copying
take exponentially longer. Such structures are refused, or counted against the size of the file.
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

MOST_IN_KEY = 32        # elements of a tuple used as a key
MOST_INTEGER = 1024     # bytes of an integer
# Cost limit of calls: elements and bytes of their arguments, COST for each byte of the pickle, plus FREE_COST.
COST, FREE_COST = 4, 1_000_000


class Items(OrderedDict):
    """OrderedDict in a pickle, without the attributes that may come with it (PyTorch's `_metadata`)."""

    def __setstate__(self, state: Any) -> None:
        pass


class ReadPast(Fixed):
    """Stand-in for an object that a training run saved beside the weights: accepts everything and keeps nothing."""

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
    """mmengine's HistoryBuffer, which refers to methods of its class; see `SafeUnpickler.find_class`."""

    __slots__ = ()


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):  # how Python 3 writes bytes under protocol 2
        raise ValueError(f"bytes in encoding {shown(encoding)}, expected latin1")
    return text.encode("latin1")


def check_key(key: Any) -> None:
    """Raise ValueError for keys that are slow to hash: each nested tuple doubles the time at a cost of a few bytes."""
    if type(key) is tuple and (len(key) > MOST_IN_KEY or any(type(item) in (tuple, frozenset) for item in key)):
        raise ValueError("a nested or long tuple as a key")


def _as_keys(items: Any = ()) -> Any:
    if not isinstance(items, (list, tuple, set, dict)):
        raise ValueError("a set that is not built from a list")
    for item in items:
        check_key(item)
    return items


def _with_keys(pairs: Any = ()) -> Any:
    """Return `pairs` if a dictionary can be built from them: another dictionary, or a list of pairs."""
    if not isinstance(pairs, dict):
        if not isinstance(pairs, (list, tuple)) or any(type(pair) not in (list, tuple) or len(pair) != 2 for pair in pairs):
            raise ValueError("a dictionary that is not built from pairs")
        _as_keys([key for key, _ in pairs])
    return pairs


# Classes that training programs save among their settings: module -> names.
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
    ("__builtin__", "bytes"): Builder(lambda: b""),  # how protocol 2 writes empty bytes
    ("builtins", "set"): Builder(lambda *items: set(_as_keys(*items))),
    ("__builtin__", "set"): Builder(lambda *items: set(_as_keys(*items))),
    ("mmengine.logging.history_buffer", "HistoryBuffer"): HistoryBuffer,
    **numpy_globals(),
}
# How protocol 2 names the methods that a HistoryBuffer holds; getattr of anything else is refused.
GETATTR = (("builtins", "getattr"), ("__builtin__", "getattr"))


class SafeUnpickler(pickle._Unpickler):
    """Unpickler with an allowlist.

    It derives from the one in Python because the one in C allocates GBs if a damaged memo index asks for them.

    Args:
        file: the pickle.
        path: for messages.
        extra: further allowed globals.
        load_storage: function of a persistent id that returns the object it refers to.
    """

    def __init__(self, file: io.BytesIO, path: Path | str, extra: Globals | None = None,
                 load_storage: Callable[[Any], Any] | None = None):
        super().__init__(file, encoding="latin1")
        self.path = path
        self.allowed = {**GLOBALS, **(extra or {})}
        self.load_storage = load_storage
        self.left = COST * len(file.getbuffer()) + FREE_COST

    def spend(self, args: Any) -> None:
        """Count the cost of a call or a state."""
        self.left -= sum(len(item) for item in args if isinstance(item, (str, bytes, bytearray, list, tuple, dict, set, frozenset)))
        if self.left < 0:
            raise ValueError("unpickling takes far more work than the file's size justifies")

    def find_class(self, module: str, name: str) -> Any:
        asked = f"{module}.{name}"
        if (module, name) in GETATTR:
            return Builder(lambda owner=None, *_: None if owner is HistoryBuffer else self._refuse(asked))
        found = self.allowed.get((module, name))
        found = self._refuse(asked) if found is None else found
        return found.counted(self.spend) if isinstance(found, Builder) else found

    def _refuse(self, asked: str) -> NoReturn:
        raise InputError(f"{self.path}: refused: its pickle asks for {shown(asked)}; only tensors, arrays and plain containers "
                         "are read (save a dictionary of name and tensor, nothing else)")

    def persistent_load(self, pid: Any) -> Any:
        if self.load_storage is None:
            raise ValueError("a reference to data outside of the pickle")
        return self.load_storage(pid)

    def _load_bytes_to_change(self) -> None:
        """Read BYTEARRAY8 without allocating the length that a damaged file may declare."""
        reader: Any = self      # the type stubs lack these attributes
        reader.append(reader.read(int.from_bytes(reader.read(8), "little")))

    def _check_keys(self) -> None:
        """Check the keys before SETITEMS puts the pairs above the mark into a dictionary."""
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
        """Check the items before ADDITEMS puts those above the mark into a set."""
        stack: Any = self
        _as_keys(stack.stack)
        stack.load_additems()

    def _check_frozen(self) -> None:
        stack: Any = self
        _as_keys(stack.stack)
        stack.load_frozenset()

    def _load_integer(self) -> None:
        """Read LONG4, but refuse numbers far longer than any in a checkpoint."""
        stack: Any = self
        length = int.from_bytes(stack.read(4), "little", signed=True)
        if not 0 <= length <= MOST_INTEGER:
            raise ValueError(f"an integer of {length} bytes")
        stack.append(pickle.decode_long(stack.read(length)))

    def _build(self) -> None:
        """Count the cost of a state, which may be the bytes of an array, before BUILD."""
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
    """Return the next pickle of `file`. Raises InputError, in a message that begins with `path`, if it is damaged or refused.

    `file` is in memory, since reading from disk allocates all the bytes that a damaged length declares.
    """
    try:
        return SafeUnpickler(file, path, extra, load_storage).load()
    except InputError:
        raise
    except Exception as error:  # a damaged or hostile stream makes the unpickler raise almost anything
        reason = shown(str(error)) or type(error).__name__
        raise InputError(f"{path}: not a whole pickle, or a damaged one: {reason}") from error
