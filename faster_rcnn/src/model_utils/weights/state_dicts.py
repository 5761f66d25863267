"""Find the dictionary of a checkpoint that holds the weights, and the prefix of their names."""
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import InputError
from ..yaml_text import shown

# Keys under which frameworks save the weights, in order of precedence; "blobs" is Caffe2's.
WRAPPERS = ("state_dict", "model", "model_state_dict", "net", "blobs")
# Prefixes that wrappers add to the names: Lightning, torch.compile, mmdetection's wrappers, data-parallel training.
PREFIXES = ("model.", "_orig_mod.", "detector.", "module.")
# Parts of a network; what precedes them in a name is the attribute that holds the network (self.net = ... in Lightning).
PARTS = ("backbone", "features")
# Counters of weight averaging, which are not weights.
COUNTERS = ("n_averaged", "steps", "updates")
AVERAGED = re.compile(r"(^|_)(ema|swa|avg|average|averaged)(_|$)")
# mmengine saves the averaged weights as state_dict, and the trained ones under this key.
MMENGINE = "ema_state_dict"


@dataclass(frozen=True)
class StateDict:
    """A dictionary of the file under the key `name`; "" is the file itself."""

    name: str
    values: Mapping[Any, Any]
    all_names: tuple[str, ...] = ()     # keys of all dictionaries of tensors in the file
    note: str = ""                      # which one was chosen, and how to choose another


def choose_state_dict(path: Path, tree: Mapping[Any, Any], is_tensor: Callable[[Any], bool],
                      wanted: str | None = None) -> StateDict:
    """Return the dictionary called `wanted`; if `wanted` is None, the one that holds the weights.

    Raises:
        InputError: if the file has no dictionary of tensors of that name.
    """
    found = {str(key): inner for key, value in tree.items() if (inner := _with_tensors(value, is_tensor)) is not None}
    if wanted is not None:
        if wanted not in found:
            raise InputError(f"{path}: --weights: no dictionary of tensors called {shown(wanted)}; it has "
                             f"{', '.join(map(shown, found)) or 'none'}")
        return StateDict(wanted, found[wanted], tuple(found), f"weights: {shown(wanted)}, chosen by --weights")
    name = next((key for key in WRAPPERS if isinstance(tree.get(key), Mapping)), None)
    if name is not None:
        values = found.get(name, tree[name])
    elif found and not any(map(is_tensor, tree.values())):
        name = next(iter(found))
        values = found[name]
    else:
        return StateDict("", tree)
    names = set(bare_names(values)[1])
    others = [key for key, inner in found.items() if key != name and 2 * len(names & set(bare_names(inner)[1])) > len(names)]
    note = "".join(f"; --weights={shown(key)} takes {_described(key)}" for key in others)
    return StateDict(name, values, tuple(found), f"weights: {shown(name)}{note}" if others or name not in WRAPPERS else "")


def _with_tensors(value: Any, is_tensor: Callable[[Any], bool]) -> Mapping[Any, Any] | None:
    """Return the dictionary of tensors that an entry is, or that it holds one level below; else None."""
    if not isinstance(value, Mapping):
        return None
    for inner in (value, *(value.get(key) for key in (*WRAPPERS, "module"))):
        if isinstance(inner, Mapping) and any(is_tensor(item) and name not in COUNTERS for name, item in inner.items()):
            return inner
    return None


def _described(name: str) -> str:
    if name == MMENGINE:
        return "those that were not averaged (mmengine saves the averaged ones as state_dict)"
    return "the averaged ones" if AVERAGED.search(name) else "those of that name"


def bare_names(names: Iterable[Any]) -> tuple[str, list[Any]]:
    """Return (the prefixes that most of the names share, the names without them)."""
    bare, removed = list(names), ""
    while prefix := next((item for item in (*PREFIXES, *_attributes(bare))
                          if 2 * sum(_begins(name, item) for name in bare) > len(bare)), ""):
        shorter = [name[len(prefix):] if _begins(name, prefix) else name for name in bare]
        if len(set(shorter)) < len(shorter):
            break       # two layers would get the same name
        bare, removed = shorter, removed + prefix
    return removed, bare


def _attributes(names: Iterable[Any]) -> list[str]:
    parts = (name.split(".", 2) for name in names if isinstance(name, str))
    return sorted({f"{part[0]}." for part in parts if len(part) > 1 and part[1] in PARTS and part[0] not in PARTS})


def _begins(name: Any, prefix: str) -> bool:
    return isinstance(name, str) and name.startswith(prefix) and name != prefix
