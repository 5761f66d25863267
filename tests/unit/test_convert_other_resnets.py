"""ImageNet ResNets with the names of Caffe2 and detectron2, and with more than 50 layers."""
import pickle

import numpy as np
import pytest

from faster_rcnn.src import convert_checkpoint
from faster_rcnn.src.model_utils.weights.reader import read_checkpoint
from faster_rcnn.src.model_utils.weights.resnet_names import (
    BLOCKS,
    PARAMETERS,
    backbone_of,
    cell_shapes,
    translate,
    with_statistics,
)

CAFFE2 = {"conv1": "2a", "conv2": "2b", "conv3": "2c", "downsample": "1"}
LEAVES = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def caffe2_name(cell: str, parameter: str) -> str:
    leaf = {"weight": "w", "gamma": "bn_s", "beta": "bn_b"}[parameter]
    if cell == "conv1":
        return f"conv1_{leaf}" if leaf == "w" else f"res_conv1_{leaf}"
    stage, block, conv = cell.removeprefix("layer").split(".")
    return f"res{int(stage) + 1}_{block}_branch{CAFFE2[conv]}_{leaf}"


def detectron2_name(cell: str, parameter: str) -> str:
    place = "stem.conv1"
    if cell != "conv1":
        stage, block, conv = cell.removeprefix("layer").split(".")
        place = f"res{int(stage) + 1}.{block}.{conv.replace('downsample', 'shortcut')}"
    return f"{place}.weight" if parameter == "weight" else f"{place}.norm.{LEAVES[parameter]}"


def weights(backbone: str, name, parameters=PARAMETERS) -> dict:
    """Return arrays that are each filled with a different value. They are broadcast, so they take no memory."""
    arrays = {}
    for cell, shape in cell_shapes(BLOCKS[backbone]).items():
        for parameter in parameters:
            value = np.float32(len(arrays))
            arrays[name(cell, parameter)] = np.broadcast_to(value, shape if parameter == "weight" else shape[:1])
    return arrays


@pytest.mark.parametrize(("theirs", "ours"), [
    ("conv1_w", ("conv1", "weight")), ("res_conv1_bn_s", ("conv1", "gamma")), ("res_conv1_bn_b", ("conv1", "beta")),
    ("res2_0_branch1_w", ("layer1.0.downsample", "weight")), ("res4_22_branch2b_bn_b", ("layer3.22.conv2", "beta")),
    ("res5_2_branch2c_bn_rm", ("layer4.2.conv3", "moving_mean")), ("res3_1_branch2a_bn_riv", ("layer2.1.conv1", "moving_variance")),
    ("stem.conv1.weight", ("conv1", "weight")), ("stem.conv1.norm.running_var", ("conv1", "moving_variance")),
    ("res2.0.shortcut.norm.bias", ("layer1.0.downsample", "beta")), ("res5.2.conv3.weight", ("layer4.2.conv3", "weight")),
    *((name, None) for name in ("conv1_b", "res6_0_branch1_w", "res2_0_branch3_w", "fc1000_w", "stem.fc.weight", "stem.conv1.bias",
                                "res2.0.conv1.norm.num_batches_tracked", "res1.0.conv1.weight"))])
def test_translate(theirs, ours):
    assert translate(theirs) == ours


@pytest.mark.parametrize("eps", [1e-5, 0.0, 1e-3])
def test_folded_norms_keep_their_values(eps):
    """In float32, (x - mean) * scale / sqrt(variance + eps) + shift equals x * scale + shift."""
    arrays = with_statistics({"res_conv1_bn_s": np.ones(4, np.float32), "res_conv1_bn_b": np.ones(4, np.float32)}, eps)
    mean, variance = arrays["res_conv1_bn_rm"], arrays["res_conv1_bn_riv"]
    assert mean.shape == variance.shape == (4,) and not mean.any()
    np.testing.assert_allclose(np.sqrt(variance + np.float32(eps)), 1, rtol=6e-8)
    own = {"conv1_bn_s": np.ones(2), "conv1_bn_rm": np.full(2, 3.0), "conv1_bn_riv": np.full(2, 4.0)}
    kept = with_statistics(own, eps)
    assert kept.keys() == own.keys() and all(kept[name] is own[name] for name in own)


@pytest.mark.parametrize("backbone", [name for name in BLOCKS if name != "resnet_v1_50"])     # it has the names of v1.5
def test_depth_follows_the_blocks(backbone):
    assert backbone_of(weights(backbone, detectron2_name)) == backbone
    some = {"stem.conv1.weight": 0, f"res4.{BLOCKS[backbone][2] - 1}.conv3.weight": 0}
    assert backbone_of(some) == backbone


def test_caffe2_resnet101(tmp_path, capsys):
    """A file like detectron2's R-101.pkl: its names and its other entries."""
    rng = np.random.default_rng(0)
    names = {f"backbone.{cell}.{parameter}": caffe2_name(cell, parameter) for cell in cell_shapes(BLOCKS["resnet_v1_101"])
             for parameter in ("weight", "gamma", "beta")}
    arrays = {name: np.array(value) for name, value in weights("resnet_v1_101", caffe2_name, ("weight", "gamma", "beta")).items()}
    arrays["res_conv1_bn_s"] = rng.random(64, np.float32)
    path, output = tmp_path / "R-101.pkl", tmp_path / "o.ckpt"
    extra = {"fc1000_w": np.zeros((2, 2), np.float32), "conv1_w_momentum": np.zeros(2, np.float32)}
    path.write_bytes(pickle.dumps({"blobs": {**arrays, **extra}}, 2))
    assert convert_checkpoint.main([f"--ckpt_file={path}", f"--output_file={output}"]) == 0
    out, err = capsys.readouterr()
    assert "pickle, ResNet-101" in out and "missing" not in out and not err
    assert "1 tensor of the classifier (fc1000_w)" in out and "training state (conv1_w_momentum)" in out
    assert "backbone: train with --backbone=resnet_v1_101" in out
    assert "pixels: blue, green, red from 0 to 255" in out and "--convention=detectron2" in out
    found = read_checkpoint(output).arrays
    assert len(found) == 5 * len(cell_shapes(BLOCKS["resnet_v1_101"]))
    for ours, theirs in names.items():
        np.testing.assert_array_equal(found[ours], arrays[theirs], ours, strict=True)
    for name, value in found.items():
        if name.endswith((".moving_mean", ".moving_variance")):
            assert np.unique(value).tolist() == [0.0 if name.endswith("mean") else np.float32(1 - 1e-5)]


def test_detectron2_resnet50(tmp_path, capsys):
    arrays = {name: np.array(value) for name, value in weights("resnet_v1.5_50", detectron2_name).items()}
    np.savez(tmp_path / "r50.npz", **arrays)
    output = tmp_path / "o.ckpt"
    assert convert_checkpoint.main([f"--ckpt_file={tmp_path / 'r50.npz'}", f"--output_file={output}"]) == 0
    out = capsys.readouterr().out
    assert "used: 265 tensors" in out and "MSRA's ResNets" in out and "backbone:" not in out
    for name, value in read_checkpoint(output).arrays.items():
        cell, _, parameter = name.removeprefix("backbone.").rpartition(".")
        np.testing.assert_array_equal(value, arrays[detectron2_name(cell, parameter)], name, strict=True)
