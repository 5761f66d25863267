# Same as faster_rcnn/src/model_utils/yaml_text.py
"""Read YAML of unknown origin in bounded time and memory: limit its size, its depth, and the expansion of its aliases.

The parser in C is quadratic in the depth, and crashes beyond some ten thousand levels. Numbers are decimal and dates are text, as
in YAML 1.2; in YAML 1.1, 1_0 is 10, 010 is 8 and 1:30 is 90.
"""
import re
import reprlib
from pathlib import Path
from typing import Any, NamedTuple, cast

import yaml

MOST_CHARACTERS, MOST_DEPTH, MOST_VALUES = 4 << 20, 100, 200_000
# Indicators of block collections that are nested on one line.
_NESTED = re.compile(rf"^\s*(?:[-?]\s+){{{MOST_DEPTH},}}", re.MULTILINE)
_COMMENT = re.compile(r"^\s*#.*$", re.MULTILINE)
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 3, 60, 60, 60


def shown(value: Any, most: int = 80) -> str:
    """Format a value from a file for a message: one line, printable and short, however large and nested it is."""
    try:
        text = value[:most + 1] if isinstance(value, str) else _SHORT.repr(value)
    except ValueError:      # the value contains an integer with thousands of digits
        text = f"a {type(value).__name__} with an integer of more than 4300 digits"
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= most else text[:most - 3] + "..."


class YamlError(ValueError):
    """A text that is not YAML, or that exceeds the limits. line: from 1 on, 0 = unknown."""

    def __init__(self, what: str, line: int = 0):
        super().__init__(what)
        self.line = line


class Item(NamedTuple):
    """One `key: value` of a mapping, and its line."""

    key: str
    value: Any
    line: int


_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)     # CSafeLoader is several times as fast, but not always installed


class Loader(_BASE):
    """yaml.SafeLoader with the numbers of YAML 1.2."""


_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_REPLACED = (_INT, _FLOAT, "tag:yaml.org,2002:timestamp")
Loader.yaml_implicit_resolvers = {first: [(tag, pattern) for tag, pattern in resolvers if tag not in _REPLACED]
                                  for first, resolvers in _BASE.yaml_implicit_resolvers.items()}
Loader.add_implicit_resolver(_INT, re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z"), list("-+0123456789"))
Loader.add_implicit_resolver(_FLOAT, re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?\Z|[-+]?\.(?:inf|Inf|INF)\Z|"
                                                r"\.(?:nan|NaN|NAN)\Z"), list("-+.0123456789"))


class TextLoader(getattr(yaml, "CBaseLoader", yaml.BaseLoader)):     # type: ignore[misc]
    """Loader that keeps every value as text: a class may be called "no" or "2"."""


def read_text(path: Path) -> str:
    """Return the text of a file, but not more than is needed to refuse a longer one."""
    with path.open(encoding="utf-8") as file:
        return file.read(MOST_CHARACTERS + 1)


def read_mapping(text: str, loader_class: Any = Loader) -> tuple[list[Item], int]:
    """Return the items of the mapping in the first document, and the number of further documents. Raises YamlError."""
    _check_text(text)
    try:
        loader = loader_class(text)
        documents: list[yaml.Node] = []
        while loader.check_node():
            documents.append(cast(yaml.Node, loader.get_node()))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _fault(error) from error
    if not documents or (isinstance(documents[0], yaml.ScalarNode) and not documents[0].value):   # `---` without content
        return [], len(documents[1:])
    root = documents[0]
    if not isinstance(root, yaml.MappingNode):
        raise YamlError("expected lines of `key: value`", root.start_mark.line + 1)
    _check_expansion(root)
    return [_item(loader, *pair) for pair in root.value], len(documents[1:])


def read_value(text: str) -> Any:
    """Return the value of a YAML text. Raises YamlError."""
    _check_text(text)
    try:
        loader = Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_expansion(node)
        return loader.construct_document(node)
    except YamlError:
        raise
    except Exception as error:      # constructors raise ValueError, TypeError, AttributeError, ...
        raise _fault(error) from error


def _item(loader: Any, key: yaml.Node, value: yaml.Node) -> Item:
    line = key.start_mark.line + 1
    if not isinstance(key, yaml.ScalarNode):
        raise YamlError("expected lines of `key: value`", line)
    try:
        return Item(str(loader.construct_object(key, deep=True)), loader.construct_object(value, deep=True), line)
    except Exception as error:      # constructors raise ValueError, TypeError, AttributeError, ...
        raise _fault(error, line, f"{shown(key.value)}: ") from error


def _fault(error: Exception, line: int = 0, place: str = "") -> YamlError:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or ("nested too deeply" if isinstance(error, RecursionError) else str(error))
    return YamlError(f"not valid YAML: {place}{shown(' '.join(what.split()), 200)}", mark.line + 1 if mark else line)


def _check_text(text: str) -> None:
    """Raise YamlError for a text that would take the parser too long."""
    if len(text) > MOST_CHARACTERS:
        raise YamlError(f"more than {MOST_CHARACTERS} characters, which is the limit")
    if text.count(",") + text.count("\n") > MOST_VALUES:
        raise YamlError(f"more than {MOST_VALUES} lines and values, which is the limit")
    depth = 0
    for found in re.finditer(r"[\[\]{}]", _COMMENT.sub("", text)):
        depth = depth + 1 if found.group() in "[{" else max(0, depth - 1)
        if depth > 10 * MOST_DEPTH:     # generous, since brackets inside strings count, too
            raise YamlError(f"nested more than {MOST_DEPTH} levels deep")
    if _NESTED.search(text):
        raise YamlError(f"nested more than {MOST_DEPTH} levels deep")


def _check_expansion(root: yaml.Node) -> None:
    """Raise YamlError for a node that is too deep, contains itself, or is too large once each alias is expanded."""
    sizes: dict[int, int] = {}      # id of a node -> number of values in it
    path: set[int] = set()
    waiting: list[tuple[yaml.Node, bool]] = [(root, False)]
    while waiting:
        node, done = waiting.pop()
        inner = _children(node)
        line = node.start_mark.line + 1
        if done:
            path.discard(id(node))
            sizes[id(node)] = 1 + sum(sizes[id(child)] for child in inner)
            if sizes[id(node)] > MOST_VALUES:
                raise YamlError(f"more than {MOST_VALUES} values, counting expanded aliases", line)
        elif id(node) in path:
            raise YamlError("an alias refers to a value that contains it", line)
        elif id(node) not in sizes:
            path.add(id(node))
            if len(path) > MOST_DEPTH:
                raise YamlError(f"nested more than {MOST_DEPTH} levels deep", line)
            waiting += [(node, True), *((child, False) for child in inner)]


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [item for pair in node.value for item in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []
