"""The commands of refinedet: what differs from faster_rcnn, such as the old zoo's flags and log, and two kinds of exports."""
import functools
import json
import re

import cv2
import numpy as np
import pytest

from refinedet.src.model_utils.inference.backend import open_predictor
from tests import ten_lines
from tests.kept_graph import keep_exported

OLD_LINE = (r"epoch: \d+ step: \d+, loss is (?P<total>\d+\.\d{7}), arm_loss: (?P<arm>\d+\.\d{5}), odm_loss: (?P<odm>\d+\.\d{5}), "
            r"arm_loc_loss: \d+\.\d{5}, arm_conf_loss: \d+\.\d{5}, odm_loc_loss: \d+\.\d{5}, odm_conf_loss: \d+\.\d{5}")
EPOCH_LINE = r"epoch time: (?P<epoch>\d+\.\d{3}) ms, per step time: (?P<step>\d+\.\d{3}) ms"


# train.py

def test_a_run_with_the_old_flags(coco, run_command, repo_dir, tmp_path):
    flags = ["--dataset=coco", "--epoch_size=2", "--lr=0.002", "--image_shape=[64, 128]", "--class_num=4", "--num_gts=4",
             "--classes=[background, thing 1, thing 2, thing 3]", "--batch_size=2", "--pre_trained_epoch_size=0",
             "--run_online=False", "--distribute=False", "--lr_reference_batch=0", "--warmup_step=0", "--log_interval=1",
             "--eval_start_epoch=1", "--num_parallel_workers=1", "--device_target=CPU", f"--coco_root={coco}",
             f"--output_path={tmp_path / 'out put'}"]
    done = run_command(["python", repo_dir / "tests" / "toy_train.py", "--toy_model=refinedet", *flags], cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "first weights of 5" in done.stdout
    lines = (tmp_path / "out put" / "loss_0.log").read_text().splitlines()
    steps = [re.fullmatch(OLD_LINE, line) for line in (*lines[:3], *lines[4:7])]
    epochs = [re.fullmatch(EPOCH_LINE, line) for line in (lines[3], lines[7])]
    assert len(lines) == 8 and all(steps) and all(epochs), lines
    for found in steps:
        assert float(found["total"]) == pytest.approx(float(found["arm"]) + float(found["odm"]), abs=2e-5)
    for found in epochs:
        assert float(found["epoch"]) == pytest.approx(3 * float(found["step"]), abs=0.003)
    assert epochs[0][0] in done.stdout
    rows = [json.loads(line) for line in (tmp_path / "out put" / "metrics.jsonl").read_text().splitlines()]
    assert {row["lr"] for row in rows if row["kind"] == "train"} == {0.002}
    assert {"arm_loss", "odm_conf_loss", "total_loss"} <= rows[0].keys()
    assert sorted(path.name for path in (tmp_path / "out put" / "checkpoint").iterdir()) == [
        "best.ckpt", "last.ckpt", "refinedet-2_3.ckpt", "state.ckpt", "state_before.ckpt"]
    resolved = (tmp_path / "out put" / "config.yaml").read_text()
    assert "img_height: 64" in resolved and "img_width: 128" in resolved


@pytest.mark.parametrize(("script", "flag", "message"), [
    ("train", "--image_shape=[320]", "--image_shape: expected 2 values, img_height, img_width, got 1"),
    ("train", "--image_shape=[320, 300]", "--image_shape: expected a multiple of 64, the stride of the last source map, got 300"),
    ("eval", "--top_k=0", "--top_k: expected at least 1, got 0"),
    ("infer", "--using_mode=refinedet_resnet101_320",
     "--using_mode: 'refinedet_resnet101_320' is not supported: use --config_path=default_config_512.yaml, "
     "default_config_resnet101.yaml or default_config_resnet101_512.yaml"),
])
def test_faults_are_one_line(run_command, repo_dir, tmp_path, one_line, script, flag, message):
    result = run_command(["python", repo_dir / "refinedet" / f"{script}.py", flag], cwd=tmp_path)
    assert one_line(result, f"{script}.py") == f"{script}.py: error: {message}"


# export.py, and infer.py and eval.py on its files

@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Folder with narrow.ckpt, its narrow.yaml, and images in in/."""
    import mindspore as ms

    from refinedet.src.model_utils.config import save_config
    from tests.narrow_refinedet import narrow_config, narrow_network

    folder = tmp_path_factory.mktemp("a model")
    config = narrow_config()
    ms.save_checkpoint(narrow_network(config), str(folder / "narrow.ckpt"))
    save_config(config, folder / "narrow.yaml")
    (folder / "in").mkdir()
    rng = np.random.default_rng(3)
    for name, size in (("wide", (64, 180)), ("high", (150, 100))):
        coarse = rng.integers(0, 256, (*(side // 10 + 1 for side in size), 3)).astype(np.uint8)
        cv2.imwrite(str(folder / "in" / f"{name}.png"), cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC))
    return folder


@pytest.fixture(scope="module")
def call(model, run_command, repo_dir):
    def run(script, **options):
        flags = [f"--{name}={value}" for name, value in {"config_path": model / "narrow.yaml", **options}.items()]
        result = run_command(["python", repo_dir / "refinedet" / f"{script}.py", *flags], cwd=model)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    return run


@pytest.fixture(scope="module")
def inputs(model):
    """[(image (1, 3, H, W), image_info (1, 6))] of the images in in/."""
    from refinedet.src.model_utils.data.loading import build_preprocess
    from tests.narrow_refinedet import narrow_config

    preprocess = build_preprocess(narrow_config())
    pairs = [preprocess(cv2.imread(str(path))) for path in sorted((model / "in").iterdir())]
    return [tuple(value[None] for value in pair) for pair in pairs]


@pytest.fixture(scope="module")
def wanted(model, inputs):
    from tests.narrow_refinedet import narrow_config

    found = detect(inputs, narrow_config(checkpoint_path=str(model / "narrow.ckpt")))
    assert all(valid.sum() > 5 for *_, valid in found)
    return found


def detect(inputs, config) -> list:
    from refinedet.src.model_utils.inference.predictors import load_predictor

    predict = load_predictor(config, "CPU")
    return [predict(*pair) for pair in inputs]


def test_evaluation_ends_as_in_the_old_zoo(run_command, repo_dir, data_dir, tmp_path):
    folder = data_dir / "coco_known_answer"
    done = run_command(["python", repo_dir / "refinedet" / "eval.py", f"--output_path={tmp_path}",
                        f"--detections={folder / 'instances_val2014_fakebbox100_results.json'}",
                        f"--anno_path={folder / 'instances_val2014_100.json'}"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-4:] == ["", "========================================", "", "mAP:0.5046"]
    assert (tmp_path / "eval.log").read_text() == done.stdout


@pytest.mark.parametrize("with_nms", [True, False])
@pytest.mark.parametrize(("file_format", "key"), [("MINDIR", "mindir_path"), ("ONNX", "onnx_path")])
def test_exported_networks_give_the_same_detections(model, exported, inputs, wanted, file_format, key, with_nms):
    from tests.narrow_refinedet import narrow_config

    file, output = exported(file_format, with_nms)
    assert output.endswith(f"outputs boxes, scores{', labels, valid' if with_nms else ''}\n")
    assert_same(detect(inputs, narrow_config(**{key: str(file)})), wanted)
    if file_format == "ONNX" and with_nms:
        config = narrow_config(checkpoint_path=str(model / "narrow.ckpt"), backend="onnxruntime")
        keep_exported("refinedet", config, model / "narrow.ckpt", file)
        predict = open_predictor(config)
        assert_same([predict(*pair) for pair in inputs], wanted)


@pytest.fixture(scope="module")
def exported(model, call):
    """exported(file_format, with_nms) -> (file, stdout of export.py); each combination is exported once."""
    @functools.cache
    def export(file_format, with_nms):
        name = f"net {with_nms}"
        output = call("export", ckpt_file=model / "narrow.ckpt", file_format=file_format, file_name=model / name, with_nms=with_nms)
        return model / f"{name}.{file_format.lower()}", output

    return export


def test_the_ten_lines_find_what_infer_finds(model, call, exported, run_command):
    from tests.narrow_refinedet import narrow_config

    files = [exported(file_format, True)[0] for file_format in ("MINDIR", "ONNX")]
    keep_exported("refinedet", narrow_config(), model / "narrow.ckpt", files[1])
    call("infer", checkpoint_path=model / "narrow.ckpt", input=model / "in", score_thr=ten_lines.SCORE, draw=False,
         output_path=model / "eager", backend="mindspore")
    wanted = json.loads((model / "eager" / "detections.json").read_text())
    found = ten_lines.run_ten_lines(run_command, "refinedet", model, model / "in", [model / "narrow.ckpt", *files])
    assert len(found) == 3
    for results in found:
        ten_lines.assert_same(results, wanted, ["background", *narrow_config().coco_classes[1:]])


def assert_same(found, wanted):
    for got, want in zip(found, wanted):
        valid = want[3]
        assert np.array_equal(got[3], valid) and np.array_equal(got[2][valid], want[2][valid])
        np.testing.assert_allclose(got[1][valid], want[1][valid], atol=1e-5)
        np.testing.assert_allclose(got[0][valid], want[0][valid], atol=0.01)


def test_the_file_without_nms_has_the_documented_outputs(exported, inputs):
    """The file needs no image_info and gives boxes and scores of every anchor, in plain onnxruntime."""
    import mindspore as ms
    import onnxruntime

    from tests.narrow_refinedet import narrow_config, narrow_network

    session = onnxruntime.InferenceSession(str(exported("ONNX", False)[0]), providers=["CPUExecutionProvider"])
    feed = dict(zip(("image", "image_info"), inputs[0]))
    boxes, scores = session.run(["boxes", "scores"], {item.name: feed[item.name] for item in session.get_inputs()})
    anchors = 3 * (8 * 16 + 4 * 8 + 2 * 4 + 1 * 2)
    assert (boxes.shape, scores.shape) == ((1, anchors, 4), (1, anchors, 3))
    wanted_boxes, wanted_scores = narrow_network(narrow_config()).decode(ms.Tensor(inputs[0][0]))
    np.testing.assert_allclose(boxes, wanted_boxes.asnumpy(), atol=0.01)
    np.testing.assert_allclose(scores, wanted_scores.asnumpy(), atol=1e-5)


def test_infer_writes_what_it_finds(model, call, compiled):
    call("infer", checkpoint_path=model / "narrow.ckpt", input=model / "in", score_thr=0.1, output_path=model / "out",
         backend="mindspore")
    found = json.loads((model / "out" / "detections.json").read_text())
    assert {item["file_name"] for item in found} == {"wide.png", "high.png"}
    assert len(list((model / "out" / "drawn").iterdir())) == 2


def test_an_exported_resnet_runs_in_onnxruntime(model, call, inputs):
    """All norms are folded, also those after transposed convolutions; the detections are the checkpoint's."""
    import mindspore as ms

    from refinedet.src.model_utils.config import save_config
    from tests.narrow_refinedet import HEADS, NARROW_RESNET, narrow_config, narrow_network

    config = narrow_config(**NARROW_RESNET)
    net, rng = narrow_network(config), np.random.default_rng(4)
    for param in net.get_parameters():      # distinct values in each norm; scores below 1, where they would tie
        if param.name.endswith((".gamma", ".moving_variance")):
            param.set_data(ms.Tensor(rng.uniform(0.6, 1.5, param.shape).astype(np.float32)))
        elif param.name.startswith(HEADS) and param.name.endswith(".weight"):
            param.set_data(param * 0.1)
    ms.save_checkpoint(net, str(model / "resnet.ckpt"))
    save_config(config, model / "resnet.yaml")
    call("export", config_path=model / "resnet.yaml", ckpt_file=model / "resnet.ckpt", file_name=model / "resnet",
         file_format="ONNX")
    found = {key: detect(inputs, narrow_config(**NARROW_RESNET, **{key: str(model / f"resnet.{ending}")}))
             for key, ending in (("checkpoint_path", "ckpt"), ("onnx_path", "onnx"))}
    for got, want in zip(found["onnx_path"], found["checkpoint_path"]):
        valid = want[3]
        assert valid.sum() > 5 and want[1].max() < 0.99
        assert np.array_equal(got[3], valid) and np.array_equal(got[2][valid], want[2][valid])
        np.testing.assert_allclose(got[1][valid], want[1][valid], atol=1e-5)
        np.testing.assert_allclose(got[0][valid], want[0][valid], atol=0.01)


def test_hub_builds_the_network_that_its_keys_describe(run_command, repo_dir, model):
    code = ("import sys; sys.path.insert(0, sys.argv[1]); import mindspore_hub_conf as hub\n"
            "net = hub.create_network('refinedet_vgg16', config_path=sys.argv[2], tcb_channels=24)\n"
            "shapes = {param.name: param.shape for param in net.get_parameters()}\n"
            "print(shapes['odm.conf.0.weight'], shapes['arm.conf.0.bias'])\n"
            "narrow = dict(resnet_out_channels=[16, 16, 24, 32], resnet_in_channels=[8, 16, 16, 24], tcb_channels=8)\n"
            "narrow.update(resnet_block=[1, 1, 1, 1], fc_channels=8, vgg_channels=[4] * 5, resnet_head_channels=8)\n"
            "for name in hub.NAMES:\n"
            "    net = hub.create_network(name, **narrow)\n"
            "    print(name, type(net.backbone).__name__, net.anchors.shape[1])\n"
            "hub.create_network('refinedet_resnet50')")
    result = run_command(["python", "-c", code, repo_dir / "refinedet", model / "narrow.yaml"], cwd=model)
    first, *lines = result.stdout.splitlines()
    assert first == "(12, 24, 3, 3) (6,)", result.stderr
    trunks = {"vgg16": "Vgg16", "resnet101": "ResNet101"}
    wanted = [f"refinedet_{trunk}{size} {trunks[trunk]} {16320 if size == '_512' else 6375}"
              for trunk in trunks for size in ("", "_320", "_512")]
    assert lines == [*wanted, "refinedet Vgg16 6375"]
    names = ", ".join(line.split()[0] for line in lines)
    assert result.stderr.strip().endswith(
        f"NotImplementedError: refinedet_resnet50: expected one of {names}")
