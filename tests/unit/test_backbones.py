"""`backbone`: the keys that each name sets, what overrides what, errors, and the network."""
import importlib
from pathlib import Path

import pytest

from faster_rcnn.src.FasterRcnn.backbones import BACKBONES, build_backbone
from faster_rcnn.src.model_utils.config import load_config, parse_config, save_config
from faster_rcnn.src.model_utils.weights import resnet_names
from tests.narrow_network import narrow_backbone, narrow_config

ROOT = Path(__file__).resolve().parents[2]
RESNET_FPN, INCEPTION_FPN = (256, 512, 1024, 2048), (192, 320, 1088, 1536)
IMAGENET = (123.675, 116.28, 103.53)
# blocks, whether the stride is in the 1x1, norm_eps, channels of C2..C5, image_mean.
KEYS = {
    "resnet_v1.5_50": ((3, 4, 6, 3), False, 1e-5, RESNET_FPN, IMAGENET),
    "resnet_v1_50": ((3, 4, 6, 3), True, 1e-5, RESNET_FPN, IMAGENET),
    "resnet_v1_101": ((3, 4, 23, 3), False, 1e-5, RESNET_FPN, IMAGENET),
    "resnet_v1_152": ((3, 8, 36, 3), False, 1e-5, RESNET_FPN, IMAGENET),
    "inception_resnet_v2": ((10, 20, 9), False, 1e-3, INCEPTION_FPN, (127.5, 127.5, 127.5)),
}
FILES = {"default_config_101.yaml": "resnet_v1_101", "default_config_152.yaml": "resnet_v1_152",
         "default_config_InceptionResnetV2.yaml": "inception_resnet_v2"}


def facts(config):
    blocks = config.inception_block if config.backbone == "inception_resnet_v2" else config.resnet_block
    return blocks, config.stride_in_1x1, config.norm_eps, config.fpn_in_channels, config.image_mean


def test_the_choices_are_those_of_the_table():
    assert set(BACKBONES) == set(KEYS)
    blocks = {name: backbone.keys.get("resnet_block") for name, backbone in BACKBONES.items()}
    assert {name: tuple(value) for name, value in blocks.items() if value} == resnet_names.BLOCKS


@pytest.mark.parametrize("model", ["faster_rcnn", "mask_rcnn"])
@pytest.mark.parametrize("name", KEYS)
def test_a_name_is_enough(name, model, tmp_path):
    config_module = importlib.import_module(f"{model}.src.model_utils.config")
    config = config_module.parse_config([f"--backbone={name}"])
    assert facts(config) == KEYS[name]
    config_module.save_config(config, tmp_path / "config.yaml")
    assert config_module.load_config(tmp_path / "config.yaml") == config
    assert config_module.parse_config([f"--config_path={tmp_path / 'config.yaml'}", "--backbone=resnet_v1.5_50"]) == (
        config_module.load_config())                                        # no key of the other one is left


@pytest.mark.parametrize(("model", "file"), [*(("faster_rcnn", file) for file in FILES), ("mask_rcnn", "default_config_101.yaml")])
def test_shipped_files(model, file):
    config_module = importlib.import_module(f"{model}.src.model_utils.config")
    config = config_module.load_config(ROOT / model / file)
    assert config.backbone == FILES[file] and facts(config) == KEYS[FILES[file]]
    named = config_module.load_config(overrides={"backbone": FILES[file]})
    differing = {key for key in config if config[key] != named[key]}
    assert differing == ({"img_width", "img_height"} if config.backbone == "inception_resnet_v2" else set())


