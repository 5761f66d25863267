"""Converted detectors of other frameworks give the same detections, and convert back unchanged."""
import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from faster_rcnn.src.FasterRcnn.conversion.detector import SUFFIXES
from faster_rcnn.src.FasterRcnn.conversion.detector_names import FRAMEWORKS, find_framework
from faster_rcnn.src.model_utils.weights.reader import read_checkpoint
from faster_rcnn.src.model_utils.weights.writer import write_weights
from tests.narrow_network import narrow_config
from tests.parity_models import ParityModel, compare_results

ROOT = Path(__file__).resolve().parents[2]
MODELS = {"faster_rcnn": "FasterRcnn", "mask_rcnn": "MaskRcnn"}


class Fixture:
    """A checkpoint of another framework, and our model for it."""

    def __init__(self, path):
        self.path, self.folder = path, path.parent
        self.arrays = read_checkpoint(path).arrays
        self.framework = find_framework(self.arrays)
        with np.load(self.folder / "expected.npz") as file:
            self.model = "mask_rcnn" if "fix/mask_feat" in file else "faster_rcnn"

    def part(self, name: str):
        """Return a module of our model."""
        return importlib.import_module(f"{self.model}.src.{name}")

    def convert(self, path, *flags) -> int:
        return self.part("convert_checkpoint").main([f"--ckpt_file={path}", *map(str, flags)])


@pytest.fixture(scope="module")
def fixtures(parity_dir) -> list:
    found = [Fixture(path) for path in sorted(parity_dir.glob("*/model*.[pc]*")) if (path.parent / "expected.npz").is_file()]
    found = [fixture for fixture in found if fixture.framework]
    assert found and {fixture.framework for fixture in found} <= set(FRAMEWORKS) - {"zoo"}
    return found


# The keys of widths and classes in which a fixture differs from the shipped configurations.
NARROW = ("resnet_in_channels", "resnet_out_channels", "fpn_in_channels", "fpn_out_channels", "rpn_in_channels",
          "rpn_feat_channels", "roi_align_out_channels", "rcnn_in_channels", "rcnn_fc_out_channels", "rcnn_mask_out_channels",
          "num_classes", "coco_classes")


def test_parity_of_the_shipped_recipe(fixtures, tmp_path):
    """detectron2_config_101.yaml, narrowed to the 101-layer fixture and in float32, detects the same."""
    output = tmp_path / "o.ckpt"
    for fixture in (fixture for fixture in fixtures if fixture.framework == "detectron2" and "R101" in fixture.folder.name):
        assert fixture.convert(fixture.path, f"--output_file={output}") == 0
        load_config = fixture.part("model_utils.config").load_config
        converted = load_config(output.with_suffix(".yaml"))
        assert converted.resnet_block == (3, 4, 23, 3)
        model = ParityModel(fixture.folder)
        recipe = load_config(ROOT / fixture.model / "detectron2_config_101.yaml", {
            **model.size(), **{key: converted.to_dict()[key] for key in NARROW if key in converted}, "checkpoint_path": str(output),
            "amp_level": "O0", "device_target": "CPU"})
        unmatched, pixels = compare_results(detect(fixture, recipe, model.images), model.json)
        assert unmatched <= 1 and sum(count > 8 for count in pixels) == 0
        return
    pytest.skip("no fixture with 101 layers of detectron2")


def detect(fixture, config, paths) -> list:
    """Return the COCO results of images whose file names are their ids."""
    predict = fixture.part("model_utils.inference.predictors").load_predictor(config, "CPU")
    preprocess = fixture.part("model_utils.data.loading").build_preprocess(config)
    decode = fixture.part("model_utils.data.transforms").decode_image
    detections = fixture.part("model_utils.evaluation.detections")
    image, info = map(np.stack, zip(*(preprocess(decode(path.read_bytes())) for path in paths)))
    outputs = predict(image, info)
    return detections.to_results(*outputs[:4], info, [int(path.stem) for path in paths],
                                 detections.config_categories(config), *outputs[4:],
                                 encode=fixture.part("model").mask_encoder(config))


