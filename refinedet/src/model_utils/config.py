# Same as faster_rcnn/src/model_utils/config.py
"""Configuration: default_config.yaml, overridden by a variant's YAML, overridden by the command line.

`load_config` and `parse_config` return a `Config`: frozen, with access by attribute; lists are tuples, and a mapping such as
`roi_layer` is a nested `Config`. A key has the type of its default; configuration/schema.py lists what each type accepts.
Errors of the user are `InputError`s: one line that names the key, and the file and line if there is one.
"""
import argparse
import itertools
import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import yaml

from ..model import ALIASES, PRESETS, RETIRED, SEVERAL, check_config
from .command import run_main
from .configuration.data_root import located
from .configuration.rules import check_augmentations
from .configuration.run_files import HEAD, RUN_HEAD, keys_of_today
from .configuration.schema import (
    DamagedError,
    Entry,
    InputError,
    Key,
    check_choice,
    check_limits,
    coerce,
    nearest,
    parse_text,
    read_entries,
    read_keys,
)
from .configuration.solver_names import solver_entries
from .configuration.values import Config
from .configuration.view_keys import check_views
from .files import write_text
from .local_adapter import get_device_num

__all__ = ["Config", "DamagedError", "InputError", "config_file", "load_config", "parse_config", "require_path", "run_main",
           "save_config"]

MODEL_DIR = Path(__file__).resolve().parents[2]
DEFAULT_CONFIG = MODEL_DIR / "default_config.yaml"
BASE = "__BASE__"
# expand_ratio is a probability, as in the old zoo; an earlier version used this name for what is now expand_factor.
CHANCE, FACTOR = "expand_ratio", "expand_factor"
# A required key with one of these endings must name an existing file or folder.
PATH_ENDINGS = ("_path", "_file", "_dir", "_root")
log = logging.getLogger(__name__)


def load_config(path: Path | str = DEFAULT_CONFIG, overrides: Mapping[str, Any] | None = None,
                default_path: Path | str = DEFAULT_CONFIG, classes_of_data: bool = False) -> Config:
    """Return the defaults, overridden by the YAML at `path` (and what it inherits), overridden by `overrides`.

    Args:
        path: a YAML file; default_config.yaml itself for the defaults.
        overrides: {key: value}.
        default_path: the YAML that declares the keys.
        classes_of_data: see parse_config.

    Raises:
        InputError: for unknown keys, wrong types or values, missing files, and keys that contradict each other.
    """
    entries = [Entry(str(name), value, str(name)) for name, value in (overrides or {}).items()]
    return _resolve(path, entries, default_path, classes_of_data)


def parse_config(argv: Sequence[str] | None = None, default_path: Path | str = DEFAULT_CONFIG, required: Sequence[str] = (),
                 description: str | None = None, prepare: Callable[[Config], Config] | None = None,
                 classes_of_data: bool = False) -> Config:
    """Return the configuration for a command line, in which every key is a flag.

    Args:
        argv: words without the program's name. detectron2's names may follow the flags, each with a value (see
            configuration/solver_names.py).
        default_path: the YAML that declares the keys.
        required: keys that must not be empty. If the name ends like a path's, the path must exist after `prepare`.
        description: for --help.
        prepare: function of the configuration that returns the one to use.
        classes_of_data: if neither num_classes nor coco_classes is given, set num_classes to 0 and coco_classes to empty, to be
            taken from the data.

    Raises:
        InputError: see load_config.
    """
    keys = _model_keys(_existing(default_path, "default_path"))
    parser = _build_parser(keys, default_path, description)
    known, unknown = parser.parse_known_args(sys.argv[1:] if argv is None else list(argv))
    settings, unknown = solver_entries(unknown, keys, get_device_num())
    for argument in unknown:
        name = argument.partition("=")[0]
        if not name.startswith("--") or name == "--":
            raise InputError(f"unexpected argument {argument!r}: expected --key=value")
        raise InputError(f"{name}: unknown key{nearest(name[2:], keys, prefix='--')}")
    given = vars(known)
    config_path = given.pop("config_path", None)
    entries = [Entry(name, value, f"--{name}", text=True) for name, value in given.items()]
    spelt = {ALIASES.get(name, name) for name in given}
    entries += [entry for entry in settings if entry.name not in spelt]         # flags override them
    config = _resolve(config_file(config_path, default_path), entries, default_path, classes_of_data)
    if config.accumulate_steps > 1 and any(entry.where == "SOLVER.IMS_PER_BATCH" for entry in entries):
        raise InputError("SOLVER.IMS_PER_BATCH: counts the images of a step, but accumulate_steps splits a step into "
                         f"{config.accumulate_steps} parts; set --batch_size, the images per part and device")
    config = prepare(config) if prepare else config
    for name in required:
        _check_given(config, name)
        if name.endswith(PATH_ENDINGS):
            require_path(config, name)
    return config


