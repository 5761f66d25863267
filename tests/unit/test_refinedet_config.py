"""Configuration of RefineDet: the old zoo's flags and keys, names that set two keys, and rules between keys."""
import json

import pytest

from refinedet.src.key_rules import ALIASES, RETIRED, SEVERAL
from refinedet.src.model_utils.config import DEFAULT_CONFIG, InputError, load_config, parse_config
from refinedet.src.model_utils.configuration.schema import read_keys

KEYS = read_keys(DEFAULT_CONFIG)
# Name in the old zoo's README and VGG-16 configuration -> (value there, our key); None: nothing reads it.
OLD = {
    "device_num": (1, None), "lr": (0.05, "base_lr"), "dataset": ("coco", "dataset"), "epoch_size": (500, "epoch_size"),
    "batch_size": (32, "batch_size"), "pre_trained_epoch_size": (0, "pre_trained_epoch_size"),
    "save_checkpoint_epochs": (10, "save_checkpoint_epochs"),
    "loss_scale": (1024, "loss_scale"), "class_num": (81, "num_classes"), "mindrecord_dir": ("/data/MindRecord", "mindrecord_dir"),
    "coco_root": ("/data/coco2017", "coco_root"), "voc_root": ("", "voc_root"), "image_dir": ("", "image_dir"),
    "anno_path": ("", "anno_path"), "run_online": (False, "enable_modelarts"), "data_url": ("obs://x", "data_url"),
    "train_url": ("obs://y", "train_url"),
    "distribute": (False, "distribute"), "using_mode": ("refinedet_vgg16_320", None), "objectness_thre": (0.01, "objectness_thre"),
    "match_threshold": (0.5, "pos_iou_thr"), "nms_threshold": (0.6, "test_iou_thr"), "min_score": (0.1, "test_score_thr"),
    "max_boxes": (100, "test_max_per_img"), "top_k": (400, "test_nms_pre"), "momentum": (0.9, "momentum"),
    "weight_decay": (1.5e-4, "weight_decay"), "prior_scaling": ([0.1, 0.2], "prior_scaling"), "gamma": (2.0, None),
    "alpha": (0.75, None), "num_default": ([3, 3, 3, 3], None), "feature_size": ([40, 20, 10, 5], None),
    "min_scale": (0.2, None), "max_scale": (0.95, None), "steps": ([8, 16, 32, 64], "anchor_strides"),
    "train_data_type": ("train2017", "train_data_type"), "instances_set": ("annotations/instances_{}.json", "instance_set"),
}


def value_of(config, name):
    value = config[name]
    return list(value) if isinstance(value, tuple) else value


def test_old_keys_are_accepted(tmp_path):
    (tmp_path / "old.yaml").write_text("".join(f"{name}: {json.dumps(value)}\n" for name, (value, _) in OLD.items()))
    config = load_config(tmp_path / "old.yaml")
    for name, (value, key) in OLD.items():
        if key:
            assert value_of(config, key) == value, name
        else:
            assert name in RETIRED


def test_old_flags_are_accepted(caplog):
    config = parse_config(["--lr=0.02", "--image_shape=[512, 320]", "--run_online=True", "--pre_trained_epoch_size=0",
                           "--data_url=obs://x", "--num_gpus=8", "--keep_top_k=500", "--ann_file=a.json"])
    assert (config.base_lr, config.img_height, config.img_width, config.test_max_per_img, config.anno_path) == (
        0.02, 512, 320, 500, "a.json")
    assert (config.enable_modelarts, config.data_url) == (True, "obs://x")
    assert "--num_gpus: no longer read: the launcher's environment sets it" in caplog.text


@pytest.mark.parametrize("name", SEVERAL)
def test_a_name_that_sets_two_keys(name, tmp_path):
    (tmp_path / "base.yaml").write_text(f"{name}: [512, 448]\n")
    (tmp_path / "top.yaml").write_text("__BASE__: base.yaml\nimg_width: 384\n")
    for path, size in (("base", (512, 448)), ("top", (512, 384))):
        config = load_config(tmp_path / f"{path}.yaml")
        assert (config.img_height, config.img_width) == size
    assert parse_config([f"--config_path={tmp_path / 'top.yaml'}", f"--{name}=64,128"]).img_width == 128


