"""Configuration of Mask R-CNN: the old zoo's keys, the keys of the mask branch, and their rules."""
import re

import pytest

from faster_rcnn.src.model_utils.config import DEFAULT_CONFIG as FASTER_CONFIG
from mask_rcnn.src.key_rules import ALIASES, RETIRED
from mask_rcnn.src.model_utils.config import DEFAULT_CONFIG, load_config, parse_config
from mask_rcnn.src.model_utils.configuration.schema import read_keys

KEYS = read_keys(DEFAULT_CONFIG)
# Names and values of the table in the old zoo's README.
OLD = {
    "img_width": 1280, "img_height": 768, "keep_ratio": True, "flip_ratio": 0.5, "photo_ratio": 0.5, "expand_ratio": 1.0,
    "max_instance_count": 128, "mask_shape": (28, 28), "feature_shapes": [(192, 320)], "anchor_scales": (8,),
    "anchor_ratios": (0.5, 1.0, 2.0), "anchor_strides": (4, 8, 16, 32, 64), "num_anchors": 3, "resnet_block": (3, 4, 6, 3),
    "resnet_in_channels": (64, 256, 512, 1024), "resnet_out_channels": (256, 512, 1024, 2048),
    "fpn_in_channels": (256, 512, 1024, 2048), "fpn_out_channels": 256, "fpn_num_outs": 5, "rpn_in_channels": 256,
    "rpn_feat_channels": 256, "rpn_loss_cls_weight": 1.0, "rpn_loss_reg_weight": 1.0, "rpn_cls_out_channels": 1,
    "rpn_target_means": (0, 0, 0, 0), "rpn_target_stds": (1, 1, 1, 1), "neg_iou_thr": 0.3, "pos_iou_thr": 0.7,
    "min_pos_iou": 0.3, "num_bboxes": 245520, "num_gts": 128, "num_expected_neg": 256, "num_expected_pos": 128,
    "activate_num_classes": 2, "use_sigmoid_cls": True,
    "roi_layer": {"type": "RoIAlign", "out_size": 7, "mask_out_size": 14, "sample_num": 2}, "roi_align_out_channels": 256,
    "roi_align_featmap_strides": (4, 8, 16, 32), "roi_align_finest_scale": 56, "roi_sample_num": 640,
    "neg_iou_thr_stage2": 0.5, "pos_iou_thr_stage2": 0.5, "min_pos_iou_stage2": 0.5, "num_bboxes_stage2": 2000,
    "num_expected_pos_stage2": 128, "num_expected_neg_stage2": 512, "num_expected_total_stage2": 512, "rcnn_num_layers": 2,
    "rcnn_in_channels": 256, "rcnn_fc_out_channels": 1024, "rcnn_mask_out_channels": 256, "rcnn_loss_cls_weight": 1,
    "rcnn_loss_reg_weight": 1, "rcnn_loss_mask_fb_weight": 1, "rcnn_target_means": (0, 0, 0, 0),
    "rcnn_target_stds": (0.1, 0.1, 0.2, 0.2), "rpn_proposal_nms_across_levels": False, "rpn_proposal_nms_pre": 2000,
    "rpn_proposal_nms_post": 2000, "rpn_proposal_max_num": 2000, "rpn_proposal_nms_thr": 0.7,
    "rpn_proposal_min_bbox_size": 0, "rpn_nms_across_levels": False, "rpn_nms_pre": 1000, "rpn_nms_post": 1000,
    "rpn_max_num": 1000, "rpn_nms_thr": 0.7, "rpn_min_bbox_min_size": 0, "test_score_thr": 0.05, "test_iou_thr": 0.5,
    "test_max_per_img": 100, "test_batch_size": 2, "rpn_head_loss_type": "CrossEntropyLoss", "rpn_head_use_sigmoid": True,
    "rpn_head_weight": 1.0, "mask_thr_binary": 0.5, "base_lr": 0.02, "base_step": 58633, "total_epoch": 13,
    "warmup_step": 500, "warmup_mode": "linear", "warmup_ratio": "1/3.0", "batch_size": 2, "loss_scale": 1,
    "momentum": 0.91, "weight_decay": 1e-4, "pretrain_epoch_size": 0, "epoch_size": 12, "save_checkpoint": True,
    "save_checkpoint_epochs": 1, "keep_checkpoint_max": 12, "save_checkpoint_path": "./checkpoint",
    "mindrecord_dir": "MindRecord_COCO2017_Train", "coco_root": "maskrcnn", "train_data_type": "train2017",
    "val_data_type": "val2017", "instance_set": "annotations/instances_{}.json", "num_classes": 81,
}
# Defaults that differ here: the recipe of torchvision and detectron2, and paths that every user has to set.
OTHERWISE = {"photo_ratio", "expand_ratio", "momentum", "test_batch_size", "keep_checkpoint_max", "mindrecord_dir", "coco_root"}


def yaml_text(values: dict) -> str:
    lines = []
    for name, value in values.items():
        if isinstance(value, (tuple, list)):
            value = [list(item) if isinstance(item, tuple) else item for item in value]
        lines.append(f"{name}: {value if not isinstance(value, str) else repr(value)}\n")
    return "".join(lines)


def test_table_of_the_old_zoo_loads_and_equals_the_defaults(write, caplog):
    config = load_config(write("old.yaml", yaml_text(OLD)))
    warned = {re.match(r".*:\d+: (\w+): no longer read", line)[1] for line in caplog.messages}
    assert warned == set(OLD) & set(RETIRED)
    default = load_config()
    differing = {name for name, value in default.items()
                 if config[name] != (pytest.approx(value, rel=1e-6) if isinstance(value, float) else value)}
    assert differing == OTHERWISE
    assert set(OLD) <= set(KEYS) | set(ALIASES) | set(RETIRED)
    assert ALIASES["max_instance_count"] == "num_gts"


