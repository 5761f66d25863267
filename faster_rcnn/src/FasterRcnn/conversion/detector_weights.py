"""Reorder a detector's tensors to the network's classes and layouts, and back.

Shapes: K foreground classes, F width of the hidden layers, C channels. In the network the background comes first in
`rcnn.cls_score` (K+1, F); `rcnn.bbox_pred` (4K, F) and `rcnn_mask.logits` (K, C, 1, 1) have none. Transposed convolutions are
(in, out, 2, 2) in all frameworks; fully connected weights are (out, in), but (in, out) in the old zoo.
"""
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...model_utils.config import InputError
from ...model_utils.weights.resnet_names import LEFT_OUT, PARAMETERS, PREFIX, TORCH_NORM, cell_shapes, checked
from ...model_utils.weights.writer import UNUSED
from .detector_names import FRAMEWORKS, MASKS

CLASS_LOGITS = "rcnn.cls_score."
ROWS_OF_A_CLASS = {"rcnn.bbox_pred.": 4, "rcnn_mask.logits.": 1}
MASK_CONVS = 4
# More than any detector of this kind has. A damaged or hostile file can declare any number in a few bytes.
MOST_ELEMENTS = 2 ** 29
UNKNOWN = "with names unknown to this network"
MASK_BRANCH = "of the mask branch, which this network does not have"
REASONS = (
    *LEFT_OUT,
    ("that follow from the configuration", re.compile(r"anchor_generator\.|^pixel_(mean|std)$|^data_preprocessor\.")),
)


@dataclass(frozen=True)
class Detector:
    """A file's tensors under the network's names and in its order.

    left_out: reason -> names in the file; background: UNUSED + name -> the rows for the background, which the network lacks.
    """

    tensors: dict
    left_out: dict
    background: dict


def convert_detector(arrays: Mapping, framework: str, masks: bool, place: str) -> Detector:
    """Convert `arrays` (name -> array) of a file of `framework`.

    Args:
        masks: whether the network has a mask branch.
        place: the file's path, for messages.

    Raises:
        InputError: for tensors that collide, that are scalars, or that are larger than any detector's.
    """
    named, left_out = {}, {}
    for name, array in arrays.items():
        ours = FRAMEWORKS[framework].ours(name)
        if ours is None or (ours.startswith(MASKS) and not masks):
            reason = MASK_BRANCH if ours else _reason(name)
            left_out.setdefault(reason, []).append(name)
        elif ours in named:
            raise InputError(f"{place}: {name} and {named[ours][0]} both convert to {ours}")
        elif not array.ndim:
            raise InputError(f"{place}: {name} is a scalar; expected a weight")
        else:
            named[ours] = name, array
    elements = sum(array.size for _, array in named.values())
    if elements > MOST_ELEMENTS:
        raise InputError(f"{place}: its tensors have {elements} elements; expected {MOST_ELEMENTS} at most")
    tensors = {ours: checked(name, array, ours.rpartition(".")[2], place) for ours, (name, array) in named.items()}
    if framework == "zoo":
        tensors = {name: np.ascontiguousarray(array.T) if array.ndim == 2 else array for name, array in tensors.items()}
    return Detector(*_with_our_classes(tensors, framework, left_out))


def _reason(name: str) -> str:
    name = PREFIX.sub("", name)
    return next((reason for reason, pattern in REASONS if pattern.search(name)), UNKNOWN)


def background_is_last(tensors: Mapping, framework: str) -> bool:
    """Return whether the background is the last class. The old zoo has it last if its boxes have no rows for it."""
    known = FRAMEWORKS[framework].background_last
    logits, boxes = (tensors.get(f"{layer}bias") for layer in (CLASS_LOGITS, "rcnn.bbox_pred."))
    if known is not None or logits is None or boxes is None:
        return bool(known)
    return boxes.size == 4 * (logits.size - 1)


