"""The log of a run: the old zoo's exact line, means over an interval, and which file holds what."""
import json

import numpy as np
import pytest

from faster_rcnn.src.model_utils.training.log import TrainLog, cut_logs, loss_line, with_sums
from faster_rcnn.src.model_utils.training.precision import LossScale
from faster_rcnn.src.model_utils.training.step import StepResult

NAMES = ("rpn_cls_loss", "rpn_reg_loss", "rcnn_cls_loss", "rcnn_reg_loss")


def result(*values, norm=1.0, applied=True):
    losses = dict(zip(NAMES, values))
    return StepResult(losses, losses, norm, applied, False)


def make_log(folder, **options):
    return TrainLog(folder, **{"total_steps": 8, "done_steps": 0, "images_per_step": 2, "log_interval": 2, **options})


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_line_of_the_old_zoo():
    losses = dict(zip(NAMES, (0.04025, 0.08032, 0.25854, 0.14746)))
    assert loss_line(1, 7393, with_sums(losses)) == (
        "epoch: 1 step: 7393, rpn_loss: 0.12057, rcnn_loss: 0.40600, rpn_cls_loss: 0.04025, rpn_reg_loss: 0.08032, "
        "rcnn_cls_loss: 0.25854, rcnn_reg_loss: 0.14746, total_loss: 0.52657")


def test_mask_loss_joins_the_second_stage():
    values = with_sums({"rpn_cls_loss": 1.0, "rpn_reg_loss": 2.0, "rcnn_cls_loss": 4.0, "rcnn_mask_loss": 8.0})
    assert list(values) == ["rpn_loss", "rcnn_loss", "rpn_cls_loss", "rpn_reg_loss", "rcnn_cls_loss", "rcnn_mask_loss",
                            "total_loss"]
    assert (values["rpn_loss"], values["rcnn_loss"], values["total_loss"]) == (3.0, 12.0, 15.0)


def test_lines_come_at_intervals_and_ends_and_hold_means(tmp_path, capsys):
    log, scale = make_log(tmp_path), LossScale()
    for step in range(1, 6):    # an epoch has 5 steps
        log.step(step, 1, step, result(step, 0, 0, 10 * step, norm=100 * step), 0.5 / step, scale, step == 5)
    log.close()
    found = rows(tmp_path)
    assert [(row["step"], row["batch"]) for row in found] == [(2, 2), (4, 4), (5, 5)]
    np.testing.assert_allclose([row["rpn_loss"] for row in found], [1.5, 3.5, 5])
    np.testing.assert_allclose([row["total_loss"] for row in found], [16.5, 38.5, 55])
    np.testing.assert_allclose([row["grad_norm"] for row in found], [150, 350, 500])
    np.testing.assert_allclose([row["lr"] for row in found], [0.25, 0.125, 0.1])
    assert "loss_scale" not in found[0]
    written = (tmp_path / "loss_0.log").read_text().splitlines()
    assert written[0].startswith("epoch: 1 step: 2, rpn_loss: 1.50000, rcnn_loss: 15.00000, rpn_cls_loss: 1.50000, ")
    shown = capsys.readouterr().out.splitlines()
    assert [line.startswith(old) for line, old in zip(shown, written)] == [True] * 3
    assert ", lr: 0.250000, " in shown[0]
    assert "img/s" in shown[0]


