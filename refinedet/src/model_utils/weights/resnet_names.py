# Same as faster_rcnn/src/model_utils/weights/resnet_names.py
"""Map the parameter names and shapes of an ImageNet ResNet to the backbone's.

The backbone consists of cells: a convolution with its norm, named `backbone.conv1`,
`backbone.layer{1..4}.{i}.conv{1,2,3}`, `backbone.layer{1..4}.0.downsample`, with the parameters weight (O, I, k, k),
gamma, beta, moving_mean, moving_variance (O,). A cell is loaded completely or not at all: new weights with trained
statistics would be scaled wrongly, and vice versa.
"""
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..config import InputError

PARAMETERS = ("weight", "gamma", "beta", "moving_mean", "moving_variance")
# A norm's parameters in PyTorch and in MindSpore.
NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance",
        "gamma": "gamma", "beta": "beta", "moving_mean": "moving_mean", "moving_variance": "moving_variance"}
TORCH_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
# A file is taken for the first backbone of its depth, since parameter names do not reveal where the stride is.
BLOCKS = {"resnet_v1.5_50": (3, 4, 6, 3), "resnet_v1_101": (3, 4, 23, 3), "resnet_v1_152": (3, 8, 36, 3),
          "resnet_v1_50": (3, 4, 6, 3)}
DEPTHS: dict[tuple[int, ...], str] = {(3, 4, 6, 3): "ResNet-50", (3, 4, 23, 3): "ResNet-101", (3, 8, 36, 3): "ResNet-152"}

# Prefixes: PyTorch's data-parallel wrapper, and the old zoo's converted checkpoints.
PREFIX = re.compile(r"^(?:module\.)?(?:backbone\.)?")
CONV_OR_NORM = re.compile(r"^(layer[1-4]\.\d{1,3}\.)?(conv|bn)([123])\.(\w+)$")
# PyTorch: downsample.0; MindSpore's ResNet: down_sample_layer.0; mindcv: down_sample.0; the old zoo: conv_down_sample.
DOWNSAMPLE = re.compile(r"^(layer[1-4]\.0\.)(?:(?:downsample|down_sample_layer|down_sample)\.([01])"
                        r"|(conv|bn)_down_sample)\.(\w+)$")
# detectron2: stem.conv1, res2.0.conv1, res2.0.shortcut, each followed by .norm.
DETECTRON2 = re.compile(r"^(?:stem\.conv1|res([2-5])\.(\d{1,3})\.(conv[123]|shortcut))\.(norm\.)?(\w+)$")
# Caffe2: conv1_w, res_conv1_bn_s; res2_0_branch2a_w, res2_0_branch2a_bn_s; branch1 is the shortcut.
CAFFE2 = re.compile(r"^(?:(?:res_)?conv1|res([2-5])_(\d{1,3})_branch(1|2[abc]))_(w|bn_s|bn_b|bn_rm|bn_riv)$")
CAFFE2_BRANCHES = {"1": "downsample", "2a": "conv1", "2b": "conv2", "2c": "conv3"}
CAFFE2_PARAMETERS = {"w": "weight", "bn_s": "gamma", "bn_b": "beta", "bn_rm": "moving_mean", "bn_riv": "moving_variance"}

NO_CONVOLUTION, NOT_WHOLE = "of norms without their convolution", "of convolutions with an incomplete norm"
UNKNOWN = "with names unknown to this backbone"
LEFT_OUT = (
    ("of the optimiser and the training state",
     re.compile(r"^(moments?[12]?|momentum|accum|stat)\.|^(global_step|learning_rate|momentum|epoch_num|step_num|loss_scale"
                r"|scale_sense|beta[12]_power|current_iterator_step|last_overflow_iterator_step|lr)$|_momentum$")),
    ("of the classifier",
     re.compile(r"^(fc|end_point|classif|classifier|last_linear|head\.fc|stem\.fc|linear)\.|^(fc\d+|pred)_[wb]$")),
    ("that count batches", re.compile(r"\.num_batches_tracked$")),
)

# cell -> parameter -> (name in the file, array)
Cells = dict[str, dict[str, tuple[str, np.ndarray]]]


@dataclass(frozen=True)
class Conversion:
    """A file's tensors, sorted into the cells of a backbone."""

    tensors: dict[str, np.ndarray]  # the backbone's parameter name -> float32 array, in network order
    missing: list[list[str]]  # runs of cells without weights, in network order: [["layer3.0.conv2", ...], ...]
    left_out: dict[str, list[str]]  # reason -> names in the file
    depth: str  # according to the blocks in the file: "ResNet-50"


