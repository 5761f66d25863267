"""The runtime that infer.py and eval.py choose, and the graphs kept for ONNX Runtime. The networks are toys; test_export.py,
test_mask_export.py and test_refinedet_commands.py compare whole networks."""
import shutil
import sys

import mindspore as ms
import numpy as np
import pytest
from PIL import Image

from faster_rcnn.src import network_define
from faster_rcnn.src.model_utils import local_adapter
from faster_rcnn.src.model_utils.config import load_config
from faster_rcnn.src.model_utils.inference import export, kept_graphs
from faster_rcnn.src.model_utils.inference.backend import OnnxCheckpoint, open_predictor
from faster_rcnn.src.model_utils.inference.predictors import load_predictor
from faster_rcnn.src.model_utils.layers import convolution
from tests import narrow_network, narrow_refinedet
from tests.toy_network import ToyDetector

SIZE = (96, 128)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(checkpoint of a toy network, its exported graph, which is kept beside it)."""
    path = tmp_path_factory.mktemp("once") / "toy.ckpt"
    save(path)
    with pytest.MonkeyPatch.context() as patch:
        build_toys(patch)
        open_predictor(config_of(path), "CPU")
    return path, kept_graphs.find_graph(path, kept_graphs.graph_name(config_of(path), SIZE))


@pytest.fixture
def exports(monkeypatch, tmp_path, exported):
    """Input sizes that were exported. Each export gives the graph of `exported`; caches are in tmp_path."""
    sizes = []
    build_toys(monkeypatch)
    monkeypatch.setattr(OnnxCheckpoint, "_export", lambda self, size: sizes.append(size) or exported[1])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MS_JIT", raising=False)
    return sizes


@pytest.fixture
def checkpoint(tmp_path, exports):
    folder = tmp_path / "a folder"
    folder.mkdir()
    save(folder / "toy.ckpt")
    return folder / "toy.ckpt"


@pytest.fixture
def with_graph(checkpoint, exported):
    """The checkpoint with a kept graph beside it."""
    shutil.copy(graph_of(exported[0]), checkpoint.parent)
    return checkpoint


def build_toys(patch):
    patch.setattr(network_define, "build_network", lambda config, fast: ToyDetector(4))
    patch.setattr(convolution, "keep_filters", lambda net: None)


def save(path, scale=1.0, **entries):
    net = ToyDetector(4)
    net.backbone.gamma.set_data(net.backbone.gamma * scale)
    path.unlink(missing_ok=True)
    ms.save_checkpoint(net, str(path), append_dict=entries)


def config_of(path, **overrides):
    return load_config(overrides={"num_classes": 4, "coco_classes": [], "img_height": 96, "img_width": 128, "device_target": "CPU",
                                  "checkpoint_path": str(path), **overrides})


def graph_of(checkpoint):
    graph, = checkpoint.parent.glob(".network-*")
    return graph


def inputs(height=96, width=128):
    rng = np.random.default_rng(5)
    info = np.array([[height, width, 1, 1, height, width], [height // 2, width, 1, 1, height // 2, width]], np.float32)
    return rng.standard_normal((2, 3, height, width)).astype(np.float32), info


def assert_right(predict, checkpoint, batch, onnx=True):
    """Check that detections equal MindSpore's, and if `onnx`, that MindSpore did not compute them."""
    got, want = predict(*batch), load_predictor(config_of(checkpoint), "CPU")(*batch)
    assert [value.dtype for value in got] == [value.dtype for value in want]
    for value, wanted in zip(got, want):
        np.testing.assert_allclose(value, wanted, atol=1e-5)
    assert (isinstance(predict.run, OnnxCheckpoint) and predict.run.mindspore is None) == onnx


# Kept graphs

def test_the_network_is_exported_once(checkpoint, exports, capfd):
    assert_right(open_predictor(config_of(checkpoint), "CPU"), checkpoint, inputs())
    graph = graph_of(checkpoint)
    assert capfd.readouterr().err == ("backend: exported the network for onnxruntime, input 96 x 128, in 0 s; "
                                      f"saved for later runs: {graph}\n")
    again = config_of(checkpoint, test_batch_size=2, score_thr=0.5, coco_root="elsewhere", backend="onnxruntime")
    assert_right(open_predictor(again, "CPU"), checkpoint, inputs())
    assert exports == [SIZE] and capfd.readouterr().err == ""
    assert {path.name for path in checkpoint.parent.iterdir()} == {graph.name, "toy.ckpt"}
    open_predictor(config_of(checkpoint, test_max_per_img=7), "CPU")    # this key shapes the network
    assert exports == [SIZE, SIZE]


