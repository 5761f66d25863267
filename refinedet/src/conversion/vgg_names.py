"""Map the names of a VGG-16 and of a whole RefineDet in PyTorch to the network's.

Layouts are the same in PyTorch and MindSpore: convolutions (out, in, k, k), the transposed ones (in, out, 2, 2).
"""
import re
from collections.abc import Mapping

import numpy as np

from ..model_utils.config import InputError
from ..model_utils.weights.resnet_names import translate as translate_resnet

# Index in the list of layers, in torchvision and in SSD's PyTorch ports -> convolution of the trunk.
VGG = dict(zip((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), (
    "conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3", "conv4_1", "conv4_2", "conv4_3",
    "conv5_1", "conv5_2", "conv5_3")))
TRUNK = {**VGG, 31: "fc6", 33: "fc7"}
# Source of a file -> the name of its first layer, by which it is recognised.
SOURCES = (("refinedet", "vgg.0.weight"), ("torchvision", "features.0.weight"), ("reducedfc", "0.weight"))
# Files that are often mistaken for one of these: (description, pattern of a name).
OTHERS = (
    ("a VGG with batch norm", r"features\.1\.running_mean"),
    ("lzx1413's RefineDet, another network (dilation 6)", r"(trans_layers|latent_layrs)\."),
    ("an already converted network of this project", r"(backbone\.)?(conv1_1\.weight|(layer1\.0\.)?conv1\.gamma)"),
)
RESNET = "resnet"
# torchvision's VGG-16 takes (x / 255 - mean) / std; this network takes x - MEAN.
TORCHVISION_MEAN, TORCHVISION_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MEAN = (123.0, 117.0, 104.0)
POOLED, FC_STEP, CELL_STEP = 7, 4, 3     # classifier: side of its input; take every 4th neuron and every 3rd cell


def find_source(arrays: Mapping, place: str) -> str:
    """Return the source of a file according to its names, a key of SOURCES or RESNET. Raises InputError if it is neither."""
    names = [_bare(name) for name in arrays]
    for what, pattern in OTHERS:
        name = next((name for name in names if re.match(pattern, name)), None)
        if name:
            raise InputError(f"{place}: {what} ({name}), which cannot be converted")
    for source, first in SOURCES:
        if first in names:
            return source
    if any(translate_resnet(name) for name in arrays):
        return RESNET
    raise InputError(f"{place}: expected a VGG-16, a ResNet or a RefineDet of PyTorch; the first names are {', '.join(names[:3])}")


def translate(name: str, source: str):
    """Return the network's name of a tensor, or None: for refinedet, "tcb0.3.weight" -> "tcb.first.1.weight"."""
    found = re.fullmatch(r"(.*?)(\d*)\.(weight|bias)", _bare(name))
    if not found:
        return None
    part, number, leaf = found.groups()
    index = int(number) if number else -1
    if part == {"refinedet": "vgg.", "torchvision": "features.", "reducedfc": ""}[source]:
        layer = (VGG if source == "torchvision" else TRUNK).get(index)
        return layer and f"backbone.{layer}.{leaf}"
    if source != "refinedet":
        return None
    if part in ("conv4_3_L2Norm", "conv5_3_L2Norm") and leaf == "weight":
        return f"backbone.{part[:7]}_norm.scale"
    layer = _layer(part, index)
    return layer and f"{layer}.{leaf}"


def _layer(part: str, index: int):
    """Return the layer of a RefineDet's part outside the trunk for its index in the list, or None."""
    level, place = divmod(index, 3)
    if part == "extras.":
        return f"backbone.conv6_{index + 1}"
    if part == "tcb0.":
        return {0: f"tcb.first.{level}", 2: f"tcb.second.{level}"}.get(place)
    if part == "tcb1.":
        return f"tcb.up.{index}"
    if part == "tcb2.":
        return f"tcb.last.{level}" if place == 1 else None
    return f"{part[:-1].replace('_', '.')}.{index}" if part in ("arm_loc.", "arm_conf.", "odm_loc.", "odm_conf.") else None


