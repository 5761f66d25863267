"""eval.py and infer.py as a user calls them, on exported toy networks.

The toy network finds the four quarters of any image, as labels 1, 2, 3, 1. If these are the objects, AP is 1 only if every
coordinate, label and id is right.
"""
import json
import re
import sys

import cv2
import numpy as np
import pytest

from tests.toy_data import SIZES, export_toy, quarters

NAMES = "[background, cat, dog, bird]"


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Folder with toy.mindir and toy.onnx, for one image of 96 x 128."""
    from tests.toy_network import ToyDetector

    return export_toy(ToyDetector(4), tmp_path_factory.mktemp("export"), tmp_path_factory.mktemp("toy net"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, repo_dir):
    """Checkpoint of a network of the demo's size with random weights."""
    import mindspore as ms

    from faster_rcnn.src.FasterRcnn.faster_rcnn import build_network
    from faster_rcnn.src.model_utils.config import load_config

    path = tmp_path_factory.mktemp("random") / "small.ckpt"
    ms.set_seed(1)
    ms.save_checkpoint(build_network(load_config(repo_dir / "faster_rcnn" / "demo_config_cpu.yaml")), str(path))
    return path


@pytest.fixture
def call(run_command, repo_dir, tmp_path):
    """call(script, **options): run faster_rcnn/SCRIPT.py from another folder; it writes to tmp_path / "out put".

    most_kb: limit on the size of each file it writes.
    """
    def run(script, *, env=None, most_kb=None, **options):
        options = {"output_path": tmp_path / "out put", **options}
        flags = [f"--{name}={value}" for name, value in options.items()]
        path = repo_dir / "faster_rcnn" / f"{script}.py"
        words = [sys.executable, path, *flags]
        if most_kb:
            words = ["bash", "-c", 'ulimit -f "$0"; exec "$@"', str(most_kb), *words]
        return run_command(words, cwd=tmp_path, env=env)

    return run


def toy_options(**more) -> dict:
    return {"num_classes": 4, "coco_classes": NAMES, "img_height": 96, "img_width": 128, "device_target": "CPU",
            "num_parallel_workers": 1, **more}


# eval.py

@pytest.mark.parametrize("scorer", ["faster", "pycocotools"])
def test_eval_scores_a_file_of_detections(call, data_dir, tmp_path, scorer):
    folder = data_dir / "coco_known_answer"
    result = call("eval", detections=folder / "instances_val2014_fakebbox100_results.json",
                  anno_path=folder / "instances_val2014_100.json", scorer=scorer)
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "out put" / "metrics.json").read_text())
    want = (0.504581, 0.696973, 0.572982, 0.585626, 0.519400, 0.501398,
            0.386813, 0.593680, 0.595353, 0.639811, 0.566421, 0.564291)
    np.testing.assert_allclose(list(metrics["bbox"].values()), want, atol=5.1e-7)
    assert " Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 0.505\n" in result.stdout
    assert re.search(r"^person +0\.\d{3} +0\.\d{3} +250$", result.stdout, re.M)
    assert (metrics["images"], metrics["detections"], metrics["config"]["scorer"]) == (100, 734, scorer)
    assert (tmp_path / "out put" / "eval.log").read_text() == result.stdout and "mAP" not in result.stdout
    assert cv2.imread(str(tmp_path / "out put" / "pr_curves.png")) is not None


def test_eval_limits_the_classes_to_those_of_the_configuration(call, data_dir, tmp_path):
    folder = data_dir / "coco_known_answer"
    files = {"detections": folder / "instances_val2014_fakebbox100_results.json",
             "anno_path": folder / "instances_val2014_100.json"}
    result = call("eval", **files, coco_classes="[background, person, dog]", num_classes=3)
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "out put" / "metrics.json").read_text())
    assert list(metrics["per_class"]) == ["person", "dog"] and len(metrics["notes"]) == 2
    assert metrics["bbox"]["AP"] == pytest.approx(np.mean([row["AP"] for row in metrics["per_class"].values()]))


def test_eval_of_a_network_finds_every_quarter(call, toy, pictures, tmp_path):
    result = call("eval", onnx_path=toy / "toy.onnx", coco_root=pictures, **toy_options())
    assert result.returncode == 0, result.stderr
    out = tmp_path / "out put"
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["bbox"]["AP"] == pytest.approx(1) and metrics["images"] == 3 and metrics["detections"] == 12
    found = json.loads((out / "detections.json").read_text())
    assert [r["category_id"] for r in found[:4]] == [11, 5, 7, 11]
    assert [r["image_id"] for r in found] == [31] * 4 + [32] * 4 + [33] * 4
    want = [box for size in SIZES for box in quarters(*size)]
    np.testing.assert_allclose([r["bbox"] for r in found], want, atol=0.01)


