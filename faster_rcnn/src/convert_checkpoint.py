"""Convert weights of other frameworks: an ImageNet network to a backbone, a detector to a checkpoint with its YAML; and back.

usage: python -m src.convert_checkpoint --ckpt_file=F [--source=NAME] [--output_file=O.ckpt] [--weights=NAME] [--partial]
                                       [--norm_eps=X]
       python -m src.convert_checkpoint --ckpt_file=O.ckpt --to=torchvision|detectron2|mmdet|mslab [--config_path=O.yaml]
       python -m src.convert_checkpoint --list

Reads PyTorch .pth (both containers, without PyTorch), pickles of NumPy arrays, .npz, .safetensors, and MindSpore's .ckpt. A
detector of torchvision, detectron2, mmdet, mindspore-lab (mslab) or the old MindSpore zoo becomes O.ckpt and O.yaml, which
`infer.py --config_path=O.yaml --checkpoint_path=O.ckpt` runs. Layers that a backbone's file lacks are reported; training
initialises them. A backbone of MindSpore or mindcv also gets an O.yaml with the settings that its weights need.
Exit status: 0: the result was written; 1: the file holds nothing usable, or an incomplete detector; 2: the file or an option is
wrong.
"""
import argparse
import re
import sys
from pathlib import Path

if not __package__:  # run as a file: import from its folder's parent, as `python -m` does
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    __package__ = "src"

if __name__ == "__main__":
    from .model_utils.signals import end_at_signals

    end_at_signals()

from .FasterRcnn.backbones import BACKBONES, INCEPTION, RESNET
from .FasterRcnn.conversion.detector import FRAMEWORK_EPS, SUFFIXES, count_of, export_detector, import_detector
from .FasterRcnn.conversion.detector_names import FRAMEWORKS, find_framework
from .FasterRcnn.conversion.inception_names import is_inception
from .model_utils.config import InputError, load_config, run_main
from .model_utils.files import printable, tell, write_text
from .model_utils.local_adapter import prepare_environment
from .model_utils.weights.published import ListAction
from .model_utils.weights.reader import read_checkpoint
from .model_utils.weights.resnet_names import (
    CAFFE2,
    DETECTRON2,
    PREFIX,
    UNKNOWN,
    backbone_of,
    pads_behind,
    translate,
    with_statistics,
)
from .model_utils.weights.writer import check_output, write_weights
from .model_utils.yaml_text import shown
from .util import counted, first_of, user_path

CONVERTED = ("backbone.conv1.gamma", "backbone.layer1.0.conv1.gamma", "conv1.gamma", "layer1.0.conv1.gamma",
             "backbone.conv2d_1a.gamma")
# What names reveal about the pixels that a network was trained on: (pattern of names, line to print); the first match counts.
PIXELS = (
    (CAFFE2, "pixels: blue, green, red from 0 to 255, less 103.53 116.28 123.675; the stride is in the first 1x1: "
             "train with --convention=detectron2"),
    (DETECTRON2, "pixels: not stored in the file; with these names, MSRA's ResNets need detectron2's pixels and have their "
                 "stride in the 1x1 (--convention=detectron2), torchvision's need the defaults"),
    (re.compile(r"(conv2d_|mixed_|repeat|block8)"),
     f"pixels: not stored in the file; networks with these names are trained on RGB / 255, mean 0.5, std 0.5, as "
     f"--backbone={INCEPTION.name} sets them"),
    (re.compile(""), "pixels: not stored in the file; ImageNet ResNets with these names are trained on RGB / 255, "
                     "mean 0.485 0.456 0.406, std 0.229 0.224 0.225"),
)


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise InputError(message)


