"""The detectors of the parity fixtures, as a user gets them: converted, and built from the configuration beside the checkpoint.

The config.json of a folder gives its framework, classes, widths and losses. Parameter names and class orders are written out here
again, independently of the conversion. Classes are ours everywhere: background 0, foreground 1..K.
"""
import contextlib
import io
import json
import os
from functools import cached_property
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from mindspore import nn
from pycocotools import mask as coco_mask

LEVELS = ("p2", "p3", "p4", "p5", "p6")
NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
# Our part of the network -> theirs; {} is the number of the layer.
PREFIXES = {
    "torchvision": {
        "backbone": "backbone.body", "neck.laterals": "backbone.fpn.inner_blocks.{}.0",
        "neck.outputs": "backbone.fpn.layer_blocks.{}.0", "rpn.conv": "rpn.head.conv.0.0", "rpn.cls": "rpn.head.cls_logits",
        "rpn.reg": "rpn.head.bbox_pred", "rcnn.fcs.0": "roi_heads.box_head.fc6", "rcnn.fcs.1": "roi_heads.box_head.fc7",
        "rcnn.cls_score": "roi_heads.box_predictor.cls_score", "rcnn.bbox_pred": "roi_heads.box_predictor.bbox_pred",
        "rcnn_mask.convs": "roi_heads.mask_head.{}.0", "rcnn_mask.deconv": "roi_heads.mask_predictor.conv5_mask",
        "rcnn_mask.logits": "roi_heads.mask_predictor.mask_fcn_logits"},
    "detectron2": {
        "backbone": "backbone.bottom_up", **{f"neck.laterals.{i}": f"backbone.fpn_lateral{i + 2}" for i in range(4)},
        **{f"neck.outputs.{i}": f"backbone.fpn_output{i + 2}" for i in range(4)},
        "rpn.conv": "proposal_generator.rpn_head.conv", "rpn.cls": "proposal_generator.rpn_head.objectness_logits",
        "rpn.reg": "proposal_generator.rpn_head.anchor_deltas", "rcnn.fcs.0": "roi_heads.box_head.fc1",
        "rcnn.fcs.1": "roi_heads.box_head.fc2", "rcnn.cls_score": "roi_heads.box_predictor.cls_score",
        "rcnn.bbox_pred": "roi_heads.box_predictor.bbox_pred",
        **{f"rcnn_mask.convs.{i}": f"roi_heads.mask_head.mask_fcn{i + 1}" for i in range(4)},
        "rcnn_mask.deconv": "roi_heads.mask_head.deconv", "rcnn_mask.logits": "roi_heads.mask_head.predictor"},
    "mmdet": {
        "backbone": "backbone", "neck.laterals": "neck.lateral_convs.{}.conv", "neck.outputs": "neck.fpn_convs.{}.conv",
        "rpn.conv": "rpn_head.rpn_conv", "rpn.cls": "rpn_head.rpn_cls", "rpn.reg": "rpn_head.rpn_reg",
        "rcnn.fcs": "roi_head.bbox_head.shared_fcs.{}", "rcnn.cls_score": "roi_head.bbox_head.fc_cls",
        "rcnn.bbox_pred": "roi_head.bbox_head.fc_reg", "rcnn_mask.convs": "roi_head.mask_head.convs.{}.conv",
        "rcnn_mask.deconv": "roi_head.mask_head.upsample", "rcnn_mask.logits": "roi_head.mask_head.conv_logits"},
    "mslab": {
        "backbone": "backbone.bottom_up", "neck.laterals": "backbone.lateral_convs.{}.conv.0",
        "neck.outputs": "backbone.fpn_convs.{}.conv.0", "rpn.conv": "rpn_head.rpn_feat.rpn_conv",
        "rpn.cls": "rpn_head.rpn_feat.rpn_rois_score", "rpn.reg": "rpn_head.rpn_feat.rpn_rois_delta",
        "rcnn.fcs.0": "bbox_head.head.fc6", "rcnn.fcs.1": "bbox_head.head.fc7", "rcnn.cls_score": "bbox_head.bbox_cls",
        "rcnn.bbox_pred": "bbox_head.bbox_delta", **{f"rcnn_mask.convs.{i}": f"mask_head.head.upsample.{2 * i}" for i in range(4)},
        "rcnn_mask.deconv": "mask_head.head.upsample.8", "rcnn_mask.logits": "mask_head.mask_fcn_logits"},
}
PARITY_DIR = Path(os.environ.get("PARITY_DIR") or Path(__file__).resolve().parents[2] / "shared" / "parity")