@pytest.mark.parametrize(("options", "message"), [
    ({}, "give exactly one of --checkpoint_path, --mindir_path, --onnx_path, --detections"),
    ({"checkpoint_path": "absent.ckpt"}, "checkpoint_path: no such file: absent.ckpt"),
    ({"detections": "absent.json"}, "detections: no such file"),
    ({"detections": __file__}, "anno_path: scoring needs annotations"),
    ({"detections": __file__, "anno_path": "absent.json"}, "absent.json: no such file"),
    ({"detections": __file__, "checkpoint_path": "a.ckpt"}, "give one of --detections and --checkpoint_path"),
    ({"detections": __file__, "anno_path": __file__}, "not JSON"),
    ({"scorer": "coco"}, "scorer"),
])
def test_eval_names_what_is_wrong(call, options, message, one_line):
    assert message in one_line(call("eval", **options), "eval.py")


# infer.py

def test_infer_on_a_folder(call, toy, pictures, tmp_path):
    folder = tmp_path / "in put"
    (folder / "sub").mkdir(parents=True)
    for i, path in enumerate(sorted((pictures / "val2017").iterdir())):
        (folder / ("sub" if i else ".") / f"p{i}.png").write_bytes(path.read_bytes())
    (folder / "broken.jpg").write_bytes(b"no picture")
    result = call("infer", onnx_path=toy / "toy.onnx", input=folder, score_thr=0, **toy_options())
    assert result.returncode == 0, result.stderr
    out = tmp_path / "out put"
    found = json.loads((out / "detections.json").read_text())
    names = ["p0.png", "sub/p1.png", "sub/p2.png"]
    assert [(r["file_name"], r["category_id"]) for r in found] == [(n, k) for n in names for k in (1, 2, 3, 1)]
    want = [box for size in SIZES for box in quarters(*size)]
    np.testing.assert_allclose([r["bbox"] for r in found], want, atol=0.01)
    assert "broken.jpg: not an image of a known format" in result.stderr and "3 images, 1 not readable" in result.stdout
    assert sorted(str(p.relative_to(out / "drawn")) for p in (out / "drawn").rglob("*.*")) == sorted(names)
    for name in names:
        before, after = cv2.imread(str(folder / name)), cv2.imread(str(out / "drawn" / name))
        assert before.shape == after.shape and (before != after).any()


def test_infer_with_mindir_draws_nothing_without_draw(call, toy, pictures, tmp_path):
    options = toy_options(input=pictures / "val2017" / "000000000031.png", draw=False, score_thr=0)
    found = []
    for model in ({"onnx_path": toy / "toy.onnx"}, {"mindir_path": toy / "toy.mindir"}):
        result = call("infer", **model, **options)
        assert result.returncode == 0, result.stderr
        found.append(json.loads((tmp_path / "out put" / "detections.json").read_text()))
    assert not (tmp_path / "out put" / "drawn").exists()
    assert len(found[0]) == len(found[1]) == 4
    for onnx, mindir in zip(*found):
        assert onnx.pop("score") == pytest.approx(mindir.pop("score"), abs=1e-6)
        assert onnx == mindir and onnx["image_id"] == 31


def test_infer_leaves_low_scores_out(call, toy, pictures, tmp_path):
    options = toy_options(onnx_path=toy / "toy.onnx", input=pictures / "val2017", draw=False)
    scores = []
    for threshold in (0, 0.5):
        assert call("infer", score_thr=threshold, **options).returncode == 0
        scores.append([r["score"] for r in json.loads((tmp_path / "out put" / "detections.json").read_text())])
    assert len(scores[0]) == 12 and scores[1] == [score for score in scores[0] if score >= 0.5]
    assert 0 < len(scores[1]) < 12


def test_infer_on_a_video(call, toy, tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "a clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for i in range(5):
        writer.write(np.full((48, 64, 3), 40 * i, np.uint8))
    writer.release()
    result = call("infer", onnx_path=toy / "toy.onnx", input=tmp_path / "a clip.avi", score_thr=0, **toy_options())
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "out put" / "detections.json").read_text())
    assert [(r["frame"], r["time"]) for r in found[::4]] == [(0, 0), (1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)]
    np.testing.assert_allclose([r["bbox"] for r in found[:4]], quarters(48, 64), atol=0.01)
    drawn = cv2.VideoCapture(str(tmp_path / "out put" / "drawn" / "a clip.mp4"))
    assert [drawn.read()[0] for _ in range(6)] == [True] * 5 + [False]
    assert call("infer", onnx_path=toy / "toy.onnx", input=tmp_path / "a clip.avi", score_thr=0, tta="flip",
                **toy_options()).returncode == 0
    again = json.loads((tmp_path / "out put" / "detections.json").read_text())
    assert [sum(r["frame"] == frame for r in again) for frame in range(5)] == [8] * 5


