"""Conversion of PyTorch's VGG-16 and RefineDet weights: names, pixel normalisation, the classifier, and errors."""
import json
import re

import cv2
import mindspore as ms
import numpy as np
import pytest

from refinedet.src import convert_checkpoint
from refinedet.src.conversion.vgg_names import convert_vgg, find_source, translate
from refinedet.src.model_utils.config import InputError, load_config
from refinedet.src.model_utils.weights.loading import load_checkpoint_into, load_pretrained
from refinedet.src.model_utils.weights.reader import read_checkpoint
from refinedet.src.refinedet import build_network
from tests.unit.test_refinedet_parity import our_name

WIDTHS = (4, 4, 8, 8, 8)
# VGG-16 layers by their authors' names, and their index in torchvision's list.
LAYERS = [("conv1_1", 0), ("conv1_2", 2), ("conv2_1", 5), ("conv2_2", 7), ("conv3_1", 10), ("conv3_2", 12), ("conv3_3", 14),
          ("conv4_1", 17), ("conv4_2", 19), ("conv4_3", 21), ("conv5_1", 24), ("conv5_2", 26), ("conv5_3", 28)]
SPREAD, MEAN = np.array([0.229, 0.224, 0.225]), np.array([0.485, 0.456, 0.406])


def trunk(form: str) -> dict:
    """A narrow VGG-16 with names of the pattern `form`."""
    rng, arrays, inputs = np.random.default_rng(0), {}, 3
    for layer, index in LAYERS:
        outputs = WIDTHS[int(layer[4]) - 1]
        arrays[form.format(index) + ".weight"] = rng.normal(size=(outputs, inputs, 3, 3)).astype(np.float32)
        arrays[form.format(index) + ".bias"] = rng.normal(size=outputs).astype(np.float32)
        inputs = outputs
    return arrays