def fixture_folders(masks=None, parity_dir=PARITY_DIR) -> list:
    """Return the folders of two-stage detectors, sorted. masks: only those with (True) or without (False) a mask branch."""
    folders = [file.parent for file in sorted(parity_dir.glob("*/config.json"))
               if (file.parent / "expected.npz").is_file() and _settings(file.parent).get("framework") in PREFIXES]
    return [folder for folder in folders if masks in (None, bool(_settings(folder).get("mask_head")))]


def label(folder) -> str:
    """Return the test id of a fixture's folder."""
    return getattr(folder, "name", "")


def _settings(folder) -> dict:
    return json.loads((folder / "config.json").read_text())


class ParityModel:
    """A fixture: the arrays and settings of the framework, and our network with its weights."""

    def __init__(self, folder, work=None):
        """work: folder for the converted checkpoint; tests that only read the framework's arrays need none."""
        self.folder, self.work = Path(folder), work and Path(work)
        self.settings = _settings(self.folder)
        self.framework = self.settings["framework"]
        self.masks = bool(self.settings.get("mask_head"))
        self.classes = self.settings["num_foreground_classes"]
        self.background_last = self.settings["background_index"] == self.classes
        self.package, self.parts = ("mask_rcnn", "MaskRcnn") if self.masks else ("faster_rcnn", "FasterRcnn")
        self.tolerances = json.loads((self.folder / "tolerances.json").read_text())["recommended"]
        self.json = json.loads((self.folder / "expected_detections.json").read_text())
        self.loss_names = [self.settings["losses"]["names"][name] for name in ("rpn_cls", "rpn_box", "cls", "box")]

    @cached_property
    def arrays(self) -> dict:
        return dict(np.load(self.folder / "expected.npz"))

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self.arrays["input/image_sizes"])

    @property
    def image_info(self) -> np.ndarray:
        sizes = self.arrays["input/image_sizes"]
        original = self.arrays.get("input/original_sizes", sizes)
        scales = self.arrays.get("input/scales", np.ones(len(sizes)))[:, None].repeat(2, 1)
        return np.concatenate([sizes, scales, original], 1).astype(np.float32)

    @cached_property
    def images(self) -> list:
        """Image files in the order of the batch. Their names are their ids."""
        folder = self.folder.parent / "images"
        if not folder.is_dir():
            pytest.skip(f"no such folder: {folder}")
        paths = sorted(folder.iterdir(), key=lambda path: int(path.stem))
        assert len(paths) == self.count, f"{folder}: {len(paths)} images, {self.count} in {self.folder.name}"
        return paths

    @property
    def image_ids(self) -> list:
        """Ids of the images, in the order of the batch."""
        return [int(path.stem) for path in self.images]

    @property
    def shapes(self) -> tuple:
        """Height and width of each level of the pyramid."""
        return tuple(self.arrays[f"rpn/logits_{level}"].shape[2:] for level in LEVELS)

    def anchors(self) -> tuple:
        """(AnchorGenerator, strides): the framework's anchors as its config.json describes them."""
        generator = self.module(f"{self.parts}.anchor_generator").AnchorGenerator
        rounded = self.settings["anchor_rounding"] != "none"
        height, width = self.arrays["input/images"].shape[2:]
        strides = [(height // rows, width // columns) for rows, columns in self.shapes] if rounded else None
        return generator([8], self.settings["anchor_ratios_h_over_w"], [4, 8, 16, 32, 64], round_base=rounded), strides

    def module(self, name: str):
        return import_module(f"{self.package}.src.{name}")

    @cached_property
    def checkpoint(self) -> Path:
        """Checkpoint from the conversion command, with its configuration beside it."""
        output = self.work / f"{self.folder.name}.ckpt"
        with contextlib.redirect_stdout(io.StringIO()):
            status = self.module("convert_checkpoint").main(
                [f"--ckpt_file={self.folder / self.settings['checkpoint']}", f"--output_file={output}"])
        assert not status
        return output

    def config(self, **overrides):
        """Return the configuration of the conversion, for the fixture's padded batch."""
        return self.module("model_utils.config").load_config(self.checkpoint.with_suffix(".yaml"), {**self.size(), **overrides})

    def size(self) -> dict:
        """Return the keys of the input size: bounds of an image's sides, and the size to which all are padded."""
        if "test_size" in self.settings:
            return dict(zip(("img_height", "img_width"), self.settings["test_size"]))
        height, width = self.arrays["input/images"].shape[2:]
        return {"pad_to": f"{height}x{width}", "img_height": self.settings["test_min_size"],
                "img_width": self.settings["test_max_size"]}

    def network(self, fast: bool = False, **overrides):
        """Return our network with the weights. `fast` forces the CPU's Winograd convolutions on all widths."""
        with pytest.MonkeyPatch.context() as patch:
            if fast:
                patch.setattr(self.module("model_utils.layers.convolution").Convolution, "WINOGRAD_CHANNELS", 1)
            net = self.module("network_define").build_network(self.config(**overrides), fast)
        self.module("model_utils.weights.loading").load_checkpoint_into(net, self.checkpoint)
        return net

    def without_features(self, **overrides):
        """Return our network without weights and feature layers, to run the rest on given layer outputs."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.module(f"{self.parts}.faster_rcnn"), "build_backbone", lambda *_: nn.Identity())
            return self.module("network_define").build_network(
                self.config(rcnn_fc_out_channels=1, rpn_feat_channels=1, **overrides), False)

    def theirs(self, ours: str) -> str:
        """Return the framework's name of our parameter."""
        head, _, leaf = ours.rpartition(".")
        prefixes = PREFIXES[self.framework]
        if not head.startswith("backbone."):
            part = next(part for part in prefixes if head.startswith(part))
            return prefixes[part].format(*(head[len(part):].split(".")[1:])) + f".{leaf}"
        cell, norm = head[len("backbone."):], leaf in NORM
        if self.framework == "detectron2":
            cell = cell.replace("downsample", "shortcut")
            cell = f"res{int(cell[5]) + 1}{cell[6:]}" if cell.startswith("layer") else "stem.conv1"
            return f"{prefixes['backbone']}.{cell}{'.norm' if norm else ''}.{NORM.get(leaf, leaf)}"
        if cell.endswith("downsample"):
            cell = f"{cell}.{int(norm)}"
        elif norm:
            cell = cell[:-5] + cell[-5:].replace("conv", "bn")
        if self.framework == "mslab":
            return f"{prefixes['backbone']}.{cell.replace('downsample', 'down_sample')}.{leaf}"
        return f"{prefixes['backbone']}.{cell}.{NORM.get(leaf, leaf)}"

    def class_rows(self, array):
        """Map rows (or entries) of class logits from theirs to ours."""
        return np.concatenate([array[-1:], array[:-1]]) if self.background_last else array

    def box_rows(self, array):
        """Drop the four background rows (or entries) of box deltas, which only torchvision has."""
        return array[len(array) - 4 * self.classes:]

    def mask_rows(self, array):
        """Drop the background row (or entry) of mask logits, which only torchvision has."""
        return array[len(array) - self.classes:]

    def mask_labels(self):
        """Return our class of each fixed RoI, whose mask logits are stored. 0: torchvision's background."""
        return self.arrays["fix/mask_channel"] + (1 if self.background_last else 0)

    def mask_targets(self, i: int) -> np.ndarray:
        """Return the mask targets of image i: (foreground RoIs, 28, 28), float32."""
        if f"train/mask_targets{i}" in self.arrays:
            return self.arrays[f"train/mask_targets{i}"]
        shape = self.arrays[f"train/mask_targets{i}_shape"]
        return np.unpackbits(self.arrays[f"train/mask_targets{i}_packbits"])[:np.prod(shape)].reshape(shape).astype(np.float32)

    def labels(self, theirs):
        """Map classes from theirs to ours."""
        return np.where(theirs == self.classes, 0, theirs + 1) if self.background_last else theirs


def rows_of_pictures(arrays, fill=0):
    """Pad arrays of unequal length. Return (N, longest, ...) and valid (N, longest)."""
    longest = max(map(len, arrays))
    out = np.full((len(arrays), longest, *arrays[0].shape[1:]), fill, arrays[0].dtype)
    for row, array in zip(out, arrays):
        row[:len(array)] = array
    return out, np.arange(longest) < np.array([[len(array)] for array in arrays])


def compare_results(results: list, expected: list) -> tuple:
    """Return the number of unmatched detections (class, box to 0.05 px, score to 0.003) and [differing pixels] of matched masks."""
    left, unmatched, pixels = list(results), 0, []
    for wanted in expected:
        near = [found for found in left if all(found[key] == wanted[key] for key in ("image_id", "category_id"))
                and abs(found["score"] - wanted["score"]) < 3e-3 and distance(found, wanted) < 0.05]
        if not near:
            unmatched += 1
            continue
        found = near[np.argmin([distance(found, wanted) for found in near])]
        left.remove(found)
        if "segmentation" in wanted:
            pixels.append((coco_mask.decode(found["segmentation"]) != coco_mask.decode(wanted["segmentation"])).sum())
    return unmatched + len(left), pixels


def distance(one: dict, other: dict) -> float:
    return np.abs(np.subtract(one["bbox"], other["bbox"])).max()
