"""Conversion of whole detectors, on synthetic ones: names, classes, configuration, report and refusals."""
import importlib
import re

import mindspore as ms
import numpy as np
import pytest

from faster_rcnn.src import convert_checkpoint
from faster_rcnn.src.FasterRcnn.conversion import detector as convert_detector
from faster_rcnn.src.FasterRcnn.conversion.detector_names import FRAMEWORKS
from faster_rcnn.src.FasterRcnn.conversion.detector_weights import MOST_ELEMENTS, detector_shapes, to_framework
from faster_rcnn.src.FasterRcnn.conversion.detector_weights import convert_detector as sort_tensors
from faster_rcnn.src.FasterRcnn.conversion.torch_writer import write_pickle, write_torch
from faster_rcnn.src.model_utils.config import InputError, load_config
from faster_rcnn.src.model_utils.weights.loading import load_pretrained
from faster_rcnn.src.model_utils.weights.reader import Checkpoint, read_checkpoint
from mask_rcnn.src import convert_checkpoint as mask_convert
from mask_rcnn.src.model_utils.config import load_config as load_mask_config
from tests.narrow_network import narrow_config, narrow_mask_config, narrow_network

NETWORKS = {"faster_rcnn": "FasterRcnn", "mask_rcnn": "MaskRcnn"}
WRITTEN = ("torchvision", "detectron2", "mmdet")

@pytest.mark.parametrize("model", ["faster_rcnn", "mask_rcnn"])
def test_shapes_match_the_network(model):
    config = (narrow_mask_config if model == "mask_rcnn" else narrow_config)(resnet_block=[2, 1, 1, 2], rcnn_num_layers=3)
    shapes = {param.name: tuple(param.shape) for param in narrow_network(config).get_parameters()}
    weights = importlib.import_module(f"{model}.src.{NETWORKS[model]}.conversion.detector_weights")
    assert weights.detector_shapes(config) == shapes


# --- classes: K = 2 foreground classes; the values of a row identify its class ---

def rows(*values):
    """Return the weight, (rows, 1), and the bias, (rows,), of a layer."""
    array = np.array(values, np.float32)
    return {"weight": array[:, None], "bias": array}


@pytest.mark.parametrize(("framework", "logits", "boxes", "masks"), [
    ("torchvision", [9, 1, 2], [0] * 4 + [10, 11, 12, 13, 20, 21, 22, 23], [0, 1, 2]),
    ("detectron2", [1, 2, 9], [10, 11, 12, 13, 20, 21, 22, 23], [1, 2]),
    ("mmdet", [1, 2, 9], [10, 11, 12, 13, 20, 21, 22, 23], [1, 2]),
    ("zoo", [9, 1, 2], [7, 7, 7, 7, 10, 11, 12, 13, 20, 21, 22, 23], [7, 1, 2]),
    ("zoo", [1, 2, 9], [10, 11, 12, 13, 20, 21, 22, 23], [1, 2, 7])])
def test_rows_of_classes(framework, logits, boxes, masks):
    names = {"rcnn.cls_score": logits, "rcnn.bbox_pred": boxes, "rcnn_mask.logits": masks}
    arrays = {}
    for layer, values in names.items():
        for leaf, array in rows(*values).items():
            array = array.T if framework == "zoo" and leaf == "weight" else array
            if layer == "rcnn_mask.logits" and leaf == "weight":
                array = array.reshape(-1, 1, 1, 1)
            arrays[FRAMEWORKS[framework].theirs(f"{layer}.{leaf}")] = array
    tensors = sort_tensors(arrays, framework, True, "file").tensors
    wanted = {"rcnn.cls_score": [9, 1, 2], "rcnn.bbox_pred": [10, 11, 12, 13, 20, 21, 22, 23], "rcnn_mask.logits": [1, 2]}
    for layer, values in wanted.items():
        assert tensors[f"{layer}.bias"].tolist() == tensors[f"{layer}.weight"].ravel().tolist() == values
        assert tensors[f"{layer}.weight"].shape[0] == len(values)
    if framework in WRITTEN:
        back = to_framework(tensors, framework)
        assert back.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(back[name], array, name, strict=True)