def test_infer_resumes_after_a_run_that_was_stopped(call, toy, tmp_path, one_line):
    """A limit of 16 KB per file stops the first run."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(60):
        cv2.imwrite(str(folder / f"{number + 1:03}.png"), np.full((24, 32, 3), 4 * number, np.uint8))
    options = {"onnx_path": toy / "toy.onnx", "input": folder, "draw": False, **toy_options()}
    assert call("infer", output_path=tmp_path / "whole", **options).returncode == 0
    whole = (tmp_path / "whole" / "detections.json").read_bytes()
    stopped = call("infer", most_kb=16, **options)
    partial = tmp_path / "out put" / "detections.partial.json"
    match = re.search(r"not written: (\d+) of 60 images are done, the last is (\d+)\.png; .* --resume=auto", stopped.stderr)
    assert stopped.returncode == 2 and match, stopped.stderr
    done = int(match[1])
    assert 20 < done == int(match[2]) < 60 and json.loads(partial.read_bytes())[-1]["file_name"] == f"{done:03}.png"

    for key, before, now in (("score_thr", 0.3, 0.5), ("tta", "''", "flip")):
        other = one_line(call("infer", resume="auto", **{key: now}, **options), "infer.py")
        assert f"resume: {key} was {before} in the stopped run, but is {now!r} now: restore it, or" in other
    resumed = call("infer", resume="auto", **options)
    assert resumed.returncode == 0, resumed.stderr
    assert f"infer.py resumes from {done:03}.png: {done - 1} of 60 images are done" in resumed.stderr
    assert [path.name for path in partial.parent.iterdir()] == ["detections.json"]
    assert (partial.parent / "detections.json").read_bytes() == whole
    assert "no run to resume" in call("infer", resume="auto", **options).stderr


def test_infer_says_when_the_size_is_not_the_exported_one(call, toy, pictures, one_line):
    options = toy_options(onnx_path=toy / "toy.onnx", input=pictures / "val2017", img_height=64)
    assert "takes 1 x 3 x 96 x 128" in one_line(call("infer", **options), "infer.py")


def test_infer_says_that_onnxruntime_is_missing(call, toy, pictures, tmp_path, one_line):
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('No module named onnxruntime')")
    options = toy_options(onnx_path=toy / "toy.onnx", input=pictures / "val2017")
    line = one_line(call("infer", env={"PYTHONPATH": tmp_path}, **options), "infer.py")
    assert "pip install onnxruntime" in line


@pytest.mark.parametrize(("options", "message"), [
    ({"input": __file__}, "give exactly one of --checkpoint_path, --mindir_path, --onnx_path"),
    ({"input": __file__, "onnx_path": "a", "mindir_path": "b"}, "not mindir_path and onnx_path"),
    ({"input": __file__, "onnx_path": "absent.onnx"}, "onnx_path: no such file: absent.onnx"),
    ({"onnx_path": __file__}, "input is required"),
    ({"onnx_path": __file__, "input": "absent.jpg"}, "input: no such file or folder: absent.jpg"),
    ({"onnx_path": __file__, "input": __file__}, "neither an image nor a video"),
    ({"score_thr": 2}, "score_thr"),
])
def test_infer_names_what_is_wrong(call, options, message, one_line):
    assert message in one_line(call("infer", **options), "infer.py")


def test_infer_fails_if_no_image_can_be_read(call, toy, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    result = call("infer", onnx_path=toy / "toy.onnx", input=tmp_path / "broken.jpg", **toy_options())
    assert result.returncode == 2
    assert "none of the images" in result.stderr and "Traceback" not in result.stderr


# Both, on a checkpoint

def test_infer_finds_in_a_checkpoint_what_eval_finds(call, checkpoint, pictures, tmp_path, compiled):
    """eval.py runs compiled, infer.py operator by operator."""
    options = {"config_path": "demo_config_cpu.yaml", "checkpoint_path": checkpoint, "coco_classes": NAMES,
               "device_target": "CPU", "test_batch_size": 2, "backend": "mindspore"}
    result = call("eval", coco_root=pictures, output_path=tmp_path / "e", **options)
    assert result.returncode == 0, result.stderr
    result = call("infer", input=pictures / "val2017", output_path=tmp_path / "i", score_thr=0.1, env={"MS_JIT": "0"}, **options)
    assert result.returncode == 0, result.stderr
    evaluated, inferred = (json.loads((tmp_path / name / "detections.json").read_text()) for name in "ei")
    label_of = {11: 1, 5: 2, 7: 3}
    evaluated = [r for r in evaluated if r["score"] >= 0.1]
    assert len(evaluated) == len(inferred) > 5
    assert [(r["image_id"], label_of[r["category_id"]]) for r in evaluated] == \
        [(r["image_id"], r["category_id"]) for r in inferred]
    for key in ("bbox", "score"):
        np.testing.assert_allclose([r[key] for r in evaluated], [r[key] for r in inferred], atol=1e-3)


def test_a_checkpoint_of_other_classes_is_named(call, checkpoint, pictures, one_line):
    options = {"config_path": "demo_config_cpu.yaml", "checkpoint_path": checkpoint, "input": pictures / "val2017"}
    result = call("infer", num_classes=3, coco_classes="[background, cat, dog]", **options)
    assert "num_classes" in one_line(result, "infer.py")
