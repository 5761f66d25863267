"""Convert weights of other frameworks: a VGG-16 or a ResNet to the trunk, a whole RefineDet to a checkpoint with its YAML.

usage: python -m src.convert_checkpoint --ckpt_file=F [--output_file=O.ckpt] [--source=torchvision|reducedfc|refinedet|resnet]
                                       [--weights=NAME]
       python -m src.convert_checkpoint --list

torchvision: torchvision's VGG-16 (features.N and, for fc6 and fc7, its classifier); reducedfc: SSD's vgg16_reducedfc.pth;
refinedet: a detector of luuuyi/RefineDet.PyTorch, which becomes O.ckpt and O.yaml; resnet: a ResNet-101 of PyTorch, MindSpore,
detectron2 or Caffe2 (R-101.pkl). PyTorch is not needed.
Not a copy of another model's file: the networks differ.
"""
import argparse
import sys
from pathlib import Path

if not __package__:  # run as a file: import from its folder's parent, as `python -m` does
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    __package__ = "src"

if __name__ == "__main__":
    from .model_utils.signals import end_at_signals

    end_at_signals()

from .conversion.vgg_names import RESNET, SOURCES, VGG, convert_vgg, find_source
from .model_utils.config import InputError, load_config, run_main, save_config
from .model_utils.files import printable
from .model_utils.local_adapter import prepare_environment
from .model_utils.weights.published import ListAction
from .model_utils.weights.reader import read_checkpoint
from .model_utils.weights.writer import check_output, write_weights
from .util import counted, first_of, user_path

# Classes of PASCAL VOC, for detectors with 21 classes.
VOC = ("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
       "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor")
COCO_CLASSES = 81
CELL_ANCHORS = 3
PIXELS = "pixels: red, green, blue from 0 to 255, less 123, 117, 104, the defaults of default_config.yaml"


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise InputError(message)


def parse_arguments(argv=None) -> argparse.Namespace:
    parser = _Parser(prog="convert_checkpoint.py", allow_abbrev=False, description=__doc__.split("\n\n")[0])
    parser.add_argument("--ckpt_file", required=True, type=user_path, help="checkpoint to convert")
    parser.add_argument("--source", default="auto", choices=("auto", *(source for source, _ in SOURCES), RESNET),
                        help="what the file holds; auto decides by the names")
    parser.add_argument("--weights", metavar="NAME",
                        help="dictionary of the file to read, such as model_ema for averaged weights (default: model, state_dict, "
                             "or another name that frameworks use)")
    parser.add_argument("--output_file", type=user_path,
                        help="checkpoint to write, .ckpt (default: converted_NAME.ckpt in the working directory)")
    parser.add_argument("--classifier", default="subsample", choices=("subsample", "leave"),
                        help="torchvision's fully connected layers: subsample makes fc6 and fc7 of every 4th neuron and every 3rd "
                             "cell, as in SSD's reduced VGG-16; leave lets training initialise fc6 and fc7")
    parser.add_argument("--reverse_channels", action="store_true",
                        help="reverse the first convolution of a VGG-16 that was trained on blue, green, red (Caffe)")
    parser.add_argument("--input_size", type=int, default=320, help="for a detector: 320 or 512, which the file does not store")
    parser.add_argument("--list", action=ListAction, help="print the published weights that can be given by name, and exit")
    return parser.parse_args(argv)


