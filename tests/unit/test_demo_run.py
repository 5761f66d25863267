"""The demo's stages, resuming, failures and exit status. Stand-ins replace the models' entry points."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.demo import poster, report, run

STAND_IN = '''
import json, os, sys, time
from pathlib import Path
name = Path(sys.argv[0]).stem
masks = Path(sys.argv[0]).parent.name == "mask_rcnn"
flags = dict(item[2:].split("=", 1) for item in sys.argv[1:])
out = Path(flags["output_path"])
out.mkdir(parents=True, exist_ok=True)
assert Path(flags["config_path"]).is_file()
print(name, "at work in", os.getcwd())
if flags.get("fail_in") == name:
    print("a reason", file=sys.stderr)
    sys.exit(3)
if name == "train":
    with (out / "runs.txt").open("a") as file:
        file.write(flags.get("resume", "new") + "\\n")
    if flags.get("sleep_s") and "resume" not in flags:
        time.sleep(float(flags["sleep_s"]))
    (out / "checkpoint").mkdir(exist_ok=True)
    (out / "checkpoint" / "last.ckpt").write_text("weights")
    lines = [{"step": n, "total_loss": 1 / n, "lr": 0.1} for n in range(1, 5)]
    (out / "metrics.jsonl").write_text("".join(json.dumps(line) + "\\n" for line in lines))
if name == "eval":
    ap50 = float(flags.get("ap50", 0.9))
    metrics = {"bbox": {"AP": ap50 / 2, "AP50": ap50}, "per_class": {}, "images": 1}
    if masks:
        metrics["segm"] = {"AP": ap50 / 2 - 0.1, "AP50": ap50 - 0.1}
    (out / "metrics.json").write_text(json.dumps(metrics))
if name == "export":
    Path(flags["file_name"] + "." + flags["file_format"].lower()).write_bytes(b"graph")
if name == "infer":
    truth = json.loads((Path(flags["input"]).parent / "annotations/instances_val2017.json").read_text())
    names = {image["id"]: image["file_name"] for image in truth["images"]}
    keys = ("image_id", "category_id", "bbox", *(["segmentation"] if masks else []))
    found = [{**{key: item[key] for key in keys}, "score": 0.9,
              "file_name": names[item["image_id"]]} for item in truth["annotations"]]
    (out / "detections.json").write_text(json.dumps(found))
'''


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Root of a repository with stand-in entry points, in a path with a space."""
    for model in ("faster_rcnn", "mask_rcnn", "refinedet"):
        folder = tmp_path / "a repository" / model
        folder.mkdir(parents=True)
        for name in ("train", "eval", "export", "infer"):
            (folder / f"{name}.py").write_text(STAND_IN)
        for name in ("default_config.yaml", "demo_config_cpu.yaml"):
            (folder / name).write_text("batch_size: 8\n")
    monkeypatch.setattr(run, "ROOT", folder.parent)
    monkeypatch.setattr(report, "count_parameters", lambda model, checkpoint: 1234567)
    monkeypatch.chdir(tmp_path)
    return folder.parent


def demo(*flags):
    return run.main(["--output=demo output", "--train_pictures=2", "--val_pictures=3", *flags])


def test_whole_demo(root, tmp_path, capsys):
    assert demo() == 0
    out = tmp_path / "demo output"
    assert {"data", "train", "eval", "export", "infer", "detections.png", "curves.png", "metrics.json"} <= {
        path.name for path in out.iterdir()}
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["bbox"]["AP50"] == 0.9 and metrics["parameters"] == 1234567
    assert set(metrics["seconds"]) >= {"draw", "train", "evaluate", "export", "infer"}
    picture = cv2.imread(str(out / "detections.png"))
    assert 1200 <= picture.shape[1] <= 1600 and picture.std() > 20
    text = capsys.readouterr().out
    assert [f"[{n}/6]" in text for n in range(1, 7)] == [True] * 6
    assert "total" in text and "It works: AP50 0.900" in text
    assert f"eval at work in {out / 'eval'}" in (out / "eval/console.log").read_text()


def test_too_low_an_ap50_fails(root, capsys):
    assert demo("--ap50=0.79") == 1
    assert "FAILED: AP50 is 0.790" in capsys.readouterr().out


def test_the_one_stage_demo_needs_a_lower_ap50(root, capsys):
    assert demo("--model=refinedet", "--ap50=0.74") == 1
    assert "FAILED: AP50 is 0.740; a working detector reaches at least 0.75" in capsys.readouterr().out
    assert demo("--model=refinedet", "--ap50=0.76") == 0