def test_fully_connected_layers_of_the_zoo_are_transposed():
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensors = sort_tensors({"rcnn.shared_fc_0.weight": weight}, "zoo", False, "file").tensors
    np.testing.assert_array_equal(tensors["rcnn.fcs.0.weight"], weight.T, strict=True)
    kept = sort_tensors({"roi_heads.box_head.fc6.weight": weight}, "torchvision", False, "file").tensors
    np.testing.assert_array_equal(kept["rcnn.fcs.0.weight"], weight, strict=True)


# --- the configuration ---

def detector(framework: str, masks: bool = False, **keys) -> dict:
    """Return a narrow detector with random weights under the framework's names."""
    rng = np.random.default_rng(0)
    config = (narrow_mask_config if masks else narrow_config)(coco_classes=[], **keys)
    ours = {name: rng.random(shape, np.float32) for name, shape in detector_shapes(config).items()}
    return to_framework(ours, framework)


def configuration(framework: str, classes: int, meta=None, **extra):
    """Return the configuration read from a file with `classes` foreground classes and the arrays of `extra`."""
    arrays = {**detector(framework, num_classes=classes + 1), **extra}
    tensors = sort_tensors(arrays, framework, False, "file").tensors
    return convert_detector.read_config(Checkpoint("file", "pickle", arrays, (), meta or {}), tensors, framework)


def test_widths_and_depth_come_from_the_file():
    keys = {"resnet_block": [1, 2, 3, 1], "rcnn_num_layers": 3, "rpn_feat_channels": 24, "rcnn_fc_out_channels": 40,
            "roi_layer": {"out_size": 5}, "num_classes": 6}
    arrays = detector("detectron2", **keys)
    config = convert_detector.read_config(Checkpoint("file", "pickle", arrays, ()),
                                          sort_tensors(arrays, "detectron2", False, "file").tensors, "detectron2")
    wanted = narrow_config(coco_classes=[], **keys)
    assert detector_shapes(config) == detector_shapes(wanted)
    assert (config.convention, config.stride_in_1x1, config.roi_layer.sample_num) == ("detectron2", True, 0)
    assert (config.img_height, config.img_width, config.pad_to) == (800, 1333, "divisor")
    assert config.backbone == "resnet_v1_50"


def test_class_names():
    coco = load_config().coco_classes
    for framework in ("detectron2", "mmdet"):
        assert configuration(framework, 80).coco_classes == coco
        assert configuration(framework, 79).coco_classes == ()
    config = configuration("torchvision", 90)
    assert config.num_classes == len(config.coco_classes) == 91
    assert (config.coco_classes[1], config.coco_classes[12], config.coco_classes[13]) == ("person", "unused 12", "stop sign")
    assert config.coco_classes[90] == "toothbrush" and sum(name.startswith("unused") for name in config.coco_classes) == 10
    assert configuration("torchvision", 80).coco_classes == ()


@pytest.mark.parametrize(("meta", "names"), [
    ({"CLASSES": ("cat", "dog")}, ("cat", "dog")), ({"dataset_meta": {"classes": ["cat", "dog"]}}, ("cat", "dog")),
    ({"dataset_meta": {"CLASSES": ("cat", "dog")}}, ("cat", "dog")),
    ({"CLASSES": ("cat",)}, ()), ({"CLASSES": ("cat", "cat")}, ()), ({"CLASSES": ("background", "dog")}, ()),
    ({"CLASSES": (1, 2)}, ()), ({"CLASSES": "ab"}, ()), ({"CLASSES": ("\x1b[2J", "dog")}, ()), ({"dataset_meta": 3}, ())])
def test_class_names_of_mmdet(meta, names):
    assert configuration("mmdet", 2, meta).coco_classes == (("background", *names) if names else ())


def test_pixels_of_detectron2():
    mean, deviation = (np.array(values, np.float32).reshape(3, 1, 1) for values in ([1, 2, 3], [57, 58, 59]))
    config = configuration("detectron2", 2, pixel_mean=mean, pixel_std=deviation)
    assert (config.image_mean, config.image_std) == ((1.0, 2.0, 3.0), (57.0, 58.0, 59.0))


# --- the command ---

def write(path, arrays):
    (write_pickle if path.suffix == ".pkl" else write_torch)({"model": arrays}, path)
    return path


def convert(path, *flags, main=convert_checkpoint.main) -> int:
    return main([f"--ckpt_file={path}", f"--output_file={path.parent / 'o.ckpt'}", *map(str, flags)])


