"""Names of the old zoo's keys, and constraints between keys. Ranges of single keys are in default_config.yaml."""
import itertools

from .backbones import BACKBONES
from .model_utils.configuration.rules import check_anchors, check_classes, check_epochs_and_names, check_nms

# Alias -> key.
ALIASES = {
    "ann_file": "anno_path",
    "checkpoint": "checkpoint_path",
    "class_num": "num_classes",
    "classes": "coco_classes",
    "dataset_path": "data_path",
    "instances_set": "instance_set",
    "interval": "eval_interval",
    "keep_top_k": "test_max_per_img",
    "lr": "base_lr",
    "match_threshold": "pos_iou_thr",
    "max_boxes": "test_max_per_img",
    "min_score": "test_score_thr",
    "nms_threshold": "test_iou_thr",
    "run_distribute": "distribute",
    "run_online": "enable_modelarts",
    "run_platform": "device_target",
    "steps": "anchor_strides",
    "top_k": "test_nms_pre",
    "workers": "num_parallel_workers",
}

# Key whose value sets other keys: value -> {key: value}.
PRESETS = {"backbone": {name: backbone.keys for name, backbone in BACKBONES.items()}}

# Alias of several keys: its values are theirs, in this order.
SEVERAL = {
    "image_shape": ("img_height", "img_width"),
    "img_shape": ("img_height", "img_width"),
}

# Keys of old YAML files that nothing reads: (values that change nothing, None = any; what to use instead).
_ANCHORS = "set anchor_scales, anchor_ratios and anchor_strides"
_CONFIGS = "--config_path=default_config_512.yaml, default_config_resnet101.yaml or default_config_resnet101_512.yaml"
_FOCAL = "the class losses are softmax cross entropy with hard negatives (neg_pos_ratio)"
# ModelArts passes some of these by itself.
_JOB = "the launcher's environment sets it"
_LEVELS = "they follow from the channels of the trunk and from tcb_channels"
_RATE = "set base_lr, warmup_step, warmup_ratio and lr_schedule"
_WEIGHTS = "pre_trained takes every weight that fits"
RETIRED = {
    "alpha": (None, _FOCAL),
    "arm_source": (None, _LEVELS),
    "aspect_ratios": (None, _ANCHORS),
    "device_num": (None, _JOB),
    "extra_arm_channels": (None, _LEVELS),
    "extra_odm_channels": (None, _LEVELS),
    "feature_extractor_base_param": (None, "set pre_trained"),
    "feature_size": (None, "it follows from img_height, img_width and anchor_strides"),
    "filter_weight": ((False,), _WEIGHTS),
    "freeze_layer": (("none", "", None), "set frozen_stages"),
    "gamma": (None, _FOCAL),
    "init_method": (None, _JOB),
    "L2normalizations": (None, "set l2norm_scales"),
    "lr_end_rate": (None, _RATE),
    "lr_init": (None, _RATE),
    "max_scale": (None, _ANCHORS),
    "min_scale": (None, _ANCHORS),
    "mode": (None, "steps run as one graph"),
    "num_default": (None, "it follows from anchor_scales and anchor_ratios"),
    "num_gpus": (None, _JOB),
    "num_ssd_boxes": (None, "it follows from the image size and the anchors"),
    "only_create_dataset": ((False,), "utils/mindrecord/convert.py does that"),
    "rank_id": (None, _JOB),
    "result_path": (None, "set output_path"),
    "save_checkpoint_path": (None, "checkpoints go to OUTPUT_PATH/checkpoint"),
    "task_index": (None, _JOB),
    "using_mode": (("refinedet_vgg16_320",), "use " + _CONFIGS),
    "voc_json": (None, "annotations are read from voc_root or anno_path"),
    "warmup_epochs": (None, _RATE),
    "worker_hosts": (None, _JOB),
}

# Strides of the source maps: conv4_3, conv5_3, fc7 and conv6_2 (VGG-16); res3b3, res4b22, res5c and res6 (ResNet-101).
STRIDES = (8, 16, 32, 64)


def check_config(config):
    """Return the first (key, fault) of keys that contradict each other, or None."""
    checks = (check_anchors, check_classes, _levels, _stages, check_epochs_and_names)
    return next(itertools.chain.from_iterable(check(config) for check in checks), None)


def check_device(config, device, training=False):
    """Return (key, fault) if the device lacks what the configuration asks for, else None. training: whether training runs."""
    if training and not config.run_eval:
        return None
    boxes = min(config.test_nms_total, (config.num_classes - 1) * config.test_nms_pre)
    return next(check_nms([("test_nms_total", boxes)], device), None)


def _levels(config):
    """Check that each source map has half the side of the map before it, which the transposed convolutions double."""
    if config.anchor_strides != STRIDES:
        yield "anchor_strides", f"expected the strides of the four source maps, {list(STRIDES)}, got {list(config.anchor_strides)}"
    for name in ("img_height", "img_width"):
        if config[name] % STRIDES[-1]:
            yield name, f"expected a multiple of {STRIDES[-1]}, the stride of the last source map, got {config[name]}"


def _stages(config):
    """Check that each stage of the ResNet takes as many channels as the one before it returns, and a multiple of 4."""
    if config.resnet_in_channels[1:] != config.resnet_out_channels[:-1]:
        expected = [config.resnet_in_channels[0], *config.resnet_out_channels[:-1]]
        yield "resnet_in_channels", (f"expected {expected}, the stem's channels and then resnet_out_channels of the stage before, "
                                     f"got {list(config.resnet_in_channels)}")
    for name in ("resnet_out_channels", "resnet_extra_channels", "resnet_head_channels"):
        value = config[name]
        if any(item % 4 for item in (value if isinstance(value, tuple) else (value,))):
            yield name, f"expected multiples of 4, got {list(value) if isinstance(value, tuple) else value}"