def torchvision(hidden: int = 16) -> dict:
    rng = np.random.default_rng(1)
    shapes = {"0.weight": (hidden, 8 * 49), "0.bias": (hidden,), "3.weight": (hidden, hidden), "3.bias": (hidden,),
              "6.weight": (10, hidden), "6.bias": (10,)}
    classifier = {f"classifier.{name}": rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return {**trunk("features.{}"), **classifier}


def reduced() -> dict:
    rng = np.random.default_rng(2)
    shapes = {"31.weight": (16, 8, 3, 3), "31.bias": (16,), "33.weight": (16, 16, 1, 1), "33.bias": (16,)}
    return {**trunk("{}"), **{name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}}


@pytest.mark.parametrize("theirs", [
    "vgg.24.bias", "vgg.33.weight", "conv5_3_L2Norm.weight", "extras.1.bias", "arm_loc.3.weight", "odm_conf.0.bias",
    "tcb0.0.weight", "tcb0.5.weight", "tcb0.9.bias", "tcb1.2.weight", "tcb2.10.bias"])
def test_names_of_a_detector(theirs):
    assert translate(theirs, "refinedet") == translate(f"module.{theirs}", "refinedet") == our_name(theirs)


@pytest.mark.parametrize("name", [
    "vgg.1.weight", "tcb0.1.weight", "tcb2.0.bias", "priors.0.weight", "arm_loc.0.scale", "vgg.weight"])
def test_unknown_names(name):
    assert translate(name, "refinedet") is None


def test_every_convolution_of_a_trunk_goes_to_its_place():
    arrays = reduced()
    tensors, left_out = convert_vgg(arrays, "reducedfc", "file")
    wanted = {f"backbone.{layer}.{leaf}": arrays[f"{index}.{leaf}"] for layer, index in [*LAYERS, ("fc6", 31), ("fc7", 33)]
              for leaf in ("weight", "bias")}
    assert tensors.keys() == wanted.keys() and left_out == []
    for name, value in wanted.items():
        np.testing.assert_array_equal(tensors[name], value, strict=True)


def test_pixels_of_torchvision():
    """conv1_1 computes from x - (123, 117, 104) what torchvision's computes from (x / 255 - mean) / std."""
    arrays = torchvision()
    tensors, _ = convert_vgg(arrays, "torchvision", "file")
    patch = np.random.default_rng(3).uniform(0, 255, (3, 3, 3))
    theirs = (patch / 255 - MEAN[:, None, None]) / SPREAD[:, None, None]
    ours = patch - np.array([123, 117, 104])[:, None, None]
    results = [(weight.astype(float) * pixels).sum((1, 2, 3)) + bias for weight, bias, pixels in (
        (arrays["features.0.weight"], arrays["features.0.bias"], theirs),
        (tensors["backbone.conv1_1.weight"], tensors["backbone.conv1_1.bias"], ours))]
    np.testing.assert_allclose(results[1], results[0], rtol=1e-5, atol=1e-5)


def test_classifier_becomes_dilated_convolutions():
    """Each kept neuron keeps its weights for every third cell of its 7 x 7 window."""
    arrays = torchvision()
    tensors, left_out = convert_vgg(arrays, "torchvision", "file")
    fc6, full = tensors["backbone.fc6.weight"], arrays["classifier.0.weight"]
    assert fc6.shape == (4, 8, 3, 3) and tensors["backbone.fc7.weight"].shape == (4, 4, 1, 1)
    for o, c, y, x in np.ndindex(4, 8, 3, 3):
        assert fc6[o, c, y, x] == full[4 * o, 49 * c + 7 * 3 * y + 3 * x]
    for o, i in np.ndindex(4, 4):
        assert tensors["backbone.fc7.weight"][o, i, 0, 0] == arrays["classifier.3.weight"][4 * o, 4 * i]
    assert tensors["backbone.fc7.bias"].tolist() == arrays["classifier.3.bias"][::4].tolist()
    assert left_out == ["classifier.6.weight", "classifier.6.bias"]
    left, names = convert_vgg(arrays, "torchvision", "file", classifier=False)
    assert "backbone.fc6.weight" not in left and len(names) == 6


def test_channels_are_reversed():
    arrays = reduced()
    tensors, _ = convert_vgg(arrays, "reducedfc", "file", reverse_channels=True)
    for channel in range(3):
        assert np.array_equal(tensors["backbone.conv1_1.weight"][:, channel], arrays["0.weight"][:, 2 - channel])


@pytest.mark.parametrize(("names", "said"), [
    (["features.0.weight", "features.1.running_mean"], "a VGG with batch norm (features.1.running_mean)"),
    (["base.0.weight", "trans_layers.0.0.weight"], "lzx1413's RefineDet"), (["backbone.conv1_1.weight"], "already converted"),
    (["backbone.conv1.weight", "backbone.conv1.gamma"], "an already converted network of this project (backbone.conv1.gamma)"),
    (["x.weight"], "the first names are x.weight")])
def test_other_files_are_refused_by_name(names, said):
    with pytest.raises(InputError, match="^file: .*" + re.escape(said)):
        find_source(dict.fromkeys(names), "file")


def convert(tmp_path, arrays, *flags) -> str:
    np.savez(tmp_path / "in.npz", **arrays)
    convert_checkpoint.main([f"--ckpt_file={tmp_path / 'in.npz'}", f"--output_file={tmp_path / 'o.ckpt'}", *flags])
    return tmp_path / "o.ckpt"


def test_training_starts_from_a_converted_trunk(tmp_path, capsys):
    path = convert(tmp_path, torchvision())
    output = capsys.readouterr().out
    assert "used: 30 parameters" in output and "left out: classifier.6.weight, classifier.6.bias" in output
    assert "missing: backbone.conv6_1.weight, backbone.conv6_1.bias, " in output and "less 123, 117, 104" in output
    assert not path.with_suffix(".yaml").exists()
    net = build_network(load_config(overrides={"vgg_channels": list(WIDTHS), "fc_channels": 4, "extra_channels": [4, 4],
                                               "tcb_channels": 4}))
    missing = load_pretrained(net, path)
    assert [name for name in missing if name.startswith("backbone.")] == [
        name for name in (param.name for param in net.get_parameters()) if re.match(r"backbone\.conv(6|\d_3_norm)", name)]


def test_parity_of_an_imagenet_vgg_without_classifier(parity_dir, tmp_path, capsys):
    """Training starts from the 13 convolutions, in half precision at full width; fc6 and fc7 are initialised."""
    source = parity_dir.parent / "weights" / "vgg16_imagenet_torchvision_half.npz"
    if not source.is_file():
        pytest.skip(f"no such file: {source}")
    convert_checkpoint.main([f"--ckpt_file={source}", f"--output_file={tmp_path / 'o.ckpt'}"])
    output = capsys.readouterr().out
    assert "used: 26 parameters" in output and "missing: backbone.fc6.weight, backbone.fc6.bias, " in output
    net = build_network(load_config(overrides={"fc_channels": 4, "extra_channels": [4, 4], "tcb_channels": 4}))
    missing = load_pretrained(net, tmp_path / "o.ckpt")
    weights = {param.name: param.asnumpy() for param in net.get_parameters()}
    with np.load(source, allow_pickle=False) as file:
        assert file["features.0.weight"].dtype == np.float16
        for layer, index in LAYERS[1:]:
            for leaf in ("weight", "bias"):
                theirs = file[f"features.{index}.{leaf}"].astype(np.float32)
                np.testing.assert_array_equal(weights[f"backbone.{layer}.{leaf}"], theirs)
        first = file["features.0.weight"] / (255 * SPREAD[:, None, None])
    np.testing.assert_allclose(weights["backbone.conv1_1.weight"], first, rtol=1e-5)
    assert not any(re.match(r"backbone\.conv[1-5]_\d\.", name) for name in missing)
    assert {"backbone.fc6.weight", "backbone.fc7.bias", "backbone.conv6_1.weight"} <= set(missing)


def changed(arrays: dict) -> dict:
    """A reduced trunk with other arrays; None removes one."""
    return {name: value for name, value in {**reduced(), **arrays}.items() if value is not None}


@pytest.mark.parametrize(("arrays", "flags", "said"), [
    (changed({"12.weight": np.zeros((8, 8, 1, 1), np.float32)}), (), r"1 of 30 tensors do not fit the network: backbone"),
    (changed({"14.bias": None}), (), "incomplete: it lacks backbone.conv3_3.bias"),
    (changed({"5.bias": None}), (), "incomplete: it lacks conv2_1"),
    (changed({"16.weight": np.zeros((8, 8, 3, 3), np.float32)}), (), "not a VGG-16: it also has 16.weight"),
    (changed({"5.bias": np.zeros(4, np.int64)}), (), "5.bias holds int64"),
    (changed({"5.bias": np.full(4, np.nan, np.float32)}), (), "5.bias: 4 of 4 values are not finite"),
    (reduced(), ("--source=torchvision",), "--source: torchvision, but the names in .* are those of reducedfc"),
    (reduced(), ("--output_file=x.pth",), "must end with .ckpt"), (reduced(), ("--source=vgg",), "'vgg'"),
], ids=str)
def test_faults(tmp_path, arrays, flags, said):
    with pytest.raises(InputError, match=said):
        convert(tmp_path, arrays, *flags)
    assert not (tmp_path / "o.ckpt").exists()


def test_parity_a_whole_detector(parity_file, tmp_path):
    """Every tensor is in its place, and the written configuration reproduces the fixture's detections."""
    folder = parity_file("refinedet320_vgg16")
    source, output = folder / "refinedet320_vgg16_narrow.pth", tmp_path / "o.ckpt"
    convert_checkpoint.main([f"--ckpt_file={source}", f"--output_file={output}"])
    loaded, arrays = ms.load_checkpoint(str(output)), read_checkpoint(source).arrays
    assert len(loaded) == len(arrays) == 98
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[our_name(name)].asnumpy(), array, strict=True)
    config = load_config(output.with_suffix(".yaml"))
    net = build_network(config)
    load_checkpoint_into(net, output)
    image = cv2.imread(str(folder / "image_1.png"))[..., ::-1].astype(np.float32) - np.array(config.image_mean, np.float32)
    boxes, scores, labels, valid = (value.asnumpy()[0] for value in net.predict(
        ms.Tensor(np.ascontiguousarray(image.transpose(2, 0, 1)[None])), ms.ops.ones((1, 6))))
    wanted = [item for item in json.loads((folder / "expected_detections.json").read_text()) if item["image_id"] == 1]
    assert valid.sum() == len(wanted)
    left = np.clip(boxes, 0, 320)
    for item in wanted:
        x, y, width, height = item["bbox"]
        near = np.abs(left - [x, y, x + width, y + height]).max(1)
        assert ((near < 0.05) & (labels == item["category_id"]) & (np.abs(scores - item["score"]) < 1e-4)).any(), item


