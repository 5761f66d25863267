"""Resolve weights by name: the value of a key or argument is a file, or the name of published weights."""
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

from ...model import NAME
from ..configuration.schema import InputError, nearest
from ..configuration.values import Config
from ..own_utils import CONVERT
from .own_config import places_of_config
from .published import as_options, own_weights, read_table

FILES = (".ckpt", ".mindir", ".onnx", ".pth", ".pt", ".pkl", ".npz", ".safetensors", ".air", ".om", ".yaml", ".yml")
EXPORTED = ("mindir_path", "onnx_path")
log = logging.getLogger(__name__)


def is_name(value: str | os.PathLike) -> bool:
    """Return whether `value` can only be a name: it is not a path, and no such file exists in the working directory."""
    text = os.fspath(value)
    return bool(re.fullmatch(r"[A-Za-z][\w.-]*", text)) and not text.lower().endswith(FILES) and not Path(text).exists()


def weights_file(value: str | os.PathLike, key: str, whole: bool = False) -> Path:
    """Return the path of weights: `value` itself, or the checkpoint of the published weights of that name.

    Published weights are fetched and converted if they are not in the cache.

    Args:
        value: a path or a name.
        key: the option or argument, for messages.
        whole: accept whole detectors only, no backbones.

    Raises:
        InputError: if the name is unknown or its weights are not available.
    """
    if not is_name(value):
        return Path(value).expanduser()
    name = os.fspath(value)
    entry = own_weights().get(name)
    if entry is None:
        others = read_table().get(name)
        known = f": those are weights for {' and '.join(others.models)}" if others else nearest(name, own_weights())
        raise InputError(f"{key}: {name}: no such file, and no published weights of this name{known}; "
                         f"{CONVERT} --list lists all")
    if whole and not entry.is_detector:
        raise InputError(f"{key}: {name} is a backbone, expected a detector; to train from it, set pre_trained={name}")
    from .cache import checkpoint_of  # the HTTP client is slow to import

    return checkpoint_of(entry, key)


def pretrained_file(config: Config) -> Path:
    """Return the file of pre_trained. Raises InputError if there is none."""
    path = weights_file(config.pre_trained, "pre_trained")
    if not path.is_file():
        raise InputError(f"pre_trained: no such file: {path}")
    return path


def check_pretrained(config: Config) -> None:
    """Raise InputError unless the weights of pre_trained exist and fit the backbone; warn if they were trained with other keys."""
    entry = own_weights().get(config.pre_trained) if is_name(config.pre_trained) else None
    keys = entry.models[NAME] if entry else {}
    differing = {key: value for key, value in keys.items() if _plain(config[key]) != value}
    if "backbone" in differing:
        raise InputError(f"pre_trained: {config.pre_trained} needs --backbone={keys['backbone']}, got {config.backbone}")
    pretrained_file(config)
    if differing:
        log.warning("pre_trained: %s was trained with %s", config.pre_trained, as_options(differing))


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def weights_arguments(arguments: Sequence[str], key: str) -> list[str]:
    """Add to a command line the configuration that belongs to its weights, unless it has a --config_path.

    The configuration is looked up beside the file, as Detector does; a file without one keeps the defaults. The name of a published
    detector is replaced by its file. key: the option that holds the checkpoint.
    """
    done = list(arguments)
    given = {word.partition("=")[0] for word in done}
    for i, word in enumerate(arguments):
        option, joined, value = word.partition("=")
        if option not in (f"--{key}", *(f"--{name}" for name in EXPORTED)):
            continue
        value = value if joined else next(iter(arguments[i + 1:]), "")
        path, beside = Path(value).expanduser(), None
        if option == f"--{key}" and is_name(value):
            path = weights_file(value, key, whole=True)
            done[i if joined else i + 1] = f"{option}={path}" if joined else str(path)
            beside = path.with_suffix(".yaml")
        elif path.is_file():
            beside = next((place for place in places_of_config(path) if place.is_file()), None)
        if beside and "--config_path" not in given:
            done.append(f"--config_path={beside}")
    return done