@pytest.mark.parametrize(("overrides", "message"), [
    ({"image_shape": [320]}, "image_shape: expected 2 values, img_height, img_width, got 1"),
    ({"image_shape": 320}, "image_shape: expected a list, got 320"),
    ({"image_shape": [320, 1.5]}, "image_shape[1]: expected a whole number, got 1.5"),
    ({"image_shape": [320, 320], "img_width": 384},
     "img_width: given twice (image_shape and img_width are one key), with different values"),
    ({"lr": 1, "base_lr": 2}, "base_lr: given twice (lr and base_lr are one key), with different values"),
    ({"freeze_layer": "backbone"}, "freeze_layer: 'backbone' is not supported: set frozen_stages"),
    ({"img_width": 330}, "img_width: expected a multiple of 64, the stride of the last source map, got 330"),
    ({"pad_to": "divisor"}, "pad_to: expected one of fixed, got 'divisor'"),
    ({"backbone": "resnet50"}, "backbone: expected one of vgg16, resnet101, got 'resnet50', did you mean resnet101?"),
    ({"using_mode": "refinedet_resnet101_320"}, "using_mode: 'refinedet_resnet101_320' is not supported: use "
     "--config_path=default_config_512.yaml, default_config_resnet101.yaml or default_config_resnet101_512.yaml"),
    ({"stem_pool": "floor"}, "stem_pool: expected one of ceil, padded, got 'floor'"),
    ({"resnet_block": [3, 4, 23]}, "resnet_block: expected 4 values, got 3"),
    ({"resnet_out_channels": [256, 512, 1024, 2046]}, "resnet_out_channels: expected multiples of 4, got [256, 512, 1024, 2046]"),
    ({"resnet_head_channels": 10}, "resnet_head_channels: expected multiples of 4, got 10"),
    ({"resnet_out_channels": [128, 512, 1024, 2048]}, "resnet_in_channels: expected [64, 128, 512, 1024], the stem's channels and "
     "then resnet_out_channels of the stage before, got [64, 256, 512, 1024]"),
    ({"anchor_strides": [4, 8, 16, 32]}, "anchor_strides: expected the strides of the four source maps, [8, 16, 32, 64], "
                                         "got [4, 8, 16, 32]"),
    ({"vgg_channels": [64, 128]}, "vgg_channels: expected 5 values, got 2"),
    ({"extra_channels": [64, 0]}, "extra_channels: expected at least 1, got 0"),
    ({"l2norm_scales": [10.0]}, "l2norm_scales: expected 2 values, got 1"),
    ({"prior_scaling": [0.1, 0]}, "prior_scaling: expected at least 1e-06, got 0.0"),
    ({"objectness_thre": 1.5}, "objectness_thre: expected 0 to 1, got 1.5"),
    ({"neg_pos_ratio": -1}, "neg_pos_ratio: expected at least 0, got -1"),
    ({"anchor_ratios": []}, "anchor_ratios: expected at least one value"),
    ({"sgd_step": [9, 3]}, "sgd_step: expected rising epochs, got [9, 3]"),
    ({"num_classes": 4}, "num_classes: 4, but coco_classes has 81 names including the background"),
    ({"instance_set": "a.json"}, "instance_set: expected one {} in place of the data type's name, got 'a.json'"),
])
def test_faults(overrides, message):
    with pytest.raises(InputError) as caught:
        load_config(overrides=overrides)
    assert str(caught.value) == message


def test_every_key_has_help_and_a_section():
    assert all(key.help and key.section != "Keys" for key in KEYS.values())


def test_old_names_are_not_keys():
    assert not (set(ALIASES) | set(RETIRED) | set(SEVERAL)) & set(KEYS)
    assert {*ALIASES.values(), *(name for names in SEVERAL.values() for name in names)} <= set(KEYS)


def test_keys_of_one_trunk_say_so():
    """Their help names the trunk, because they do nothing with the other one."""
    beginnings = {"vgg16": ("vgg_", "fc_", "extra_", "l2norm_", "batch_norm"), "resnet101": ("resnet_", "stride_in", "stem_")}
    for name, key in KEYS.items():
        for trunk, mark in beginnings.items():
            assert key.help.startswith(f"For {trunk}: ") == name.startswith(mark), name


@pytest.mark.parametrize("name", sorted(path.name for path in DEFAULT_CONFIG.parent.glob("*.yaml")))
def test_shipped_configurations_resolve(name):
    config = load_config(DEFAULT_CONFIG.parent / name)
    assert config.backbone == ("resnet101" if "resnet101" in name else "vgg16")
    assert (config.img_width == 512) == name.endswith("512.yaml")
