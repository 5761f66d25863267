"""The narrow detectors of the parity fixtures, as convert_checkpoint.py makes them ours: checkpoint, configuration, network.

Classes are ours everywhere here: background 0, foreground 1..K.
"""
import importlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from faster_rcnn.src.checkpoint_io.detector_names import FRAMEWORKS

LEVELS, CLASSES = ("p2", "p3", "p4", "p5", "p6"), 12


@dataclass(frozen=True)
class Framework:
    """A fixture folder and the conventions of its framework."""

    source: str                         # as convert_checkpoint.py calls it
    folder: str
    loss_names: tuple                   # theirs, in the order of LOSS_NAMES
    masks: bool = False

    @property
    def background_last(self) -> bool:
        return FRAMEWORKS[self.source].background_last

    def name(self, ours: str) -> str:
        """Their name of our parameter."""
        return FRAMEWORKS[self.source].theirs(ours)

    def class_rows(self, array):
        """Rows (or entries) of class logits, theirs -> ours."""
        return np.concatenate([array[-1:], array[:-1]]) if self.background_last else array

    def box_rows(self, array):
        """Rows (or entries) of box deltas: torchvision has four of the background too."""
        return array if self.background_last else array[4:]

    def mask_rows(self, array):
        """Rows (or entries) of mask logits: torchvision has one of the background too."""
        return array if self.background_last else array[1:]

    def labels(self, theirs):
        """Classes of a fixture -> ours."""
        return np.where(theirs == CLASSES, 0, theirs + 1) if self.background_last else theirs


TORCHVISION_LOSSES = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")
DETECTRON2_LOSSES = ("loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg")
MMDET_LOSSES = ("loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox")
TORCHVISION = Framework("torchvision", "torchvision_fasterrcnn_resnet50_fpn", TORCHVISION_LOSSES)
DETECTRON2 = Framework("detectron2", "detectron2_faster_rcnn_R50_FPN", DETECTRON2_LOSSES)
MMDET = Framework("mmdet", "mmdet_faster_rcnn_r50_fpn", MMDET_LOSSES)
TORCHVISION_MASK = Framework("torchvision", "torchvision_maskrcnn_resnet50_fpn", TORCHVISION_LOSSES, masks=True)
DETECTRON2_MASK = Framework("detectron2", "detectron2_mask_rcnn_R101_FPN", DETECTRON2_LOSSES, masks=True)
MMDET_MASK = Framework("mmdet", "mmdet_mask_rcnn_r50_fpn", MMDET_LOSSES, masks=True)


def build(framework: Framework, folder: Path, padded, fast: bool = False):
    """FasterRcnn or MaskRcnn with the weights of the fixture, for inputs of `padded` = (height, width)."""
    model, network = ("mask_rcnn", "MaskRcnn.mask_rcnn") if framework.masks else ("faster_rcnn", "FasterRcnn.faster_rcnn")
    convert, config, define, network = (importlib.import_module(f"{model}.src.{part}") for part in (
        "convert_checkpoint", "model_utils.config", "network_define", network))
    height, width = map(int, padded)
    size = {"img_height": height, "img_width": width, "pad_to": f"{height}x{width}"}
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "o.ckpt"
        assert convert.main([f"--ckpt_file={next(folder.glob('model.p*'))}", f"--output_file={output}"]) == 0
        net = network.build_network(config.load_config(output.with_suffix(".yaml"), size), fast)
        define.load_checkpoint_into(net, output)
    return net


def rows_of_pictures(arrays, fill=0):
    """Arrays of unequal length -> (N, longest, ...) and valid (N, longest)."""
    longest = max(map(len, arrays))
    out = np.full((len(arrays), longest, *arrays[0].shape[1:]), fill, arrays[0].dtype)
    for row, array in zip(out, arrays):
        row[:len(array)] = array
    return out, np.arange(longest) < np.array([[len(array)] for array in arrays])
