# Same as faster_rcnn/src/FasterRcnn/conversion/detector.py
"""Convert whole detectors of other frameworks, weights and configuration, to this network and back."""
import math
import re
import sys
from pathlib import Path

import numpy as np

from ...model_utils.config import InputError, load_config, save_config
from ...model_utils.evaluation.detections import COCO_IDS
from ...model_utils.files import printable
from ...model_utils.weights.resnet_names import BLOCKS, DEPTHS, checked, count_blocks
from ...model_utils.weights.writer import UNUSED, write_weights
from ...model_utils.yaml_text import shown
from ...util import counted, first_of
from .detector_weights import UNKNOWN, convert_detector, detector_shapes, to_framework
from .inception_names import KIND, is_inception
from .torch_writer import write_pickle, write_torch

CELL_ANCHORS = 3
# COCO's classes, and torchvision's outputs, whose index is the COCO category id.
COCO_CLASSES, COCO_OUTPUTS = 80, 91
# Input size that the other frameworks trained at. MindSpore's detectors have a fixed size, which is the default.
FIXED_SIZE = ("zoo", "mslab")
TRAINED_SIZE = {"img_height": 800, "img_width": 1333, "pad_to": "divisor"}
# File names of torchvision's COCO_V1 weights (2019), whose norms add nothing to the variance.
PUBLISHED_2019 = re.compile(r"-(258fb6c6|bf2d0c1e)\.pth$")
SUFFIXES = {"torchvision": ".pth", "mmdet": ".pth", "detectron2": ".pkl", "mslab": ".ckpt"}
FRAMEWORK_EPS = 1e-5
AUTHOR = "convert_checkpoint.py"


# --- theirs -> ours ---

def import_detector(checkpoint, framework: str, output: Path, partial: bool, norm_eps) -> int:
    """Write the converted weights to `output` and their configuration beside it.

    Args:
        checkpoint: the opened file, see model_utils/weights/reader.py.
        framework: a key of FRAMEWORKS.
        output: path of the checkpoint.
        partial: also write if parameters of the network are missing.
        norm_eps: overrides the framework's; None keeps it.

    Returns:
        The exit status: 1 if nothing was written because parameters are missing.
    """
    place = str(checkpoint.path)
    if is_inception(checkpoint.arrays):
        raise InputError(f"{place}: a detector on {KIND}, of which only the backbone can be converted (--source=resnet)")
    detector = convert_detector(checkpoint.arrays, framework, "rcnn_mask_out_channels" in load_config(), place)
    if norm_eps is None and framework == "torchvision" and PUBLISHED_2019.search(checkpoint.path.name):
        norm_eps = 0.0
    config = read_config(checkpoint, detector.tensors, framework, norm_eps)
    shapes = detector_shapes(config)
    check_fit(detector.tensors, shapes, place)
    missing = [name for name in shapes if name not in detector.tensors]
    print("\n".join(map(printable, report(checkpoint, framework, detector, missing, config))))
    if missing and not (partial and detector.tensors):
        print(f"{place}: no checkpoint was written: {len(missing)} of the network's {len(shapes)} parameters are missing"
              f"{'' if partial else '; --partial writes the others, to train from'}", file=sys.stderr)
        return 1
    weights = {name: detector.tensors[name] for name in shapes if name in detector.tensors}
    back = detector.background if framework in SUFFIXES else {}
    write_weights({**weights, **back}, output)
    save_config(config, output.with_suffix(".yaml"))
    print(f"wrote {output} and {output.with_suffix('.yaml')}")
    return 0


def read_config(checkpoint, tensors: dict, framework: str, norm_eps=None):
    """Return the configuration of the network with the widths of `tensors` and the convention of `framework`."""
    keys = {"convention": framework, **_widths(tensors), **_classes(checkpoint, tensors, framework), **_pixels(checkpoint)}
    keys["backbone"] = _backbone(keys["resnet_block"], framework)
    if framework not in FIXED_SIZE:
        keys.update(TRAINED_SIZE)
    if norm_eps is not None:
        keys["norm_eps"] = norm_eps
    _check_kind(tensors, checkpoint.path)
    try:
        return load_config(overrides=keys)
    except InputError as error:
        raise InputError(f"{checkpoint.path}: {error}") from error


def _check_kind(tensors: dict, place) -> None:
    """Raise InputError if the file holds a detector that this network cannot represent."""
    anchors = tensors.get("rpn.cls.bias")
    if anchors is not None and anchors.size != CELL_ANCHORS:
        raise InputError(f"{place}: {anchors.size} anchors per cell; the network has {CELL_ANCHORS}")
    if "backbone.layer1.0.conv2.weight" in tensors and "backbone.layer1.0.conv3.weight" not in tensors:
        raise InputError(f"{place}: blocks of two convolutions (ResNet-18 or ResNet-34); the network's have three")