def parse_arguments(argv=None) -> argparse.Namespace:
    parser = _Parser(prog="convert_checkpoint.py", allow_abbrev=False, description=__doc__.split("\n\n")[0])
    parser.add_argument("--ckpt_file", required=True, type=user_path, help="checkpoint to convert")
    parser.add_argument("--source", default="auto", choices=("auto", "resnet", *FRAMEWORKS),
                        help="what the file holds; auto decides by the names and refuses unknown ones; "
                             "resnet takes every name of a backbone, also from a whole detector")
    parser.add_argument("--weights", metavar="NAME",
                        help="dictionary of the file to read, such as model_ema for averaged weights (default: model, state_dict, "
                             "or another name that frameworks use)")
    parser.add_argument("--output_file", type=user_path,
                        help="file to write (default: backbone_NAME.ckpt, for a detector converted_NAME.ckpt, with --to "
                             "NAME_FRAMEWORK and its suffix, in the working directory)")
    parser.add_argument("--backbone", choices=sorted(name for name, backbone in BACKBONES.items() if backbone.weights),
                        help="backbone that the weights are for (default: the one with as many blocks)")
    parser.add_argument("--partial", action="store_true", help="also write an incomplete detector, to train from")
    parser.add_argument("--norm_eps", type=float, help="constant that norms add to the variance (default: the framework's)")
    parser.add_argument("--to", choices=sorted(SUFFIXES), help="write one of our checkpoints as a file of this framework")
    parser.add_argument("--config_path", type=user_path,
                        help="with --to: the network's configuration (default: the YAML beside the checkpoint)")
    parser.add_argument("--list", action=ListAction, help="print the published weights that can be given by name, and exit")
    return parser.parse_args(argv)


def find_source(arrays, source: str, place):
    """Return the framework of the detector in a file, or None for a backbone. Raises InputError if it is neither."""
    if source == "resnet":
        return None
    framework = find_framework(arrays)
    if source not in ("auto", framework) and framework:
        raise InputError(f"--source: {source}, but the names in {place} are those of {framework}")
    if framework:
        return framework
    done = next((name for name in arrays if name.removeprefix("module.") in CONVERTED), None)
    if done:
        raise InputError(f"{place}: already a checkpoint of this project ({done}); use --to to write it for a framework")
    if not any(translate(name) for name in arrays) and not is_inception(arrays):
        raise InputError(f"{place}: the names are those of no known backbone or detector; the first are "
                         f"{', '.join(map(shown, list(arrays)[:3]))}")
    return None


def report(checkpoint, conversion, backbone: str) -> list:
    """Return one line each on what was used, left out and is missing."""
    used = len({name.rpartition(".")[0] for name in conversion.tensors})
    belonging = "norms or biases" if backbone == INCEPTION.name else "norms"
    lines = [f"{checkpoint.path}: {checkpoint.container}, {conversion.depth}, {count_of(checkpoint.arrays, 'tensor')}",
             *checkpoint.notes,
             f"used: {count_of(conversion.tensors, 'tensor')} ({counted(used, 'convolution')} with {belonging}) for {backbone}"]
    for reason, names in conversion.left_out.items():
        lines.append(f"left out: {count_of(names, 'tensor')} {reason} ({first_of(names)})")
    if checkpoint.extras:
        lines.append(f"left out: entries that are not tensors ({first_of(checkpoint.extras)})")
    for cells in conversion.missing:
        stretch = cells[0] if len(cells) == 1 else f"{cells[0]} ... {cells[-1]}"
        lines.append(f"missing: {stretch} ({count_of(cells, 'convolution')}): will be initialised")
    if backbone != RESNET.name:
        lines.append(f"backbone: train with --backbone={backbone}")
    if used:
        lines.append(next(text for names, text in PIXELS if any(names.match(PREFIX.sub("", name)) for name in checkpoint.arrays)))
    return lines


