"""Render a template and data to one HTML file that runs only its own script and loads nothing."""
import json
import math
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..files import replacing

TEMPLATES = Path(__file__).parent / "templates"
# In a <script>, `</script>` would end it and `<!--` change its parsing; older JavaScript took U+2028 and U+2029 for line ends.
ESCAPES = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def write_page(path: Path, template: str, data: Any, **values: Any) -> None:
    """Write the page of templates/`template`.html, with style and script inlined, to `path`.

    data: plain Python values for the script; non-finite numbers become null. values: variables of the template, escaped by
    Jinja2.
    """
    text = _environment().get_template(f"{template}.html").render(data=as_json(data), **values)
    with replacing(path, durable=False) as partial:
        partial.write_bytes(text.encode("utf-8", "backslashreplace"))


def as_json(data: Any) -> str:
    """Return ASCII JSON that is safe inside a <script>."""
    try:
        text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(data), separators=(",", ":"), allow_nan=False)
    return text.translate(ESCAPES)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@lru_cache(maxsize=1)
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                       lstrip_blocks=True)