def require_path(config: Config, name: str, kind: str = "file or folder") -> Path:
    """Return the path in key `name`. Raises InputError unless it exists and is a `kind` ("file", "folder", "file or folder")."""
    _check_given(config, name)
    path = Path(config[name])
    found = {"file": path.is_file, "folder": path.is_dir}.get(kind, path.exists)()
    if not found:
        raise InputError(f"{name}: no such {kind}: {path}")
    return path


def save_config(config: Config, path: Path | str, left_out: Sequence[str] = ()) -> None:
    """Write the resolved configuration as YAML. `load_config(path)` returns the same, except for the keys `left_out`."""
    path = Path(path)
    values = {name: value for name, value in config.to_dict().items() if name not in left_out}
    text = yaml.safe_dump(values, sort_keys=False, default_flow_style=None, allow_unicode=True, width=120)
    if left_out:
        text = f"{RUN_HEAD} {', '.join(name for name in left_out if name in config)}.\n{text}"
    try:
        write_text(path, f"{HEAD}\n{text}")
    except OSError as error:
        raise InputError(str(error)) from None


def _check_given(config: Config, name: str) -> None:
    if config[name] in ("", ()):
        raise InputError(f"{name} is required: give --{name}=... or set it in the YAML")


def _existing(path: Path | str, what: str) -> Path:
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{what}: no such file: {path}")
    return path


def config_file(config_path: os.PathLike | str | None, default_path: Path | str = DEFAULT_CONFIG) -> Path:
    """Return the YAML of --config_path, relative to the working directory or else to the model's folder; if empty, the defaults."""
    if not config_path:
        return Path(default_path)
    config_path = os.path.expanduser(config_path)
    beside = Path(default_path).parent / config_path
    return beside if not Path(config_path).is_file() and beside.is_file() else _existing(config_path, "--config_path")


def _resolve(path: Path | str, overrides: list[Entry], default_path: Path | str, classes_of_data: bool = False) -> Config:
    default_path = _existing(default_path, "default_path")
    keys = _model_keys(default_path)
    values = {name: key.default for name, key in keys.items()}
    origins: dict[str, str] = {}  # key -> beginning of messages about its value: file and line, or the flag
    for layer in [*_layers(path, default_path, keys), overrides]:
        _apply(values, origins, keys, [*_preset(layer, values, keys), *located(layer, values, keys)])
        _apply(values, origins, keys, layer)
    config = Config(values)
    if config.data_root:        # the keys that it stands for hold what it means
        values["data_root"] = ""
        config = Config(values)
    for name, key in keys.items():
        check_limits(config[name], key, origins.get(name, name))
    fault = check_config(config) or next(itertools.chain(check_augmentations(config), check_views(config)), None)
    if fault:
        name, message = fault
        raise InputError(f"{origins.get(name, name)}: {message}")
    if classes_of_data and not {"num_classes", "coco_classes"} & origins.keys():
        return Config({**values, "num_classes": 0, "coco_classes": []})
    return config


def _model_keys(default_path: Path) -> dict[str, Key]:
    """Return {name: Key} of the defaults; a preset without choices in its comment takes those of its table."""
    keys = read_keys(default_path)
    for name, table in PRESETS.items():
        if not keys[name].choices:
            keys[name] = replace(keys[name], choices=tuple(table))
    return keys


def _layers(path: Path | str, default_path: Path, keys: Mapping[str, Key]) -> list[list[Entry]]:
    """Return the entries of the file and of the files that it inherits, base first, without the defaults."""
    layers: list[list[Entry]] = []
    seen: list[Path] = []
    path = _existing(path, "config file")
    while path.resolve() != default_path.resolve():
        if path.resolve() in seen:
            chain = " -> ".join(item.name for item in [*seen, path])
            raise InputError(f"{path}: {BASE} is circular: {chain}")
        seen.append(path.resolve())
        entries, skipped = read_entries(path)
        if skipped:
            log.warning("%s: only the first YAML document is read (the old zoo kept help texts in the others)", path)
        base = [entry for entry in entries if entry.name == BASE]
        more = [] if base else keys_of_today(path, entries, keys, PRESETS)
        layers.insert(0, [*(entry for entry in entries if entry.name != BASE), *more])
        if not base:
            break
        if not isinstance(base[0].value, str):
            raise InputError(f"{base[0].where}: expected the name of a YAML file")
        path = _existing(path.parent / os.path.expanduser(base[0].value), base[0].where)
    return layers


