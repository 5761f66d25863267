"""The Python interface: lazy imports, where a configuration is found, inputs, results and drawings."""
import copy
import importlib
import itertools
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import mindspore as ms
import numpy as np
import pytest
import tomllib

import faster_rcnn
from faster_rcnn.src.FasterRcnn.faster_rcnn import build_network
from faster_rcnn.src.model_utils import local_adapter, subcommands
from faster_rcnn.src.model_utils.inference import detector as detection
from faster_rcnn.src.model_utils.inference.found import Drawing, Found
from faster_rcnn.src.model_utils.inference.media import Frame
from faster_rcnn.src.model_utils.interface import Run, configure
from faster_rcnn.src.model_utils.python_words import in_python
from faster_rcnn.src.model_utils.weights.own_config import find_config
from mask_rcnn.src.MaskRcnn.mask_rcnn import build_network as build_mask_network
from refinedet.src.refinedet import build_network as build_one_stage
from tests import narrow_network, narrow_refinedet
from tests.toy_data import quarters

MODELS = ("faster_rcnn", "mask_rcnn", "refinedet")
# Imports the three models beside another module named `utils`.
PROGRAM = """
import os, sys
sys.path.append(sys.argv[1])
import faster_rcnn, mask_rcnn, refinedet
assert "numpy" not in sys.modules and "ONEDNN_MAX_CPU_ISA" not in os.environ
from faster_rcnn import Detector, evaluate, train
from mask_rcnn import Detector as MaskDetector
from refinedet import Detector as OneStageDetector
assert len({Detector, MaskDetector, OneStageDetector}) == 3
assert "mindspore" not in sys.modules and os.environ["ONEDNN_MAX_CPU_ISA"] == "AVX2"
for model in ("faster_rcnn", "mask_rcnn", "refinedet"):
    own_utils = sys.modules[model + ".src.model_utils.own_utils"].own_utils
    print(own_utils("mindrecord.formats").__name__, sorted(own_utils("mindrecord").all_formats()))
import utils
print(utils.__file__, "src" in sys.modules)
"""


def test_three_models_beside_another_module_named_utils(run_command, repo_dir, tmp_path):
    (tmp_path / "utils.py").write_text("")
    done = run_command(["python", "-c", PROGRAM, repo_dir], cwd=tmp_path, env={"ONEDNN_MAX_CPU_ISA": None}, new_process=True)
    assert done.returncode == 0, done.stderr
    formats = "['coco', 'coco_files', 'labelme', 'other', 'voc', 'yolo']"
    assert done.stdout.splitlines() == [
        "faster_rcnn.utils.mindrecord.formats " + formats, "mask_rcnn.utils.mindrecord.formats " + formats,
        "refinedet.utils.mindrecord.formats " + formats, f"{tmp_path / 'utils.py'} False"]


@pytest.mark.parametrize("model", MODELS)
def test_exported_names(model):
    package = importlib.import_module(model)
    assert all(getattr(package, name).__name__ == name for name in package.__all__) and {*package.__all__} <= {*dir(package)}
    with pytest.raises(AttributeError, match=f"module '{model}' has no attribute 'detect'"):
        _ = package.detect


def test_importing_mindspore_too_early_is_warned_about_once(monkeypatch, caplog):
    environ = {}
    monkeypatch.setattr(local_adapter.os, "environ", environ)
    monkeypatch.setattr(local_adapter.platform, "machine", lambda: "x86_64")
    monkeypatch.setitem(sys.modules, "mindspore", SimpleNamespace())
    for _ in range(2):
        local_adapter.prepare_environment()
    assert [record.getMessage().partition(",")[0] for record in caplog.records] == [
        "MindSpore was imported before its environment was set up"]
    assert environ["ONEDNN_MAX_CPU_ISA"] == "AVX2"


def test_a_second_network_keeps_the_number_of_threads(monkeypatch):
    def refuse(*_):
        raise RuntimeError("The 'threads_num' can not be set repeatedly.")

    monkeypatch.setattr(ms.device_context.cpu.op_tuning, "threads_num", refuse)
    assert local_adapter.setup_device(configure(None, {"device_target": "CPU"})) == "CPU"


def test_changing_the_device_is_a_one_line_error(monkeypatch, message):
    def refuse(*_):
        raise RuntimeError("The 'mindspore.set_device' can not be modified.\nMore")

    monkeypatch.setattr(ms, "set_device", refuse)
    assert message(local_adapter.setup_device, configure(None, {"device_target": "CPU"})) == (
        "device_target: CPU: MindSpore already uses a device in this process (The 'mindspore.set_device' can not be modified.)")


