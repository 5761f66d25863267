# Same as faster_rcnn/src/FasterRcnn/key_rules.py
"""Names of the old zoo's keys, and constraints between keys. Ranges of single keys are in default_config.yaml."""
import itertools
import re

from ..model_utils.configuration.rules import check_anchors, check_classes, check_epochs_and_names, check_nms
from .backbones import BACKBONES, check_backbone
from .conventions import CONVENTIONS

# Alias -> key.
ALIASES = {
    "ann_file": "anno_path",
    "checkpoint": "checkpoint_path",
    "dataset_path": "data_path",
    "interval": "eval_interval",
    "max_instance_count": "num_gts",
    "pretrain_epoch_size": "pre_trained_epoch_size",
    "run_distribute": "distribute",
}

# Key whose value sets other keys: value -> {key: value}. Where two presets set the same key, the later one overrides.
PRESETS = {"convention": CONVENTIONS, "backbone": {name: backbone.keys for name, backbone in BACKBONES.items()}}

# Alias of several keys: its values are theirs, in this order.
SEVERAL = {}

# Keys of old YAML files that nothing reads: (values that change nothing, None = any; what to use instead).
# ModelArts passes some of them by itself.
_JOB = "the launcher's environment sets it"
_SIGMOID = "objectness is one logit per anchor, scored by a sigmoid"
RETIRED = {
    "activate_num_classes": ((2,), _SIGMOID),
    "base_step": (None, "the schedule counts the steps of the data set"),
    "device_num": (None, _JOB),
    "enable_profiling": ((False,), "use MindSpore's profiler from outside"),
    "feature_shapes": (None, "they follow from img_height, img_width and anchor_strides"),
    "finetune": (None, "pre_trained takes every weight that fits"),
    "grad_clip": ((False,), "set clip_grad_norm"),
    "init_method": (None, _JOB),
    "log_summary": (None, "TensorBoard events are always written"),
    "lr_type": (("dynamic", "multistep"), "set lr_schedule"),
    "num_anchors": (None, "it follows from anchor_scales and anchor_ratios"),
    "num_bboxes": (None, "it follows from the image size and the anchors"),
    "num_bboxes_stage2": (None, "set rpn_proposal_max_num"),
    "num_gpus": (None, _JOB),
    "opt_type": (("sgd",), "the optimiser is SGD with momentum"),
    "prefix": (None, "checkpoints are named after the model"),
    "python_multiprocessing": (None, "set num_parallel_workers"),
    "rank_id": (None, _JOB),
    "result_path": (None, "set output_path"),
    "roi_sample_num": (None, "set num_expected_total_stage2"),
    "rpn_head_loss_type": (("CrossEntropyLoss",), _SIGMOID),
    "rpn_head_use_sigmoid": ((True,), _SIGMOID),
    "rpn_head_weight": ((1,), "set rpn_loss_cls_weight and rpn_loss_reg_weight"),
    "save_checkpoint_path": (None, "checkpoints go to OUTPUT_PATH/checkpoint"),
    "sgd_momentum": (None, "set momentum"),
    "task_index": (None, _JOB),
    "total_epoch": (None, "set epoch_size"),
    "use_sigmoid_cls": ((True,), _SIGMOID),
    "without_bg_loss": ((True,), "box losses only count objects"),
    "worker_hosts": (None, _JOB),
}

# Pairs of keys of which the first must not exceed the second.
ORDERED = (
    ("neg_iou_thr", "pos_iou_thr"), ("min_pos_iou", "pos_iou_thr"), ("num_expected_pos", "num_expected_neg"),
    ("neg_iou_thr_stage2", "pos_iou_thr_stage2"), ("num_expected_pos_stage2", "num_expected_total_stage2"),
)


def check_config(config):
    """Return the first (key, fault) of keys that contradict each other, or None."""
    checks = (check_anchors, _order, check_epochs_and_names, check_classes, check_backbone, _widths, _levels, _input_size)
    return next(itertools.chain.from_iterable(check(config) for check in checks), None)


def check_device(config, device, training=False):
    """Return (key, fault) if the device lacks what the configuration asks for, else None. training: whether training runs."""
    boxes = _nms_of_proposals(config, "rpn_proposal") if training else []
    if not training or config.run_eval:
        boxes += [*_nms_of_proposals(config, "rpn"), ("test_nms_pre", config.test_nms_pre)]
    return next(check_nms(boxes, device), None)


def _nms_of_proposals(config, stage):
    """Return [(key, boxes)] of each NMS of a stage, rpn_proposal (training) or rpn (inference)."""
    key, levels = f"{stage}_nms_pre", len(config.anchor_strides)
    boxes = [(key, config[key])]
    if config[f"{stage}_nms_across_levels"]:
        last, each = f"{stage}_max_num", f"{stage}_nms_post"
        boxes.append((last, config[last]) if config.nms_across_levels_last else (each, levels * min(config[each], config[key])))
    return boxes


def _order(config):
    for small, large in ORDERED:
        if config[small] > config[large]:
            yield small, f"{config[small]} is more than {large}, {config[large]}"


def _widths(config):
    """Check that each part takes as many channels as the part before it returns."""
    for name, other in (("rpn_in_channels", "fpn_out_channels"), ("roi_align_out_channels", "fpn_out_channels"),
                        ("rcnn_in_channels", "roi_align_out_channels")):
        if config[name] != config[other]:
            yield name, f"expected the same as {other}, {config[other]}, got {config[name]}"


def _levels(config):
    strides, pooled = config.anchor_strides, config.roi_align_featmap_strides
    if len(strides) != config.fpn_num_outs:
        yield "anchor_strides", f"expected fpn_num_outs values, {config.fpn_num_outs}, got {len(strides)}"
    if not 1 <= len(pooled) <= 4 or pooled != strides[:len(pooled)]:
        yield "roi_align_featmap_strides", f"expected the first of anchor_strides, 4 at most, got {list(pooled)}"
    layer = config.roi_layer
    if layer.type != "RoIAlign" or layer.out_size < 1 or layer.sample_num < 0:
        yield "roi_layer", f"expected type RoIAlign, out_size >= 1 and sample_num >= 0, got {layer.to_dict()}"


def _input_size(config):
    """Check that the padded input is a multiple of the last stage's stride, so that each level is twice the size of the next."""
    stride = config.anchor_strides[3]
    if config.pad_to == "fixed":
        sizes = (("img_height", config.img_height), ("img_width", config.img_width))
    elif config.pad_to == "divisor":
        sizes = ()
    else:
        match = re.fullmatch(r"(\d+)x(\d+)", config.pad_to)
        if not match:
            yield "pad_to", f"expected fixed, divisor or HEIGHTxWIDTH, got {config.pad_to!r}"
            return
        sizes = (("pad_to", int(match[1])), ("pad_to", int(match[2])))
    for name, size in sizes:
        if size < stride or size % stride:
            yield name, f"expected a multiple of {stride}, the stride of the last stage, got {size}"