def test_parity_of_the_round_trip(fixtures, tmp_path):
    """theirs -> ours -> theirs -> ours keeps every bit, also of tensors that our network lacks."""
    ours, again = tmp_path / "ours.ckpt", tmp_path / "again.ckpt"
    for fixture in fixtures:
        theirs = tmp_path / f"theirs{SUFFIXES[fixture.framework]}"
        assert fixture.convert(fixture.path, f"--output_file={ours}") == 0
        assert fixture.convert(ours, f"--to={fixture.framework}", f"--output_file={theirs}") == 0
        assert fixture.convert(theirs, f"--output_file={again}") == 0
        first, second = (read_checkpoint(path).arrays for path in (ours, again))
        assert list(first) == list(second)
        for name, value in first.items():
            np.testing.assert_array_equal(second[name], value, name, strict=True)
        assert ours.with_suffix(".yaml").read_text() == again.with_suffix(".yaml").read_text()
        assert_same_in_their_names(fixture, read_checkpoint(theirs).arrays)


def assert_same_in_their_names(fixture, written: dict):
    table = FRAMEWORKS[fixture.framework]
    today = {table.theirs(table.ours(name)) if table.ours(name) else name: value for name, value in fixture.arrays.items()}
    assert set(today) - set(written) == {name for name in today if "cell_anchors" in name}
    assert not set(written) - set(today)
    for name, value in written.items():
        if name.endswith("num_batches_tracked"):
            assert (value.dtype, value.shape, int(value)) == (today[name].dtype, today[name].shape, 0)
        else:
            np.testing.assert_array_equal(value, today[name], name, strict=True)


def test_parity_of_unused_rows(fixtures, tmp_path):
    """The checkpoint keeps torchvision's background rows, which our network lacks. Without them, zeros are written."""
    output, theirs = tmp_path / "o.ckpt", tmp_path / "theirs.pth"
    for fixture in (fixture for fixture in fixtures if fixture.framework == "torchvision"):
        assert fixture.convert(fixture.path, f"--output_file={output}") == 0
        extra = [name for name in read_checkpoint(output).arrays if name.startswith("unused.")]
        assert len(extra) == (4 if fixture.model == "mask_rcnn" else 2)
        weights = fixture.part("model_utils.weights.loading").read_weights(output)
        assert not any(name.startswith("unused.") for name in weights)
        write_weights({name: value.asnumpy() for name, value in weights.items()}, output)
        assert fixture.convert(output, "--to=torchvision", f"--output_file={theirs}") == 0
        rows = read_checkpoint(theirs).arrays["roi_heads.box_predictor.bbox_pred.weight"]
        assert not rows[:4].any() and rows[4:].any()


def test_parity_of_older_names(fixtures, tmp_path):
    """torchvision's names and container of 2019 hold the same network."""
    older = [fixture for fixture in fixtures if fixture.path.stem != "model"]
    if not older:
        pytest.skip("no fixture with the names of 2019")
    for fixture in older:
        outputs = [tmp_path / "a.ckpt", tmp_path / "b.ckpt"]
        for path, output in zip((fixture.path, fixture.folder / "model.pth"), outputs):
            assert fixture.convert(path, f"--output_file={output}") == 0
        first, second = (read_checkpoint(path).arrays for path in outputs)
        assert list(first) == list(second) and all(np.array_equal(first[name], second[name]) for name in first)


def test_parity_of_a_mask_rcnn_without_masks(fixtures, tmp_path, capsys):
    """Faster R-CNN converts a Mask R-CNN without its masks. Mask R-CNN refuses a Faster R-CNN."""
    from faster_rcnn.src import convert_checkpoint as faster
    from mask_rcnn.src import convert_checkpoint as mask

    output = tmp_path / "o.ckpt"
    for fixture in fixtures:
        main = faster.main if fixture.model == "mask_rcnn" else mask.main
        status = main([f"--ckpt_file={fixture.path}", f"--output_file={output}"])
        out, err = capsys.readouterr()
        if fixture.model == "mask_rcnn":
            assert status == 0 and "left out: 12 tensors of the mask branch" in out and "missing" not in out
            output.unlink()
        else:
            assert status == 1 and "missing: 12 parameters (rcnn_mask.convs.0.weight" in out and not output.exists()
            assert "no checkpoint was written: 12 of the network's" in err