def test_table_as_config_py_writes_it(write):
    """Python's tuples and dict(...), which YAML reads as text, are parsed."""
    config = load_config(write("old.yaml", "mask_shape: (28, 28)\nfeature_shapes: [(192, 320), (96, 160)]\n"
                               "anchor_ratios: (0.25, 1., 4.)\n"
                               "roi_layer: dict(type='RoIAlign', out_size=9, mask_out_size=14, sample_num=3)\nnum_classes: 4\n"
                               "coco_classes: ('background', 'traffic light',\n               'stop sign', 'bird')\n"))
    assert config.mask_shape == (28, 28) and config.anchor_ratios == (0.25, 1, 4)
    assert config.coco_classes == ("background", "traffic light", "stop sign", "bird")
    assert config.roi_layer.to_dict() == {"type": "RoIAlign", "out_size": 9, "mask_out_size": 14, "sample_num": 3, "aligned": True}
    assert parse_config(["--anchor_ratios=(0.5, 2)"]).anchor_ratios == (0.5, 2)


@pytest.mark.parametrize(("text", "expected"), [
    ("(28, x)", "expected a list, got '(28, x)'"), ("(28", "expected a list, got '(28'"),
    ("(open('x'), 1)", "expected a list, got"), ("dict(28)", "expected a list, got {}")])
def test_python_text_that_is_no_literal(message, write, text, expected):
    assert expected in message(load_config, write("old.yaml", f"mask_shape: {text}\n"))


def test_expand_ratio_is_a_chance_as_in_the_old_zoo(write, caplog, message):
    config = load_config(write("old.yaml", "expand_ratio: 1.0\n"))
    assert (config.expand_ratio, config.expand_factor) == (1.0, 4.0) and not caplog.messages
    config = load_config(write("ours.yaml", "expand_ratio: 1.5\n"))        # an earlier version read it as a factor
    assert (config.expand_ratio, config.expand_factor) == (1.0, 1.5)
    assert "ours.yaml:1: expand_ratio: more than 1, so it is read as expand_factor" in caplog.text
    assert "given twice" in message(load_config, write("both.yaml", "expand_ratio: 1.5\nexpand_factor: 2.0\n"))


def test_keys_are_those_of_faster_rcnn_and_the_mask_branch():
    faster = read_keys(FASTER_CONFIG)
    assert set(KEYS) - set(faster) == {"rcnn_mask_out_channels", "mask_shape", "rcnn_loss_mask_fb_weight", "max_mask_edges",
                                       "mask_paste", "mask_slots", "mask_thr_binary", "low_quality_stage2", "mask_from_proposal",
                                       "mask_target"}
    assert set(faster) - set(KEYS) == set()
    assert [name for name in KEYS if name in faster] == [name for name in faster if name in KEYS]


def test_every_key_has_a_section_and_a_help_line():
    assert [key.name for key in KEYS.values() if len(key.help) < 5 or key.section == "Keys"] == []
    assert not (set(ALIASES) | set(RETIRED)) & set(KEYS)


def test_mask_out_size_has_a_reader(repo_dir):
    """roi_layer is a mapping; test_key_readers.py checks only top-level keys."""
    network = repo_dir / "mask_rcnn" / "src" / "MaskRcnn"
    assert 'config.roi_layer["mask_out_size"]' in (network / "mask_rcnn.py").read_text()


@pytest.mark.parametrize(("overrides", "expected"), [
    ({"dataset": "voc"}, "dataset: 'voc' has no masks; Mask R-CNN takes "
     "COCO or LabelMe or YOLO annotations (dataset: coco, coco_files, labelme, yolo)"),
    ({"mask_shape": [28, 14]}, "mask_shape: expected twice mask_out_size of roi_layer, [28, 28], got [28, 14]"),
    ({"roi_layer": {"mask_out_size": 7}}, "mask_shape: expected twice mask_out_size of roi_layer, [14, 14], got [28, 28]"),
    ({"roi_layer": {"mask_out_size": 0}}, "roi_layer: expected mask_out_size >= 1, got 0"),
    ({"mask_thr_binary": 1.5}, "mask_thr_binary: expected 0 to 1, got 1.5"),
    ({"max_mask_edges": 3}, "max_mask_edges: expected at least 4, got 3"),
    ({"rcnn_mask_out_channels": 0}, "rcnn_mask_out_channels: expected at least 1, got 0"),
    ({"rcnn_loss_mask_fb_weight": -1}, "rcnn_loss_mask_fb_weight: expected at least 0, got -1.0"),
    # The rules of box detectors apply as well.
    ({"num_classes": 4}, "num_classes: 4, but coco_classes has 81 names including the background"),
    ({"flip_ratio": 1.5}, "flip_ratio: expected 0 to 1, got 1.5"),
])
def test_contradictions(message, overrides, expected):
    assert message(load_config, overrides=overrides) == expected


def test_smaller_masks():
    config = parse_config(["--mask_shape=14,14", "--roi_layer={mask_out_size: 7}"])
    assert (config.mask_shape, config.roi_layer.mask_out_size, config.roi_layer.out_size) == ((14, 14), 7, 7)


@pytest.mark.parametrize("name", ["demo", "pennfudan", "coco_mini"])
def test_shipped_variants_load(repo_dir, name):
    config = load_config(repo_dir / "mask_rcnn" / f"{name}_config_cpu.yaml")
    assert config.num_classes == len(config.coco_classes) == {"demo": 4, "pennfudan": 2, "coco_mini": 81}[name]
