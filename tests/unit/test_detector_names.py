"""Parameter names of detectors in other frameworks: both directions, and names outside the network."""
import pytest

from faster_rcnn.src import convert_checkpoint
from faster_rcnn.src.FasterRcnn.conversion.detector_names import FRAMEWORKS
from faster_rcnn.src.model_utils.config import InputError

# Theirs, ours.
NAMES = {
    "torchvision": """
        backbone.body.conv1.weight backbone.conv1.weight
        backbone.body.bn1.running_var backbone.conv1.moving_variance
        backbone.body.layer3.2.bn2.bias backbone.layer3.2.conv2.beta
        backbone.body.layer4.0.downsample.1.weight backbone.layer4.0.downsample.gamma
        backbone.fpn.inner_blocks.1.0.bias neck.laterals.1.bias
        backbone.fpn.layer_blocks.3.0.weight neck.outputs.3.weight
        rpn.head.conv.0.0.weight rpn.conv.weight
        rpn.head.cls_logits.bias rpn.cls.bias
        rpn.head.bbox_pred.weight rpn.reg.weight
        roi_heads.box_head.fc7.weight rcnn.fcs.1.weight
        roi_heads.box_predictor.cls_score.bias rcnn.cls_score.bias
        roi_heads.mask_head.2.0.bias rcnn_mask.convs.2.bias
        roi_heads.mask_predictor.conv5_mask.weight rcnn_mask.deconv.weight
        roi_heads.mask_predictor.mask_fcn_logits.bias rcnn_mask.logits.bias
        """,
    "detectron2": """
        backbone.bottom_up.stem.conv1.weight backbone.conv1.weight
        backbone.bottom_up.stem.conv1.norm.running_mean backbone.conv1.moving_mean
        backbone.bottom_up.res2.0.shortcut.norm.weight backbone.layer1.0.downsample.gamma
        backbone.bottom_up.res5.2.conv3.weight backbone.layer4.2.conv3.weight
        backbone.fpn_lateral2.bias neck.laterals.0.bias
        backbone.fpn_output5.weight neck.outputs.3.weight
        proposal_generator.rpn_head.objectness_logits.weight rpn.cls.weight
        proposal_generator.rpn_head.anchor_deltas.bias rpn.reg.bias
        roi_heads.box_head.fc1.bias rcnn.fcs.0.bias
        roi_heads.mask_head.mask_fcn4.weight rcnn_mask.convs.3.weight
        roi_heads.mask_head.deconv.bias rcnn_mask.deconv.bias
        roi_heads.mask_head.predictor.weight rcnn_mask.logits.weight
        """,
    "mmdet": """
        backbone.bn1.weight backbone.conv1.gamma
        backbone.layer1.0.downsample.0.weight backbone.layer1.0.downsample.weight
        neck.lateral_convs.0.conv.weight neck.laterals.0.weight
        neck.fpn_convs.2.conv.bias neck.outputs.2.bias
        rpn_head.rpn_conv.bias rpn.conv.bias
        rpn_head.rpn_cls.bias rpn.cls.bias
        rpn_head.rpn_reg.bias rpn.reg.bias
        roi_head.bbox_head.shared_fcs.1.weight rcnn.fcs.1.weight
        roi_head.bbox_head.fc_cls.weight rcnn.cls_score.weight
        roi_head.bbox_head.fc_reg.weight rcnn.bbox_pred.weight
        roi_head.mask_head.convs.0.conv.weight rcnn_mask.convs.0.weight
        roi_head.mask_head.upsample.bias rcnn_mask.deconv.bias
        roi_head.mask_head.conv_logits.bias rcnn_mask.logits.bias
        """,
}
NAMES["mslab"] = """
        backbone.bottom_up.conv1.weight backbone.conv1.weight
        backbone.bottom_up.bn1.moving_variance backbone.conv1.moving_variance
        backbone.bottom_up.layer1.0.down_sample.0.weight backbone.layer1.0.downsample.weight
        backbone.bottom_up.layer4.0.down_sample.1.gamma backbone.layer4.0.downsample.gamma
        backbone.bottom_up.layer3.2.bn2.beta backbone.layer3.2.conv2.beta
        backbone.lateral_convs.2.conv.0.bias neck.laterals.2.bias
        backbone.fpn_convs.0.conv.0.weight neck.outputs.0.weight
        rpn_head.rpn_feat.rpn_conv.weight rpn.conv.weight
        rpn_head.rpn_feat.rpn_rois_score.bias rpn.cls.bias
        rpn_head.rpn_feat.rpn_rois_delta.weight rpn.reg.weight
        bbox_head.head.fc7.weight rcnn.fcs.1.weight
        bbox_head.bbox_cls.bias rcnn.cls_score.bias
        bbox_head.bbox_delta.bias rcnn.bbox_pred.bias
        mask_head.head.upsample.0.weight rcnn_mask.convs.0.weight
        mask_head.head.upsample.6.bias rcnn_mask.convs.3.bias
        mask_head.head.upsample.8.weight rcnn_mask.deconv.weight
        mask_head.mask_fcn_logits.bias rcnn_mask.logits.bias
        """