def test_parity_of_starting_from_other_classes(fixtures, tmp_path):
    from faster_rcnn.src.FasterRcnn.faster_rcnn import build_network
    from faster_rcnn.src.model_utils.weights.loading import load_pretrained

    fixture = next((fixture for fixture in fixtures if (fixture.framework, fixture.model) == ("torchvision", "faster_rcnn")), None)
    if fixture is None:
        pytest.skip("no Faster R-CNN of torchvision")
    assert fixture.convert(fixture.path, f"--output_file={tmp_path / 'o.ckpt'}") == 0
    net = build_network(narrow_config(resnet_block=[3, 4, 6, 3]))
    missing = load_pretrained(net, tmp_path / "o.ckpt")
    assert missing == [f"rcnn.{layer}.{leaf}" for layer in ("cls_score", "bbox_pred") for leaf in ("weight", "bias")]
    for param in net.get_parameters():
        if param.name not in missing:
            wanted = fixture.arrays[FRAMEWORKS["torchvision"].theirs(param.name)]
            np.testing.assert_array_equal(param.asnumpy(), wanted, param.name)


@pytest.mark.parametrize("model", MODELS)
def test_parity_of_the_old_zoo(model, parity_file):
    """Names and shapes of the zoo's two detectors. test_convert_detector.py tests the values."""
    weights = importlib.import_module(f"{model}.src.{MODELS[model]}.conversion.detector_weights")
    config = importlib.import_module(f"{model}.src.model_utils.config").load_config()
    shapes = json.loads(parity_file(f"zoo_names/{model}.json").read_text())
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    assert find_framework(arrays) == "zoo"
    detector = weights.convert_detector(arrays, "zoo", model == "mask_rcnn", "file")
    assert detector.left_out == {}
    assert {name: value.shape for name, value in detector.tensors.items()} == weights.detector_shapes(config)


@pytest.mark.parametrize("model", MODELS)
def test_parity_of_the_names_of_mindspore_lab(model, parity_file):
    """Names and shapes of the full networks. The optimiser of a training checkpoint is left out."""
    weights = importlib.import_module(f"{model}.src.{MODELS[model]}.conversion.detector_weights")
    config = importlib.import_module(f"{model}.src.model_utils.config").load_config(overrides={"convention": "mslab"})
    expected, table = weights.detector_shapes(config), FRAMEWORKS["mslab"]
    everything = json.loads(parity_file("mslab_names.json").read_text())
    shapes = everything[model]
    assert find_framework(shapes) == "mslab"
    assert {table.ours(name): tuple(shape) for name, shape in shapes.items()} == expected
    assert {table.theirs(name) for name in expected} == set(shapes)
    training = {name: np.zeros([1] * max(len(shape), 1), np.float32) for name, shape in everything["faster_rcnn_training"].items()}
    detector = weights.convert_detector(training, "mslab", False, "file")
    assert find_framework(training) == "mslab" and len(detector.tensors) == len(everything["faster_rcnn"])
    assert list(detector.left_out) == ["of the optimiser and the training state"]


def test_parity_of_a_wrong_source_for_mindspore_lab(fixtures, tmp_path):
    """--source of another framework is refused. Without --partial, so is a file that lacks a layer."""
    for fixture in (fixture for fixture in fixtures if fixture.framework == "mslab"):
        for source in ("detectron2", "mmdet", "zoo"):
            with pytest.raises(ValueError, match=f"--source: {source}, but the names in .* are those of mslab"):
                fixture.convert(fixture.path, f"--source={source}", f"--output_file={tmp_path / 'o.ckpt'}")
        write_weights({name: value for name, value in fixture.arrays.items() if "fpn_convs.3" not in name}, tmp_path / "less.ckpt")
        assert fixture.convert(tmp_path / "less.ckpt", "--source=mslab", f"--output_file={tmp_path / 'o.ckpt'}") == 1