def test_rate_and_time_left_count_only_training(tmp_path, capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("faster_rcnn.src.model_utils.training.log.time.monotonic", lambda: now[0])
    log = make_log(tmp_path, log_interval=1, total_steps=20)
    for step, seconds in enumerate((50, 2, 2, 100, 4), 1):     # the first compiles, the fourth follows an evaluation
        now[0] += seconds
        if step == 4:
            log.pause()
        log.step(step, 1, step, result(1, 1, 1, 1), 0.1, LossScale(), False)
    log.close()
    shown = capsys.readouterr().out.splitlines()
    assert "img/s" not in shown[0]
    assert shown[1].endswith("1.00 img/s, 0:36 left")           # 18 steps of 2 s
    assert shown[2].endswith("1.00 img/s, 0:34 left")
    assert shown[3].endswith("lr: 0.100000, 0:32 left")
    assert shown[4].endswith("0.50 img/s, 0:40 left")           # 15 steps of 8/3 s
    assert [row["images_per_s"] for row in rows(tmp_path)] == [None, 1.0, 1.0, None, 0.5]


def test_state_carries_the_open_interval(tmp_path):
    first, second = make_log(tmp_path / "a"), make_log(tmp_path / "a")
    first.step(1, 1, 1, result(1, 2, 3, 4), 0.1, LossScale(), False)
    second.load_state(json.loads(json.dumps(first.state())))
    second.step(2, 1, 2, result(3, 4, 5, 6), 0.1, LossScale(), False)
    first.close()
    second.close()
    assert rows(tmp_path / "a")[0]["rpn_cls_loss"] == 2.0


def test_tensorboard_events(tmp_path):
    log = make_log(tmp_path)
    log.record("eval", 7, {"epoch": 2, "AP": 0.25, "AP50": float("nan")})
    log.close()
    assert rows(tmp_path) == [{"kind": "eval", "step": 7, "epoch": 2, "AP": 0.25, "AP50": None}]
    events = b"".join(path.read_bytes() for path in tmp_path.glob("events.out.tfevents.*"))
    assert b"eval/AP" in events
    assert b"eval/AP50" not in events


def test_mask_figures_have_their_own_group(tmp_path):
    log = make_log(tmp_path)
    log.record("eval", 7, {"AP": 0.25, "segm": {"AP": 0.5}})
    log.close()
    assert rows(tmp_path) == [{"kind": "eval", "step": 7, "AP": 0.25, "segm": {"AP": 0.5}}]
    events = b"".join(path.read_bytes() for path in tmp_path.glob("events.out.tfevents.*"))
    assert b"eval/AP" in events and b"eval/segm/AP" in events


def test_only_one_device_writes(tmp_path, capsys):
    log = make_log(tmp_path / "none", writer=False, rank=1)
    log.step(2, 1, 2, result(1, 2, 3, 4), 0.1, LossScale(), True)
    log.record("eval", 2, {"AP": 0.1})
    log.say("hello")
    log.close()
    assert not (tmp_path / "none").exists()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("kind", ["loss_0.log", "metrics.jsonl"])
def test_a_resumed_run_appends(tmp_path, kind):
    for step in (2, 4):
        log = make_log(tmp_path, done_steps=step - 2)
        log.step(step, 1, step, result(1, 2, 3, 4), 0.1, LossScale(), False)
        log.close()
    assert len((tmp_path / kind).read_text().splitlines()) == 2


def test_lines_of_refinedet(tmp_path, capsys, monkeypatch):
    """The old zoo's lines for a step and for an epoch; steps that compile or follow a pause are not timed."""
    from refinedet.src.model_utils.training.log import TrainLog as RefineDetLog

    now = [0.0]
    monkeypatch.setattr("refinedet.src.model_utils.training.log.time.monotonic", lambda: now[0])
    log = RefineDetLog(tmp_path, total_steps=6, done_steps=0, images_per_step=2, log_interval=3)
    losses = {"arm_loc_loss": 0.5, "arm_conf_loss": 1.25, "odm_loc_loss": 0.75, "odm_conf_loss": 0.6681802}
    for step, seconds in enumerate((50, 2, 3, 100, 1, 1), 1):
        now[0] += seconds
        if step == 4:
            log.pause()
        given = StepResult(losses, losses, 1.0, True, False)
        log.step(step, 1 + (step > 3), 1 + (step - 1) % 3, given, 0.1, LossScale(), step % 3 == 0)
    log.close()
    line = ("loss is 3.1681802, arm_loss: 1.75000, odm_loss: 1.41818, arm_loc_loss: 0.50000, arm_conf_loss: 1.25000, "
            "odm_loc_loss: 0.75000, odm_conf_loss: 0.66818")
    assert (tmp_path / "loss_0.log").read_text().splitlines() == [
        f"epoch: 1 step: 3, {line}", "epoch time: 7500.000 ms, per step time: 2500.000 ms",
        f"epoch: 2 step: 3, {line}", "epoch time: 3000.000 ms, per step time: 1000.000 ms"]
    assert "epoch time: 7500.000 ms, per step time: 2500.000 ms\n" in capsys.readouterr().out


@pytest.mark.parametrize(("position", "left", "last"), [
    ((5, 4, 1, 1), [("train", 3), ("train", 4), ("eval", 4)], "epoch time: 1"),
    ((8, 4, 2, 0), [("train", 3), ("train", 4), ("eval", 4), ("train", 6), ("train", 8)], "epoch time: 2"),
    ((8, 8, 2, 0), [("train", 3), ("train", 4), ("eval", 4), ("train", 6), ("train", 8), ("eval", 8)], "epoch time: 2")])
def test_lines_after_the_state_are_cut(tmp_path, position, left, last):
    step, evaluated, epoch, batch = position
    written = [("train", 3), ("train", 4), ("eval", 4), ("train", 6), ("train", 8), ("eval", 8), ("train", 9)]
    rows_of = "".join(json.dumps({"kind": kind, "step": number}) + "\n" for kind, number in written)
    (tmp_path / "metrics.jsonl").write_text(rows_of + '{"kind": "tr')
    (tmp_path / "loss_0.log").write_text(
        "epoch: 1 step: 3, loss is 1\nepoch: 1 step: 4, loss is 2\nepoch time: 1\nepoch: 2 step: 2, loss is 3\n"
        "epoch: 2 step: 4, loss is 4\nepoch time: 2\nepoch: 3 step: 1, loss is 5\nepoch: 3 st")
    values = {"step": step, "evaluated": evaluated, "epoch": epoch, "batch": batch}
    for _ in range(2):
        cut_logs(tmp_path, values)
        assert [(row["kind"], row["step"]) for row in rows(tmp_path)] == left
        assert (tmp_path / "loss_0.log").read_text().splitlines()[-1] == last


def test_without_logs_there_is_nothing_to_cut(tmp_path):
    cut_logs(tmp_path, {"step": 1, "evaluated": 0, "epoch": 0, "batch": 1})
    assert list(tmp_path.iterdir()) == []