def test_a_voc_detector_gets_voc_class_names(tmp_path):
    from tests.narrow_refinedet import narrow_config

    config = narrow_config(num_classes=21, coco_classes=[])
    theirs = {"arm.loc": "arm_loc", "arm.conf": "arm_conf", "odm.loc": "odm_loc", "odm.conf": "odm_conf"}
    arrays = {}
    for param in build_network(config).get_parameters():
        part, number, leaf = param.name.rsplit(".", 2)
        if part in theirs:
            name = f"{theirs[part]}.{number}.{leaf}"
        elif part.startswith("tcb."):
            number = int(number)
            name = {"first": f"tcb0.{3 * number}", "second": f"tcb0.{3 * number + 2}", "last": f"tcb2.{3 * number + 1}",
                    "up": f"tcb1.{number}"}[part[4:]] + f".{leaf}"
        elif number.endswith("_norm"):
            name = number.replace("_norm", "_L2Norm") + ".weight"
        else:
            place = {**dict(LAYERS), "fc6": 31, "fc7": 33}.get(number)
            name = f"vgg.{place}.{leaf}" if place is not None else f"extras.{int(number[-1]) - 1}.{leaf}"
        arrays[name] = param.asnumpy()
    path = convert(tmp_path, arrays, "--input_size=512")
    found = load_config(path.with_suffix(".yaml"))
    assert (found.num_classes, found.coco_classes[1], found.coco_classes[-1]) == (21, "aeroplane", "tvmonitor")
    assert (found.dataset, found.img_width, found.tcb_channels) == ("voc", 512, config.tcb_channels)
