"""Configuration: accepted values, and the message that names each fault."""
import re

import pytest

from faster_rcnn.src.model_utils.config import load_config, parse_config
from faster_rcnn.src.model_utils.configuration.schema import nearest

# ---- values

@pytest.mark.parametrize(("key", "text", "expected"), [
    ("seed", "12", 12),
    ("base_lr", "1", 1.0),
    ("base_lr", "1e-3", 1e-3),
    ("warmup_ratio", "1/16.0", 0.0625),
    ("image_mean", "[0, -1, 2.5]", (0.0, -1.0, 2.5)),
    ("sgd_step", "[3, 4, 5]", (3, 4, 5)),
    ("multi_scale", "[0.5, 1]", (0.5, 1.0)),
    ("multi_scale", "[]", ()),
    ("backbone", "resnet_v1.5_50", "resnet_v1.5_50"),
    ("output_path", "a b/c=d", "a b/c=d"),
    ("pre_trained", '""', ""),
    ("draw", "False", False),
    ("draw", "true", True),
    ("draw", "0", False),
])
def test_values_of_yaml_and_of_the_command_line(write, key, text, expected):
    assert load_config(write("variant.yaml", f"{key}: {text}\n"))[key] == expected
    text = "" if text == '""' else text
    value = parse_config([f"--{key}={text}"])[key]
    assert (value, type(value)) == (expected, type(expected))