# Configurations

def test_where_a_configuration_is_found(tmp_path, message):
    """The first existing file in a fixed order of places."""
    run = tmp_path / "output" / "checkpoint"
    run.mkdir(parents=True)
    for name in ("best.ckpt", "net.onnx"):
        (run / name).touch()
    assert message(find_config, run / "best.ckpt").endswith("config.yaml; give config_path")
    assert message(find_config, run / "last.ckpt") == f"{run / 'last.ckpt'}: no such file"
    assert message(find_config, tmp_path / "best.pth") == (
        f"{tmp_path / 'best.pth'}: expected a file with suffix .ckpt, .mindir, .onnx")
    for place in (tmp_path / "output" / "config.yaml", run / "config.yaml", run / "best.yaml"):
        place.touch()
        assert find_config(run / "best.ckpt") == place
    (run / "net.onnx.yaml").touch()
    assert find_config(run / "net.onnx") == run / "net.onnx.yaml"
    assert find_config(run / "net.onnx", place) == place
    assert find_config(run / "net.onnx", "demo_config_cpu.yaml").parent.name == "faster_rcnn"


def test_keys_override_a_file_and_a_configuration(tmp_path, message):
    path = tmp_path / "mine.yaml"
    path.write_text("convention: mmdet\nepoch_size: 3\n")
    config = configure(path, {"coco_root": tmp_path, "batch_size": 4})
    assert (config.epoch_size, config.batch_size, config.coco_root, config.size_rounding) == (3, 4, str(tmp_path), "nearest")
    again = configure(config, {"convention": "torchvision", "batch_size": 1})
    assert (again.epoch_size, again.batch_size, again.size_rounding) == (3, 1, "floor")
    assert configure("demo_config_cpu.yaml", {}).img_height < configure(None, {}).img_height    # in the model's folder
    assert configure(configure(None, {}, classes_of_data=True), {}, classes_of_data=True).num_classes == 0
    assert message(configure, None, {"batch_sise": 4}) == "batch_sise: unknown key, did you mean batch_size?"
    assert message(configure, "absent.yaml", {}) == "--config_path: no such file: absent.yaml"


def test_errors_use_python_syntax(tmp_path, message):
    for text, expected in {
            "give exactly one of --checkpoint_path, --onnx_path": "give exactly one of checkpoint_path, onnx_path",
            "is for --backbone=resnet_v1.5_50, not b": 'is for backbone="resnet_v1.5_50", not b',
            "use --draw=False, or --val_ratio=0.2": "use draw=False, or val_ratio=0.2",
            "start without --resume; --resume=auto": 'start without resume; resume="auto"',
            "--config_path: no such file": "config_path: no such file",
            "python -m src.convert_checkpoint --ckpt_file=a.pth": "python -m src.convert_checkpoint --ckpt_file=a.pth",
            "faster-rcnn convert --ckpt_file=a": "faster-rcnn convert --ckpt_file=a", "pip --draft --list": "pip --draft --list",
    }.items():
        assert in_python(text) == expected
    (tmp_path / "best.ckpt").touch()
    assert message(detection.Detector, tmp_path / "best.ckpt", "absent.yaml") == "config_path: no such file: absent.yaml"
    assert message(faster_rcnn.evaluate, output_path=tmp_path / "out") == (
        "give exactly one of checkpoint_path, mindir_path, onnx_path, detections")
    assert message(faster_rcnn.evaluate, detections=tmp_path / "best.ckpt", output_path=tmp_path / "out") == (
        "anno_path: scoring needs annotations; give anno_path=GROUND_TRUTH.json or coco_root=DIR")


def test_weights_of_another_model_are_refused(tmp_path, message):
    """Networks of all three models. The configuration or, failing that, the weights reveal the model."""
    networks = {"faster_rcnn": (narrow_network.narrow_config(), build_network),
                "mask_rcnn": (narrow_network.narrow_mask_config(), build_mask_network),
                "refinedet": (narrow_refinedet.narrow_config(), build_one_stage)}
    for model, (config, build) in networks.items():
        folder = tmp_path / model / "checkpoint"
        folder.mkdir(parents=True)
        ms.save_checkpoint(build(config), str(folder / "best.ckpt"))
        text = "".join(f"{key}: {json.dumps(value)}\n" for key, value in config.to_dict().items())
        (folder.parent / "config.yaml").write_text(text)
    for model, other in itertools.permutations(networks, 2):
        path = tmp_path / other / "checkpoint" / "best.ckpt"
        expected = f"{path}: holds weights of {other}, not of {model}; use {other}.Detector, or the commands in {other}/"
        package = importlib.import_module(model)
        for call in (package.Detector, package.export):
            assert message(call, path, device_target="CPU", file_name=str(tmp_path / "net")) == expected, (model, other)