def _backbone(blocks: list, framework: str) -> str:
    """Return the ResNet with these blocks per stage; if there is none, the one with the framework's position of the stride."""
    named = {wanted: name for name, wanted in reversed(BLOCKS.items())}
    shallow = "resnet_v1_50" if framework == "detectron2" else "resnet_v1.5_50"
    name = named.get(tuple(blocks), shallow)
    return shallow if name == "resnet_v1.5_50" else name


def _widths(tensors: dict) -> dict:
    """Return the keys of depth and widths; keys that the tensors do not determine keep their defaults."""
    default = load_config()

    def size(name: str, otherwise: int, axis: int = 0) -> int:
        value = tensors.get(name)
        return otherwise if value is None or value.ndim <= axis else int(value.shape[axis])

    counts = count_blocks(name.removeprefix("backbone.") for name in tensors if name.startswith("backbone."))
    stem = size("backbone.conv1.weight", default.resnet_in_channels[0])
    outputs = [size(f"backbone.layer{stage}.0.conv3.weight", width)
               for stage, width in enumerate(default.resnet_out_channels, start=1)]
    channels = size("neck.laterals.0.weight", default.fpn_out_channels)
    layers = [name for name in tensors if name.startswith("rcnn.fcs.") and name.endswith(".weight")]
    cells = size("rcnn.fcs.0.weight", default.roi_layer.out_size ** 2 * channels, 1) // max(channels, 1)
    keys = {
        "resnet_block": [n or m for n, m in zip(counts, default.resnet_block)],
        "resnet_in_channels": [stem, *outputs[:-1]], "resnet_out_channels": outputs, "fpn_in_channels": outputs,
        "fpn_out_channels": channels, "rpn_in_channels": channels, "roi_align_out_channels": channels,
        "rcnn_in_channels": channels, "rpn_feat_channels": size("rpn.conv.weight", default.rpn_feat_channels),
        "rcnn_num_layers": len(layers) or default.rcnn_num_layers,
        "rcnn_fc_out_channels": size("rcnn.fcs.0.weight", default.rcnn_fc_out_channels),
        "roi_layer": {"out_size": math.isqrt(cells)}}
    if "rcnn_mask_out_channels" in default:
        keys["rcnn_mask_out_channels"] = size("rcnn_mask.convs.0.weight", default.rcnn_mask_out_channels)
    return keys


def _classes(checkpoint, tensors: dict, framework: str) -> dict:
    """Return num_classes and coco_classes: the file's names, or COCO's if their number fits, or none."""
    logits, names = tensors.get("rcnn.cls_score.bias"), load_config().coco_classes
    count = len(names) if logits is None else logits.size
    own = _own_names(checkpoint.meta)
    if len(own) == count - 1 and framework == "mmdet":
        names = ["background", *own]
    elif count == COCO_OUTPUTS and framework == "torchvision":
        by_id = dict(zip(COCO_IDS, names[1:]))
        names = ["background", *(by_id.get(number, f"unused {number}") for number in range(1, COCO_OUTPUTS))]
    elif count != COCO_CLASSES + 1 or framework == "torchvision":
        names = []
    return {"num_classes": count, "coco_classes": list(names)}


def _own_names(meta: dict) -> list:
    """Return the class names in mmdet's meta data: `CLASSES`, or `classes` or `CLASSES` of `dataset_meta`."""
    inner = meta.get("dataset_meta")
    inner = inner if isinstance(inner, dict) else {}
    names = next((found for found in (inner.get("classes"), inner.get("CLASSES"), meta.get("CLASSES")) if found), ())
    if not isinstance(names, (tuple, list)) or not all(isinstance(name, str) and name.isprintable() for name in names):
        return []
    return list(names) if len({"background", *names}) == len(names) + 1 else []


def _pixels(checkpoint) -> dict:
    """Return image_mean and image_std if the file holds them, as detectron2's older files do."""
    keys = {}
    for name, key in (("pixel_mean", "image_mean"), ("pixel_std", "image_std")):
        value = checkpoint.arrays.get(name)
        if value is not None and value.size == 3 and value.dtype.kind == "f" and np.isfinite(value).all():
            keys[key] = [float(number) for number in value.ravel()]
    return keys


def check_fit(tensors: dict, shapes: dict, place) -> None:
    """Raise InputError if a tensor has no place in the network, or another shape there."""
    wrong = [f"{name} is {value.shape}, expected {shapes.get(name, 'no such layer')}"
             for name, value in tensors.items() if shapes.get(name) != value.shape]
    if wrong:
        raise InputError(f"{place}: {len(wrong)} of {len(tensors)} parameters do not fit the network: " + "; ".join(wrong[:3]))