def test_the_weights_are_those_of_the_checkpoint_at_hand(with_graph, exports):
    save(with_graph, scale=0.5)
    assert_right(open_predictor(config_of(with_graph), "CPU"), with_graph, inputs())
    assert exports == []


@pytest.mark.parametrize("fault", ["cut", "changed", "empty", "other version"])
def test_a_damaged_or_stale_graph_is_made_again(with_graph, exports, exported, monkeypatch, fault):
    graph = graph_of(with_graph)
    data = bytearray(graph.read_bytes())
    if fault == "cut":
        del data[-1:]
    elif fault == "changed":
        data[len(data) // 2] ^= 1
    elif fault == "empty":
        data.clear()
    else:
        written = ["2.9", kept_graphs.written_by()[1]]
        monkeypatch.setattr(kept_graphs, "written_by", lambda: written)
    graph.write_bytes(data)
    open_predictor(config_of(with_graph), "CPU")
    assert exports == [SIZE] and kept_graphs.find_graph(with_graph, graph.name) == exported[1]


def test_graph_goes_to_the_cache_if_the_folder_is_not_writable(checkpoint, exports, tmp_path, capfd):
    name = kept_graphs.graph_name(config_of(checkpoint), SIZE)
    (checkpoint.parent / name).mkdir()      # even root cannot write over a folder
    for _ in range(2):
        assert_right(open_predictor(config_of(checkpoint), "CPU"), checkpoint, inputs())
    assert exports == [SIZE] and (tmp_path / "cache" / "mindspore-detection" / name).is_file()
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == [name, "toy.ckpt"]
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").touch()
    assert_right(open_predictor(config_of(checkpoint), "CPU"), checkpoint, inputs())
    assert "not saved for later runs: " in capfd.readouterr().err


def test_inputs_of_several_sizes(with_graph, exports, monkeypatch):
    monkeypatch.undo()      # real exports
    build_toys(monkeypatch)
    for _ in range(2):
        predict = open_predictor(config_of(with_graph, pad_to="divisor"), "CPU")
        for height in (32, 64, 32):
            assert_right(predict, with_graph, inputs(height))
        assert len(predict.run.sessions) == 2
    assert len(list(with_graph.parent.glob(".network-*"))) == 3


@pytest.mark.parametrize("fault", ["shape", "state", "classes"])
def test_a_kept_graph_hides_no_fault_of_the_checkpoint(with_graph, monkeypatch, message, fault):
    monkeypatch.undo()
    build_toys(monkeypatch)
    if fault == "shape":
        with_graph.unlink()
        ms.save_checkpoint(ToyDetector(4, width=6), str(with_graph))
        assert "backbone.weight is (6, 3) in" in message(open_predictor, config_of(with_graph), "CPU")
    elif fault == "state":
        save(with_graph, run_state="{}")
        assert "the state of a run" in message(open_predictor, config_of(with_graph), "CPU")
    else:
        save(with_graph, class_names='["background", "a", "b", "c"]')
        config = config_of(with_graph, coco_classes=["background", "a", "c", "b"])
        assert "was trained on [background, a, b, c]" in message(open_predictor, config, "CPU")


class Recorder(dict):
    """A configuration that records the keys read."""

    def __init__(self, config):
        super().__init__(config)
        self.read = set()

    def __getitem__(self, name):
        self.read.add(name)
        return super().__getitem__(name)

    def get(self, name, default=None):
        self.read.add(name)
        return super().get(name, default)

    __getattr__ = __getitem__


@pytest.mark.parametrize(("config", "build"), [
    (narrow_network.narrow_config, narrow_network.build_network),
    (narrow_network.narrow_mask_config, narrow_network.mask_rcnn.build_network),
    (narrow_refinedet.narrow_config, narrow_refinedet.build_network)])
def test_no_network_reads_a_key_that_the_name_leaves_out(config, build):
    recorder = Recorder(config())
    build(recorder)
    assert recorder.read and not recorder.read & kept_graphs.SHAPELESS


# Choice of runtime

@pytest.mark.parametrize("options", [{"backend": "mindspore"}, {"distribute": True}])
def test_mindspore_where_requested(checkpoint, exports, options):
    assert_right(open_predictor(config_of(checkpoint, **options), "CPU"), checkpoint, inputs(), onnx=False)
    assert exports == []


def test_auto_takes_mindspore_for_operator_by_operator(checkpoint, exports, monkeypatch):
    monkeypatch.setenv("MS_JIT", "0")
    assert_right(open_predictor(config_of(checkpoint), "CPU"), checkpoint, inputs(), onnx=False)
    assert exports == []


@pytest.mark.parametrize(("fault", "reason"), [
    ("missing", "onnxruntime is not installed"), ("export", "the export failed: no such operator"),
    ("file", "it cannot read the exported file: ")])
def test_without_onnxruntime_auto_says_why_and_takes_mindspore(checkpoint, exported, monkeypatch, capfd, message, fault, reason):
    if fault == "missing":
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    elif fault == "export":
        monkeypatch.undo()
        build_toys(monkeypatch)

        def fail(*_):
            raise RuntimeError("no such operator\nin line 3")

        monkeypatch.setattr(export, "write_onnx", fail)
    else:
        monkeypatch.setattr(OnnxCheckpoint, "_export", lambda self, size: exported[1]._replace(onnx=b"no model"))
    assert_right(open_predictor(config_of(checkpoint), "CPU"), checkpoint, inputs(), onnx=False)
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith(f"backend: mindspore, because onnxruntime cannot run the network: {reason}")
    error = message(open_predictor, config_of(checkpoint, backend="onnxruntime"), "CPU")
    assert error.startswith(f"backend: onnxruntime cannot run the network: {reason}")


@pytest.mark.parametrize(("options", "device", "error"), [
    ({}, "GPU", "runs on the CPU only, but the device is GPU"), ({"distribute": True}, "CPU", "runs in one process only"),
    ({"checkpoint_path": "", "mindir_path": __file__}, "CPU", "backend: onnxruntime cannot run mindir_path, which needs mindspore"),
    ({"checkpoint_path": "", "onnx_path": __file__, "backend": "mindspore"}, "CPU",
     "mindspore cannot run onnx_path, which needs onnxruntime"),
])
def test_impossible_choices_give_one_line(checkpoint, message, options, device, error):
    assert error in message(open_predictor, config_of(checkpoint, **{"backend": "onnxruntime", **options}), device)


@pytest.mark.parametrize(("options", "files", "sure"), [
    ({"device_target": "CPU"}, "tests", True), ({"device_target": "auto"}, "nowhere", True),
    ({"device_target": "auto"}, "tests", False), ({"device_target": "GPU"}, "nowhere", False),
    ({"distribute": True}, "nowhere", False)])
def test_the_cpu_is_known_without_mindspore_where_no_other_device_can_be(monkeypatch, repo_dir, options, files, sure):
    monkeypatch.setattr(local_adapter, "DEVICE_FILES", (str(repo_dir / f"{files}*"),))
    assert local_adapter.cpu_without_mindspore(config_of("", **options)) == sure


CODE = """
import runpy, sys
sys.modules["mindspore"] = None         # to import it is an error
sys.argv = sys.argv[1:]
sys.path[0] = sys.argv[0].rpartition("/")[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("key", ["checkpoint_path", "onnx_path"])
def test_infer_imports_no_mindspore(run_command, repo_dir, with_graph, exported, tmp_path, key):
    from faster_rcnn.src.model_utils.inference.onnx_graph import with_weights
    from faster_rcnn.src.model_utils.weights.mindspore_file import read_mindspore

    weights = read_mindspore(with_graph)
    (tmp_path / "toy.onnx").write_bytes(with_weights(exported[1].onnx, {name: weights[name] for name in exported[1].used}))
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(tmp_path / "a.png")
    model = with_graph if key == "checkpoint_path" else tmp_path / "toy.onnx"
    flags = {"num_classes": 4, "coco_classes": "[]", "img_height": 96, "img_width": 128, "device_target": "CPU", "score_thr": 0,
             "output_path": tmp_path / "out", key: model, "input": tmp_path / "a.png"}
    done = run_command(["python", "-c", CODE, repo_dir / "faster_rcnn" / "infer.py", *(f"--{k}={v}" for k, v in flags.items())],
                       cwd=tmp_path, new_process=True, env={"MS_JIT": None})
    assert done.returncode == 0, done.stderr
    assert "1 image; detections with a score of 0 or more: " in done.stdout
