"""Faults in the words of Python: a command speaks of --key=value, a function of key="value"."""
import contextlib
import re
from collections.abc import Iterator

from .config import DEFAULT_CONFIG, InputError
from .configuration.schema import read_keys

# An option, but not of the conversion, which is a command there too; what it may be set to, if that is a word.
FLAG = re.compile(r"(?<![\w-])(?<!convert_checkpoint )(?<!convert )--([a-z]\w*)(=)?(?:(?<==)([a-z](?:[\w./-]*\w)?))?")


def in_python(text: str) -> str:
    """Return a message with keyword arguments in place of the options of a command."""
    keys = {*read_keys(DEFAULT_CONFIG), "config_path"}

    def keyword(match: re.Match) -> str:
        name, equals, word = match.groups()
        if name not in keys:
            return match[0]
        return name + (equals or "") + (f'"{word}"' if word else "")

    return FLAG.sub(keyword, text)


@contextlib.contextmanager
def input_errors() -> Iterator[None]:
    """Within, faults of the user are InputError in the words of Python; those of utils/ too, whose exceptions are its own."""
    try:
        yield
    except ValueError as error:
        text = in_python(str(error)) if getattr(error, "user_error", False) else ""
        if not text or (isinstance(error, InputError) and text == str(error)):
            raise
        raise (type(error) if isinstance(error, InputError) else InputError)(text) from error
