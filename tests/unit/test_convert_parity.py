"""Whole detectors of other frameworks, converted: they detect what they detected there, and come back as they were."""
import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from faster_rcnn.src.FasterRcnn.conversion.detector import SUFFIXES
from faster_rcnn.src.FasterRcnn.conversion.detector_names import FRAMEWORKS, find_framework
from faster_rcnn.src.model_utils.weights.reader import read_checkpoint
from faster_rcnn.src.model_utils.weights.writer import write_weights
from tests.narrow_network import narrow_config

ROOT = Path(__file__).resolve().parents[2]
MODELS = {"faster_rcnn": "FasterRcnn", "mask_rcnn": "MaskRcnn"}


class Fixture:
    """A checkpoint of another framework, and the model of ours that it is for."""

    def __init__(self, path):
        self.path, self.folder = path, path.parent
        self.arrays = read_checkpoint(path).arrays
        self.framework = find_framework(self.arrays)
        with np.load(self.folder / "expected.npz") as file:
            self.model = "mask_rcnn" if "fix/mask_feat" in file else "faster_rcnn"
            self.height, self.width = file["input/images"].shape[2:]

    def part(self, name: str):
        """A module of our model."""
        return importlib.import_module(f"{self.model}.src.{name}")

    def convert(self, path, *flags) -> int:
        return self.part("convert_checkpoint").main([f"--ckpt_file={path}", *map(str, flags)])


@pytest.fixture(scope="module")
def fixtures(parity_dir) -> list:
    found = [Fixture(path) for path in sorted(parity_dir.glob("*/model*.p*")) if (path.parent / "expected.npz").is_file()]
    found = [fixture for fixture in found if fixture.framework]
    assert {fixture.framework for fixture in found} == set(FRAMEWORKS) - {"zoo"}
    assert {fixture.model for fixture in found} == set(MODELS)
    return found


def test_parity_of_detections(fixtures, parity_dir, tmp_path):
    """From the pictures to COCO results with the YAML that is written; only the size of the input is another."""
    for fixture in (fixture for fixture in fixtures if fixture.path.stem == "model"):
        output = tmp_path / f"{fixture.folder.name}.ckpt"
        assert fixture.convert(fixture.path, f"--output_file={output}") == 0
        size = {"img_height": int(fixture.height), "img_width": int(fixture.width), "pad_to": f"{fixture.height}x{fixture.width}"}
        config = fixture.part("model_utils.config").load_config(
            output.with_suffix(".yaml"), {**size, "checkpoint_path": str(output), "device_target": "CPU"})
        results = detect(fixture, config, sorted((parity_dir / "images").iterdir()))
        expected = json.loads((fixture.folder / "expected_detections.json").read_text())
        unmatched, pixels = compare(results, expected)
        assert unmatched <= 1, fixture.folder.name
        assert sum(count > 8 for count in pixels) <= 2, fixture.folder.name


# Keys by which a fixture's network is narrower than the shipped configurations, and its number of classes.
NARROW = ("resnet_in_channels", "resnet_out_channels", "fpn_in_channels", "fpn_out_channels", "rpn_in_channels",
          "rpn_feat_channels", "roi_align_out_channels", "rcnn_in_channels", "rcnn_fc_out_channels", "rcnn_mask_out_channels",
          "num_classes", "coco_classes")


def test_parity_of_the_shipped_recipe(fixtures, parity_dir, tmp_path):
    """detectron2_config_101.yaml, made as narrow as the fixture with 101 layers, and in float32, detects the same."""
    output = tmp_path / "o.ckpt"
    for fixture in (fixture for fixture in fixtures if fixture.framework == "detectron2" and "R101" in fixture.folder.name):
        assert fixture.convert(fixture.path, f"--output_file={output}") == 0
        load_config = fixture.part("model_utils.config").load_config
        converted = load_config(output.with_suffix(".yaml"))
        assert converted.resnet_block == (3, 4, 23, 3)
        size = {"img_height": int(fixture.height), "img_width": int(fixture.width), "pad_to": f"{fixture.height}x{fixture.width}"}
        recipe = load_config(ROOT / fixture.model / "detectron2_config_101.yaml", {
            **size, **{key: converted.to_dict()[key] for key in NARROW if key in converted}, "checkpoint_path": str(output),
            "amp_level": "O0", "device_target": "CPU"})
        results = detect(fixture, recipe, sorted((parity_dir / "images").iterdir()))
        unmatched, pixels = compare(results, json.loads((fixture.folder / "expected_detections.json").read_text()))
        assert unmatched <= 1 and sum(count > 8 for count in pixels) == 0
        return
    pytest.skip("no fixture with 101 layers of detectron2")