@pytest.mark.parametrize("framework", WRITTEN)
@pytest.mark.parametrize("masks", [False, True])
def test_round_trip(framework, masks, tmp_path):
    """Ours -> theirs -> ours keeps every bit."""
    main = mask_convert.main if masks else convert_checkpoint.main
    source = write(tmp_path / "a.pth", detector(framework, masks))
    assert convert(source, main=main) == 0
    theirs = tmp_path / f"b{convert_detector.SUFFIXES[framework]}"
    assert main([f"--ckpt_file={tmp_path / 'o.ckpt'}", f"--to={framework}", f"--output_file={theirs}"]) == 0
    first = read_checkpoint(tmp_path / "o.ckpt").arrays
    assert convert(theirs, main=main) == 0
    second = read_checkpoint(tmp_path / "o.ckpt").arrays
    assert list(first) == list(second)
    network = [name for name in first if not name.startswith("unused.")]
    assert network == list(detector_shapes((narrow_mask_config if masks else narrow_config)()))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def zoo_detector(masks: bool) -> tuple:
    """Return (zoo's arrays, ours): fully connected weights are transposed; background is last, or first with boxes if `masks`."""
    rng = np.random.default_rng(0)
    config = (narrow_mask_config if masks else narrow_config)(coco_classes=[])
    theirs, ours = {}, {name: rng.random(shape, np.float32) for name, shape in detector_shapes(config).items()}
    for name, array in ours.items():
        if name.startswith("rcnn.cls_score") and not masks:
            array = np.roll(array, -1, 0)
        if masks and name.startswith(("rcnn.bbox_pred", "rcnn_mask.logits")):
            rows = 4 if "bbox" in name else 1
            array = np.concatenate([np.ones((rows, *array.shape[1:]), np.float32), array])
        theirs[FRAMEWORKS["zoo"].theirs(name)] = array.T if array.ndim == 2 else array
    return theirs, ours


@pytest.mark.parametrize("masks", [False, True])
def test_checkpoint_of_the_old_zoo(masks, tmp_path, capsys):
    theirs, ours = zoo_detector(masks)
    state = {"moments.rcnn.cls_scores.weight": np.zeros(3, np.float32), "learning_rate": np.zeros(1, np.float32)}
    parameters = [{"name": name, "data": ms.Tensor(np.ascontiguousarray(value))} for name, value in {**theirs, **state}.items()]
    ms.save_checkpoint(parameters, str(tmp_path / "a.ckpt"))
    assert convert(tmp_path / "a.ckpt", main=mask_convert.main if masks else convert_checkpoint.main) == 0
    assert "2 tensors of the optimiser and the training state (moments.rcnn.cls_scores.weight, " in capsys.readouterr().out
    found = read_checkpoint(tmp_path / "o.ckpt").arrays
    assert list(found) == list(ours)
    for name, value in ours.items():
        np.testing.assert_array_equal(found[name], value, name, strict=True)
    load = (load_mask_config if masks else load_config)
    config, default = load(tmp_path / "o.yaml"), load()
    assert (config.convention, config.box_offset, config.roi_level_rule) == ("zoo", 1, "zoo")
    assert [config[key] for key in ("img_height", "img_width", "pad_to")] == [
        default[key] for key in ("img_height", "img_width", "pad_to")]


def test_report_names_what_is_left_out(tmp_path, capsys):
    extra = {"pixel_mean": np.zeros((3, 1, 1), np.float32), "roi_heads.mask_head.deconv.bias": np.zeros(2, np.float32),
             "proposal_generator.anchor_generator.cell_anchors.0": np.zeros((3, 4), np.float32),
             "roi_heads.other.weight": np.zeros(2, np.float32)}
    tree = {"model": {**detector("detectron2"), **extra}, "optimizer": {"lr": 1}, "iteration": 9}
    write_torch(tree, tmp_path / "model_final.pth")
    assert convert(tmp_path / "model_final.pth") == 0
    out = capsys.readouterr().out
    total = len(detector("detectron2"))
    assert f"PyTorch zip, detectron2, {total + 4} tensors" in out and f"used: {total} parameters (ResNet of 1, 1, 1, 1" in out
    for line in ("2 tensors that follow from the configuration (pixel_mean, proposal_generator.anchor_generator.cell_anchors.0)",
                 "1 tensor of the mask branch, which this network does not have (roi_heads.mask_head.deconv.bias)",
                 "1 tensor with names unknown to this network (roi_heads.other.weight)",
                 "entries that are not tensors (optimizer, iteration)"):
        assert f"left out: {line}\n" in out, line
    assert "convention: detectron2, norm_eps 1e-05" in out and "warning: names unknown to this network" in out