def cell_shapes(blocks: Sequence[int], stem: int = 64, widths: Sequence[int] = (64, 128, 256, 512),
                expansion: int = 4) -> dict[str, tuple[int, ...]]:
    """Return {cell: shape of its convolution's weight}, in network order."""
    shapes: dict[str, tuple[int, ...]] = {"conv1": (stem, 3, 7, 7)}
    inputs = stem
    for stage, (count, width) in enumerate(zip(blocks, widths), start=1):
        for block in range(count):
            place = f"layer{stage}.{block}."
            shapes[place + "conv1"] = (width, inputs, 1, 1)
            shapes[place + "conv2"] = (width, width, 3, 3)
            shapes[place + "conv3"] = (width * expansion, width, 1, 1)
            if block == 0:
                shapes[place + "downsample"] = (width * expansion, inputs, 1, 1)
            inputs = width * expansion
    return shapes


def translate(name: str) -> tuple[str, str] | None:
    """Return (cell, parameter) of a ResNet's tensor, or None: "layer1.0.bn2.bias" -> ("layer1.0.conv2", "beta")."""
    name = PREFIX.sub("", name)
    found = DETECTRON2.match(name)
    if found:
        stage, block, conv, norm, leaf = found.groups()
        parameter = (NORM if norm else {"weight": "weight"}).get(leaf)
        return (_cell(stage, block, conv and conv.replace("shortcut", "downsample")), parameter) if parameter else None
    found = CAFFE2.match(name)
    if found:
        stage, block, branch, leaf = found.groups()
        return _cell(stage, block, CAFFE2_BRANCHES.get(branch)), CAFFE2_PARAMETERS[leaf]
    found = CONV_OR_NORM.match(name)
    if found:
        place, kind, number, leaf = found.groups()
        cell = f"{place or ''}conv{number}"
        if not place and number != "1":
            return None
    else:
        found = DOWNSAMPLE.match(name)
        if not found:
            return None
        place, index, kind, leaf = found.groups()
        kind = kind or ("conv", "bn")[int(index)]
        cell = place + "downsample"
    parameter = ({"weight": "weight"} if kind == "conv" else NORM).get(leaf)
    return (cell, parameter) if parameter else None


def _cell(stage: str | None, block: str, conv: str | None) -> str:
    """Return our cell for a stage that is numbered from 2; None: the stem."""
    return f"layer{int(stage) - 1}.{int(block)}.{conv}" if stage else "conv1"


def torchvision_name(cell: str, parameter: str) -> str:
    """Return torchvision's name, which is also mmdet's: ("layer1.0.conv2", "beta") -> "layer1.0.bn2.bias"."""
    if cell.endswith("downsample"):
        return f"{cell}.{int(parameter in TORCH_NORM)}.{TORCH_NORM.get(parameter, parameter)}"
    if parameter in TORCH_NORM:
        cell = cell[:-len("conv1")] + cell[-len("conv1"):].replace("conv", "bn")
    return f"{cell}.{TORCH_NORM.get(parameter, parameter)}"


def detectron2_name(cell: str, parameter: str) -> str:
    """Return detectron2's name: ("layer1.0.conv2", "beta") -> "res2.0.conv2.norm.bias"."""
    place = "stem.conv1"
    if cell != "conv1":
        stage, block, conv = cell[len("layer"):].split(".")
        place = f"res{int(stage) + 1}.{block}.{conv.replace('downsample', 'shortcut')}"
    return f"{place}.norm.{TORCH_NORM[parameter]}" if parameter in TORCH_NORM else f"{place}.{parameter}"


def mindcv_name(cell: str, parameter: str) -> str:
    """Return mindcv's name: ("layer1.0.conv2", "beta") -> "layer1.0.bn2.beta"."""
    torch = torchvision_name(cell, parameter).replace("downsample", "down_sample")
    return f"{torch.rpartition('.')[0]}.{parameter}"


def pads_behind(names: Iterable[str]) -> bool:
    """Return whether a ResNet has MindSpore's names (old zoo, mindcv): its pool behind the stem then uses pad_mode "same"."""
    return any(name.rpartition(".")[2] in PARAMETERS[1:] and translate(name) for name in names)


def with_statistics(arrays: Mapping[str, np.ndarray], eps: float) -> dict[str, np.ndarray]:
    """Add the statistics to Caffe2's norms, which only scale and shift: mean 0 and variance 1 - eps have no effect."""
    added = {}
    for name, scale in arrays.items():
        if name.endswith("_bn_s") and CAFFE2.match(name):
            for leaf, value in (("rm", 0.0), ("riv", 1.0 - eps)):
                added[name[:-1] + leaf] = np.full(scale.shape, value, np.float32)
    return {**added, **arrays}