def test_demo_with_masks_is_judged_by_their_ap50(root, tmp_path, capsys):
    assert demo("--model=mask_rcnn", "--ap50=0.84") == 1    # mask AP50 is 0.1 lower
    assert "FAILED: mask AP50 is 0.740; a working detector reaches at least 0.75" in capsys.readouterr().out
    assert demo("--model=mask_rcnn", "--ap50=0.86") == 0
    text = capsys.readouterr().out
    assert "AP50 0.860, AP 0.430, mask AP50 0.760, mask AP 0.330" in text
    assert "It works: mask AP50 0.760" in text
    assert cv2.imread(str(tmp_path / "demo output/detections.png")).std() > 20


@pytest.mark.parametrize("stage", ["train", "eval", "export", "infer"])
def test_a_failed_stage_shows_why_and_keeps_the_training(root, tmp_path, capsys, stage):
    assert demo(f"--fail_in={stage}") == 1
    shown = capsys.readouterr().out
    assert f"{stage}.py ended with status 3" in shown and "    a reason" in shown
    runs = tmp_path / "demo output/train/runs.txt"
    trained = runs.is_file() and runs.read_text()
    assert demo(f"--fail_in={stage}") == 1      # the same demo keeps its training
    assert not trained or runs.read_text() == trained


def test_missing_result_of_a_stage_is_named(root, capsys):
    (root / "faster_rcnn/eval.py").write_text("")
    assert demo() == 1
    assert "eval/metrics.json was not written" in capsys.readouterr().out


def test_finished_or_changed_demo_starts_from_scratch_and_keeps_the_old_one(root, tmp_path, capsys):
    assert demo() == 0
    assert demo() == 0
    assert demo("--seed=2") == 0
    shelves = sorted((tmp_path / "demo output/earlier").iterdir())
    assert [shelf.name for shelf in shelves] == ["01-faster_rcnn", "02-faster_rcnn"]
    for shelf in shelves:
        assert json.loads((shelf / "metrics.json").read_text())["seed"] == 1
    assert json.loads((tmp_path / "demo output/metrics.json").read_text())["seed"] == 2


def test_interrupted_training_is_resumed(root, tmp_path):
    """Ctrl-C in a terminal signals the whole process group, so the demo runs in a group of its own."""
    code = ("import sys, pathlib; from utils.demo import run; run.ROOT = pathlib.Path(sys.argv[1]); "
            "sys.exit(run.main(['--output=demo output', '--train_pictures=2', '--val_pictures=3', '--sleep_s=60']))")
    repository = str(Path(run.__file__).resolve().parents[2])
    process = subprocess.Popen([sys.executable, "-c", code, str(root)], cwd=tmp_path, start_new_session=True,
                               env={**os.environ, "PYTHONPATH": repository}, stdout=subprocess.PIPE, text=True,
                               # Background jobs of a shell ignore SIGINT, and their children inherit that.
                               preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL))
    runs = tmp_path / "demo output/train/runs.txt"
    deadline = time.monotonic() + 60
    while not runs.is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 130 and "resumes where this one stopped" in text
    assert demo("--sleep_s=60") == 0
    assert runs.read_text().split() == ["new", "auto"]


@pytest.mark.parametrize("flags, named", [(["--model=yolo"], "yolo"), (["epochs"], "epochs"),
                                          (["--batch_size"], "--batch_size"), (["--val_pictures=0"], "--val_pictures")])
def test_wrong_commands_are_refused(root, capsys, flags, named):
    with pytest.raises(SystemExit) as stop:
        run.main(flags)
    assert stop.value.code == 2 and named in capsys.readouterr().err


def test_images_are_chosen_by_the_ground_truth(tmp_path):
    """Images come from the half with more objects, each once; the one with the most objects comes first."""
    images = [{"id": n, "file_name": f"{n}.png"} for n in range(8)]
    annotations = [{"image_id": n} for n in range(8) for _ in range(n)]
    for n in range(8):
        cv2.imwrite(str(tmp_path / f"{n}.png"), np.full((9, 9, 3), 30 * n, np.uint8))
    chosen = poster.choose_images(tmp_path, {"images": images, "annotations": annotations}, 3)
    assert chosen[0] == "7.png" and len(set(chosen)) == 3 and set(chosen) <= {"4.png", "5.png", "6.png", "7.png"}
    assert chosen[1] == "4.png"     # in that half, the most different in colour