def test_an_incomplete_detector(tmp_path, capsys):
    arrays = detector("mmdet")
    del arrays["rpn_head.rpn_cls.bias"], arrays["backbone.layer2.0.bn1.running_var"]
    source = write(tmp_path / "a.pth", arrays)
    assert convert(source) == 1
    out, err = capsys.readouterr()
    assert "missing: 2 parameters (backbone.layer2.0.conv1.moving_variance, rpn.cls.bias)" in out
    assert "no checkpoint was written" in err and sorted(path.name for path in tmp_path.iterdir()) == ["a.pth"]
    assert convert(source, "--partial") == 0
    found = read_checkpoint(tmp_path / "o.ckpt").arrays
    assert set(detector_shapes(narrow_config())) - set(found) == {"backbone.layer2.0.conv1.moving_variance", "rpn.cls.bias"}
    assert load_config(tmp_path / "o.yaml").convention == "mmdet"


@pytest.mark.parametrize(("name", "flags", "eps"), [
    ("fasterrcnn_resnet50_fpn_coco-258fb6c6.pth", [], 0.0), ("maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth", [], 0.0),
    ("fasterrcnn_resnet50_fpn_coco-258fb6c6.pth", ["--norm_eps=1e-5"], 1e-5), ("mine.pth", [], 1e-5),
    ("mine.pth", ["--norm_eps=0"], 0.0)])
def test_norm_eps(name, flags, eps, tmp_path):
    assert convert(write(tmp_path / name, detector("torchvision")), *flags) == 0
    assert load_config(tmp_path / "o.yaml").norm_eps == eps


def test_default_output_and_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = write(tmp_path / "a.pth", detector("torchvision"))
    assert convert_checkpoint.main([f"--ckpt_file={source}", "--source=torchvision"]) == 0
    assert (tmp_path / "converted_a.ckpt").is_file() and (tmp_path / "converted_a.yaml").is_file()
    assert convert_checkpoint.main(["--ckpt_file=converted_a.ckpt", "--to=mmdet"]) == 0
    assert (tmp_path / "converted_a_mmdet.pth").is_file()
    with pytest.raises(InputError, match="--source: zoo, but the names in .* are those of torchvision"):
        convert_checkpoint.main([f"--ckpt_file={source}", "--source=zoo"])


def test_converted_weights_start_another_network(tmp_path):
    """Heads with another number of classes are reported and keep their initial weights."""
    arrays = detector("torchvision", num_classes=13)
    assert convert(write(tmp_path / "a.pth", arrays)) == 0
    net = narrow_network(narrow_config())
    missing = load_pretrained(net, tmp_path / "o.ckpt")
    assert missing == [f"rcnn.{layer}.{leaf}" for layer in ("cls_score", "bbox_pred") for leaf in ("weight", "bias")]
    for param in net.get_parameters():
        if param.name not in missing:
            assert np.array_equal(param.asnumpy(), arrays[FRAMEWORKS["torchvision"].theirs(param.name)])


# --- what is refused ---

def resized(name: str, *shape, framework="detectron2"):
    return {**detector(framework), name: np.zeros(shape, np.float32)}