def report(checkpoint, framework: str, detector, missing: list, config) -> list:
    """Return one line each on what was used, left out and is missing, then on the configuration."""
    depth = DEPTHS.get(tuple(config.resnet_block), f"ResNet of {', '.join(map(str, config.resnet_block))} blocks")
    classes = counted(config.num_classes - 1, "class")
    lines = [f"{checkpoint.path}: {checkpoint.container}, {framework}, {count_of(checkpoint.arrays, 'tensor')}",
             *checkpoint.notes,
             f"used: {count_of(detector.tensors, 'parameter')} ({depth}, {classes} and the background)"]
    for reason, names in detector.left_out.items():
        lines.append(f"left out: {count_of(names, 'tensor')} {reason} ({first_of(map(shown, names))})")
    if checkpoint.extras:
        lines.append(f"left out: entries that are not tensors ({first_of(map(shown, checkpoint.extras))})")
    if missing:
        lines.append(f"missing: {count_of(missing, 'parameter')} ({first_of(map(shown, missing))})")
    if UNKNOWN in detector.left_out:
        lines.append("warning: names unknown to this network: it may compute something else than the network that was trained")
    lines.append(f"convention: {framework}, norm_eps {config.norm_eps:g}")
    if framework == "torchvision" and config.num_classes == COCO_OUTPUTS and config.norm_eps:
        lines[-1] += "; torchvision's own COCO_V1 weights need --norm_eps=0"
    trained = checkpoint.meta.get("cfg")
    if framework == "mmdet" and (not isinstance(trained, str) or "caffe" in trained):
        lines[-1] += "; if it was trained in caffe style, set to_rgb, image_mean, image_std and stride_in_1x1 as detectron2 does"
    if not config.coco_classes:
        lines.append("the file holds no class names: set coco_classes")
    return lines


def count_of(items, noun: str) -> str:
    """Return the number of items with the noun in the right number: "2 tensors", "1 tensor"."""
    return counted(len(items), noun)


# --- ours -> theirs ---

def export_detector(checkpoint, config, framework: str, output: Path) -> None:
    """Write the network's checkpoint as a file of `framework`. Raises InputError where that framework has no such detector."""
    place = checkpoint.path
    if config.backbone not in BLOCKS:
        raise InputError(f"{place}: {framework} has no detector on {config.backbone}")
    shapes = detector_shapes(config)
    tensors = {name: checkpoint.arrays[name] for name in shapes if name in checkpoint.arrays}
    missing = [name for name in shapes if name not in tensors]
    if missing:
        raise InputError(f"{place}: lacks {first_of(map(shown, missing))}; expected a checkpoint of the configuration's network")
    check_fit(tensors, shapes, place)
    tensors = {name: checked(name, array, name.rpartition(".")[2], place) for name, array in tensors.items()}
    layers = config.rcnn_num_layers
    if framework in ("torchvision", "mslab") and layers != 2:
        raise InputError(f"{place}: its box head has {layers} hidden layers; {framework}'s has 2")
    background = _background(checkpoint.arrays, tensors, place)
    others = [name for name in checkpoint.arrays if name not in shapes and name not in background]
    named = to_framework({**tensors, **background}, framework)
    classes = counted(config.num_classes - 1, "class")
    print(f"{place}: {checkpoint.container}, {count_of(tensors, 'parameter')}, {classes} and the background")
    if others:
        print(f"left out: {count_of(others, 'tensor')} that the network does not have ({first_of(map(shown, others))})")
    for line in _differences(config, framework):
        print(f"note: {line}")
    if framework == "detectron2":
        write_pickle({"model": named, "__author__": AUTHOR}, output)
    elif framework == "mmdet":
        names = list(config.coco_classes[1:])
        meta = {"dataset_meta": {"classes": names}, "CLASSES": names} if names else {}
        write_torch({"meta": meta, "state_dict": named}, output)
    elif framework == "mslab":
        write_weights(named, output)
    else:
        write_torch(named, output)
    print(f"wrote {output}: {count_of(named, 'tensor')} with the names of {framework}")


def _background(arrays, tensors: dict, place) -> dict:
    """Return the background's rows that an earlier conversion kept in the file and the network does not use."""
    found = {}
    for name, array in arrays.items():
        own = tensors.get(name.removeprefix(UNUSED)) if name.startswith(UNUSED) else None
        if own is None:
            continue
        if array.ndim != own.ndim or array.shape[1:] != own.shape[1:]:
            raise InputError(f"{place}: {name} is {array.shape}, which does not fit {own.shape} of the classes")
        found[name] = checked(name, array, name.rpartition(".")[2], place)
    return found


def _differences(config, framework: str) -> list:
    """Describe where the framework would compute something else with these weights."""
    lines = []
    if config.convention != framework:
        lines.append(f"the weights follow the convention {config.convention}; {framework} computes something else with them")
    if config.norm_eps != FRAMEWORK_EPS:
        lines.append(f"norm_eps is {config.norm_eps:g}; {framework} defaults to {FRAMEWORK_EPS:g}")
    return lines
