# Same as faster_rcnn/src/model_utils/python_words.py
"""Translate error messages for Python callers: --key=value of a command becomes key="value"."""
import contextlib
import re
from collections.abc import Iterator

from .config import DEFAULT_CONFIG, InputError
from .configuration.schema import read_keys

# An option and its value, if that is a word; but not an option of the conversion, which is a command for Python callers, too.
FLAG = re.compile(r"(?<![\w-])(?<!convert_checkpoint )(?<!convert )--([a-z]\w*)(=)?(?:(?<==)([a-z](?:[\w./-]*\w)?))?")


def in_python(text: str) -> str:
    """Return a message with keyword arguments instead of command-line options."""
    keys = {*read_keys(DEFAULT_CONFIG), "config_path"}

    def keyword(match: re.Match) -> str:
        name, equals, word = match.groups()
        if name not in keys:
            return match[0]
        return name + (equals or "") + (f'"{word}"' if word else "")

    return FLAG.sub(keyword, text)


@contextlib.contextmanager
def input_errors() -> Iterator[None]:
    """Convert errors of the user, including those of utils/, to InputErrors with messages for Python callers within the block."""
    try:
        yield
    except ValueError as error:
        text = in_python(str(error)) if getattr(error, "user_error", False) else ""
        if not text or (isinstance(error, InputError) and text == str(error)):
            raise
        raise (type(error) if isinstance(error, InputError) else InputError)(text) from error
