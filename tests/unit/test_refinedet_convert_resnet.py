"""Conversion of ResNets to RefineDet's trunk: the written file, and the keys to set."""
import pickle

import mindspore as ms
import numpy as np
import pytest
import yaml

from refinedet.src import convert_checkpoint
from refinedet.src.conversion.resnet import TORCHVISION, depth_of
from refinedet.src.init_params import find_folded
from refinedet.src.model_utils.config import DEFAULT_CONFIG, InputError, load_config
from refinedet.src.model_utils.weights.loading import load_pretrained
from refinedet.src.model_utils.weights.resnet_names import BLOCKS, cell_shapes
from refinedet.src.refinedet import build_network

NORMS = {"bn1.weight": "gamma", "bn1.bias": "beta", "bn1.running_mean": "moving_mean", "bn1.running_var": "moving_variance"}


def torchvision() -> dict:
    """The stem and the first convolution of torchvision's ResNet-101, and its classifier."""
    rng, arrays = np.random.default_rng(0), {"fc.weight": np.zeros((10, 2048), np.float32), "fc.bias": np.zeros(10, np.float32)}
    for place, shape in (("", (64, 3, 7, 7)), ("layer1.0.", (64, 64, 1, 1))):
        arrays[f"{place}conv1.weight"] = rng.normal(size=shape).astype(np.float32)
        for name in NORMS:
            arrays[place + name] = rng.uniform(0.5, 1.5, 64).astype(np.float32)
        arrays[f"{place}bn1.num_batches_tracked"] = np.int64(1)
    return arrays


def caffe2() -> dict:
    """The same part of R-101.pkl, whose norms are scale and shift."""
    arrays = torchvision()
    names = {"conv1.weight": "conv1_w", "bn1.weight": "res_conv1_bn_s", "bn1.bias": "res_conv1_bn_b",
             "layer1.0.conv1.weight": "res2_0_branch2a_w", "layer1.0.bn1.weight": "res2_0_branch2a_bn_s",
             "layer1.0.bn1.bias": "res2_0_branch2a_bn_b"}
    return {"fc1000_w": np.zeros((2, 2), np.float32), **{theirs: arrays[name] for name, theirs in names.items()}}


def convert(folder, arrays, *flags):
    (folder / "r.pkl").write_bytes(pickle.dumps({"blobs": arrays}, 2))
    convert_checkpoint.main([f"--ckpt_file={folder / 'r.pkl'}", f"--output_file={folder / 'o.ckpt'}", *flags])
    return folder / "o.ckpt"


@pytest.fixture(scope="module")
def net():
    """RefineDet with ResNet-101 at full width, with one block per stage."""
    return build_network(load_config(DEFAULT_CONFIG.parent / "default_config_resnet101.yaml", {
        "resnet_block": [1, 1, 1, 1], "tcb_channels": 8, "resnet_head_channels": 8}))


def test_torchvision_weights(tmp_path, capsys, net):
    arrays = torchvision()
    path = convert(tmp_path, arrays, "--source=resnet")
    text = capsys.readouterr().out
    assert "used: 10 parameters (2 convolutions with norms)" in text
    assert "left out: 2 of the classifier: fc.weight, fc.bias" in text and "left out: 2 that count batches: " in text
    assert "missing: layer1.0.conv2 ... layer4.2.conv3 (102 convolutions)" in text and "missing: res6, transfer conn" in text
    assert (f"keys to set: backbone: resnet101; {TORCHVISION}\nwrote {path}\n") in text
    missing = load_pretrained(net, path)
    assert not find_folded(net.backbone, missing) and len(missing) == len(list(net.get_parameters())) - 10
    for cell, place in ((net.backbone.conv1, ""), (net.backbone.layer1[0].conv1, "layer1.0.")):
        for theirs, ours in {"conv1.weight": "weight", **NORMS}.items():
            np.testing.assert_array_equal(getattr(cell, ours).asnumpy(), arrays[place + theirs])


def test_reported_keys_are_valid():
    config = load_config(overrides={"backbone": "resnet101", **yaml.safe_load(f"{{{TORCHVISION}}}")})
    assert config.stem_pool == "padded" and not config.stride_in_1x1 and config.to_rgb
    np.testing.assert_allclose(config.image_mean, 255 * np.array([0.485, 0.456, 0.406]))
    np.testing.assert_allclose(config.image_std, 255 * np.array([0.229, 0.224, 0.225]), rtol=1e-6)


def test_caffe2_weights_are_recognised_as_folded(tmp_path, capsys, net):
    arrays = caffe2()
    path = convert(tmp_path, arrays)
    text = capsys.readouterr().out
    assert "pickle, part of a ResNet (blocks 1, 0, 0, 0), 7 tensors" in text and "left out: 1 of the classifier: fc1000_w" in text
    assert "keys to set: backbone: resnet101; those of default_config_resnet101.yaml, as MSRA's weights need\n" in text
    loaded = ms.load_checkpoint(str(path))
    np.testing.assert_array_equal(loaded["backbone.conv1.gamma"].asnumpy(), arrays["res_conv1_bn_s"])
    assert find_folded(net.backbone, load_pretrained(net, path)) == [net.backbone.conv1, net.backbone.layer1[0].conv1]


@pytest.mark.parametrize("name", BLOCKS)
def test_depth_follows_from_the_blocks(name):
    cells = dict.fromkeys(f"{cell}.weight" for cell in cell_shapes(BLOCKS[name]))
    assert BLOCKS[depth_of(cells)] == BLOCKS[name]
    assert depth_of(["conv1.weight", "layer1.0.conv1.weight"]) == "resnet_v1_101"


@pytest.mark.parametrize(("arrays", "flags", "said"), [
    ({"layer3.40.conv3.weight": np.zeros((4, 4, 1, 1), np.float32)}, (),
     r"holds a ResNet \(blocks 0, 0, 41, 0\), but resnet_v1_101 is a ResNet-101 \(blocks 3, 4, 23, 3\)$"),
    ({"conv1.weight": np.zeros((8, 3, 7, 7), np.float32)}, (), r"conv1.weight is \(8, 3, 7, 7\), expected \(64, 3, 7, 7\)$"),
    ({"conv1.weight": np.zeros((64, 3, 7, 7), np.float32)}, (), "holds no convolution of a ResNet with its complete norm$"),
    (torchvision(), ("--reverse_channels",), "^--reverse_channels: only for VGG-16; for a ResNet set to_rgb and image_mean$"),
    (torchvision(), ("--source=torchvision",), "^--source: torchvision, but the names in .* are those of resnet$"),
], ids=str)
def test_faults(tmp_path, arrays, flags, said):
    with pytest.raises(InputError, match=said):
        convert(tmp_path, arrays, *flags)
    assert not (tmp_path / "o.ckpt").exists()
