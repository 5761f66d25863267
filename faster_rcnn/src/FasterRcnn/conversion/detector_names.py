"""Parameter names of whole detectors in other frameworks, in both directions from one table.

The table maps layers with `weight` and `bias`, such as `neck.laterals.0`; resnet_names.py maps the cells of the backbone. `{}`
numbers our layers from 0; in a foreign name, the braces hold the number of its first layer.
"""
import re
from dataclasses import dataclass

from ...model_utils.weights.resnet_names import detectron2_name, mindcv_name, torchvision_name, translate

LEAVES = ("weight", "bias")
MASKS = "rcnn_mask."


@dataclass(frozen=True)
class Framework:
    """Names that a framework gives to the parts of a detector, and its position of the background.

    parts: our layer -> the framework's names, the current one first.
    signs: prefixes that no other framework's detectors have.
    background_last: the background is the last class logit, else the first. None: depends on the file, see detector_weights.py.
    background_rows: boxes and masks have outputs for the background, too.
    """

    backbone: str
    parts: dict
    signs: tuple
    backbone_name: object = torchvision_name
    background_last: bool = None
    background_rows: bool = False

    def theirs(self, ours: str) -> str:
        """Return the framework's name of our parameter. Raises KeyError if it has no such layer."""
        layer, _, leaf = ours.rpartition(".")
        if layer.startswith("backbone."):
            return self.backbone + self.backbone_name(layer.removeprefix("backbone."), leaf)
        numbered, _, index = layer.rpartition(".")
        if index.isdigit() and layer not in self.parts:
            theirs = self.parts[numbered + ".{}"][0]
            return re.sub(r"\{(\d)\}", lambda first: str(int(first[1]) + int(index)), theirs) + f".{leaf}"
        return f"{self.parts[layer][0]}.{leaf}"

    def ours(self, theirs: str):
        """Return our name of the framework's parameter, or None."""
        theirs = theirs.removeprefix("module.")
        if theirs.startswith(self.backbone):
            found = translate(theirs.removeprefix(self.backbone))
            if found:
                return f"backbone.{found[0]}.{found[1]}"
        layer, _, leaf = theirs.rpartition(".")
        if leaf not in LEAVES:
            return None
        for ours, names in self.parts.items():
            for name in names:
                index = _index(name, layer)
                if index is not None:
                    return f"{ours.format(index)}.{leaf}"
        return None


def _index(name: str, layer: str):
    """Return the index from 0 of `layer` among the layers that the pattern `name` matches, or None."""
    before, brace, rest = name.partition("{")
    if not brace:
        return 0 if name == layer else None
    first, _, after = rest.partition("}")
    number = layer[len(before):len(layer) - len(after)]
    if layer != before + number + after or not re.fullmatch(r"\d{1,2}", number) or int(number) < int(first):
        return None
    return int(number) - int(first)