def _with_our_classes(tensors: dict, framework: str, left_out: dict) -> tuple:
    """Move the background to the front of the class logits, and split it off other per-class outputs; return Detector's fields."""
    last, logits = background_is_last(tensors, framework), tensors.get(f"{CLASS_LOGITS}bias")
    converted, background = {}, {}
    for name, array in tensors.items():
        layer = name.rpartition(".")[0] + "."
        rows = ROWS_OF_A_CLASS.get(layer)
        if layer == CLASS_LOGITS and last:
            array = np.concatenate([array[-1:], array[:-1]])
        elif rows and logits is not None and array.shape[:1] == (rows * logits.size,):
            background[UNUSED + name], array = (array[-rows:], array[:-rows]) if last else (array[:rows], array[rows:])
        converted[name] = array
    return converted, left_out, background


def detector_shapes(config) -> dict:
    """Return {name: shape} of every parameter of the network that the configuration describes."""
    outputs = config.resnet_out_channels
    shapes = {}
    for cell, shape in cell_shapes(config.resnet_block, config.resnet_in_channels[0], [n // 4 for n in outputs]).items():
        for parameter in PARAMETERS:
            shapes[f"backbone.{cell}.{parameter}"] = shape if parameter == "weight" else shape[:1]

    def add(layer: str, *shape, biases=None):
        shapes[f"{layer}.weight"], shapes[f"{layer}.bias"] = shape, (biases or shape[0],)

    channels, hidden, classes = config.fpn_out_channels, config.rcnn_fc_out_channels, config.num_classes - 1
    for level, entering in enumerate(config.fpn_in_channels):
        add(f"neck.laterals.{level}", channels, entering, 1, 1)
    for level in range(len(config.fpn_in_channels)):
        add(f"neck.outputs.{level}", channels, channels, 3, 3)
    anchors = len(config.anchor_scales) * len(config.anchor_ratios)
    add("rpn.conv", config.rpn_feat_channels, channels, 3, 3)
    add("rpn.cls", anchors, config.rpn_feat_channels, 1, 1)
    add("rpn.reg", 4 * anchors, config.rpn_feat_channels, 1, 1)
    for number in range(config.rcnn_num_layers):
        add(f"rcnn.fcs.{number}", hidden, hidden if number else channels * config.roi_layer.out_size ** 2)
    add("rcnn.cls_score", classes + 1, hidden)
    add("rcnn.bbox_pred", 4 * classes, hidden)
    if "rcnn_mask_out_channels" in config:
        width = config.rcnn_mask_out_channels
        for number in range(MASK_CONVS):
            add(f"rcnn_mask.convs.{number}", width, width if number else channels, 3, 3)
        add("rcnn_mask.deconv", width, width, 2, 2)
        add("rcnn_mask.logits", classes, width, 1, 1)
    return shapes


def to_framework(tensors: Mapping, framework: str) -> dict:
    """Return {the framework's name: array} of our parameters.

    torchvision's boxes and masks have rows for the background that it never reads: they are the rows that an earlier conversion
    kept, else 0.
    """
    table = FRAMEWORKS[framework]
    converted = {}
    for ours, array in tensors.items():
        layer, _, leaf = ours.rpartition(".")
        rows = ROWS_OF_A_CLASS.get(f"{layer}.")
        if ours.startswith(UNUSED):
            continue
        if f"{layer}." == CLASS_LOGITS and table.background_last:
            array = np.concatenate([array[1:], array[:1]])
        elif rows and table.background_rows:
            background = tensors.get(UNUSED + ours, np.zeros((rows, *array.shape[1:]), array.dtype))
            array = np.concatenate([background, array])
        name = table.theirs(ours)
        converted[name] = array
        if framework == "mmdet" and leaf == "moving_variance":
            converted[name.removesuffix(TORCH_NORM[leaf]) + "num_batches_tracked"] = np.zeros((), np.int64)
    return converted
