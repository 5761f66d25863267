"""Convert other people's weights to a checkpoint of the backbone.

usage: python -m src.convert_checkpoint --ckpt_file=resnet50.pth [--output_file=backbone_resnet50.ckpt]

Reads an ImageNet ResNet: PyTorch .pth (both containers; PyTorch is not needed), pickles of NumPy arrays, .npz, and
MindSpore's own .ckpt. Layers that the file lacks are left out and named; training initialises them anew.
Exit status: 0 a checkpoint was written, 1 nothing in the file could be used, 2 the file or an option is at fault.
"""
import argparse
import sys
from pathlib import Path

if not __package__:  # run as a file: make its folder's parent the place to import from, as `python -m` does
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    __package__ = "src"

from .checkpoint_io import read_checkpoint
from .checkpoint_io.resnet_names import BLOCKS, PARAMETERS, PREFIX, UNKNOWN, convert_resnet, translate
from .checkpoint_io.writer import check_output, write_checkpoint
from .model_utils.config import InputError, run_main
from .model_utils.local_adapter import prepare_environment

# What names tell that the file holds something else than a ResNet's own names: (what, part of a name).
OTHERS = (
    ("a detector of torchvision", ("backbone.body.", "roi_heads.box_head.fc6.")),
    ("a detector of detectron2", ("backbone.bottom_up.", "proposal_generator.")),
    ("a detector of mmdet", ("rpn_head.rpn_", "neck.lateral_convs.")),
    ("a detector of the old MindSpore zoo", ("rpn_with_loss.", "fpn_neck.", "fpn_ncek.")),
    ("a ResNet with detectron2's names", ("stem.conv1.", "res2.0.conv1.")),
    ("a ResNet with Caffe2's names", ("conv1_w", "res2_0_branch2a_w")),
    ("a backbone of this project, converted already", ("conv1.gamma", "layer1.0.conv1.gamma")),
)
PIXELS = ("pixels: not stored in the file; ImageNet ResNets with these names are trained on RGB / 255, "
          "mean 0.485 0.456 0.406, std 0.229 0.224 0.225")


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise InputError(message)


def parse_arguments(argv=None) -> argparse.Namespace:
    parser = _Parser(prog="convert_checkpoint.py", allow_abbrev=False, description=__doc__.split("\n\n")[0])
    parser.add_argument("--ckpt_file", required=True, type=Path, help="checkpoint to convert")
    parser.add_argument("--source", default="auto", choices=("auto", "resnet"),
                        help="what the file holds; auto tells by the names and refuses what it does not know; "
                             "resnet takes every name of a ResNet, out of a whole detector too")
    parser.add_argument("--output_file", type=Path,
                        help="checkpoint to write, .ckpt (default: backbone_NAME.ckpt in the working directory)")
    parser.add_argument("--backbone", default="resnet_v1.5_50", choices=sorted(BLOCKS),
                        help="network that the weights are for")
    return parser.parse_args(argv)


def check_source(arrays, source: str, place):
    """InputError where `auto` finds other names than a ResNet's."""
    if source != "auto":
        return
    for what, parts in OTHERS:
        name = next((name for name in arrays for part in parts if _starts(name, part)), None)
        if name is not None:
            raise InputError(f"{place}: {what} ({name}) is not converted: only an ImageNet ResNet with the names of "
                             "torchvision or MindSpore is")
    if not any(translate(name) for name in arrays):
        raise InputError(f"{place}: no names of a ResNet; the first are {', '.join(list(arrays)[:3])}")


def _starts(name: str, part: str) -> bool:
    return name.startswith((part, "module." + part, "backbone." + part))


def report(checkpoint, conversion, backbone: str) -> list:
    """What was used, left out and is missing, one line each."""
    used = len(conversion.tensors)
    lines = [f"{checkpoint.path}: {checkpoint.container}, {conversion.depth}, {_count(checkpoint.arrays, 'tensor')}",
             f"used: {used} tensors ({used // len(PARAMETERS)} convolutions with their norms) for {backbone}"]
    for reason, names in conversion.left_out.items():
        lines.append(f"left out: {_count(names, 'tensor')} {reason} ({_some(names)})")
    if checkpoint.extras:
        lines.append(f"left out: what is no tensor ({_some(checkpoint.extras)})")
    for cells in conversion.missing:
        stretch = cells[0] if len(cells) == 1 else f"{cells[0]} ... {cells[-1]}"
        lines.append(f"missing: {stretch} ({_count(cells, 'convolution')}): will be re-initialised")
    return [*lines, PIXELS] if used else lines


def warnings_of(conversion, backbone: str) -> list:
    """What a user should not overlook in the report."""
    lines = []
    strange = [name for name in conversion.left_out.get(UNKNOWN, ()) if PREFIX.sub("", name).startswith("layer")]
    if strange:
        more = _count(strange, "tensor")
        lines.append(f"its blocks hold {more} more than a ResNet's ({_some(strange)}); another network?")
    if conversion.missing:
        missing = _count(sum(conversion.missing, []), "convolution")
        lines.append(f"an incomplete backbone: {missing} of {backbone} not in it; training initialises what is missing")
    return lines


def _count(items, noun: str) -> str:
    return f"{len(items)} {noun}" + "s" * (len(items) != 1)


def _some(names) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def main(argv=None) -> int:
    args = parse_arguments(argv)
    output = check_output(args.output_file or Path(f"backbone_{args.ckpt_file.stem}.ckpt"), args.ckpt_file)
    prepare_environment()
    checkpoint = read_checkpoint(args.ckpt_file)
    check_source(checkpoint.arrays, args.source, checkpoint.path)
    conversion = convert_resnet(checkpoint.arrays, args.backbone, str(checkpoint.path))
    print("\n".join(report(checkpoint, conversion, args.backbone)))
    if not conversion.tensors:
        print(f"{args.ckpt_file}: nothing in it could be used; no checkpoint was written", file=sys.stderr)
        return 1
    write_checkpoint(conversion.tensors, output)
    print(f"wrote {output}")
    for line in warnings_of(conversion, args.backbone):
        print(f"warning: {args.ckpt_file}: {line}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    run_main(main)
