# Same as faster_rcnn/src/model_utils/configuration/schema.py
"""Schema of a configuration file: its keys, their help, and the values that each type accepts.

In default_config.yaml, a line `## Title` opens a section, the comment right above a key is its help, and `{A|B}` in that
comment lists the only valid values. Brackets in the comment of a number or of a list of numbers are its limits:
[1..]  [0..1]  [>0..]    at least 1; from 0 to 1, both included; more than 0
[each 1..]               the range of every element of a list
[4 values]               the length of a list
[4 values, each 1..]     both

A list of numbers in brackets, such as [] or [0.8, 1.0], is an example. The type of a key is that of its default value:

bool    True, False, true, false, 1, 0
int     a whole number, decimal, of at most 64 bits
float   any finite number, including `1e-4` (text in YAML) and fractions such as `1/3`
str     text; an empty value in YAML is ""
list    elements of the default's type; an empty default takes numbers; Python's (1, 2) is accepted, too
dict    the sub-keys of the default; missing ones keep their value; Python's dict(a=1) is accepted, too
"""
import ast
import difflib
import math
import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..yaml_text import YamlError, read_mapping, read_text, read_value, shown

_NUMBER = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"
_RANGE = rf"(?P<above>>)?(?P<lowest>{_NUMBER})\.\.(?P<highest>{_NUMBER})?"
_NUMBER_LIMITS = re.compile(rf"\[{_RANGE}\]")
_LIST_LIMITS = re.compile(rf"\[(?:(?P<length>[1-9]\d*) values)?(?:(?(length), )each {_RANGE})?\]")
# Anything that looks like limits: brackets, or a range without brackets.
_BRACKETS = re.compile(r"\[[^\[\]]*\]?|\S*\d\.\.(?!\.)\S*")
# Stricter than float(), which accepts 1_000, spaces and the digits of other scripts.
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
# Beginning of a tuple or a dict in Python.
PYTHON = re.compile(r"\s*(\(|dict\s*\()")
_EXAMPLE = re.compile(rf"\[(?:{_NUMBER}(?:, *{_NUMBER})*)?\]")


class InputError(ValueError):
    """An error of the user; the message is one line that names the key, file or place."""

    user_error = True
    status = 2      # exit status of the command


class DamagedError(InputError):
    """A file whose content is damaged."""

    status = 1


@dataclass(frozen=True)
class Entry:
    """One `name: value` of a source. `where` begins its error messages; `text`: the value is text that must be parsed."""

    name: str
    value: Any
    where: str
    text: bool = False
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Key:
    """One key of the defaults. `lowest` and `highest` limit a number or each element of a list; None: no limit."""

    name: str
    default: Any
    help: str
    section: str
    choices: tuple[str, ...]
    lowest: float | None = None
    highest: float | None = None
    length: int | None = None
    above: bool = False     # exclude `lowest` itself

    @property
    def metavar(self) -> str:
        if self.choices:
            return "{" + "|".join(self.choices) + "}"
        return {"str": "TEXT", "dict": "MAPPING"}.get(type(self.default).__name__, type(self.default).__name__.upper())