def test_version_matches_pyproject(repo_dir):
    wanted = tomllib.loads((repo_dir / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert [importlib.import_module(model).__version__ for model in MODELS] == [wanted] * 3


# Images

def test_input_sources(tmp_path, message):
    image = np.full((20, 30, 3), 7, np.uint8)
    for name in ("a/x.png", "b/x.png", "b/c/y.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), image)

    def names(images):
        return [frame.file_name for source in detection.open_sources(images) for frame in source]

    assert names(tmp_path / "b") == ["c/y.png", "x.png"] and names(str(tmp_path / "a" / "x.png")) == ["x.png"]
    assert names(image) == ["image_1.png"]
    assert names([tmp_path / "b" / "c" / "y.png", image, tmp_path / "a"]) == ["y.png", "image_2.png", "x.png"]
    assert names([tmp_path / "b", tmp_path / "a" / "x.png"]) == ["b/c/y.png", "b/x.png", "a/x.png"]     # duplicate file names
    open_sources = detection.open_sources
    assert message(open_sources, tmp_path / "absent") == f"input: no such file or folder: {tmp_path / 'absent'}"
    assert message(open_sources, [image, 3]) == "image 2: expected a path or an array (H, W, 3), got int"
    for wrong in (image[..., 0], image / 255, image[:0], image[..., :1]):
        assert message(open_sources, wrong).startswith("image 1: expected an array (H, W, 3) of uint8")


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """(Detector that finds the quarters of each image, list of the batch sizes that its network received)."""
    config = configure(None, {"num_classes": 3, "coco_classes": ["background", "cat", "dog"], "img_height": 64, "img_width": 96,
                              "test_batch_size": 2, "score_thr": 0.5})
    batches = []

    def predict(image, info):
        batches.append(len(image))
        boxes = [[[x, y, x + width, y + height] for x, y, width, height in quarters(*map(float, row[:2]))] for row in info]
        scores = np.tile(np.float32([0.9, 0.7, 0.5, 0.3]), (len(image), 1))
        return np.array(boxes), scores, np.tile([1, 2, 1, 2], (len(image), 1)), np.ones((len(image), 4), bool)

    detector = detection.Detector.__new__(detection.Detector)
    detector.config = config
    detector._detector = detection.FrameDetector(predict, config)
    return detector, batches


def test_detector_results(toy, tmp_path, caplog, message):
    detector, batches = toy
    (tmp_path / "in").mkdir()
    for i, size in enumerate(((20, 60), (40, 30), (33, 77))):
        cv2.imwrite(str(tmp_path / "in" / f"{i}.png"), np.full((*size, 3), 100 + i, np.uint8))
    (tmp_path / "in" / "1.jpg").write_bytes(b"no image")
    found = list(detector(tmp_path / "in"))
    assert [item.name for item in found] == ["0.png", "1.png", "2.png"] and batches == [2, 2]
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'in' / '1.jpg'}: not an image of a known format, or damaged (8 bytes)"]
    for i, item in enumerate(found):
        height, width = item.image.shape[:2]
        assert item.names == ["cat", "dog", "cat"] and item.labels.tolist() == [1, 2, 1] and len(item) == 3
        np.testing.assert_allclose(item.scores, [0.9, 0.7, 0.5], atol=1e-7)
        x, y, w, h = np.array(quarters(height, width))[:3].T
        np.testing.assert_allclose(item.boxes, np.stack([x, y, x + w, y + h], -1), atol=1e-3)
        assert (item.image == 100 + i).all()
        with pytest.raises(AttributeError, match="predicts boxes only, no masks"):
            _ = item.masks
    assert len(next(detector(found[0].image, score_thr=0.8))) == 1 and len(next(detector([found[0].image], score_thr=0))) == 4
    assert message(detector, tmp_path / "in", score_thr=2) == "score_thr: expected 0 to 1, got 2"
    assert message(detector, tmp_path / "in", score_thr="0.5") == "score_thr: expected 0 to 1, got '0.5'"
    assert message(detector, tmp_path / "absent").endswith("absent")       # raised by the call, before iteration
    assert message(list, detector(tmp_path / "in" / "1.jpg")).startswith("none of the images can be read; the last: ")


def test_video_frames_have_timestamps(toy, tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for i in range(3):
        writer.write(np.full((48, 64, 3), 40 * i, np.uint8))
    writer.release()
    found = list(toy[0](tmp_path / "clip.avi"))
    assert [(item.name, item.frame, item.time) for item in found] == [("clip.avi", i, i / 10) for i in range(3)]
    assert found[2].draw().save(tmp_path / "drawn") == tmp_path / "drawn" / "clip_000002.jpg"


def test_labels_beyond_the_configuration_are_refused(toy, message):
    predict, detector = toy[0]._detector.predict, copy.copy(toy[0]._detector)
    detector.predict = lambda *inputs: [value + (i == 2) for i, value in enumerate(predict(*inputs))]
    frames = [Frame(1, "a.png", np.zeros((9, 9, 3), np.uint8))]
    assert message(list, detector.run(frames, 0)) == (
        "num_classes: the network predicted label 3, but the configuration has labels 1 to 2; "
        "pass the configuration that the network was trained with")


# Drawings

def test_paths_of_drawings(tmp_path, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = np.full((40, 60, 3), 90, np.uint8)
    Path("in").mkdir()
    cv2.imwrite("in/a.png", image)
    found = Found("a.png", image, np.array([[5.0, 5, 30, 30]]), np.array([0.9]), np.array([1]), ["background", "cat"],
                  path=Path("in/a.png"))
    drawing = found.draw()
    assert (drawing.image != image).any() and (image == 90).all()
    assert cv2.imdecode(np.frombuffer(drawing._repr_png_(), np.uint8), 1).shape == image.shape
    for target, written in (("drawn/", "drawn/a.png"), ("v1.5", "v1.5/a.png"), ("drawn/b.jpg", "drawn/b.jpg"),
                            ("drawn", "drawn/a.png")):
        assert drawing.save(target) == Path(written) and cv2.imread(written).shape == image.shape
    assert "in/a.png: the drawing would overwrite the input image" in message(drawing.save, "in/")
    assert (cv2.imread("in/a.png") == 90).all()
    assert Drawing(image, "x.jp2").save(tmp_path) == tmp_path / "x.jp2.jpg"


# Runs

def test_attributes_of_a_run(tmp_path):
    run = Run(tmp_path, status=0, steps=6, best_ap=None, best_epoch=None)
    assert (run.checkpoint, run.metrics(), run.config_path) == (None, [], tmp_path / "config.yaml")
    (tmp_path / "metrics.jsonl").write_text('{"kind": "train", "step": 1}\n{"kind": "eval", "AP": 0.5}\n')
    (tmp_path / "checkpoint").mkdir()
    for name in ("last.ckpt", "best.ckpt"):
        (tmp_path / "checkpoint" / name).touch()
        assert run.checkpoint == tmp_path / "checkpoint" / name
    assert [row["kind"] for row in run.metrics()] == ["train", "eval"]


# Commands of the package

def call(monkeypatch, *words) -> list | int:
    """Return the arguments of the program that replaces the process, or the exit status."""
    monkeypatch.setattr(sys, "argv", ["/bin/faster-rcnn", *words])
    started = []
    monkeypatch.setattr(os, "execv", lambda program, arguments: started.append((program, arguments)))
    try:
        subcommands.main()
    except SystemExit as end:
        return end.code
    assert started[0][0] == started[0][1][0] == sys.executable
    return started[0][1][1:]


def test_commands_run_the_files(monkeypatch, repo_dir, capsys):
    model = repo_dir / "faster_rcnn"
    assert call(monkeypatch, "train", "--a=b c", "--help") == [str(model / "train.py"), "--a=b c", "--help"]
    assert call(monkeypatch, "check", "DATA") == [str(repo_dir / "utils" / "mindrecord" / "check.py"), "DATA"]
    assert call(monkeypatch, "check", "DATA", "--config_path=x.yaml")[-1] == f"--model={model}"
    assert call(monkeypatch, "check", "--model=m", "--config_path", "x.yaml")[-1] == "x.yaml"
    assert all(subcommands.file_of(name).is_file() for name in subcommands.COMMANDS)
    capsys.readouterr()
    for words in ((), ("-h",), ("--help",)):
        assert call(monkeypatch, *words) == 0 and capsys.readouterr().out.startswith("usage: faster-rcnn COMMAND [options]\n")
    assert call(monkeypatch, "trian") == 2
    assert capsys.readouterr().err == ("faster-rcnn: error: unknown command 'trian', expected one of train, eval, infer, export, "
                                       "convert, check, convert-data, postprocess\n")
