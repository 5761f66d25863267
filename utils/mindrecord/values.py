"""Values of annotations and results, however they are written: as a number, as 1.0, as text."""
import json
import math
from typing import Any, Optional

_WORDS = {"true": 1, "false": 0}


def whole_number(value: Any) -> Optional[int]:
    """Return a whole number in any notation (7, 7.0, "7", " 007 ", "7.0"), or None. A boolean is no number here."""
    if type(value) is int:
        return value
    if type(value) is str:
        try:
            return int(value) if "_" not in value else None     # Python takes 1_000
        except ValueError:
            pass
    found = number(value)
    return int(found) if found is not None and math.isfinite(found) and found == int(found) else None


def number(value: Any) -> Optional[float]:
    """Return a number in any notation, or None. NaN and infinity are numbers, a boolean is none."""
    if type(value) in (int, float):
        return value
    if isinstance(value, bool) or (type(value) is str and "_" in value):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def numbers(values: Any, count: int) -> Optional[list[float]]:
    """Return a list of `count` numbers, or None."""
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
    """Return 0 or 1: of 0, 1, true and false in any notation, 0 of null and an empty text; else None."""
    if value is None or value is False or value == "":
        return 0
    if value is True:
        return 1
    found = _WORDS.get(value.strip().lower()) if type(value) is str else None
    found = whole_number(value) if found is None else found
    return found if found in (0, 1) else None


def side(value: Any) -> Optional[int]:
    """Return the height or width of an image, 0 where none is given (null, 0, an empty text), None of what is no size."""
    if value is None or (type(value) is str and not value.strip()):
        return 0
    found = whole_number(value)
    return found if found is not None and 0 <= found < 2**31 else None


def short(value: Any, most: int = 60) -> str:
    """Return a value as JSON has it, cut to `most` characters."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= most else f"{text[:most - 3]}..."