D2_FC, D2_RPN = "roi_heads.box_head.fc{}.weight", "proposal_generator.rpn_head.{}.{}"
REFUSED = {
    "fifteen anchors": (resized(D2_RPN.format("objectness_logits", "bias"), 15), "15 anchors per cell; the network has 3$"),
    "class-agnostic boxes": (resized("roi_heads.box_predictor.bbox_pred.bias", 4),
                             r"rcnn.bbox_pred.bias is \(4,\), expected \(12,\)"),
    "five levels": (resized("backbone.fpn_lateral6.bias", 32), "neck.laterals.4.bias is .* expected no such layer"),
    "blocks of two": ({"backbone.bottom_up.res2.0.conv2.weight": np.zeros((8, 8, 3, 3), np.float32)}, "ResNet-18 or ResNet-34"),
    "other width inside": (resized("backbone.bottom_up.res3.0.conv1.weight", 5, 32, 1, 1), "layer2.0.conv1.weight is"),
    "a number": (resized("roi_heads.box_predictor.cls_score.bias"), "cls_score.bias is a scalar"),
    "no classes": (resized("roi_heads.box_predictor.cls_score.bias", 1), "num_classes: expected at least 2, got 1"),
    "no channels": (resized("backbone.fpn_lateral2.weight", 0, 0), "fpn_out_channels: expected at least 1"),
    "whole numbers": ({**detector("detectron2"), D2_FC.format(1): np.zeros((64, 1568), np.int64)}, "fc1.weight holds int64"),
    "not finite": ({**detector("detectron2"), "backbone.fpn_lateral2.bias": np.full(32, np.nan, np.float32)}, "not finite"),
    "both names": ({**detector("torchvision"), "rpn.head.conv.bias": np.zeros(32, np.float32)},
                   "rpn.head.conv.bias and rpn.head.conv.0.0.bias both convert to rpn.conv.bias"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_detectors_that_the_network_cannot_hold(case, tmp_path):
    arrays, expected = REFUSED[case]
    source = write(tmp_path / "a.pkl", arrays)
    with pytest.raises(InputError, match=f"^{re.escape(str(source))}: .*{expected}"):
        convert(source)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pkl"]


def test_five_mask_convolutions(tmp_path):
    arrays = {**detector("mmdet", True), "roi_head.mask_head.convs.4.conv.bias": np.zeros(16, np.float32)}
    with pytest.raises(ValueError, match="rcnn_mask.convs.4.bias is .* no such layer"):
        convert(write(tmp_path / "a.pth", arrays), main=mask_convert.main)


def test_oversized_tensors_are_refused():
    huge = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (2 ** 20, 2 ** 20), (0, 0))
    with pytest.raises(InputError, match=f"^file: its tensors have {2 ** 40} elements"):
        sort_tensors({"roi_heads.box_head.fc6.weight": huge}, "torchvision", False, "file")
    assert 2 ** 28 < MOST_ELEMENTS < 2 ** 40


@pytest.mark.parametrize(("flags", "expected"), [
    (["--to=mmdet"], "--config_path: no such file: .*o.yaml"), (["--to=keras"], "'keras'"),
    (["--norm_eps=-1"], "--norm_eps: expected"),
    (["--norm_eps=x"], "--norm_eps"), (["--to=detectron2", "--config_path=c.yaml", "--output_file=x.pth"], "must end with .pkl"),
    (["--to=mmdet", "--config_path=c.yaml"], "lacks backbone.conv1.weight, .*; expected a checkpoint of the configuration"),
    (["--to=mmdet", "--config_path=d.yaml"], "4 of 117 parameters do not fit the network: rcnn.cls_score.weight is"),
    (["--to=torchvision", "--config_path=e.yaml"], "its box head has 3 hidden layers; torchvision's has 2")])
def test_faults_of_converting_back(flags, expected, tmp_path, monkeypatch):
    from faster_rcnn.src.model_utils.config import save_config
    from faster_rcnn.src.model_utils.weights.writer import write_weights

    monkeypatch.chdir(tmp_path)
    three = narrow_config(rcnn_num_layers=3)
    tensors = {name: np.zeros(shape, np.float32) for name, shape in detector_shapes(three).items()}
    source = "bare.ckpt" if "c.yaml" in str(flags) else "o.ckpt"
    write_weights(tensors if source == "o.ckpt" else {"x": np.zeros(1, np.float32)}, tmp_path / source)
    save_config(narrow_config(), "c.yaml")
    save_config(narrow_config(num_classes=3, coco_classes=[], rcnn_num_layers=3), "d.yaml")
    save_config(three, "e.yaml")
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(InputError, match=expected):
        convert_checkpoint.main([f"--ckpt_file={source}", *flags])
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_notes_of_converting_back(tmp_path, capsys):
    assert convert(write(tmp_path / "a.pth", detector("torchvision")), "--norm_eps=0") == 0
    flags = ["--to=detectron2", f"--output_file={tmp_path / 'x.pkl'}"]
    assert convert_checkpoint.main([f"--ckpt_file={tmp_path / 'o.ckpt'}", *flags]) == 0
    out = capsys.readouterr().out
    assert "note: the weights follow the convention torchvision; detectron2 computes something else with them" in out
    assert "note: norm_eps is 0; detectron2 defaults to 1e-05" in out
