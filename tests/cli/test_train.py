"""train.py as a command: output files, resuming, signals and user errors. The network is a toy."""
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from tests import commands
from utils.mindrecord import load_manifest

ROOT = Path(__file__).resolve().parents[2]
TOY = ROOT / "tests" / "toy_train.py"
BOX_LOSSES = ("rpn_loss", "rcnn_loss", "rpn_cls_loss", "rpn_reg_loss", "rcnn_cls_loss", "rcnn_reg_loss")
# Names in the old zoo's log lines.
LOSSES = {"faster_rcnn": (*BOX_LOSSES, "total_loss"), "mask_rcnn": (*BOX_LOSSES, "rcnn_mask_loss", "total_loss")}


@pytest.fixture
def command(coco, tmp_path):
    """command(*flags, output=...) -> arguments of a run with 3 steps per epoch."""
    config = tmp_path / "toy config.yaml"
    config.write_text("num_classes: 4\ncoco_classes: [background, thing 1, thing 2, thing 3]\n"
                      "img_width: 64\nimg_height: 64\nnum_gts: 4\nbatch_size: 2\ntest_batch_size: 2\nepoch_size: 2\n"
                      "log_interval: 1\nwarmup_step: 2\nnum_parallel_workers: 1\ndevice_target: CPU\nbase_lr: 0.002\n")

    def build(*flags, output="out put"):
        return [sys.executable, str(TOY), f"--config_path={config}", f"--coco_root={coco}", *flags,
                f"--output_path={tmp_path / output}", f"--mindrecord_dir={coco / 'records'}"]

    return build


def run(arguments, cwd, status=0):
    done = commands.run(arguments, cwd)
    assert done.returncode == status, done.stdout + done.stderr
    return done


def losses(folder):
    return (folder / "loss_0.log").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("model", LOSSES)
def test_output_of_a_run(compiled, command, tmp_path, model):
    """Mask R-CNN also computes validation losses, for which it needs the outlines."""
    flags = "--calibrate_norm=always", "--train_norm=True", "--zero_init_residual=True", f"--val_loss={model == 'mask_rcnn'}"
    done = run(command(f"--toy_model={model}", *flags), tmp_path)
    output = tmp_path / "out put"
    assert sorted(path.name for path in (output / "checkpoint").iterdir()) == sorted([
        "best.ckpt", f"{model}-1_3.ckpt", f"{model}-2_3.ckpt", "last.ckpt", "state.ckpt", "state_before.ckpt"])
    assert "num_classes: 4" in (output / "config.yaml").read_text(encoding="utf-8")
    assert list(output.glob("events.out.tfevents.*"))
    height, width = cv2.imread(str(output / "curves.png")).shape[:2]
    assert width > 2 * height       # losses, AP and learning rate side by side
    page = (output / "curves.html").read_text(encoding="utf-8")
    assert f"<h1>{model}: training</h1>" in page and "<dd>ended</dd>" in page and "http-equiv=\"refresh\"" not in page
    old_line = r"epoch: \d+ step: \d+, " + ", ".join(rf"{name}: \d+\.\d{{5}}" for name in LOSSES[model])
    val_lines = [line for line in losses(output) if " val_" in line]
    assert [bool(re.fullmatch(old_line, line)) for line in losses(output) if line not in val_lines] == [True] * 6
    assert [line.split(",")[0] for line in losses(output) if line not in val_lines] == [
        f"epoch: {epoch} step: {step}" for epoch in (1, 2) for step in (1, 2, 3)]
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["kind"] for row in rows] == ["train"] * 3 + ["eval"] + ["train"] * 3 + ["eval"]
    assert {"step", "epoch", "lr", "images_per_s", "grad_norm", "total_loss", "rcnn_cls_loss"} <= rows[4].keys()
    assert "warmup_step: 2 is more than a tenth of the run's 6 steps: shortened to 0" in done.stderr
    np.testing.assert_allclose([row["lr"] for row in rows if row["kind"] == "train"], 0.002, rtol=1e-6)
    assert {"AP", "AP50", "ARl", "images", "epoch"} <= rows[-1].keys()
    assert ("segm" in rows[-1]) == (model == "mask_rcnn")
    text = [", ".join(f"val_{name}: {row[f'val_{name}']:.5f}" for name in LOSSES[model]) for row in rows if "val_total_loss" in row]
    assert val_lines == [f"epoch: {epoch} {line}" for epoch, line in enumerate(text, 1)]
    assert len(text) == (2 if model == "mask_rcnn" else 0) and all(line in done.stdout for line in val_lines)
    assert ("val total loss" in page) == (model == "mask_rcnn")
    assert "segm" not in rows[-1] or {"AP", "AP50", "ARl"} <= rows[-1]["segm"].keys()
    assert (rows[-1]["step"], rows[-1]["images"]) == (6, 3)
    assert "identity 5\ncalibrate (6, 3, 64, 64) 5" in done.stdout
    assert "last.ckpt, best.ckpt" in done.stderr
    assert "the first step also compiles the network, for about half a minute" in done.stderr
    assert "epoch: 2 AP: " in done.stdout
    assert done.stdout.count("is being evaluated; the first evaluation also compiles the network for inference") == 1
    assert not (tmp_path / "rank_0").exists()


