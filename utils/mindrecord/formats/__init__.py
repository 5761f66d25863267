"""The annotation formats. A module here that defines FORMAT is found by itself; no list names it.

Modules whose names start with "_" are helpers.
"""
import importlib
import pkgutil

from ..errors import DataError
from ..format import Format


def all_formats() -> dict[str, Format]:
    """Return {name: entry} of all formats, those with a usual layout first, then by name."""
    names = [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]
    entries: list[Format] = [importlib.import_module(f"{__name__}.{name}").FORMAT for name in names]
    formats: dict[str, Format] = {}
    for entry in sorted(entries, key=lambda entry: (entry.layout is None, entry.name)):
        if entry.name in formats:
            raise RuntimeError(f"{__path__[0]}: two modules define the format {entry.name!r}")
        formats[entry.name] = entry
    return formats


def find_format(name: str) -> Format:
    """Return the entry of a format; DataError if the name is unknown."""
    formats = all_formats()
    if name not in formats:
        raise DataError(f"source: {name!r} is not one of {', '.join(formats)}")
    return formats[name]