# Spellings that are only read, never written.
READ_ONLY = {
    "torchvision": """
        backbone.fpn.inner_blocks.2.weight neck.laterals.2.weight
        rpn.head.conv.bias rpn.conv.bias
        roi_heads.mask_head.mask_fcn1.weight rcnn_mask.convs.0.weight
        module.backbone.body.conv1.weight backbone.conv1.weight
        """,
    "zoo": """
        backbone.bn1.gamma backbone.conv1.gamma
        backbone.layer1.0.conv_down_sample.weight backbone.layer1.0.downsample.weight
        fpn_neck.lateral_convs_list.1.bias neck.laterals.1.bias
        fpn_ncek.fpn_convs_list.3.weight neck.outputs.3.weight
        rpn_with_loss.rpn_convs_list.0.rpn_reg.bias rpn.reg.bias
        rcnn.shared_fc_1.weight rcnn.fcs.1.weight
        rcnn_cls.fpn_cls.cls_scores.bias rcnn.cls_score.bias
        rcnn_mask.fpn_mask.mask_conv4.bias rcnn_mask.convs.3.bias
        rcnn_mask.fpn_mask.mask_conv6.bias rcnn_mask.logits.bias
        rcnn_mask.fpn_mask.mask_deconv5.bias rcnn_mask.deconv.bias
        """,
}
UNKNOWN = {
    "torchvision": ["rpn.head.conv.1.0.weight", "backbone.fpn.inner_blocks.0.1.weight", "roi_heads.box_head.fc5.weight",
                    "backbone.body.fc.weight", "roi_heads.box_predictor.cls_score.scale"],
    "detectron2": ["backbone.fpn_lateral1.weight", "roi_heads.box_predictor.0.cls_score.weight", "pixel_mean",
                   "backbone.bottom_up.stem.conv1.bias", "roi_heads.res5.0.conv1.weight"],
    "mmdet": ["bbox_head.fc_cls.weight", "roi_head.bbox_head.0.fc_cls.weight", "backbone.bn1.num_batches_tracked"],
    "zoo": ["rpn_with_loss.rpn_convs_list.1.rpn_cls.weight", "rcnn.fc.weight"],
    "mslab": ["moments.backbone.bottom_up.conv1.weight", "mask_head.head.upsample.1.weight", "bbox_head.head.fc5.weight",
              "backbone.lateral_convs.0.conv.1.weight", "backbone.bottom_up.classifier.weight"],
}


def pairs(text: str) -> list:
    return [line.split() for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_names(framework):
    table = FRAMEWORKS[framework]
    for theirs, ours in pairs(NAMES.get(framework, "")):
        assert (table.ours(theirs), table.theirs(ours)) == (ours, theirs)
    for theirs, ours in pairs(READ_ONLY.get(framework, "")):
        assert table.ours(theirs) == ours
    assert [table.ours(name) for name in UNKNOWN[framework]] == [None] * len(UNKNOWN[framework])


@pytest.mark.parametrize("names, framework", [
    (["backbone.body.conv1.weight"], "torchvision"), (["module.backbone.body.conv1.weight"], "torchvision"),
    (["backbone.bottom_up.stem.conv1.weight"], "detectron2"), (["proposal_generator.rpn_head.conv.bias"], "detectron2"),
    (["backbone.conv1.weight", "rpn_head.rpn_conv.weight"], "mmdet"),
    (["backbone.bottom_up.bn1.gamma"], "mslab"), (["backbone.bottom_up.conv1.weight", "rpn_head.rpn_feat.rpn_conv.bias"], "mslab"),
    (["backbone.bottom_up.conv1.weight", "mask_head.mask_fcn_logits.bias"], "mslab"),
    (["backbone.conv1.weight", "bbox_head.fc_cls.weight", "neck.lateral_convs.0.conv.bias"], "mmdet"),
    (["backbone.conv1.weight", "rpn_with_loss.rpn_convs_list.0.rpn_conv.bias"], "zoo"),
    (["conv1.weight"], None), (["stem.conv1.weight"], None), (["conv1_w", "res2_0_branch2a_w"], None),
    (["backbone.conv1.weight"], None)])
def test_source_is_found_by_names(names, framework):
    assert convert_checkpoint.find_source(dict.fromkeys(names), "auto", "file") == framework
    assert convert_checkpoint.find_source(dict.fromkeys(names), "resnet", "file") is None
    if not framework:
        assert convert_checkpoint.find_source(dict.fromkeys(names), "zoo", "file") is None
    else:
        assert convert_checkpoint.find_source(dict.fromkeys(names), framework, "file") == framework
        other = "mmdet" if framework == "zoo" else "zoo"
        with pytest.raises(InputError, match=f"^--source: {other}, but the names in file are those of {framework}"):
            convert_checkpoint.find_source(dict.fromkeys(names), other, "file")


@pytest.mark.parametrize("names, expected", [
    (["backbone.conv1.gamma"], "already a checkpoint of this project"),
    (["neck.laterals.0.bias", "backbone.layer1.0.conv1.gamma"], "already a checkpoint of this project"),
    (["features.0.weight", "features.0.bias"], "the names are those of no known backbone or detector; the first are features.0.")])
def test_other_files_are_refused_by_name(names, expected):
    with pytest.raises(InputError, match=f"^file: .*{expected}"):
        convert_checkpoint.find_source(dict.fromkeys(names), "auto", "file")
    assert convert_checkpoint.find_source(dict.fromkeys(names), "resnet", "file") is None