def test_home_in_paths(write, monkeypatch, tmp_path):
    """The shell expands ~ neither after --key= nor in a YAML file, so the configuration does."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.yaml").write_text("image_dir: ~/pictures\nanno_path: a~/b\n")
    config = parse_config(["--config_path=~/mine.yaml", "--output_path=~/out"])
    assert (config.image_dir, config.anno_path, config.output_path) == (str(tmp_path / "pictures"), "a~/b", str(tmp_path / "out"))
    assert load_config(write("x.yaml", "__BASE__: ~/mine.yaml\n")).image_dir == str(tmp_path / "pictures")


def test_command_line_lists_without_brackets():
    assert parse_config(["--sgd_step=8"]).sgd_step == (8,)
    config = parse_config(["--coco_classes=background, a cat,dog", "--num_classes=3"])
    assert config.coco_classes == ("background", "a cat", "dog")


@pytest.mark.parametrize(("text", "expected"), [
    ("seed: 1.5", "seed: expected a whole number, got 1.5"),
    ("seed: '1'", "seed: expected a whole number, got '1'"),
    ("seed: True", "seed: expected a whole number, got True"),
    ("seed:", "seed: expected a whole number, got None"),
    ("base_lr: fast", "base_lr: expected a number, got 'fast'"),
    ("base_lr: .nan", "base_lr: expected a number, got nan"),
    ("draw: maybe", "draw: expected True or False, got 'maybe'"),
    ("draw: 2", "draw: expected True or False, got 2"),
    ("train_data_type: 2017", "train_data_type: expected text, got 2017; write it in quotes"),
    ("sgd_step: 8", "sgd_step: expected a list, got 8"),
    ("sgd_step: [8, x]", "sgd_step[1]: expected a whole number, got 'x'"),
    ("roi_layer: 7", "roi_layer: expected a mapping with the keys type, out_size, sample_num, aligned, got 7"),
    ("roi_layer: {out_sise: 7}", "roi_layer.out_sise: unknown key, did you mean out_size?"),
    ("roi_layer: {out_size: x}", "roi_layer.out_size: expected a whole number, got 'x'"),
    ("img_widht: 64", "img_widht: unknown key, did you mean img_width?"),
    ("zzzzz: 64", "zzzzz: unknown key"),
    ("dataset: COCO", "dataset: expected one of coco, voc, coco_files, labelme, other, yolo, got 'COCO', did you mean coco?"),
    ("num_gts: 3\nmax_instance_count: 4",
     "max_instance_count: given twice (num_gts and max_instance_count are one key), with different values"),
    ("seed: 3\nseed: 4", "seed: given twice, first in line 2"),
])
def test_faults_in_yaml_name_file_line_and_key(message, write, text, expected):
    path = write("variant.yaml", f"# comment\n{text}\n")
    assert message(load_config, path) == f"{path}:{1 + len(text.splitlines())}: {expected}"


@pytest.mark.parametrize(("text", "expected"), [
    ("a: [1\nb: 2\n", "not valid YAML"),
    ("- a\n- b\n", "expected lines of `key: value`"),
    ("just words\n", "expected lines of `key: value`"),
    ("seed: !!python/object:os.system {}\n", "not valid YAML"),
])
def test_files_that_are_not_a_mapping(message, write, text, expected):
    path = write("variant.yaml", text)
    assert re.match(re.escape(str(path)) + r":\d+: " + re.escape(expected), message(load_config, path))


def test_file_that_is_not_text(message, write):
    path = write("variant.yaml", "")
    path.write_bytes(b"\xff\xfe\x00")
    assert message(load_config, path) == f"{path}: not UTF-8 text"


@pytest.mark.parametrize(("argv", "expected"), [
    (["--img_widht=64"], "--img_widht: unknown key, did you mean --img_width?"),
    (["--img-width", "64"], "--img-width: unknown key, did you mean --img_width?"),
    (["--img_w=64"], "--img_w: unknown key"),
    (["--seed=x"], "--seed: expected a whole number, got 'x'"),
    (["--draw=yes"], "--draw: expected True or False, got 'yes'"),
    (["--seed"], "argument --seed: expected one argument"),
    (["seed=3"], "unexpected argument 'seed=3': expected --key=value"),
    (["--sgd_step=[8"], "--sgd_step: not a valid YAML value: '[8'"),
    (["--device_target=cpu"], "--device_target: expected one of auto, Ascend, GPU, CPU, got 'cpu', did you mean CPU?"),
])
def test_faults_of_the_command_line(message, argv, expected):
    assert message(parse_config, argv).startswith(expected)


def test_nearest_needs_similarity():
    assert nearest("IMG-WIDTH", ["img_width", "seed"]) == ", did you mean img_width?"
    assert nearest("qqq", ["img_width", "seed"]) == ""


# ---- keys that must agree

@pytest.mark.parametrize(("overrides", "expected"), [
    ({"num_classes": 4}, "num_classes: 4, but coco_classes has 81 names including the background"),
    ({"num_classes": 2, "coco_classes": ["cat", "dog"]}, "coco_classes: the first must be 'background', got 'cat'"),
    ({"num_classes": 3, "coco_classes": ["background", "a", "a"]}, "coco_classes: given twice: a"),
    ({"fpn_in_channels": [1, 2, 3, 4]}, "fpn_in_channels: expected the same as resnet_out_channels, "),
    ({"rpn_in_channels": 8}, "rpn_in_channels: expected the same as fpn_out_channels, 256, got 8"),
    ({"resnet_in_channels": [64, 256, 512, 1]}, "resnet_in_channels: expected [64, 256, 512, 1024], the stem's channels and then "),
    ({"resnet_block": [1, 2]}, "resnet_block: expected 4 values, got 2"),
    ({"image_std": [1, 1, 0]}, "image_std: expected at least 1e-06, got 0.0"),
    ({"flip_ratio": 1.5}, "flip_ratio: expected 0 to 1, got 1.5"),
    ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
    ({"rpn_cls_out_channels": 2}, "rpn_cls_out_channels: expected 1, got 2"),
    ({"neg_iou_thr": 0.8}, "neg_iou_thr: 0.8 is more than pos_iou_thr, 0.7"),
    ({"sgd_step": [11, 8]}, "sgd_step: expected rising epochs, got [11, 8]"),
    ({"anchor_strides": [4, 8, 16, 32]}, "anchor_strides: expected fpn_num_outs values, 5, got 4"),
    ({"roi_align_featmap_strides": [8, 16]}, "roi_align_featmap_strides: expected the first of anchor_strides"),
    ({"anchor_ratios": []}, "anchor_ratios: expected at least one value"),
    ({"img_width": 1000}, "img_width: expected a multiple of 32, the stride of the last stage, got 1000"),
    ({"pad_to": "192x290"}, "pad_to: expected a multiple of 32, the stride of the last stage, got 290"),
    ({"pad_to": "big"}, "pad_to: expected fixed, divisor or HEIGHTxWIDTH, got 'big'"),
    ({"roi_layer": {"out_size": 0}}, "roi_layer: expected type RoIAlign, out_size >= 1"),
    ({"zero_init_residual": True}, "zero_init_residual: needs train_norm"),
    ({"instance_set": "a.json"}, "instance_set: expected one {} in place of the data type's name"),
])
def test_contradictions(message, overrides, expected):
    assert message(load_config, overrides=overrides).startswith(expected)


def test_contradiction_names_where_the_value_was_given(message, write):
    path = write("variant.yaml", "seed: 2\nflip_ratio: 2\n")
    assert message(load_config, path) == f"{path}:2: flip_ratio: expected 0 to 1, got 2.0"
    assert message(parse_config, ["--flip_ratio=2"]) == "--flip_ratio: expected 0 to 1, got 2.0"


def test_image_bounds_need_no_multiple_of_32_if_the_input_is_padded():
    sizes = {"img_height": 800, "img_width": 1333}
    assert load_config(overrides={**sizes, "pad_to": "divisor"}).img_width == 1333
    assert load_config(overrides={**sizes, "pad_to": "192x288"}).img_width == 1333


def test_labels_without_names():
    assert load_config(overrides={"coco_classes": [], "num_classes": 91}).num_classes == 91


# ---- names of the old zoo

def test_aliases(write):
    assert load_config(write("old.yaml", "max_instance_count: 7\n")).num_gts == 7
    assert parse_config(["--interval=3"]).eval_interval == 3


def test_retired_keys_are_reported_and_change_nothing(write, caplog):
    path = write("old.yaml", "num_anchors: 3\nuse_sigmoid_cls: True\n")
    assert parse_config([f"--config_path={path}", "--sgd_momentum=0.9"]) == load_config()
    assert caplog.messages == [
        f"{path}:1: num_anchors: no longer read: it follows from anchor_scales and anchor_ratios",
        f"{path}:2: use_sigmoid_cls: no longer read: objectness is one logit per anchor, scored by a sigmoid",
        "--sgd_momentum: no longer read: set momentum",
    ]


def test_retired_keys_that_ask_for_more_stop_the_run(message, write):
    path = write("old.yaml", "rpn_head_weight: 2.0\n")
    assert message(load_config, path).startswith(f"{path}:1: rpn_head_weight: 2.0 is not supported: set rpn_loss_cls_w")
    assert message(parse_config, ["--grad_clip=True"]) == "--grad_clip: True is not supported: set clip_grad_norm"


def test_yaml_of_the_old_zoo_loads(write, caplog):
    """Values of the old FaceMask file, with its second and third YAML document."""
    path = write("old.yaml", """
enable_modelarts: False
device_target: "CPU"
feature_shapes:
- [192, 320]
- [96, 160]
anchor_scales: [8]
rcnn_loss_cls_weight: 1
rpn_min_bbox_min_size: 0
warmup_ratio: 1/16.0
weight_decay: 1e-5
loss_scale: 256
run_distribute: False
coco_classes: ['background', 'with_mask', 'without_mask', 'mask_worn_incorrectly']
num_classes: 4
---
num_classes: "number of classes"
---
device_target: ['Ascend', 'GPU', 'CPU']
""")
    config = load_config(path)
    assert (config.warmup_ratio, config.weight_decay, config.loss_scale) == (0.0625, 1e-5, 256.0)
    assert (config.num_classes, config.device_target, config.distribute) == (4, "CPU", False)
    assert sum("only the first YAML document" in text for text in caplog.messages) == 1
    assert sum("feature_shapes" in text for text in caplog.messages) == 1