def read_config(tensors: dict, detector: bool, side: int, place: str):
    """Return the configuration of the network with the widths of `tensors`. Raises InputError if they do not determine it."""
    def width(layer: str, default):
        value = tensors.get(f"{layer}.bias")
        return default if value is None else int(value.shape[0])

    default = load_config()
    keys = {"vgg_channels": [width(f"backbone.conv{i}_1", None) for i in range(1, 6)],
            "fc_channels": width("backbone.fc7", default.fc_channels), "img_height": side, "img_width": side}
    if None in keys["vgg_channels"]:
        raise InputError(f"{place}: incomplete: it lacks conv{keys['vgg_channels'].index(None) + 1}_1")
    if not detector:
        return load_config(overrides=keys)
    classes, rest = divmod(width("odm.conf.0", 0), CELL_ANCHORS)
    if classes < 2 or rest:
        raise InputError(f"{place}: odm_conf.0.bias does not fit {CELL_ANCHORS} anchors and at least two classes")
    keys.update(num_classes=classes, extra_channels=[width(f"backbone.conv6_{i}", 0) for i in (1, 2)],
                tcb_channels=width("tcb.last.0", 0), coco_classes=[])
    if classes == len(VOC):
        keys.update(coco_classes=list(VOC), dataset="voc")
    elif classes == COCO_CLASSES:
        keys.update(coco_classes=list(default.coco_classes))
    return load_config(overrides=keys)


def check_fit(tensors: dict, config, detector: bool, place: str) -> list:
    """Return the parameters that training will initialise. Raises InputError if `tensors` do not fit or are incomplete."""
    from .refinedet import build_network

    shapes = {param.name: tuple(param.shape) for param in build_network(config).get_parameters()}
    wrong = [f"{name} is {value.shape}, expected {shapes.get(name, 'no such layer')}"
             for name, value in tensors.items() if shapes.get(name) != value.shape]
    if wrong:
        raise InputError(f"{place}: {len(wrong)} of {len(tensors)} tensors do not fit the network: " + "; ".join(wrong[:3]))
    missing = [name for name in shapes if name not in tensors and (detector or name.startswith("backbone."))]
    needed = [name for name in missing if detector or name.split(".")[1] in VGG.values()]
    if needed:
        raise InputError(f"{place}: incomplete: it lacks {first_of(needed)}")
    return missing


def report(checkpoint, source: str, tensors: dict, left_out: list, missing: list) -> list:
    """Return one line each on what was used, left out and is missing."""
    lines = [f"{checkpoint.path}: {checkpoint.container}, {source}, {counted(len(checkpoint.arrays), 'tensor')}",
             *checkpoint.notes,
             f"used: {counted(len(tensors), 'parameter')}"]
    if left_out:
        lines.append(f"left out: {first_of(left_out)}")
    if missing:
        lines.append(f"missing: {first_of(missing)}: will be initialised")
    return [*lines, PIXELS]


def main(argv=None) -> None:
    args = parse_arguments(argv)
    output = check_output(args.output_file or Path(f"converted_{args.ckpt_file.stem}.ckpt"), args.ckpt_file)
    prepare_environment()
    checkpoint = read_checkpoint(args.ckpt_file, args.weights)
    place = str(checkpoint.path)
    source = find_source(checkpoint.arrays, place)
    if args.source not in ("auto", source):
        raise InputError(f"--source: {args.source}, but the names in {place} are those of {source}")
    if source == RESNET:
        if args.reverse_channels:
            raise InputError("--reverse_channels: only for VGG-16; for a ResNet set to_rgb and image_mean")
        from .conversion.resnet import import_resnet  # MindSpore takes seconds

        import_resnet(checkpoint, output)
        print(f"wrote {output}")
        return
    detector = source == "refinedet"
    tensors, left_out = convert_vgg(checkpoint.arrays, source, place, args.classifier == "subsample", args.reverse_channels)
    config = read_config(tensors, detector, args.input_size, place)
    missing = check_fit(tensors, config, detector, place)
    print("\n".join(map(printable, report(checkpoint, source, tensors, left_out, missing))))
    write_weights(tensors, output)
    written = [str(output)]
    if detector:
        save_config(config, output.with_suffix(".yaml"))
        written.append(str(output.with_suffix(".yaml")))
        print(f"{config.num_classes} classes including the background"
              + ("" if config.coco_classes else "; the file holds no class names: set coco_classes"))
    print(f"wrote {' and '.join(written)}")


if __name__ == "__main__":
    run_main(main)
