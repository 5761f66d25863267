"""export.py as a user calls it: its files run in MindSpore and ONNX Runtime, and match the checkpoint."""
import json

import cv2
import numpy as np
import pytest

from tests import ten_lines
from tests.kept_graph import keep_exported

# Low-contrast images do not exceed this background logit; the other biases make all classes occur.
BIASES = (5, -1, 2, 2)
CONTRASTS = (1.5, 1.5, 1.5, 0.2)
# Unlike the default: RoIAlign's other sampling, fewer proposals than slots, two images at once.
OTHERWISE = {"test_batch_size": 2, "pad_to": "128x160", "roi_layer": "{sample_num: 0}", "rpn_nms_post": 10,
             "rpn_max_num": 60, "rpn_nms_across_levels": True}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Folder with small.ckpt, a detector with random weights, and its small.yaml."""
    import mindspore as ms

    from faster_rcnn.src.model_utils.config import save_config
    from tests.narrow_network import narrow_config, narrow_network, spread_heads

    folder = tmp_path_factory.mktemp("a model")
    config = narrow_config(test_score_thr=0.3)
    net = narrow_network(config)
    spread_heads(net)
    net.rcnn.cls_score.bias.set_data(ms.Tensor(np.array(BIASES, np.float32)))
    ms.save_checkpoint(net, str(folder / "small.ckpt"))
    save_config(config, folder / "small.yaml")
    return folder


@pytest.fixture(scope="module")
def export(model, run_command, repo_dir):
    """export(cwd, **options): run export.py on the model; options override its flags."""
    def run(cwd, **options):
        options = {"config_path": model / "small.yaml", "ckpt_file": model / "small.ckpt", **options}
        flags = [f"--{name}={value}" for name, value in options.items()]
        return run_command(["python", repo_dir / "faster_rcnn" / "export.py", *flags], cwd=cwd)

    return run


@pytest.fixture(scope="module")
def files(export, tmp_path_factory):
    """{format: exported file}; one name is absolute and has the ending, the other is neither."""
    folder = tmp_path_factory.mktemp("exported here")
    paths = {"MINDIR": folder / "new folder" / "net v1.5.mindir", "ONNX": folder / "net v1.5.onnx"}
    aipp = tmp_path_factory.mktemp("aipp") / "src" / "aipp.cfg"
    for kind, name in (("MINDIR", "new folder/net v1.5"), ("ONNX", paths["ONNX"])):
        result = export(folder, file_format=kind, file_name=name, aipp_path=aipp if kind == "MINDIR" else "")
        assert result.returncode == 0, result.stdout + result.stderr
        size = paths[kind].stat().st_size / 1e6
        assert f"{paths[kind]}: {kind}, {size:.1f} MB" in result.stdout
        assert "image (1, 3, 128, 192), image_info (1, 6)" in result.stdout
        assert (f"{aipp}: preprocessing for Ascend (AIPP), not tested on a device yet" in result.stdout) == (kind == "MINDIR")
    assert "src_image_size_w: 192\n    src_image_size_h: 128\n" in aipp.read_text()
    written = [path for path in folder.rglob("*") if path.is_file()]
    beside = [path.with_name(f"{path.name}.yaml") for path in paths.values()]
    assert sorted(written) == sorted([*paths.values(), *beside])        # no scratch files
    assert all(path.stat().st_mode & 0o600 == 0o600 for path in written)
    return paths


def config_of(model, **overrides):
    from faster_rcnn.src.model_utils.config import load_config

    return load_config(model / "small.yaml", overrides)


def run_checkpoint(model, config, batches) -> list:
    """Return the network's own outputs per batch: [(boxes, scores, labels, valid), ...]."""
    import mindspore as ms

    from faster_rcnn.src.FasterRcnn.faster_rcnn import build_network
    from faster_rcnn.src.model_utils.weights.loading import load_checkpoint_into
    from faster_rcnn.src.network_define import InferenceNet

    net = build_network(config)
    load_checkpoint_into(net, model / "small.ckpt")
    infer = ms.jit(InferenceNet(net).set_train(False))
    return [[value.asnumpy() for value in infer(*map(ms.Tensor, batch))] for batch in batches]


def run_file(config, batches) -> list:
    from faster_rcnn.src.model_utils.inference.predictors import load_predictor

    predict = load_predictor(config, "CPU")
    return [predict(*batch) for batch in batches]


def noise_images(height: int, width: int) -> tuple:
    """Return image (4, 3, H, W) and image_info (4, 6) as arrays. Three images fill only a part of the input; the last is faint."""
    from tests.narrow_network import narrow_config, pictures

    images, infos = pictures(narrow_config(img_height=height, img_width=width), 4, seed=7)
    return images.asnumpy() * np.array(CONTRASTS, np.float32).reshape(-1, 1, 1, 1), infos.asnumpy()


def assert_same_detections(got, want, pixels: float, score: float) -> None:
    """Each detection on one side matches one on the other, in any order."""
    assert [value.shape for value in got] == [value.shape for value in want]
    assert [value.dtype for value in got] == [value.dtype for value in want]
    for (boxes, scores, labels, valid), wanted in zip(zip(*got), zip(*want)):
        left = set(np.flatnonzero(valid))
        for box, confidence, label, counts in zip(*wanted):
            if not counts:
                continue
            twins = [i for i in left if labels[i] == label and abs(scores[i] - confidence) <= score
                     and np.abs(boxes[i] - box).max() <= pixels]
            assert twins, f"no twin of label {label}, score {confidence}, box {box}"
            left.remove(twins[0])
        assert not left