def read_entries(path: Path | str) -> tuple[list[Entry], int]:
    """Return (entries of the first YAML document, number of further documents). Raises InputError with file and line."""
    path = Path(path)
    try:
        text = read_text(path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text") from None
    try:
        items, others = read_mapping(text)
    except YamlError as error:
        raise InputError(f"{path}{f':{error.line}' if error.line else ''}: {error}") from None
    entries: list[Entry] = []
    lines: dict[str, int] = {}
    for name, value, line in items:
        if name in lines:
            raise InputError(f"{path}:{line}: {shown(name)}: given twice, first in line {lines[name]}")
        lines[name] = line
        entries.append(Entry(name, value, f"{path}:{line}: {shown(name)}", line=line))
    return entries, others


def read_keys(path: Path | str) -> dict[str, Key]:
    """Return {name: Key} of the file of defaults, in file order."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    keys = {}
    for entry in read_entries(path)[0]:
        above = entry.line - 2
        comment: list[str] = []
        while above >= 0 and lines[above].startswith("#") and not lines[above].startswith("## "):
            comment.insert(0, lines[above].lstrip("# ").rstrip())
            above -= 1
        section = next((line[3:].strip() for line in reversed(lines[:entry.line]) if line.startswith("## ")), "Keys")
        text = " ".join(comment)
        choices = re.search(r"\{([^{}\s]+)\}", text)
        keys[entry.name] = Key(entry.name, entry.value, text, section, tuple(choices[1].split("|")) if choices else (),
                               **_read_limits(text, entry))
    return keys


def _read_limits(comment: str, entry: Entry) -> dict[str, Any]:
    """Return the limits in a key's comment as fields of `Key`. Raises InputError if they do not fit the key's type."""
    found = [item for item in _BRACKETS.findall(comment) if not _EXAMPLE.fullmatch(item)]
    is_list = isinstance(entry.value, list)
    if not all(type(item) in (int, float) for item in (entry.value if is_list else [entry.value])):
        if any(pattern.fullmatch(item) for item in found for pattern in (_NUMBER_LIMITS, _LIST_LIMITS)):
            raise InputError(f"{entry.where}: its comment gives limits, {' and '.join(found)}, but it takes no numbers")
        return {}
    if not found:
        return {}
    match = (_LIST_LIMITS if is_list else _NUMBER_LIMITS).fullmatch(found[0])
    texts = {name: text for name, text in match.groupdict().items() if text} if match else {}
    limits = {name: {"length": int, "above": bool}.get(name, float)(text) for name, text in texts.items()}
    if not limits or len(found) > 1 or limits.get("highest", math.inf) < limits.get("lowest", -math.inf):
        expected = "[4 values], [each 1..] or [4 values, each 1..]" if is_list else "[1..], [>0..] or [0..1]"
        raise InputError(f"{entry.where}: expected limits such as {expected} in its comment, got {' and '.join(found)}")
    return limits


def nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Return ", did you mean x?" for the known name that is closest, or ""."""
    folded = {str(item).casefold().replace("-", "_"): item for item in known}
    close = difflib.get_close_matches(str(name).casefold().replace("-", "_"), folded, n=1, cutoff=0.6)
    return f", did you mean {prefix}{folded[close[0]]}?" if close else ""


def check_choice(value: Any, choices: Collection[str], where: str) -> None:
    """Raise InputError unless `value` is one of `choices`; without choices, everything is valid."""
    if choices and str(value) not in choices:
        raise InputError(f"{where}: expected one of {', '.join(choices)}, got {shown(value)!r}{nearest(value, choices)}")


def check_limits(value: Any, key: Key, where: str) -> None:
    """Raise InputError unless `value`, or each element of a list, is in the range of `key` and a list has the right length."""
    items = value if isinstance(value, (list, tuple)) else (value,)
    for item in items if key.lowest is not None else ():
        too_low = item <= key.lowest if key.above else item < key.lowest
        if too_low or (key.highest is not None and item > key.highest):
            raise InputError(f"{where}: expected {_range_text(key)}, got {_quoted(item)}")
    if key.length is not None and len(value) != key.length:
        raise InputError(f"{where}: expected {key.length} values, got {len(value)}")


def _range_text(key: Key) -> str:
    lowest, highest = f"{key.lowest:g}", "" if key.highest is None else f"{key.highest:g}"
    if key.above:
        return f"more than {lowest}" + (f" and at most {highest}" if highest else "")
    if not highest:
        return f"at least {lowest}"
    return lowest if lowest == highest else f"{lowest} to {highest}"


def coerce(value: Any, like: Any, where: str, text: bool = False) -> Any:
    """Convert `value` to the type of `like`. Raises InputError, with `where`, if that is not possible."""
    if isinstance(like, (list, dict)) and isinstance(value, str) and PYTHON.match(value):
        value, text = _python_value(value), False
    if isinstance(like, (list, dict)) and text:
        bare = isinstance(like, list) and not value.strip().startswith("[")  # the brackets of a list are optional
        value = parse_text(f"[{value}]" if bare else value, where)
    if isinstance(like, dict):
        return _as_dict(value, like, where)
    if isinstance(like, list):
        return _as_list(value, like, where)
    convert, expected = _SCALARS[type(like)]
    result = convert(value, text)
    if result is None:
        quote = "; write it in quotes" if isinstance(like, str) and isinstance(value, (int, float)) else ""
        raise InputError(f"{where}: expected {expected}, got {_quoted(value)}{quote}")
    return result


def _python_value(text: str) -> Any:
    """Evaluate a tuple or a dict(...), as in the old zoo's config.py; return the text itself if it is neither."""
    try:
        node = ast.parse(text.strip(), mode="eval").body
        if isinstance(node, ast.Call):
            return {str(item.arg): ast.literal_eval(item.value) for item in node.keywords}
        return ast.literal_eval(node)
    except (ValueError, SyntaxError, MemoryError, RecursionError):      # deeply nested text raises the last two
        return text


def parse_text(value: str, where: str) -> Any:
    """Parse text of the command line as YAML."""
    try:
        return read_value(value)
    except YamlError as error:
        what = "" if str(error).startswith("not valid") else f": {error}"
        raise InputError(f"{where}: not a valid YAML value: {_quoted(value)}{what}") from None


def _quoted(value: Any) -> str:
    """Format a value for a message; text is quoted."""
    return repr(shown(value)) if isinstance(value, str) else shown(value)


def _as_dict(value: Any, like: dict[str, Any], where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected a mapping with the keys {', '.join(like)}, got {_quoted(value)}")
    for name in value:
        if name not in like:
            raise InputError(f"{where}.{name}: unknown key{nearest(name, like)}")
    return {name: coerce(item, like[name], f"{where}.{name}") for name, item in value.items()}


def _as_list(value: Any, like: list[Any], where: str) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise InputError(f"{where}: expected a list, got {_quoted(value)}")
    return [coerce(item, _element_like(like), f"{where}[{index}]") for index, item in enumerate(value)]


def _element_like(like: list[Any]) -> Any:
    if not like:
        return 0.0
    if isinstance(like[0], list):
        return [item for inner in like for item in inner]
    return 0.0 if any(isinstance(item, float) for item in like) else like[0]


def _to_bool(value: Any, text: bool) -> bool | None:
    if isinstance(value, (bool, int)) and value in (0, 1):
        return bool(value)
    return {"true": True, "1": True, "false": False, "0": False}.get(value.strip().lower()) if text else None


def _to_int(value: Any, text: bool) -> int | None:
    if text:
        value = int(value) if re.fullmatch(r"[+-]?[0-9]{1,18}", value) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else None


def _to_float(value: Any, text: bool) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    parts = [value] if isinstance(value, (int, float)) else value.split("/")
    if len(parts) > 2 or not all(_DECIMAL.fullmatch(part) for part in parts if isinstance(part, str)):
        return None
    try:
        result = float(parts[0]) / float(parts[-1] if len(parts) > 1 else 1)
    except (OverflowError, ZeroDivisionError):
        return None
    return result if math.isfinite(result) else None


def _to_str(value: Any, text: bool) -> str | None:
    if value is None:
        return ""
    if isinstance(value, str) and value.startswith("~/"):     # a path: the shell does not expand it behind --key=
        return os.path.expanduser(value)
    return value if isinstance(value, str) else None


_SCALARS = {
    bool: (_to_bool, "True or False"),
    int: (_to_int, "a whole number"),
    float: (_to_float, "a number"),
    str: (_to_str, "text"),
}