def convert_vgg(arrays: Mapping, source: str, place: str, classifier: bool = True, reverse_channels: bool = False) -> tuple:
    """Convert the tensors of a file.

    Args:
        arrays: name -> array.
        source: see `find_source`; place: the file's path, for messages.
        classifier: make fc6 and fc7 of the classifier of torchvision's VGG-16.
        reverse_channels: reverse the input channels, for weights trained on blue, green, red.

    Returns:
        (network's name -> float32 array, names that were left out).

    Raises:
        InputError: if the file is not a VGG-16 or RefineDet, or not complete.
    """
    tensors, left_out = {}, []
    for name, array in arrays.items():
        ours = translate(name, source)
        if ours is None:
            left_out.append(name)
        elif ours in tensors:
            raise InputError(f"{place}: {name}: {ours} occurs twice")
        else:
            tensors[ours] = _checked(name, array, place)
    unexpected = [name for name in left_out if re.match(r"(features|vgg)\.\d", _bare(name)) or re.match(r"\d", _bare(name))]
    if unexpected:
        raise InputError(f"{place}: not a VGG-16: it also has {', '.join(unexpected[:3])}")
    if reverse_channels:
        tensors["backbone.conv1_1.weight"] = tensors["backbone.conv1_1.weight"][:, ::-1].copy()
    if source == "torchvision":
        _take_pixels(tensors, place)
        if classifier:
            used = _reduce_classifier(arrays, tensors, place)
            left_out = [name for name in left_out if name not in used]
    return tensors, left_out


def _take_pixels(tensors: dict, place: str) -> None:
    """Change the first convolution to give the same result for pixels from 0 to 255 minus MEAN."""
    weight, bias = (tensors.get(f"backbone.conv1_1.{leaf}") for leaf in ("weight", "bias"))
    if weight is None or bias is None or weight.ndim != 4 or weight.shape[1] != 3:
        raise InputError(f"{place}: its first convolution is incomplete, or does not have three input channels")
    scale = 255 * np.array(TORCHVISION_STD)
    weight = weight / scale[:, None, None]
    shift = np.array(MEAN) - 255 * np.array(TORCHVISION_MEAN)
    tensors["backbone.conv1_1.weight"] = weight.astype(np.float32)
    tensors["backbone.conv1_1.bias"] = (bias + (weight * shift[:, None, None]).sum((1, 2, 3))).astype(np.float32)


def _reduce_classifier(arrays: Mapping, tensors: dict, place: str) -> list:
    """Make fc6 and fc7 of every FC_STEP-th neuron and CELL_STEP-th cell, as SSD's reduced VGG-16 does; return the used names."""
    bare = {_bare(name): name for name in arrays}
    names = [f"classifier.{i}.{leaf}" for i in (0, 3) for leaf in ("weight", "bias")]
    if not all(name in bare for name in names):
        return []
    first, first_bias, second, second_bias = (_checked(name, arrays[bare[name]], place) for name in names)
    cells = tensors["backbone.conv5_3.weight"].shape[0] * POOLED * POOLED if "backbone.conv5_3.weight" in tensors else 0
    if first.ndim != 2 or first.shape[1] != cells or second.shape != (first.shape[0], first.shape[0]):
        raise InputError(f"{place}: its classifier is not a VGG-16's: {names[0]} is {first.shape}")
    first = first.reshape(len(first), -1, POOLED, POOLED)[::FC_STEP, :, ::CELL_STEP, ::CELL_STEP]
    tensors.update({
        "backbone.fc6.weight": first.copy(), "backbone.fc6.bias": first_bias[::FC_STEP].copy(),
        "backbone.fc7.weight": second[::FC_STEP, ::FC_STEP, None, None].copy(), "backbone.fc7.bias": second_bias[::FC_STEP].copy()})
    return [bare[name] for name in names]


def _bare(name: str) -> str:
    return name.removeprefix("module.")


def _checked(name: str, array, place: str) -> np.ndarray:
    """Return a float32 copy of the array. Raises InputError unless its values are finite."""
    if array.dtype.kind != "f":
        raise InputError(f"{place}: {name} holds {array.dtype}, not floating-point numbers")
    with np.errstate(over="ignore", invalid="ignore"):
        value = np.array(array, dtype=np.float32, order="C")
    if not np.isfinite(value).all():
        raise InputError(f"{place}: {name} holds values that are not finite in float32")
    return value