def detect(fixture, config, paths) -> list:
    """COCO results of pictures whose names are their ids."""
    predict = fixture.part("model_utils.inference.predictors").load_predictor(config, "CPU")
    preprocess = fixture.part("model_utils.data.loading").build_preprocess(config)
    decode = fixture.part("model_utils.data.transforms").decode_image
    detections = fixture.part("model_utils.evaluation.detections")
    image, info = map(np.stack, zip(*(preprocess(decode(path.read_bytes())) for path in paths)))
    outputs = predict(image, info)
    return detections.to_results(*outputs[:4], info, [int(path.stem) for path in paths],
                                 detections.config_categories(config), *outputs[4:],
                                 encode=fixture.part("model").mask_encoder(config))


def compare(results: list, expected: list) -> tuple:
    """(detections of either side without one of the same class within 0.05 px and 0.003, pixels in which masks differ)."""
    left, unmatched, pixels = list(results), 0, []
    for wanted in expected:
        near = [found for found in left if all(found[key] == wanted[key] for key in ("image_id", "category_id"))
                and abs(found["score"] - wanted["score"]) < 3e-3 and distance(found, wanted) < 0.05]
        if not near:
            unmatched += 1
            continue
        found = near[np.argmin([distance(found, wanted) for found in near])]
        left.remove(found)
        if "segmentation" in wanted:
            pixels.append((coco_mask.decode(found["segmentation"]) != coco_mask.decode(wanted["segmentation"])).sum())
    return unmatched + len(left), pixels


def distance(one: dict, other: dict) -> float:
    return np.abs(np.subtract(one["bbox"], other["bbox"])).max()


def test_parity_of_the_way_there_and_back(fixtures, tmp_path):
    """theirs -> ours -> theirs -> ours, bit for bit; what the network lacks travels along."""
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


def test_parity_of_what_travels_along(fixtures, tmp_path):
    """torchvision's rows of the background: in the checkpoint, and not in the network; without them they are 0."""
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
    assert older
    for fixture in older:
        outputs = [tmp_path / "a.ckpt", tmp_path / "b.ckpt"]
        for path, output in zip((fixture.path, fixture.folder / "model.pth"), outputs):
            assert fixture.convert(path, f"--output_file={output}") == 0
        first, second = (read_checkpoint(path).arrays for path in outputs)
        assert list(first) == list(second) and all(np.array_equal(first[name], second[name]) for name in first)


def test_parity_of_a_mask_rcnn_without_masks(fixtures, tmp_path, capsys):
    """Faster R-CNN takes its boxes; Mask R-CNN does not take a Faster R-CNN."""
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
            assert "no checkpoint was written: the network would not be whole, 12 of its" in err


def test_parity_of_what_another_list_of_classes_starts_from(fixtures, tmp_path):
    from faster_rcnn.src.FasterRcnn.faster_rcnn import build_network
    from faster_rcnn.src.model_utils.weights.loading import load_pretrained

    fixture = next(fixture for fixture in fixtures if (fixture.framework, fixture.model) == ("torchvision", "faster_rcnn"))
    assert fixture.convert(fixture.path, f"--output_file={tmp_path / 'o.ckpt'}") == 0
    net = build_network(narrow_config(resnet_block=[3, 4, 6, 3]))
    missing = load_pretrained(net, tmp_path / "o.ckpt")
    assert missing == [f"rcnn.{layer}.{leaf}" for layer in ("cls_score", "bbox_pred") for leaf in ("weight", "bias")]
    for param in net.get_parameters():
        if param.name not in missing:
            wanted = fixture.arrays[FRAMEWORKS["torchvision"].theirs(param.name)]
            np.testing.assert_array_equal(param.asnumpy(), wanted, param.name)


@pytest.mark.parametrize("model", MODELS)
def test_parity_of_the_old_zoo(model, parity_dir):
    """Names and shapes of its two detectors; which values go where is told in test_convert_detector.py."""
    weights = importlib.import_module(f"{model}.src.{MODELS[model]}.conversion.detector_weights")
    config = importlib.import_module(f"{model}.src.model_utils.config").load_config()
    shapes = json.loads((parity_dir / "zoo_names" / f"{model}.json").read_text())
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    assert find_framework(arrays) == "zoo"
    detector = weights.convert_detector(arrays, "zoo", model == "mask_rcnn", "file")
    assert detector.left_out == {}
    assert {name: value.shape for name, value in detector.tensors.items()} == weights.detector_shapes(config)