def test_keys_of_the_same_source_override_the_name(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("resnet_block: [1, 1, 1, 1]\nbackbone: resnet_v1_152\nimage_mean: [1, 2, 3]\n")
    config = load_config(file)
    assert (config.resnet_block, config.image_mean) == ((1, 1, 1, 1), (1.0, 2.0, 3.0))
    config = parse_config(["--backbone=inception_resnet_v2", "--norm_eps=0.1", "--inception_block=1,2,3"])
    assert (config.norm_eps, config.inception_block, config.fpn_in_channels) == (0.1, (1, 2, 3), INCEPTION_FPN)


def test_a_later_name_overrides_earlier_keys_only_if_it_differs(tmp_path):
    """A launch script may repeat the name of its file."""
    save_config(narrow_config(**narrow_backbone("resnet_v1_101")), tmp_path / "narrow.yaml")
    narrow = load_config(tmp_path / "narrow.yaml")
    same = parse_config([f"--config_path={tmp_path / 'narrow.yaml'}", "--backbone=resnet_v1_101"])
    assert same == narrow and same.resnet_block == (1, 1, 2, 1)
    other = parse_config([f"--config_path={tmp_path / 'narrow.yaml'}", "--backbone=resnet_v1_152"])
    assert facts(other) == KEYS["resnet_v1_152"] and other.num_classes == 4 and other.frozen_stages == 0


@pytest.mark.parametrize("order", ["one source", "convention first", "backbone first"])
@pytest.mark.parametrize(("backbone", "in_1x1", "eps", "mean"), [
    ("resnet_v1.5_50", True, 1e-5, 103.53), ("resnet_v1_101", True, 1e-5, 103.53), ("resnet_v1_50", True, 1e-5, 103.53),
    ("inception_resnet_v2", False, 1e-3, 127.5)])
def test_with_a_convention(order, backbone, in_1x1, eps, mean, tmp_path):
    """detectron2's ResNets have the stride in the 1x1, in any order of keys. Inception-ResNet-v2 keeps its mean and eps."""
    file, flags = tmp_path / "own.yaml", [f"--backbone={backbone}", "--convention=detectron2"]
    first = {"one source": 0, "convention first": 2, "backbone first": 1}[order]
    file.write_text("".join(flag.removeprefix("--").replace("=", ": ") + "\n" for flag in flags[first - 1:first or None] if first))
    config = parse_config([f"--config_path={file}", *(flag for number, flag in enumerate(flags, 1) if number != first)])
    assert (config.stride_in_1x1, config.norm_eps, config.image_mean[0]) == (in_1x1, eps, mean)
    assert config.roi_level_rule == "detectron2" and config.backbone == backbone


@pytest.mark.parametrize(("flags", "expected"), [
    (["--backbone=resnet_v1_51"], "--backbone: expected one of resnet_v1.5_50, resnet_v1_50, resnet_v1_101, resnet_v1_152, "
     "inception_resnet_v2, got 'resnet_v1_51', did you mean resnet_v1_"),
    (["--backbone=resnet_v1_50", "--stride_in_1x1=False"],
     "--stride_in_1x1: resnet_v1_50 has its stride in the 1x1; for a stride in the 3x3 set backbone: resnet_v1.5_50"),
    (["--backbone=inception_resnet_v2", "--stride_in_1x1=True"], "--stride_in_1x1: inception_resnet_v2 has no bottlenecks"),
    (["--backbone=inception_resnet_v2", "--resnet_block=[3, 4, 23, 3]"],
     "--resnet_block: inception_resnet_v2 does not read it: it has inception_block, inception_width"),
    (["--backbone=resnet_v1_101", "--inception_width=0.5"],
     "--inception_width: resnet_v1_101 does not read it: it has resnet_block, resnet_in_channels, resnet_out_channels"),
    (["--backbone=inception_resnet_v2", "--inception_width=0.5"],
     "--backbone: fpn_in_channels: expected those of inception_resnet_v2 at inception_width 0.5, [96, 160, 544, 768], got [192, "),
    (["--backbone=inception_resnet_v2", "--fpn_in_channels=[64, 192, 1088, 2080]"],
     "--fpn_in_channels: expected those of inception_resnet_v2 at inception_width 1, [192, 320, 1088, 1536], got [64, 192, "),
    (["--inception_block=[1, 2]"], "--inception_block: expected 3 values, got 2"),
    (["--inception_block=[1, 0, 2]"], "--inception_block: expected at least 1, got 0"),
    (["--backbone=inception_resnet_v2", "--inception_width=0"], "--inception_width: expected 0.01 to 4, got 0.0"),
    (["--backbone=resnet_v1_101", "--zero_init_residual=True"], "--zero_init_residual: needs train_norm"),
])
def test_conflicting_keys_are_refused(message, flags, expected):
    assert message(parse_config, flags).startswith(expected)


def test_zero_init_of_an_inception_needs_no_norms():
    assert parse_config(["--backbone=inception_resnet_v2", "--zero_init_residual=True"]).zero_init_residual


@pytest.mark.parametrize("name", KEYS)
def test_network_follows_the_config(name):
    config = narrow_config(**{**narrow_backbone(name), "frozen_stages": 3, "train_norm": True, "norm_eps": 0.25})
    net = build_backbone(config)
    inception = name == "inception_resnet_v2"
    assert type(net).__name__ == {"resnet_v1_50": "ResNet50V1", "inception_resnet_v2": "InceptionResNetV2"}.get(name, "ResNet")
    blocks = [net.repeat, net.repeat_1, net.repeat_2] if inception else [net.layer1, net.layer2, net.layer3, net.layer4]
    assert [len(stage) for stage in blocks] == list(config.inception_block if inception else config.resnet_block)
    assert (net.conv2d_7b if inception else net.layer4[0].conv3).eps == 0.25
    if not inception:
        first, second = net.layer2[0].conv1.conv.direct, net.layer2[0].conv2.conv.direct
        assert (first.stride[-1] == 2, second.stride[-1] == 2) == (config.stride_in_1x1, not config.stride_in_1x1)
    trained = {param.name.split(".")[0] for param in net.trainable_params()}
    assert trained == ({"mixed_6a", "repeat_1", "mixed_7a", "repeat_2", "block8", "conv2d_7b"} if inception
                       else {"layer3", "layer4"})
    assert any(param.name.endswith("gamma") for param in net.trainable_params())
