"""The narrow detectors of the parity fixtures, built of our parts: which value of which argument each framework asks for.

Classes are ours everywhere here: background 0, foreground 1..K.
"""
from dataclasses import dataclass, field, replace

import mindspore as ms
import numpy as np
from mindspore import Tensor

from faster_rcnn.src.checkpoint_io import read_checkpoint
from faster_rcnn.src.FasterRcnn.anchor_generator import AnchorGenerator
from faster_rcnn.src.FasterRcnn.convolution import Convolution
from faster_rcnn.src.FasterRcnn.faster_rcnn import FasterRcnn
from faster_rcnn.src.FasterRcnn.fpn_neck import FeaturePyramid
from faster_rcnn.src.FasterRcnn.nms import ClassNms
from faster_rcnn.src.FasterRcnn.proposal_generator import ProposalGenerator
from faster_rcnn.src.FasterRcnn.rcnn import BoxHead, Detector
from faster_rcnn.src.FasterRcnn.resnet import ResNet
from faster_rcnn.src.FasterRcnn.roi_align import RoiAlign
from faster_rcnn.src.FasterRcnn.rpn import RpnHead
from mask_rcnn.src.MaskRcnn.mask_rcnn import MaskRcnn
from mask_rcnn.src.MaskRcnn.rcnn_mask import MaskHead

LEVELS, CLASSES = ("p2", "p3", "p4", "p5", "p6"), 12
NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


@dataclass(frozen=True)
class Framework:
    """A fixture folder and the conventions of its framework."""

    folder: str
    checkpoint: str
    prefixes: dict                      # our part of the network -> theirs
    loss_names: tuple                   # theirs, in the order of LOSS_NAMES
    betas: tuple = (0.0, 0.0)
    background_last: bool = True
    stride_in_1x1: bool = False
    train_norm: bool = False
    blocks: tuple = (3, 4, 6, 3)
    masks: bool = False
    round_anchors: bool = False         # and strides of the anchors that follow from the padded size
    proposals: dict = field(default_factory=dict)
    roi_align: dict = field(default_factory=dict)

    def name(self, ours: str) -> str:
        """Their name of our parameter."""
        head, _, leaf = ours.rpartition(".")
        if not head.startswith("backbone."):
            part = next(part for part in self.prefixes if head.startswith(part))
            return self.prefixes[part].format(*(head[len(part):].split(".")[1:])) + f".{leaf}"
        cell, norm = head[len("backbone."):], leaf in NORM
        if self.folder.startswith("detectron2"):
            cell = cell.replace("downsample", "shortcut")
            cell = f"res{int(cell[5]) + 1}{cell[6:]}" if cell.startswith("layer") else "stem.conv1"
            return f"{self.prefixes['backbone']}.{cell}{'.norm' if norm else ''}.{NORM.get(leaf, leaf)}"
        if cell.endswith("downsample"):
            cell = f"{cell}.{int(norm)}"
        elif norm:
            cell = cell[:-5] + cell[-5:].replace("conv", "bn")
        return f"{self.prefixes['backbone']}.{cell}.{NORM.get(leaf, leaf)}"

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


TORCHVISION = Framework(
    "torchvision_fasterrcnn_resnet50_fpn", "model.pth",
    {"backbone": "backbone.body", "neck.laterals": "backbone.fpn.inner_blocks.{}.0",
     "neck.outputs": "backbone.fpn.layer_blocks.{}.0", "rpn.conv": "rpn.head.conv.0.0", "rpn.cls": "rpn.head.cls_logits",
     "rpn.reg": "rpn.head.bbox_pred", "rcnn.fcs.0": "roi_heads.box_head.fc6", "rcnn.fcs.1": "roi_heads.box_head.fc7",
     "rcnn.cls_score": "roi_heads.box_predictor.cls_score", "rcnn.bbox_pred": "roi_heads.box_predictor.bbox_pred"},
    ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"), betas=(1 / 9, 1 / 9), background_last=False,
    round_anchors=True, proposals={"min_size": 1e-3},
    roi_align={"sample_num": 2, "aligned": False, "level_rule": "torchvision"})

DETECTRON2 = Framework(
    "detectron2_faster_rcnn_R50_FPN", "model.pkl",
    {"backbone": "backbone.bottom_up", **{f"neck.laterals.{i}": f"backbone.fpn_lateral{i + 2}" for i in range(4)},
     **{f"neck.outputs.{i}": f"backbone.fpn_output{i + 2}" for i in range(4)}, "rpn.conv": "proposal_generator.rpn_head.conv",
     "rpn.cls": "proposal_generator.rpn_head.objectness_logits", "rpn.reg": "proposal_generator.rpn_head.anchor_deltas",
     "rcnn.fcs.0": "roi_heads.box_head.fc1", "rcnn.fcs.1": "roi_heads.box_head.fc2",
     "rcnn.cls_score": "roi_heads.box_predictor.cls_score", "rcnn.bbox_pred": "roi_heads.box_predictor.bbox_pred"},
    ("loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg"), stride_in_1x1=True,
    roi_align={"sample_num": 0, "level_rule": "detectron2"})

