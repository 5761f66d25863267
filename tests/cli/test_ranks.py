"""Several processes on the CPU match a single one: weights after training, detections and AP, and resumed runs."""
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import mindspore as ms
import numpy as np
import psutil
import pytest

from tests import commands, rank_steps, toy_data, toy_network

pytestmark = pytest.mark.ranks

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = [sys.executable, str(ROOT / "utils" / "launch" / "run.py"), "--worker_num=2", "--show_ranks=none", "--device_target=CPU"]


def run(arguments, cwd, status=0):
    done = commands.run(arguments, cwd)
    assert done.returncode == status, done.stdout + done.stderr
    return done


# ---- the narrow networks

@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """The folder where two ranks wrote the results of rank_steps.py."""
    folder = tmp_path_factory.mktemp("two ranks")
    run([*LAUNCH, f"--log_dir={folder / 'log'}", ROOT / "tests" / "rank_steps.py", folder], folder)
    return folder


@pytest.fixture(scope="module")
def reports(two_ranks):
    return [json.loads((two_ranks / f"told_{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("model", rank_steps.MODELS)
def test_two_ranks_train_as_one_process_with_both_images(two_ranks, model):
    """The images differ in how many anchors and boxes count. The ranks ran compiled; this process runs eagerly."""
    whole = rank_steps.train(model)
    ranks = [np.load(two_ranks / f"{model}_{rank}.npz") for rank in (0, 1)]
    names = [name for name in whole if not name.startswith("first.")]
    squares = np.zeros(2)
    for name in names:
        np.testing.assert_array_equal(ranks[0][name], ranks[1][name], err_msg=name)
        np.testing.assert_array_equal(ranks[0][f"first.{name}"], whole[f"first.{name}"], err_msg=name)
        scale = np.abs(whole[name]).max()
        np.testing.assert_allclose(ranks[0][name], whole[name], rtol=0, atol=1e-5 * max(scale, 1e-3), err_msg=name)
        squares += [((whole[name] - other) ** 2).sum() for other in (ranks[0][name], whole[f"first.{name}"])]
    assert np.sqrt(squares[0] / squares[1]) < 1e-5


def test_norms_on_batch_statistics_train_as_one_process_with_the_whole_batch(two_ranks):
    """Two ranks with two images each get the weights, running statistics and losses of one process with four."""
    whole = rank_steps.norms()
    for rank in (0, 1):
        got = np.load(two_ranks / f"norms_{rank}.npz")
        assert set(got) == set(whole)
        for name in whole:
            np.testing.assert_allclose(got[name], whole[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_learnt_statistics_are_averaged(reports):
    assert [rank["statistics"] for rank in reports] == [[[0.5, 2.0], [5.0], [gamma]] for gamma in (1.0, 2.0)]


def test_ranks_exchange_values(reports):
    for rank in reports:
        assert rank["texts"] == ["", "xxxxx"]
        assert rank["big"] == [[3_000_001, 0, 0], [3_000_001, 1, 1]]
        assert rank["result"] == {"rank": 0, "of": 0.1 + 0.2}
    assert [rank["done here"] for rank in reports] == [1, 0]
    assert reports[0]["begun"] < 1.4 < reports[1]["begun"]        # rank 1 begins once rank 0 is done


def test_a_failure_of_rank_0_fails_all_at_once(reports):
    first, second = reports
    assert first["fails"][:2] == ["ZeroDivisionError", "division by zero"]
    assert second["fails"][:2] == ["InputError", "conversion: rank 0 failed: division by zero"]
    assert first["too long"][:2] == ["InputError", "conversion: not done after 0.5 s (data_timeout)"]
    assert second["too long"][1] == "conversion: rank 0 failed: conversion: not done after 0.5 s (data_timeout)"
    assert first["no JSON"][0] == "TypeError" and "not JSON serializable" in second["no JSON"][1]
    assert max(rank[name][2] for rank in reports for name in ("fails", "too long", "no JSON")) < 20


# ---- train.py with a toy network

@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """command(output, *flags, ranks=1) -> command line of a run: 4 images per step, 2 steps per epoch, 3 images to evaluate."""
    root = toy_data.write_noise(tmp_path_factory.mktemp("coco root"))
    path = root / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    content["annotations"] = [{"id": 4 * i + k + 1, "image_id": 10 + i, "category_id": category, "bbox": box, "iscrowd": 0,
                               "area": box[2] * box[3]} for i in range(3)
                              for k, (box, category) in enumerate(zip(toy_data.quarters(48, 64), (1, 2, 3, 2)))]
    path.write_text(json.dumps(content))
    config = root / "toy.yaml"
    config.write_text("num_classes: 4\ncoco_classes: [background, thing 1, thing 2, thing 3]\nimg_width: 64\nimg_height: 64\n"
                      "num_gts: 4\ntest_batch_size: 1\nepoch_size: 4\nlog_interval: 1\nwarmup_step: 2\n"
                      "num_parallel_workers: 1\nclip_grad_norm: 1.0\nema_decay: 0.9\nbase_lr: 0.002\ndevice_target: CPU\n")

    def build(output, *flags, ranks=1):
        launch = [*LAUNCH, f"--log_dir={output}/log"] if ranks > 1 else [sys.executable]
        return [str(item) for item in (
            *launch, ROOT / "tests" / "toy_train.py", f"--config_path={config}", f"--coco_root={root}", f"--output_path={output}",
            f"--mindrecord_dir={output}/records", f"--distribute={ranks > 1}", f"--batch_size={4 // ranks}", *flags)]

    return build


@pytest.fixture(scope="module")
def undisturbed(command, tmp_path_factory):
    """The output folder of an uninterrupted run on two ranks."""
    output = tmp_path_factory.mktemp("undisturbed run")
    run(command(output, ranks=2), output)
    return output


def state(output) -> dict:
    content = ms.load_checkpoint(str(output / "checkpoint" / "state.ckpt"))
    return {name: value.asnumpy() for name, value in content.items() if isinstance(value, ms.Parameter)}


def rows(output, kind) -> list:
    return [row for row in map(json.loads, (output / "metrics.jsonl").read_text().splitlines()) if row["kind"] == kind]


@pytest.mark.parametrize("flags", [(), ("--accumulate_steps=2", "--batch_size=2")], ids=["one batch", "accumulated"])
def test_a_run_on_two_ranks_equals_one_of_one(command, undisturbed, tmp_path, flags):
    """Data, noise, losses, weights, weight averages and AP are equal, although the 3 images do not divide among 2 ranks."""
    run(command(tmp_path / "one", *flags), tmp_path)
    one, two = state(tmp_path / "one"), state(undisturbed)
    assert one.keys() == two.keys() and any(name.startswith("ema.") for name in one)
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    for kind in ("train", "eval"):
        pairs = list(zip(rows(tmp_path / "one", kind), rows(undisturbed, kind), strict=True))
        for row, other in pairs:
            same = set(row) - {"kind", "seconds", "images_per_s"}
            assert same == set(other) - {"kind", "seconds", "images_per_s"}
            for name in same:
                assert row[name] == pytest.approx(other[name], rel=1e-4), name
    assert pairs[-1][0]["images"] == 3 and pairs[-1][0]["AP"] > 0.1
    assert sorted(path.name for path in undisturbed.glob("loss_*.log")) == ["loss_0.log"]


def started(arguments, output, lines):
    """Start a run and wait until its log has this many lines."""
    output.mkdir(exist_ok=True)
    process = subprocess.Popen(arguments, cwd=output, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True)
    deadline, path = time.monotonic() + 120, output / "loss_0.log"
    while not path.is_file() or len(path.read_text().splitlines()) < lines:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    return process


def members(output) -> dict:
    """Return {rank: process} of a run that writes to `output`; other processes have their role and pid as the key."""
    found = {}
    for process in psutil.process_iter():
        try:
            if f"--output_path={output}" in process.cmdline():
                role = process.environ().get("MS_ROLE")
                found[{"MS_WORKER": process.environ().get("RANK_ID")}.get(role, f"{role} {process.pid}")] = process
        except psutil.Error:
            continue
    return found


def test_interruptions_change_nothing(command, undisturbed, tmp_path):
    """One rank is asked to stop, then one is killed mid-epoch: with --resume=auto the run ends with the same weights."""
    output = tmp_path / "run"
    flags = ("--resume=auto", "--toy_delay=0.4", "--save_checkpoint_steps=1")
    process = started(command(output, *flags, ranks=2), output, 1)
    members(output)["1"].send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 143 and "stopped as requested" in errors, errors
    steps = len((output / "loss_0.log").read_text().splitlines())
    assert f"stopped after step {steps} of 8" in (output / "log" / "worker_0.log").read_text()

    process = started(command(output, *flags, ranks=2), output, steps + 1)
    members(output)["1"].kill()
    killed = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGKILL
    assert time.monotonic() - killed < 60
    assert "rank 1 was killed by signal 9 (SIGKILL)" in errors and "worker_1.log" in errors
    assert not members(output)
    done = len((output / "loss_0.log").read_text().splitlines())

    run(command(output, "--resume=auto", "--save_checkpoint_steps=1", ranks=2), tmp_path)
    resumed = re.search(r"continuing after step (\d+)", (output / "log" / "worker_0.log").read_text())
    assert steps < int(resumed[1]) <= done < 8
    whole, parts = state(undisturbed), state(output)
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        np.testing.assert_array_equal(parts[name], value, err_msg=name)


def test_without_distribute_nothing_is_done_twice(command, tmp_path):
    done = commands.run([*command(tmp_path), "--distribute=False"], tmp_path, env={"MS_ROLE": "MS_WORKER"})
    assert done.returncode == 2 and "distribute: False, but msrun started this" in done.stderr


# ---- eval.py

def test_evaluation_on_two_ranks_finds_the_same(compiled, pictures, tmp_path):
    """3 images, in batches of 2 and of 1, with boxes and masks."""
    plain = tmp_path / "plain"
    plain.mkdir()
    toy_data.export_toy(toy_network.ToyMaskDetector(4), plain, tmp_path)
    program = [ROOT / "mask_rcnn" / "eval.py", f"--mindir_path={tmp_path / 'toy.mindir'}", f"--coco_root={pictures}",
               "--num_classes=4", "--coco_classes=[background, cat, dog, bird]", "--img_width=128", "--img_height=96",
               "--num_parallel_workers=1", "--device_target=CPU"]
    outputs = [tmp_path / name for name in ("one", "two")]
    run([sys.executable, *program, f"--output_path={outputs[0]}"], tmp_path)
    run([*LAUNCH, f"--log_dir={tmp_path / 'log'}", *program, "--distribute=True", f"--output_path={outputs[1]}"], tmp_path)
    one, two = ((output / "detections.json").read_bytes() for output in outputs)
    assert one == two and len(json.loads(one)) == 12
    one, two = (json.loads((output / "metrics.json").read_text()) for output in outputs)
    assert all(one[kind] == two[kind] and one[kind]["AP"] > 0.5 for kind in ("bbox", "segm"))
    assert os.path.getsize(outputs[1] / "pr_curves.png")
