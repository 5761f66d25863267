"""Convert an ImageNet ResNet to the trunk, and report the keys that its weights need."""
import re
from pathlib import Path

from ..model_utils.config import InputError
from ..model_utils.files import printable
from ..model_utils.weights.resnet_names import (
    BLOCKS,
    CAFFE2,
    DETECTRON2,
    PARAMETERS,
    PREFIX,
    convert_resnet,
    count_blocks,
    pads_behind,
    translate,
    with_statistics,
)
from ..model_utils.weights.writer import write_weights
from ..norm_conv import EPS
from ..util import counted, first_of

WHOLE = "resnet_v1_101"
TORCHVISION = ("stride_in_1x1: False, stem_pool: padded, to_rgb: True, image_mean: [123.675, 116.28, 103.53], "
               "image_std: [58.395, 57.12, 57.375]")
# What names reveal about the training of a ResNet: (pattern of names, keys to set); the first match counts.
KEYS = (
    (CAFFE2, "those of default_config_resnet101.yaml, as MSRA's weights need"),
    (DETECTRON2, "not stored in the file; with these names, MSRA's ResNets need those of default_config_resnet101.yaml, "
                 f"torchvision's {TORCHVISION}"),
    (re.compile(""), TORCHVISION),
)


def import_resnet(checkpoint, output: Path) -> None:
    """Write the trunk's weights in `checkpoint` to `output`, and print a report. Raises InputError if there are none."""
    place = str(checkpoint.path)
    arrays = with_statistics(checkpoint.arrays, EPS)
    depth = depth_of(arrays)
    conversion = convert_resnet(arrays, depth, place)
    if not conversion.tensors:
        raise InputError(f"{place}: holds no convolution of a ResNet with its complete norm")
    print("\n".join(map(printable, report(checkpoint, conversion, depth))))
    write_weights(conversion.tensors, output)


def depth_of(arrays) -> str:
    """Return the network with the blocks of the file; ResNet-101 for a part of one."""
    counts = tuple(count_blocks(cell for cell, _ in filter(None, map(translate, arrays))))
    return next((name for name, blocks in BLOCKS.items() if blocks == counts), WHOLE)


def report(checkpoint, conversion, depth: str) -> list:
    """Return one line each on what was used, left out and is missing, and on the keys to set."""
    used = len(conversion.tensors)
    lines = [f"{checkpoint.path}: {checkpoint.container}, {conversion.depth}, {counted(len(checkpoint.arrays), 'tensor')}",
             *checkpoint.notes,
             f"used: {counted(used, 'parameter')} ({counted(used // len(PARAMETERS), 'convolution')} with norms)"]
    lines += [f"left out: {len(names)} {reason}: {first_of(names)}" for reason, names in conversion.left_out.items()]
    if checkpoint.extras:
        lines.append(f"left out: entries that are not tensors: {first_of(checkpoint.extras)}")
    for cells in conversion.missing:
        stretch = cells[0] if len(cells) == 1 else f"{cells[0]} ... {cells[-1]}"
        lines.append(f"missing: {stretch} ({counted(len(cells), 'convolution')}): will be initialised")
    lines.append("missing: res6, transfer connections and heads, which no ImageNet network has: will be initialised")
    blocks = "" if BLOCKS[depth] == BLOCKS[WHOLE] else f"resnet_block: {list(BLOCKS[depth])}; "
    keys = next(text for names, text in KEYS if any(names.match(PREFIX.sub("", name)) for name in checkpoint.arrays))
    if pads_behind(checkpoint.arrays):      # they pad even sides at the end, as "ceil" does
        keys = keys.replace("stem_pool: padded", "stem_pool: ceil")
    return [*lines, f"keys to set: backbone: resnet101; {blocks}{keys}"]