def _apply(values: dict[str, Any], origins: dict[str, str], keys: dict[str, Key], entries: Iterable[Entry]) -> None:
    """Check a layer's entries, and override `values` with them."""
    spelt: dict[str, str] = {}
    for name, entry in itertools.chain.from_iterable(_targets(entry, keys) for entry in entries):
        if name not in keys:
            if name not in RETIRED:
                raise InputError(f"{entry.where}: unknown key{nearest(name, keys)}")
            _retire(entry)
            continue
        value = coerce(entry.value, keys[name].default, entry.where, entry.text)
        check_choice(value, keys[name].choices, entry.where)
        value = {**values[name], **value} if isinstance(value, dict) else value
        if name in spelt and value != values[name]:
            raise InputError(f"{entry.where}: given twice ({spelt[name]} and {entry.name} are one key), with different values")
        spelt[name], values[name] = entry.name, value
        origins[name] = entry.where


def _preset(layer: Iterable[Entry], values: dict[str, Any], keys: dict[str, Key]) -> list[Entry]:
    """Return entries for the keys that the presets chosen in a layer set; other entries of the layer override them.

    A preset that is already active changes nothing. If a new choice replaces a preset, keys that only the old preset set return to
    their defaults.
    """
    named = {entry.name: entry for entry in layer if entry.name in PRESETS}
    for name, entry in named.items():
        check_choice(entry.value, keys[name].choices, entry.where)
    chosen = {name: named[name].value if name in named else values[name] for name in PRESETS}
    in_force = [PRESETS[name].get(choice, {}) for name, choice in chosen.items()]
    entries = {}
    for name, entry in named.items():
        if chosen[name] == values[name]:
            continue
        before, after = PRESETS[name].get(values[name], {}), PRESETS[name].get(chosen[name], {})
        for key in {*before, *after} & keys.keys():
            value = next((preset[key] for preset in reversed(in_force) if key in preset), keys[key].default)
            entries[key] = Entry(key, value, f"{entry.where}: {key}")
    return list(entries.values())


def _targets(entry: Entry, keys: dict[str, Key]) -> list[tuple[str, Entry]]:
    """Resolve aliases: return [(key, entry)], one per key if the name stands for several keys."""
    names = SEVERAL.get(entry.name)
    if entry.name == CHANCE and FACTOR in keys and coerce(entry.value, 0.0, entry.where, entry.text) > 1:
        log.warning("%s: more than 1, so it is read as %s, its meaning in an earlier version", entry.where, FACTOR)
        return [(FACTOR, entry), (CHANCE, replace(entry, value=1.0, text=False))]
    if names is None:
        return [(entry.name if entry.name in keys else ALIASES.get(entry.name, entry.name), entry)]
    values = coerce(entry.value, [keys[names[0]].default], entry.where, entry.text)
    if len(values) != len(names):
        raise InputError(f"{entry.where}: expected {len(names)} values, {', '.join(names)}, got {len(values)}")
    return [(name, replace(entry, value=value, text=False)) for name, value in zip(names, values)]


def _retire(entry: Entry) -> None:
    """Warn about a key of the old zoo that nothing reads, or raise InputError if its value asks for something unsupported."""
    harmless, instead = RETIRED[entry.name]
    value = parse_text(entry.value, entry.where) if entry.text else entry.value
    if harmless is not None and value not in harmless:
        raise InputError(f"{entry.where}: {value!r} is not supported: {instead}")
    log.warning("%s: no longer read: %s", entry.where, instead)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(message)


def _build_parser(keys: dict[str, Key], default_path: Path | str, description: str | None) -> argparse.ArgumentParser:
    defaults = Path(default_path).name
    parser = _Parser(
        usage="%(prog)s [-h] [--config_path=YAML] [--key=value ...]", description=description, allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        epilog="Write lists and mappings as YAML: --sgd_step='[8, 11]'. [1..] means at least 1, [0..1] from 0 to 1.")
    parser.add_argument(
        "--config_path", metavar="YAML",
        help="a variant that overrides the defaults; relative to the working directory, else to the folder of "
             f"{defaults} (default: the configuration beside the weights to run, else {defaults})")
    groups = {}
    for key in keys.values():
        if key.section not in groups:
            groups[key.section] = parser.add_argument_group(key.section)
        default = str(key.default) if key.default != "" else "none"
        default = default if len(default) <= 60 else f"{default[:56]} ..."
        text = f"{key.help} (default: {default})".replace("%", "%%")
        groups[key.section].add_argument(f"--{key.name}", metavar=key.metavar, help=text)
    for name in sorted(({*ALIASES, *RETIRED, *SEVERAL}) - set(keys)):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    return parser
