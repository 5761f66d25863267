"""Parse values of annotations and results in any notation: 7, 7.0 or "7"."""
import itertools
import json
import math
import re
from typing import Any, Optional

from ..yaml_text import shown

# int() and float() would also accept 1_000 and digits of other scripts.
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE)
_SPACES = " \t\r\n"
_WORDS = {"true": 1, "false": 0}


def whole_number(value: Any) -> Optional[int]:
    """Return a whole number in any notation (7, 7.0, "7", " 007 ", "7.0"), or None. Booleans are not numbers here."""
    if type(value) is int:
        return value
    if type(value) is str and _NUMBER.fullmatch(value.strip(_SPACES)):
        try:
            return int(value)
        except ValueError:
            pass
    found = number(value)
    return int(found) if found is not None and math.isfinite(found) and found == int(found) else None


def number(value: Any) -> Optional[float]:
    """Return a number in any notation, or None. NaN and infinity are numbers, booleans are not."""
    if type(value) in (int, float):
        return value
    if isinstance(value, (bool, bytes, bytearray)) or (isinstance(value, str) and not _NUMBER.fullmatch(value.strip(_SPACES))):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def numbers(values: Any, count: int) -> Optional[list[float]]:
    """Return a list of exactly `count` numbers, or None."""
    if isinstance(values, (str, bytes, dict)):
        return None
    try:
        found = [number(value) for value in values]
    except TypeError:
        return None
    if len(found) != count:
        return None
    return None if None in found else found      # type: ignore[return-value]


def flag(value: Any) -> Optional[int]:
    """Return 0 or 1 for 0, 1, true and false in any notation, 0 for null and empty text, and None for anything else."""
    if value is None or value is False or value == "":
        return 0
    if value is True:
        return 1
    found = _WORDS.get(value.strip().lower()) if type(value) is str else None
    found = whole_number(value) if found is None else found
    return found if found in (0, 1) else None


def side(value: Any) -> Optional[int]:
    """Return the height or width of an image, 0 if it is missing (null, 0 or empty text), and None if it is invalid."""
    if value is None or (type(value) is str and not value.strip()):
        return 0
    found = whole_number(value)
    return found if found is not None and 0 <= found < 2**31 else None


def _trimmed(value: Any, depth: int = 4, most: int = 64) -> Any:
    """Return the beginning of a value that may be large and nested."""
    if isinstance(value, str):
        return value[:most]
    if not isinstance(value, (list, tuple, dict)):
        return value
    if not depth:
        return "..."
    if isinstance(value, dict):
        return {key: _trimmed(item, depth - 1) for key, item in itertools.islice(value.items(), most)}
    return [_trimmed(item, depth - 1) for item in value[:most]]


def short(value: Any, most: int = 60) -> str:
    """Return a value as JSON, shortened to `most` characters."""
    try:
        text = json.dumps(_trimmed(value), ensure_ascii=False)
    except (TypeError, ValueError):
        text = shown(value)
    return text if len(text) <= most else f"{text[:most - 3]}..."
