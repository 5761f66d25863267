"""Load the weights of a checkpoint into a network, to run it or to start training from them."""
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor, nn

from ...model import CLASS_LAYERS
from ...util import counted, first_of
from ..config import InputError
from ..own_utils import CONVERT
from .checksum import load_checked, require_finite
from .class_names import check_order, class_names_of, first_difference
from .mindspore_file import STATE_KEY, is_weight
from .own_config import require_own_model

__all__ = ["check_shapes", "load_checkpoint_into", "load_pretrained", "read_weights"]

BACKBONE = "backbone."
log = logging.getLogger(__name__)


def read_weights(path: Path | str) -> dict[str, Parameter]:
    """Return name -> Parameter of a MindSpore checkpoint, without the optimiser's entries. Raises InputError if it is not one."""
    return _parameters(_read(path))


def _read(path: Path | str) -> dict[str, Any]:
    """Return everything that a checkpoint of weights holds."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
    with path.open("rb") as file:
        is_zip = file.read(2) == b"PK"      # Lightning's checkpoints are PyTorch files with the suffix .ckpt
    if path.suffix != ".ckpt" or is_zip:
        raise InputError(f"{path}: not a MindSpore checkpoint (.ckpt); convert it with "
                         f"{CONVERT} --ckpt_file={path}")
    content = load_checked(path)
    if STATE_KEY in content:
        raise InputError(f"{path}: holds the state of a run, for --resume; the weights are in last.ckpt beside it")
    require_finite(_parameters(content), path)
    return content


def _parameters(content: Mapping[str, Any]) -> dict[str, Parameter]:
    return {name: value for name, value in content.items() if isinstance(value, Parameter) and is_weight(name)}


def load_checkpoint_into(net: nn.Cell, path: Path | str, classes: Sequence[str] = ()) -> None:
    """Load all parameters of a network, for evaluation, export or inference.

    Args:
        net: the network to fill.
        path: a MindSpore checkpoint.
        classes: the class names of the configuration, background first; see check_order.

    Raises:
        InputError: unless the checkpoint holds exactly the network's parameters, in their shapes.
    """
    content = _read(path)
    found = _parameters(content)
    wanted = {param.name: param for param in net.get_parameters()}
    if found.keys() != wanted.keys():
        require_own_model(found, path)
    check_shapes(wanted, found, path)
    unexpected = [name for name in found if name not in wanted]
    if unexpected:
        raise InputError(f"{path}: holds {first_of(unexpected)}, which the configured network lacks; check the key backbone")
    warning = check_order(class_names_of(content, path) if classes else None, classes, path)
    if warning:
        log.warning("%s", warning)
    for name, param in wanted.items():
        _fill(param, found[name])


def load_pretrained(net: nn.Cell, path: Path | str, classes: Sequence[str] = ()) -> list[str]:
    """Load the parameters of a backbone or a whole detector that fit, to start training from them.

    Heads of another shape (another number of classes) or of other classes keep their initial values, with a warning.

    Args:
        net: the network to fill.
        path: a MindSpore checkpoint.
        classes: the class names to train on, background first.

    Returns:
        The names of the parameters that were not loaded.

    Raises:
        InputError: if nothing fits, the backbone has another shape, or a norm is missing.
    """
    content = _read(path)
    found = _parameters(content)
    wanted = {param.name: param for param in net.get_parameters()}
    differing = [name for name in wanted if name in found and found[name].shape != wanted[name].shape]
    heads = [name for name in wanted if name in found and name.startswith(CLASS_LAYERS) and name not in differing]
    names = class_names_of(content, path) if heads and classes else None
    other = heads if names and list(names) != list(classes) else []
    backbone = {name: wanted[name] for name in differing if name.startswith(BACKBONE)}
    check_shapes(backbone, found, path)
    filled = [name for name in wanted if name in found and name not in differing and name not in other]
    if not filled:
        raise InputError(f"{path}: holds none of the network's parameters ({len(found)} others: {first_of(found)}); "
                         f"convert it with {CONVERT}")
    _check_norms(wanted, set(filled), path)
    for name in filled:
        _fill(wanted[name], found[name])
    missing = [name for name in wanted if name not in filled]
    log.info("pre_trained: %d of %d parameters from %s", len(filled), len(wanted), path)
    for name in differing:
        log.warning("pre_trained: %s is %s in %s, expected %s: reinitialised", name, found[name].shape, path,
                    wanted[name].shape)
    if other and names:
        trained_on = first_difference(names, classes) if len(names) == len(classes) else counted(len(names), "class")
        log.warning("pre_trained: %s was trained on %s; these layers start from random weights: %s", path, trained_on,
                    ", ".join(other))
    elif heads and classes and not names:
        log.info("pre_trained: %s does not name its classes; its class layers are assumed to be those of coco_classes", path)
    absent = [name for name in missing if name not in differing and name not in other]
    if absent:
        log.info("pre_trained: not in the file, initialised: %s", first_of(absent))
    unused = [name for name in found if name not in wanted]
    if unused:
        log.warning("pre_trained: not used, the network has no such parameters: %s", first_of(unused))
    return missing


def _check_norms(wanted: Mapping[str, Parameter], filled: set[str], path: Path | str) -> None:
    """Raise InputError if a convolution is loaded without its norm, as happens with unconverted files: it would be useless."""
    for name in sorted(filled):
        norm = name[:-len("weight")] + "moving_variance"
        if name.endswith(".weight") and norm in wanted and norm not in filled:
            raise InputError(f"{path}: has {name}, but not its norm, {norm}; convert it with {CONVERT}")


def check_shapes(wanted: Mapping[str, Parameter], found: Mapping[str, Parameter], source: Path | str) -> None:
    """Raise InputError for the first parameter of `wanted` that `found` lacks or holds in another shape."""
    for name, param in wanted.items():
        if name not in found:
            missing = [other for other in wanted if other not in found]
            raise InputError(f"{source}: lacks {first_of(missing)}; expected a checkpoint of this model and backbone")
        shape = tuple(found[name].shape)
        if shape != tuple(param.shape):
            # Only the first axis of the class layers depends on the number of classes.
            classes = shape[1:] == tuple(param.shape[1:]) and name.startswith(CLASS_LAYERS)
            asking = "the config's num_classes" if classes else "the config"
            raise InputError(f"{name} is {shape} in {source}, {asking} asks for {tuple(param.shape)}")


def _fill(param: Parameter, value: Parameter) -> None:
    param.set_data(Tensor(value.asnumpy().astype(ms.dtype_to_nptype(param.dtype))))