@pytest.fixture(scope="module")
def batches():
    images, infos = noise_images(128, 192)
    return [(images[i:i + 1], infos[i:i + 1]) for i in range(4)]


@pytest.fixture(scope="module")
def expected(model, batches):
    found = run_checkpoint(model, config_of(model), batches)
    counts = [int(valid.sum()) for *_, valid in found]
    assert min(counts[:3]) >= 5 and counts[3] == 0, counts
    assert {1, 3} <= {label for _, _, labels, valid in found for label in labels[valid]}
    return found


@pytest.mark.parametrize("kind, pixels, score", [("MINDIR", 1e-4, 1e-5), ("ONNX", 1e-2, 1e-4)])
def test_file_gives_what_the_checkpoint_gives(model, files, batches, expected, kind, pixels, score):
    found = run_file(config_of(model, **{f"{kind.lower()}_path": str(files[kind])}), batches)
    for got, want in zip(found, expected):
        assert_same_detections(got, want, pixels, score)


def test_onnx_names_its_inputs_and_outputs(files):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(files["ONNX"]), providers=["CPUExecutionProvider"])
    assert [item.name for item in session.get_inputs()] == ["image", "image_info"]
    assert [item.name for item in session.get_outputs()] == ["boxes", "scores", "labels", "valid"]


def test_onnx_of_another_configuration(model, export, tmp_path):
    result = export(tmp_path, file_format="ONNX", file_name="other", **OTHERWISE)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "image (2, 3, 128, 160)" in result.stdout
    images, infos = noise_images(128, 160)
    batches = [(images[:2], infos[:2]), (images[2:], infos[2:])]
    overrides = {**OTHERWISE, "roi_layer": {"sample_num": 0}}
    found = run_file(config_of(model, onnx_path=str(tmp_path / "other.onnx"), **overrides), batches)
    for got, want in zip(found, run_checkpoint(model, config_of(model, **overrides), batches)):
        assert want[3][0].sum() >= 5
        assert_same_detections(got, want, 1e-2, 1e-4)


def test_the_ten_lines_find_what_infer_finds(model, files, run_command, repo_dir, tmp_path):
    """infer.py runs the checkpoint in MindSpore, the ten lines run each file. The configurations lie beside the files."""
    rng = np.random.default_rng(3)
    (tmp_path / "in").mkdir()
    for name, size in (("wide", (64, 180)), ("high", (150, 100))):
        coarse = rng.integers(0, 256, (*(side // 10 + 1 for side in size), 3)).astype(np.uint8)
        cv2.imwrite(str(tmp_path / "in" / f"{name}.png"), cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC))
    keep_exported("faster_rcnn", config_of(model), model / "small.ckpt", files["ONNX"])
    flags = {"config_path": model / "small.yaml", "checkpoint_path": model / "small.ckpt", "input": tmp_path / "in", "draw": False,
             "output_path": tmp_path / "out", "score_thr": ten_lines.SCORE, "backend": "mindspore"}
    result = run_command(["python", repo_dir / "faster_rcnn" / "infer.py", *(f"--{name}={value}" for name, value in flags.items())],
                         cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    wanted = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert {result["file_name"] for result in wanted} == {"wide.png", "high.png"}
    weights = [model / "small.ckpt", files["MINDIR"], files["ONNX"]]
    found = ten_lines.run_ten_lines(run_command, "faster_rcnn", tmp_path, tmp_path / "in", weights)
    assert len(found) == 3
    for results in found:
        ten_lines.assert_same(results, wanted, ["background", "disc", "box", "bar"])


@pytest.mark.parametrize("options, message", [
    ({"ckpt_file": ""}, "ckpt_file is required"),
    ({"ckpt_file": "absent.ckpt"}, "ckpt_file: no such file or folder: absent.ckpt"),
    ({"ckpt_file": __file__}, "not a MindSpore checkpoint (.ckpt)"),
    ({"num_classes": 3, "coco_classes": "[background, disc, box]"}, "the config's num_classes asks for (3, 64)"),
    ({"resnet_block": "[1, 1, 2, 1]"}, "lacks backbone.layer3.1.conv1.weight"),
    ({"file_format": "AIR"}, "AIR can be written on Ascend only"),
    ({"file_format": "CAFFE"}, "file_format"),
    ({"file_format": "ONNX", "file_name": "net.mindir"}, "net.mindir: file_format=ONNX needs the ending .onnx"),
    ({"file_name": "folder"}, "is a folder"),
    ({"file_name": "folder/file/net"}, "cannot be written"),
    ({"split": True, "test_batch_size": 2}, "test_batch_size: --split=True exports for one image: expected 1, got 2"),
    ({"pad_to": "divisor"}, "pad_to: an exported network takes inputs of one size"),
])
def test_what_is_wrong_is_one_line_and_nothing_is_written(export, tmp_path, options, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    (tmp_path / "faster_rcnn.mindir").write_text("an older file")
    before = sorted(tmp_path.rglob("*"))
    result = export(tmp_path, **options)
    assert result.returncode == 2, result.stdout + result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("export.py: error: "), result.stderr
    assert message in lines[0]
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "faster_rcnn.mindir").read_text() == "an older file"