# Order matters: mindspore-lab's names also begin like those of detectron2 and mmdet.
FRAMEWORKS = {
    "mslab": Framework(
        "backbone.bottom_up.", {
            "neck.laterals.{}": ("backbone.lateral_convs.{0}.conv.0",), "neck.outputs.{}": ("backbone.fpn_convs.{0}.conv.0",),
            "rpn.conv": ("rpn_head.rpn_feat.rpn_conv",), "rpn.cls": ("rpn_head.rpn_feat.rpn_rois_score",),
            "rpn.reg": ("rpn_head.rpn_feat.rpn_rois_delta",), "rcnn.fcs.{}": ("bbox_head.head.fc{6}",),
            "rcnn.cls_score": ("bbox_head.bbox_cls",), "rcnn.bbox_pred": ("bbox_head.bbox_delta",),
            # There is a ReLU between two layers.
            **{f"rcnn_mask.convs.{i}": (f"mask_head.head.upsample.{2 * i}",) for i in range(4)},
            "rcnn_mask.deconv": ("mask_head.head.upsample.8",), "rcnn_mask.logits": ("mask_head.mask_fcn_logits",)},
        ("backbone.bottom_up.bn1.", "backbone.bottom_up.layer", "backbone.lateral_convs.", "backbone.fpn_convs.",
         "rpn_head.rpn_feat.", "bbox_head.head.fc", "bbox_head.bbox_", "mask_head.head.", "mask_head.mask_fcn_logits."),
        mindcv_name, background_last=True),
    "torchvision": Framework(
        "backbone.body.", {
            "neck.laterals.{}": ("backbone.fpn.inner_blocks.{0}.0", "backbone.fpn.inner_blocks.{0}"),
            "neck.outputs.{}": ("backbone.fpn.layer_blocks.{0}.0", "backbone.fpn.layer_blocks.{0}"),
            "rpn.conv": ("rpn.head.conv.0.0", "rpn.head.conv"),
            "rpn.cls": ("rpn.head.cls_logits",), "rpn.reg": ("rpn.head.bbox_pred",),
            "rcnn.fcs.{}": ("roi_heads.box_head.fc{6}",),
            "rcnn.cls_score": ("roi_heads.box_predictor.cls_score",), "rcnn.bbox_pred": ("roi_heads.box_predictor.bbox_pred",),
            "rcnn_mask.convs.{}": ("roi_heads.mask_head.{0}.0", "roi_heads.mask_head.mask_fcn{1}"),
            "rcnn_mask.deconv": ("roi_heads.mask_predictor.conv5_mask",),
            "rcnn_mask.logits": ("roi_heads.mask_predictor.mask_fcn_logits",)},
        ("backbone.body.", "backbone.fpn.", "roi_heads.box_head.fc6."), background_last=False, background_rows=True),
    "detectron2": Framework(
        "backbone.bottom_up.", {
            "neck.laterals.{}": ("backbone.fpn_lateral{2}",), "neck.outputs.{}": ("backbone.fpn_output{2}",),
            "rpn.conv": ("proposal_generator.rpn_head.conv",),
            "rpn.cls": ("proposal_generator.rpn_head.objectness_logits",),
            "rpn.reg": ("proposal_generator.rpn_head.anchor_deltas",),
            "rcnn.fcs.{}": ("roi_heads.box_head.fc{1}",),
            "rcnn.cls_score": ("roi_heads.box_predictor.cls_score",), "rcnn.bbox_pred": ("roi_heads.box_predictor.bbox_pred",),
            "rcnn_mask.convs.{}": ("roi_heads.mask_head.mask_fcn{1}",),
            "rcnn_mask.deconv": ("roi_heads.mask_head.deconv",), "rcnn_mask.logits": ("roi_heads.mask_head.predictor",)},
        ("backbone.bottom_up.", "proposal_generator.", "backbone.fpn_lateral"), detectron2_name, background_last=True),
    "mmdet": Framework(
        "backbone.", {
            "neck.laterals.{}": ("neck.lateral_convs.{0}.conv",), "neck.outputs.{}": ("neck.fpn_convs.{0}.conv",),
            "rpn.conv": ("rpn_head.rpn_conv",), "rpn.cls": ("rpn_head.rpn_cls",), "rpn.reg": ("rpn_head.rpn_reg",),
            "rcnn.fcs.{}": ("roi_head.bbox_head.shared_fcs.{0}",),
            "rcnn.cls_score": ("roi_head.bbox_head.fc_cls",), "rcnn.bbox_pred": ("roi_head.bbox_head.fc_reg",),
            "rcnn_mask.convs.{}": ("roi_head.mask_head.convs.{0}.conv",),
            "rcnn_mask.deconv": ("roi_head.mask_head.upsample",), "rcnn_mask.logits": ("roi_head.mask_head.conv_logits",)},
        ("rpn_head.rpn_", "neck.lateral_convs.", "roi_head."), background_last=True),
    # The first name is Faster R-CNN's, the second Mask R-CNN's; "ncek" is misspelt there.
    "zoo": Framework(
        "backbone.", {
            "neck.laterals.{}": ("fpn_neck.lateral_convs_list.{0}", "fpn_ncek.lateral_convs_list.{0}"),
            "neck.outputs.{}": ("fpn_neck.fpn_convs_list.{0}", "fpn_ncek.fpn_convs_list.{0}"),
            "rpn.conv": ("rpn_with_loss.rpn_convs_list.0.rpn_conv",),
            "rpn.cls": ("rpn_with_loss.rpn_convs_list.0.rpn_cls",), "rpn.reg": ("rpn_with_loss.rpn_convs_list.0.rpn_reg",),
            "rcnn.fcs.{}": ("rcnn.shared_fc_{0}", "rcnn_cls.fpn_cls.shared_fc_{0}"),
            "rcnn.cls_score": ("rcnn.cls_scores", "rcnn_cls.fpn_cls.cls_scores"),
            "rcnn.bbox_pred": ("rcnn.reg_scores", "rcnn_cls.fpn_cls.reg_scores"),
            "rcnn_mask.logits": ("rcnn_mask.fpn_mask.mask_conv6",), "rcnn_mask.deconv": ("rcnn_mask.fpn_mask.mask_deconv5",),
            "rcnn_mask.convs.{}": ("rcnn_mask.fpn_mask.mask_conv{1}",)},
        ("rpn_with_loss.", "fpn_neck.", "fpn_ncek.", "rcnn_cls."), background_rows=True),
}


def find_framework(names):
    """Return the first framework whose detectors have one of these names, or None."""
    for framework, table in FRAMEWORKS.items():
        if any(name.removeprefix("module.").startswith(table.signs) for name in names):
            return framework
    return None
