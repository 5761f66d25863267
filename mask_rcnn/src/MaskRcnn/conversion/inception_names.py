# Same as faster_rcnn/src/FasterRcnn/conversion/inception_names.py
"""Map the names of an ImageNet Inception-ResNet-v2 to the backbone's; see resnet_names.py.

timm and Cadene's pretrained-models use the same names except for the classifier: a cell with a norm is `conv2d_1a.conv.weight`
and `conv2d_1a.bn.weight`; the last cell of a block has no norm, `repeat.0.conv2d.weight` and `.bias`.
"""
import re
from collections.abc import Mapping

from ...model_utils.weights.resnet_names import NORM, PARAMETERS, PREFIX, Conversion, check_cells, sort_names, take_whole
from ..inception_layout import AVERAGE, BLOCK8, BLOCKS, CONVOLUTIONS, MIXED, REPEATS, leaving

PLAIN = ("weight", "bias")
NORMED = re.compile(r"^(.+)\.(conv|bn)\.(\w+)$")
UNNORMED = re.compile(r"^(.+\.conv2d)\.(weight|bias)$")
KIND = "Inception-ResNet-v2"


def parameters_of(cell: str) -> tuple:
    return PLAIN if cell.endswith(".conv2d") else PARAMETERS


def cell_shapes() -> dict:
    """Return {cell: shape of its convolution's weight}."""
    shapes, channels = {}, 3

    def convolution(cell: str, entering: int, number: int, kernel, stride: int = 1) -> int:
        shapes[cell] = (number, entering, *(kernel if isinstance(kernel, tuple) else (kernel, kernel)))
        return number

    def branches(place: str, entering: int, branches_of) -> None:
        for number, branch in enumerate(branches_of):
            width = entering
            for index, part in enumerate(branch):
                if part != AVERAGE:
                    name = f"{place}.branch{number}" + f".{index}" * (len(branch) > 1)
                    width = convolution(name, width, *part)

    def block(place: str, branches_of) -> None:
        branches(place, channels, branches_of)
        shapes[f"{place}.conv2d"] = (channels, leaving(branches_of, 1.0), 1, 1)

    for name in list(CONVOLUTIONS)[:-1]:
        channels = convolution(name, channels, *CONVOLUTIONS[name])
    for (mixed, branches_of), (repeat, (repeated, _)), count in zip(MIXED.items(), REPEATS.items(), BLOCKS):
        branches(mixed, channels, branches_of)
        channels = leaving(branches_of, 1.0) + (channels if mixed != "mixed_5b" else 0)     # plus the max pool
        for number in range(count):
            block(f"{repeat}.{number}", repeated)
    block("block8", BLOCK8)
    convolution("conv2d_7b", channels, *CONVOLUTIONS["conv2d_7b"])
    return shapes


CELLS = cell_shapes()


def translate(name: str):
    """Return (cell, parameter) of a tensor, or None: "mixed_5b.branch0.bn.bias" -> ("mixed_5b.branch0", "beta")."""
    name = PREFIX.sub("", name)
    found = UNNORMED.match(name)
    if found:
        return found.groups() if found[1] in CELLS else None
    found = NORMED.match(name)
    if not found or found[1] not in CELLS:
        return None
    parameter = ({"weight": "weight"} if found[2] == "conv" else NORM).get(found[3])
    return parameter and (found[1], parameter)


def is_inception(names) -> bool:
    """Return whether one of these names belongs to an Inception-ResNet-v2."""
    return any(translate(name) for name in names)


def convert_inception(arrays: Mapping, backbone: str, place: str) -> Conversion:
    """Sort `arrays` (name -> array) into the cells of the backbone. Raises InputError, with `place`, if they do not fit."""
    cells, left_out = sort_names(arrays, translate, place)
    check_cells(cells, CELLS, backbone, place)
    tensors, missing = take_whole(cells, CELLS, parameters_of, left_out, place)
    return Conversion(tensors, missing, left_out, KIND)