def backbone_of(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the smallest backbone with at least as many blocks as the file; if none is deep enough, the first of all."""
    counts = count_blocks(cell for cell, _ in filter(None, map(translate, arrays)))
    fitting = (name for name, blocks in BLOCKS.items() if all(n <= most for n, most in zip(counts, blocks)))
    return next(fitting, next(iter(BLOCKS)))


def count_blocks(cells: Iterable[str]) -> list[int]:
    """Return the number of blocks per stage, according to the names of the cells."""
    counts = [0, 0, 0, 0]
    for cell in cells:
        if cell.startswith("layer"):
            stage, block = cell[len("layer"):].split(".")[:2]
            counts[int(stage) - 1] = max(counts[int(stage) - 1], int(block) + 1)
    return counts


def convert_resnet(arrays: Mapping[str, np.ndarray], backbone: str, place: Path | str) -> Conversion:
    """Sort `arrays` (name -> array) into the cells of `backbone`. Raises InputError, with `place`, if they do not fit."""
    cells, left_out = sort_names(arrays, translate, place)
    shapes = cell_shapes(BLOCKS[backbone])
    depth = _check_blocks(cells, backbone, place)
    check_cells(cells, shapes, backbone, place)
    tensors, missing = take_whole(cells, shapes, lambda cell: PARAMETERS, left_out, place)
    return Conversion(tensors, missing, left_out, depth)


def take_whole(cells: Cells, shapes: Iterable[str], parameters_of: Callable[[str], Sequence[str]],
               left_out: dict[str, list[str]], place: Path | str) -> tuple[dict[str, np.ndarray], list[list[str]]]:
    """Return (tensors, missing) of a Conversion from the cells that have all of their parameters; add the rest to `left_out`."""
    tensors: dict[str, np.ndarray] = {}
    missing: list[list[str]] = []
    whole = True
    for cell in shapes:
        given, whole_before = cells.get(cell, {}), whole
        whole = len(given) == len(parameters_of(cell))
        if whole:
            for parameter in parameters_of(cell):
                tensors[f"backbone.{cell}.{parameter}"] = checked(*given[parameter], parameter, place)
            continue
        if whole_before:
            missing.append([])
        missing[-1].append(cell)
        if given:
            reason = NOT_WHOLE if "weight" in given else NO_CONVOLUTION
            left_out.setdefault(reason, []).extend(name for name, _ in given.values())
    return tensors, missing


def sort_names(arrays: Mapping[str, np.ndarray], translate: Callable[[str], tuple[str, str] | None],
               place: Path | str) -> tuple[Cells, dict[str, list[str]]]:
    """Return cell -> parameter -> (name, array), and reason -> names of what does not belong to a backbone."""
    cells: Cells = {}
    left_out: dict[str, list[str]] = {}
    for name, array in arrays.items():
        reason = next((reason for reason, pattern in LEFT_OUT if pattern.search(PREFIX.sub("", name))), None)
        target = None if reason else translate(name)
        if target is None:
            left_out.setdefault(reason or UNKNOWN, []).append(name)
            continue
        cell, parameter = target
        if parameter in cells.setdefault(cell, {}):
            raise InputError(f"{place}: {name} and {cells[cell][parameter][0]} both convert to {cell}'s {parameter}")
        cells[cell][parameter] = (name, array)
    return cells, left_out


def _check_blocks(cells: Cells, backbone: str, place: Path | str) -> str:
    """Return the depth according to the blocks in the file. Raises InputError if the file holds another network."""
    wanted, counts = BLOCKS[backbone], count_blocks(cells)
    blocks = ", ".join(map(str, counts))
    want = f"{backbone} is a {DEPTHS[wanted]} (blocks {', '.join(map(str, wanted))})"
    in_blocks = {cell.rpartition(".")[2] for cell in cells if cell.startswith("layer")}
    if "conv2" in in_blocks and "conv3" not in in_blocks:
        raise InputError(f"{place}: blocks of two convolutions (ResNet-18 or ResNet-34, blocks {blocks}), but {want}")
    depth = DEPTHS.get(tuple(counts))
    if any(count > limit for count, limit in zip(counts, wanted)):
        raise InputError(f"{place}: holds a {depth or 'ResNet'} (blocks {blocks}), but {want}")
    return depth or (f"part of a ResNet (blocks {blocks})" if any(counts) else "no blocks of a ResNet")


def check_cells(cells: Cells, shapes: Mapping[str, tuple[int, ...]], backbone: str, place: Path | str) -> None:
    """Raise InputError if a tensor has another shape than its cell. shapes: cell -> shape of the weight."""
    wrong = []
    for cell, given in cells.items():
        for parameter, (name, array) in given.items():
            want = shapes.get(cell)
            want = want[:1] if want and parameter != "weight" else want
            if array.shape != want:
                wrong.append(f"{name} is {array.shape}, expected {want or 'no such layer'}")
    if wrong:
        total = sum(map(len, cells.values()))
        raise InputError(f"{place}: {len(wrong)} of {total} tensors do not fit {backbone}: " + "; ".join(wrong[:3]))


def checked(name: str, array: np.ndarray, parameter: str, place: Path | str) -> np.ndarray:
    """Return a float32 copy of the array. Raises InputError unless its values are finite, and variances >= 0."""
    if array.dtype.kind != "f":
        raise InputError(f"{place}: {name} holds {array.dtype}, not floating-point numbers")
    with np.errstate(over="ignore", invalid="ignore"):
        value = np.array(array, dtype=np.float32, order="C")
    if not np.isfinite(value).all():
        raise InputError(f"{place}: {name} holds values that are not finite in float32")
    if parameter == "moving_variance" and (value < 0).any():
        raise InputError(f"{place}: {name} holds negative variances")
    return value
