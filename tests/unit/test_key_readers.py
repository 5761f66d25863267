"""Every configuration key has a reader, in its model's code or in utils/.

A read is `config.KEY`, `config["KEY"]`, `config.get("KEY", ...)` or `getattr(config, "KEY")`, where the receiver is a variable or
attribute named `config`. KEY may be a variable that loops over literals. `weights_of(LOSSES, config)` reads the keys that are the
values of LOSSES. An augmentation reads the keys that its parameters are named after.
"""
import ast
import itertools
from pathlib import Path

import pytest
import yaml

from tests.narrow_network import narrow_config, narrow_mask_config

ROOT = Path(__file__).resolve().parents[2]
MODELS = ("faster_rcnn", "mask_rcnn", "refinedet")
# Files with ranges and rules, presets, and detectron2's names. Naming or checking a key there does not count as a read.
TABLES = ("key_rules.py", "configuration/*.py", "conventions.py", "backbones.py")
# Keys that can have only one value, because of other keys or the network. They stay for the old zoo's YAML files, and nothing has
# to read them. {key: values that are refused}
ONE_VALUE = {"rpn_cls_out_channels": (0, 2), "mask_shape": ([14, 14], [28, 56], [56, 56])}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)


class Names:
    """Literals that the variables of a scope may hold, as {variable: [expression]}."""

    def __init__(self, outer=None):
        self.values = {name: list(nodes) for name, nodes in outer.values.items()} if outer else {}

    def strings(self, node) -> set:
        """Return the strings that an expression may evaluate to."""
        if isinstance(node, ast.Constant):
            return {node.value} if isinstance(node.value, str) else set()
        if isinstance(node, ast.Name):
            return set().union(*(self.strings(value) for value in self.values.get(node.id, ())))
        if isinstance(node, ast.IfExp):
            return self.strings(node.body) | self.strings(node.orelse)
        if isinstance(node, ast.FormattedValue):
            return self.strings(node.value)
        if isinstance(node, ast.JoinedStr):
            return {"".join(parts) for parts in itertools.product(*map(self.strings, node.values))}
        return set()

    def elements(self, node) -> list:
        """Return the expressions that a loop over `node` yields."""
        if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
            return [part for item in node.elts for part in
                    (self.elements(item.value) if isinstance(item, ast.Starred) else [item])]
        if isinstance(node, ast.Dict):
            return [key for key in node.keys if key is not None]
        if isinstance(node, ast.Name):
            return [part for value in self.values.get(node.id, ()) for part in self.elements(value)]
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self.elements(node.left) + self.elements(node.right)
        if isinstance(node, ast.DictComp):
            inner = Names(self)
            inner.add_loops(node.generators)
            return [ast.Constant(text) for text in sorted(inner.strings(node.key))]
        return []

    def entries(self, node) -> set:
        """Return the strings that the values of a literal dict may be."""
        if isinstance(node, ast.Dict):
            return set().union(*(self.strings(value) for value in node.values))
        if isinstance(node, ast.DictComp):
            inner = Names(self)
            inner.add_loops(node.generators)
            return inner.strings(node.value)
        return set().union(*(self.entries(value) for value in self.values.get(getattr(node, "id", ""), ())))

    def add_loops(self, generators) -> None:
        for loop in generators:
            for element in self.elements(loop.iter):
                self.bind(loop.target, element)

    def bind(self, target, value) -> None:
        if isinstance(target, ast.Name):
            if not any(isinstance(part, ast.Name) and part.id == target.id for part in ast.walk(value)):
                self.values.setdefault(target.id, []).append(value)
        elif isinstance(target, (ast.Tuple, ast.List)) and isinstance(value, (ast.Tuple, ast.List)):
            for part, item in zip(target.elts, value.elts):
                self.bind(part, item)


def own_nodes(scope):
    """Yield the nodes of a module or a function, but not the nodes inside nested functions."""
    waiting = list(ast.iter_child_nodes(scope))
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, FUNCTIONS):
            waiting.extend(ast.iter_child_nodes(node))


def reads(scope, outer=None) -> set:
    """Return the keys that a module or a function reads from a configuration."""
    names, found = Names(outer), set()
    if isinstance(scope, FUNCTIONS):
        for argument in ast.walk(scope.args):
            names.values.pop(getattr(argument, "arg", None), None)
        found |= keys_of_augmentation(scope)
    nodes = list(own_nodes(scope))
    for node in sorted((node for node in nodes if isinstance(node, (ast.Assign, ast.For))), key=lambda node: node.lineno):
        if isinstance(node, ast.For):
            names.add_loops([ast.comprehension(node.target, node.iter, [], 0)])
        else:
            for target in node.targets:
                names.bind(target, node.value)
    for node in nodes:
        if isinstance(node, FUNCTIONS):
            found |= reads(node, names)
        elif isinstance(node, COMPREHENSIONS):
            inner = Names(names)
            inner.add_loops(node.generators)
            for part in ast.walk(node):
                found |= read_by(part, inner)
        else:
            found |= read_by(node, names)
    return found