def test_parts_of_a_run_equal_the_whole(compiled, command, tmp_path):
    run(command("--run_eval=False", output="whole"), tmp_path)
    first = run(command("--run_eval=False", "--max_steps=2", "--resume=auto", output="parts"), tmp_path)
    assert "starting a new run" in first.stderr
    second = run(command("--run_eval=False", "--resume=auto", output="parts"), tmp_path)
    assert "continuing after step 2" in second.stderr
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    path = tmp_path / "parts" / "checkpoint"
    refused = run(command("--run_eval=False", "--batch_size=3", f"--resume={path}", output="third"), tmp_path, status=2)
    assert "resume: batch_size was 2 and is now 3" in refused.stderr


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_run_resumes_after_a_signal(command, tmp_path, number, status):
    output = tmp_path / "out put"
    flags = ("--run_eval=False", "--epoch_size=40")
    # In a new session, as in a terminal, Ctrl-C reaches every process.
    process = subprocess.Popen([*command(*flags), "--toy_delay=0.2"], cwd=tmp_path, stdin=subprocess.DEVNULL, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (output / "loss_0.log").is_file() or len(losses(output)) < 5:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    if number == signal.SIGINT:
        written = (output / "config.yaml").stat().st_mtime_ns
        second = run(command(*flags), tmp_path, status=1)
        expected = rf"train\.py: error: output_path: {output}: another training writes to it, process {process.pid} on "
        assert re.match(expected, second.stderr.strip().splitlines()[-1]), second.stderr
        assert (output / "config.yaml").stat().st_mtime_ns == written and not (output / "earlier").exists()
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == status, errors
    assert "Traceback" not in errors
    done = len(losses(output))
    assert f"stopped after step {done} of 120" in errors
    assert "--resume=auto" in errors and f"weights in {output / 'checkpoint' / 'last.ckpt'}" in errors
    assert "stop requested: the run ends after the current step; a second signal ends it at once" in errors.splitlines()
    assert {"last.ckpt", "state.ckpt"} <= {path.name for path in (output / "checkpoint").iterdir()}
    assert (output / "curves.png").is_file()
    resumed = run(command(*flags, f"--max_steps={done + 1}", "--resume=auto"), tmp_path)
    assert f"continuing after step {done}" in resumed.stderr
    assert len(losses(output)) == done + 1


def test_other_conversions_keep_the_files_that_a_training_reads(command, coco, tmp_path):
    flags, rows = ("--run_eval=False", "--epoch_size=3"), coco / "records" / "train"
    process = subprocess.Popen([*command(*flags), "--toy_delay=0.2"], cwd=tmp_path, stdin=subprocess.DEVNULL, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 120
        while process.poll() is None and not ((tmp_path / "out put" / "loss_0.log").is_file() and losses(tmp_path / "out put")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        convert = ["python", ROOT / "utils" / "mindrecord" / "convert.py", "--source=coco", f"--image_dir={coco / 'train2017'}",
                   f"--anno_path={coco / 'annotations' / 'instances_train2017.json'}", f"--output_dir={rows}"]
        for more in ("--classes=thing 1,thing 2", "--force"):
            assert "kept, because another process reads it" in run([*convert, more], tmp_path).stderr
        assert process.poll() is None       # or the test shows nothing
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, errors
    run(command(*flags, output="undisturbed"), tmp_path)
    assert losses(tmp_path / "out put") == losses(tmp_path / "undisturbed") and len(losses(tmp_path / "out put")) == 9
    # The next conversion deletes files that nobody reads any more.
    assert not run([*convert, "--force"], tmp_path).stderr
    assert {path.name for path in rows.iterdir()} == {"manifest.json", load_manifest(rows)["files"][0].split("/")[0]}


def test_new_run_sets_the_earlier_aside(command, tmp_path):
    for _ in range(2):
        done = run(command("--max_steps=1", "--run_eval=False"), tmp_path)
    assert "was moved to" in done.stderr
    assert len(losses(tmp_path / "out put")) == 1
    assert (tmp_path / "out put" / "earlier" / "1" / "checkpoint" / "last.ckpt").is_file()


def test_keys_of_a_single_call_are_not_saved(command, tmp_path):
    flags = "--max_steps=1", "--run_eval=False"
    run(command(*flags, "--resume=auto", "--train_url=", "--checkpoint_path=of_another_command.ckpt"), tmp_path)
    output = tmp_path / "out put"
    saved = yaml.safe_load((output / "config.yaml").read_text(encoding="utf-8"))
    assert not set(saved) & {"resume", "distribute", "enable_modelarts", "perf_steps", "checkpoint_path", "input"}
    assert saved["max_steps"] == 1 and saved["pre_trained"] == ""
    weights = tmp_path / "weights.ckpt"
    weights.write_bytes((output / "checkpoint" / "last.ckpt").read_bytes())
    arguments = [f"--config_path={output / 'config.yaml'}", f"--pre_trained={weights}"]
    again = run([sys.executable, str(TOY), *arguments], tmp_path)
    assert "was moved to" in again.stderr and f"parameters from {weights}" in again.stderr
    resumed = run([sys.executable, str(TOY), *arguments, "--resume=auto", "--max_steps=2"], tmp_path)
    warning = f"pre_trained: {weights} is not loaded: the run resumes from {output / 'checkpoint' / 'state.ckpt'}; without --resume"
    assert warning in resumed.stderr
    assert len(losses(output)) == 2


def test_lengths_and_rates_in_steps(command, tmp_path):
    """Lengths count steps, as in detectron2. The rate is scaled to the batch of 2 x 2 images."""
    done = run(command("--run_eval=False", "--epoch_size=0", "--max_steps=4", "--lr_steps=2,3", "--warmup_step=0",
                       "--accumulate_steps=2", "--lr_reference_batch=2"), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "out put" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["lr"] for row in rows] == pytest.approx([0.004, 0.004, 0.0004, 0.00004])
    assert [(row["epoch"], row["batch"]) for row in rows] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    expected = "learning rate: 0.004 for a batch of 4 (batch_size 2 x devices 1 x accumulate_steps 2, base_lr 0.002 is for 2)"
    assert expected in done.stderr


def test_speed_is_measured(command, tmp_path):
    done = run(command("--perf_steps=4", "--perf_warmup=2", "--toy_delay=0.05"), tmp_path)
    line = done.stdout.strip().splitlines()[-1]
    found = re.fullmatch(r"FPS: ([\d.]+), step time median ([\d.]+) s, 90th percentile [\d.]+ s, over 4 steps after 2 of warm-up, "
                         "1 devices, batch 2", line)
    assert found and float(found[2]) > 0.05 and float(found[1]) < 2 / 0.05
    output = tmp_path / "out put"
    rows = [json.loads(text) for text in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["kind"] for row in rows] == ["train"] * 6 + ["speed"]
    assert rows[-1]["fps"] == pytest.approx(float(found[1]), abs=1e-3) and rows[-1]["steps"] == 4
    assert not list((output / "checkpoint").iterdir())


def test_not_finite_ends_with_status_1(command, tmp_path):
    done = run(command("--base_lr=1e30", "--warmup_step=0", "--run_eval=False"), tmp_path, status=1)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("train.py: step 2 (epoch 1, batch 2) is not finite: rpn_cls_loss: ")
    assert "grad_norm: " in last
    assert "image ids of the batch: 1" in last


@pytest.mark.parametrize("flags, error", [
    (("--pre_trained=nowhere.ckpt",), "pre_trained: no such file: nowhere.ckpt"),
    (("--resume=nowhere",), "resume: no such file or folder: nowhere"),
    (("--learning_rate=1",), "--learning_rate: unknown key"),
    (("--coco_root=nowhere",), "coco_root: no such folder: nowhere"),
    (("--amp_level=O2",), "amp_level: O2 needs Ascend or GPU"),
    (("--pad_to=divisor",), "pad_to: divisor is for evaluation"),
    (("--output_path=/dev/null/x",), "/dev/null/x/config.yaml: cannot be written"),
])
def test_errors_are_one_line(command, tmp_path, flags, error):
    arguments = command()
    known = {item.partition("=")[0] for item in flags}
    arguments = [item for item in arguments if item.partition("=")[0] not in known] + list(flags)
    done = run(arguments, tmp_path, status=2)
    assert done.stderr.strip().splitlines()[-1].startswith(f"train.py: error: {error}")
    assert "Traceback" not in done.stderr