def warnings_of(conversion, backbone: str) -> list:
    """Return warnings about what a user should not overlook in the report."""
    lines = []
    starts, kind = "layer", "a ResNet"
    if backbone == INCEPTION.name:
        starts, kind = ("mixed_", "repeat", "block8"), "an Inception-ResNet-v2"
    unexpected = [name for name in conversion.left_out.get(UNKNOWN, ()) if PREFIX.sub("", name).startswith(starts)]
    if unexpected:
        more = count_of(unexpected, "tensor")
        lines.append(f"its blocks hold {more} more than {kind}'s ({first_of(unexpected)}): it may be another network")
    if conversion.missing:
        missing = count_of(sum(conversion.missing, []), "convolution")
        lines.append(f"an incomplete backbone: it lacks {missing} of {backbone}, which training will initialise")
    return lines


def main(argv=None) -> int:
    args = parse_arguments(argv)
    if args.norm_eps is not None and not 0 <= args.norm_eps < 1:
        raise InputError(f"--norm_eps: expected 0 to 1, got {args.norm_eps}")
    prepare_environment()
    if args.to:
        return export(args)
    if args.output_file:
        check_output(args.output_file, args.ckpt_file)
    checkpoint = read_checkpoint(args.ckpt_file, args.weights)
    # A backbone with its own converter decides whether it knows the names.
    foreign = args.backbone and BACKBONES[args.backbone].weights not in (RESNET.weights, INCEPTION.weights)
    framework = None if foreign else find_source(checkpoint.arrays, args.source, checkpoint.path)
    default = f"{'converted' if framework else 'backbone'}_{args.ckpt_file.stem}.ckpt"
    output = args.output_file or check_output(Path(default), args.ckpt_file)
    if framework:
        return import_detector(checkpoint, framework, output, args.partial, args.norm_eps)
    return import_backbone(checkpoint, args, output)


def import_backbone(checkpoint, args, output: Path) -> int:
    place, inception = str(checkpoint.path), is_inception(checkpoint.arrays)
    arrays = with_statistics(checkpoint.arrays, FRAMEWORK_EPS if args.norm_eps is None else args.norm_eps)
    backbone = args.backbone or (INCEPTION.name if inception else backbone_of(arrays))
    weights = BACKBONES[backbone].weights
    if weights in (RESNET.weights, INCEPTION.weights) and inception != (weights == INCEPTION.weights):
        kind = "an Inception-ResNet-v2" if inception else "no Inception-ResNet-v2"
        raise InputError(f"--backbone: {backbone}, but the names in {place} are those of {kind}")
    conversion = BACKBONES[backbone].convert(arrays, place)
    print("\n".join(map(printable, report(checkpoint, conversion, backbone))))
    if not conversion.tensors:
        print(f"{args.ckpt_file}: holds nothing usable; no checkpoint was written", file=sys.stderr)
        return 1
    write_weights(conversion.tensors, output)
    written = [output]
    if not inception and pads_behind(arrays):
        written.append(write_keys(backbone, output.with_suffix(".yaml")))
        print(f"pool: MindSpore's and mindcv's weights use pad_mode same: train with --stem_pool_padding=same, as in {written[1]}")
    print(f"wrote {' and '.join(map(str, written))}")
    for line in warnings_of(conversion, backbone):
        tell(f"warning: {args.ckpt_file}: {line}")
    return 0


def write_keys(backbone: str, path: Path) -> Path:
    """Write the YAML of a backbone whose pool behind the stem uses pad_mode "same"."""
    keys = f"backbone: {backbone}\nstem_pool_padding: same\n"
    try:
        write_text(path, f"# Settings that the weights in the checkpoint of this name need.\n{keys}")
    except OSError as error:
        raise InputError(f"--output_file: {path} cannot be written: {error.strerror}") from error
    return path


def export(args) -> int:
    config_path = args.config_path or args.ckpt_file.with_suffix(".yaml")
    if not config_path.is_file():
        raise InputError(f"--config_path: no such file: {config_path}")
    suffix = SUFFIXES[args.to]
    output = args.output_file or Path(f"{args.ckpt_file.stem}_{args.to}{suffix}")
    check_output(output, args.ckpt_file, suffix)
    export_detector(read_checkpoint(args.ckpt_file), load_config(config_path), args.to, output)
    return 0


if __name__ == "__main__":
    run_main(main)