def keys_of_augmentation(function) -> set:
    """If `augmentation` decorates the function, return its parameters after plan and rng that have no default."""
    if not any(getattr(item, "id", None) == "augmentation" for item in getattr(function, "decorator_list", ())):
        return set()
    arguments = [item.arg for item in function.args.args]
    return set(arguments[2:len(arguments) - len(function.args.defaults)])


def read_by(node, names: Names) -> set:
    """Return the keys that this expression reads from a configuration."""
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and is_config(node.value):
        return {node.attr}
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load) and is_config(node.value):
        return names.strings(node.slice)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get" and node.args:
        return names.strings(node.args[0]) if is_config(node.func.value) else set()
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
        return names.strings(node.args[1]) if is_config(node.args[0]) else set()
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "weights_of":
        return names.entries(node.args[0]) if is_config(node.args[1]) else set()
    return set()


def is_config(node) -> bool:
    return getattr(node, "id", getattr(node, "attr", None)) == "config"


def unread(keys, *folders) -> set:
    """Return the keys that no Python file below the folders reads."""
    paths = [path for folder in folders for path in folder.rglob("*.py") if not is_table(path)]
    assert paths
    return set(keys).difference(*(reads(ast.parse(path.read_text(encoding="utf-8"))) for path in paths))


def is_table(path: Path) -> bool:
    return any(path.match(pattern) for pattern in TABLES)


def keys_of(path: Path) -> set:
    return set(yaml.safe_load(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("model", MODELS)
def test_every_key_has_a_reader(model):
    folder = ROOT / model
    assert unread(keys_of(folder / "default_config.yaml") - set(ONE_VALUE), folder, ROOT / "utils") == set()


@pytest.mark.parametrize("load", [narrow_config, narrow_mask_config])
def test_keys_with_one_value_refuse_others(load):
    for key, value in ((key, value) for key, values in ONE_VALUE.items() if key in load() for value in values):
        with pytest.raises(ValueError, match=f"{key}: "):
            load(**{key: value})


MENTIONS = {    # code that names a key without reading it
    "src/key_rules.py": 'RANGES = {(0, 1): "new_key"}\n\ndef check(config):\n    return config.new_key < 1\n',
    "src/model_utils/configuration/new.py": 'CONVENTIONS = {"mmdet": {"new_key": 1}}\n',
    "src/FasterRcnn/backbones.py": 'def check(config):\n    return config["new_key"]\n',
    "src/net.py": '"""Reads config.new_key."""\nNAMES = ("new_key",)\nlayer = self.new_key = dict(new_key=1)["new_key"]\n',
}


def test_an_unread_key_is_reported(tmp_path):
    """Only the new key is reported, although tables name it. Once a file reads it, nothing is."""
    text = (ROOT / "refinedet" / "default_config.yaml").read_text(encoding="utf-8")
    (tmp_path / "default_config.yaml").write_text(f"{text}\n# Help\nnew_key: 1\n", encoding="utf-8")
    for name, code in MENTIONS.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(code)
    keys, folders = keys_of(tmp_path / "default_config.yaml"), (tmp_path, ROOT / "refinedet", ROOT / "utils")
    assert unread(keys, *folders) == {"new_key"}
    (tmp_path / "src" / "FasterRcnn" / "resnet.py").write_text("def build(config):\n    return config.new_key\n")
    assert unread(keys, *folders) == set()


@pytest.mark.parametrize("code, expected", [
    ("a = config.b + self.config.c.d", "b c"),
    ("config.a = 1; config['b'] = 2; config.to.x; other.y; config_path.z", "to"),
    ("config['a'], config.get('b'), config.get('c', 0), getattr(config, 'd', 1), config.get(unknown)", "get a b c d"),
    ("KEYS = ('a', 'b')\ndef f(config):\n    return [config[key] for key in KEYS if key]", "a b"),
    ("def f(config):\n    for name in ['a', *('b', 'c')] + ['d']:\n        yield config[name]", "a b c d"),
    ("values = {n: config.get(n, '') for n in ('a', 'b')}\nown = {n: config.get(f'val_{n}', '') for n in values}",
     "get a b val_a val_b"),
    ("for address, folder in (('a', 'b'), ('c', 'd')):\n    config[address]", "a c"),
    ("config['a' if x else 'b']", "a b"),
    # A loop in another function, a parameter of the same name, an unused list.
    ("def f():\n    for name in ('a', 'b'):\n        print(name)\ndef g(config, name):\n    return config[name]", ""),
    ("NAME = 'a'\ndef g(config, NAME):\n    return config[NAME]", ""),
    ("NAMES = ('a', 'b')\nTABLE = {'c': 1}\n'config.d'", ""),
    ("@augmentation\ndef f(plan, rng, a, b, chance=0.5):\n    pass\ndef g(plan, rng, c):\n    pass", "a b"),
    ("LOSSES = {'x': 'a', 'y': 'b'}\ndef f(config):\n    return weights_of(LOSSES, config)", "a b"),
    ("LOSSES = {n: f'{n}_weight' for n in ('a', 'b')}\ndef f(config):\n    return weights_of(LOSSES, config)", "a_weight b_weight"),
])
def test_reads_of_snippets(code, expected):
    assert reads(ast.parse(code)) == set(expected.split())