MMDET = Framework(
    "mmdet_faster_rcnn_r50_fpn", "model.pth",
    {"backbone": "backbone", "neck.laterals": "neck.lateral_convs.{}.conv", "neck.outputs": "neck.fpn_convs.{}.conv",
     "rpn.conv": "rpn_head.rpn_conv", "rpn.cls": "rpn_head.rpn_cls", "rpn.reg": "rpn_head.rpn_reg",
     "rcnn.fcs": "roi_head.bbox_head.shared_fcs.{}", "rcnn.cls_score": "roi_head.bbox_head.fc_cls",
     "rcnn.bbox_pred": "roi_head.bbox_head.fc_reg"},
    ("loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox"), train_norm=True, proposals={"clamp_both": True},
    roi_align={"sample_num": 0, "level_rule": "mmdet"})


def with_masks(framework: Framework, folder: str, prefixes: dict, **changes) -> Framework:
    """The framework's Mask R-CNN."""
    prefixes = {**framework.prefixes, **{f"rcnn_mask.{part}": name for part, name in prefixes.items()}}
    return replace(framework, folder=folder, prefixes=prefixes, masks=True, **changes)


TORCHVISION_MASK = with_masks(
    TORCHVISION, "torchvision_maskrcnn_resnet50_fpn",
    {"convs": "roi_heads.mask_head.{}.0", "deconv": "roi_heads.mask_predictor.conv5_mask",
     "logits": "roi_heads.mask_predictor.mask_fcn_logits"})
DETECTRON2_MASK = with_masks(
    DETECTRON2, "detectron2_mask_rcnn_R101_FPN",
    {**{f"convs.{i}": f"roi_heads.mask_head.mask_fcn{i + 1}" for i in range(4)}, "deconv": "roi_heads.mask_head.deconv",
     "logits": "roi_heads.mask_head.predictor"}, blocks=(3, 4, 23, 3))
MMDET_MASK = with_masks(
    MMDET, "mmdet_mask_rcnn_r50_fpn",
    {"convs": "roi_head.mask_head.convs.{}.conv", "deconv": "roi_head.mask_head.upsample",
     "logits": "roi_head.mask_head.conv_logits"})


class TorchvisionAnchors(AnchorGenerator):
    """Strides are padded size // feature size."""

    padded = None

    def levels(self, shapes, strides=None):
        return super().levels(shapes, [(self.padded[0] // h, self.padded[1] // w) for h, w in shapes])


def build(framework: Framework, padded, fast: bool = False):
    """FasterRcnn or MaskRcnn with random weights, for inputs of `padded` = (height, width)."""
    stages = (32, 64, 128, 256)
    backbone = ResNet(framework.blocks, (8, *stages[:3]), stages, 2, framework.train_norm, fast=fast)
    if framework.stride_in_1x1:
        move_strides(backbone, fast)
    anchors = (TorchvisionAnchors if framework.round_anchors else AnchorGenerator)(
        [8], [0.5, 1.0, 2.0], [4, 8, 16, 32, 64], round_base=framework.round_anchors)
    anchors.padded = padded
    proposals = ProposalGenerator((), 1000, 1000, 1000, 0.7, **framework.proposals)
    roi_align, mask_align = (RoiAlign(side, strides=(4, 8, 16, 32), **framework.roi_align) for side in (7, 14))
    parts = {
        "backbone": backbone, "neck": FeaturePyramid(stages, 32, fast=fast), "rpn": RpnHead(32, 32, 3, fast=fast),
        "roi_align": roi_align, "rcnn": BoxHead(32, 7, 64, CLASSES), "anchors": anchors, "train_proposals": proposals,
        "test_proposals": proposals, "matching": {}, "anchor_sampling": {}, "roi_sampling": {"num_pos": 128},
        "betas": framework.betas,
        "detector": Detector(ClassNms(0.5, CLASSES, max(padded)), (0.1, 0.1, 0.2, 0.2), (0.0,) * 4, 0.05, 100, 2000)}
    if not framework.masks:
        return FasterRcnn(**parts)
    return MaskRcnn(mask_align, MaskHead(32, 32, CLASSES, fast=fast), precise_targets=True, **parts)


def move_strides(backbone: ResNet, fast: bool):
    """The stride of each stage from its first 3x3 to the 1x1 before, until the backbone has an option for it."""
    for stage in (backbone.layer2, backbone.layer3, backbone.layer4):
        width, entering = stage[0].conv1.weight.shape[:2]
        stage[0].conv1.conv = Convolution(entering, width, 1, 2)
        stage[0].conv2.conv = Convolution(width, width, 3, fast=fast)


def load(net, framework: Framework, folder):
    """Fill the network with the weights of the fixture."""
    arrays = read_checkpoint(folder / framework.checkpoint).arrays
    for param in net.get_parameters():
        array = arrays[framework.name(param.name)]
        if param.name.startswith("rcnn.cls_score"):
            array = framework.class_rows(array)
        elif param.name.startswith("rcnn.bbox_pred"):
            array = framework.box_rows(array)
        elif param.name.startswith("rcnn_mask.logits"):
            array = framework.mask_rows(array)
        assert array.shape == tuple(param.shape), param.name
        param.set_data(Tensor(np.array(array, np.float32, order="C"), ms.float32))


def rows_of_pictures(arrays, fill=0):
    """Arrays of unequal length -> (N, longest, ...) and valid (N, longest)."""
    longest = max(map(len, arrays))
    out = np.full((len(arrays), longest, *arrays[0].shape[1:]), fill, arrays[0].dtype)
    for row, array in zip(out, arrays):
        row[:len(array)] = array
    return out, np.arange(longest) < np.array([[len(array)] for array in arrays])
