"""Options of a training run: accumulation, early stopping, skipped steps, length in steps, and speed measurement."""
import numpy as np
import pytest
from mindspore import Tensor, ops

from faster_rcnn.src.model_utils.config import load_config
from faster_rcnn.src.model_utils.training import precision
from faster_rcnn.src.model_utils.training.precision import LossScale
from faster_rcnn.src.model_utils.training.schedule import build_rate, end_step, schedule_steps
from faster_rcnn.src.model_utils.training.speed import speed_figures, speed_line
from faster_rcnn.src.model_utils.training.step import NotFiniteError, TrainStep
from tests.toy_network import LOSS_NAMES, ToyDetector, toy_batch
from tests.toy_run import ToyRun, equal, lines, metrics, names

pytestmark = pytest.mark.usefixtures("eager")

# ---- accumulation

OPTIONS = {"momentum": 0.9, "weight_decay": 1e-2, "clip_grad_norm": 1.0, "ema_decay": 0.5}


def values(step) -> dict:
    return {name: param.asnumpy().copy() for name, param in step.state()[0].items()}


def test_accumulated_batches_equal_one_large_batch():
    """Three steps with clipping, loss scale and averaged weights; the losses are means over images."""
    parts = TrainStep(ToyDetector(), LOSS_NAMES, loss_scale=LossScale(64.0), accumulate=3, **OPTIONS)
    whole = TrainStep(ToyDetector(), LOSS_NAMES, loss_scale=LossScale(64.0), **OPTIONS)
    start = values(parts)
    for number in range(3):
        batches = [toy_batch(3 * number + part) for part in range(3)]
        first, *more = batches
        got = parts(first, 0.05, more=more)
        expected = whole(tuple(ops.concat(columns) for columns in zip(*batches)), 0.05)
        assert got.grad_norm == pytest.approx(expected.grad_norm, rel=1e-5) and got.grad_norm > 1.0
        assert got.losses == pytest.approx(expected.losses, rel=1e-5)
    for name, value in values(whole).items():
        np.testing.assert_allclose(values(parts)[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    assert not np.allclose(start["network.backbone.weight"], values(parts)["network.backbone.weight"], atol=1e-3)


def test_an_overflow_does_not_stay_in_the_sums():
    step, other = (TrainStep(ToyDetector(), LOSS_NAMES, loss_scale=LossScale(64.0), accumulate=2, **OPTIONS) for _ in range(2))
    before = values(step)
    image, *rest = toy_batch(0)
    assert not step(toy_batch(1), 0.1, more=[(image * np.inf, *rest)]).applied
    assert equal(values(step), before) and step.loss_scale.skipped == 1
    for one in (step, other):
        assert one(toy_batch(1), 0.1, more=[toy_batch(2)]).applied
    assert equal(values(step), values(other))


def test_a_step_takes_as_many_batches_as_it_was_built_for():
    with pytest.raises(ValueError, match="expected 2 batches, got 1"):
        TrainStep(ToyDetector(), LOSS_NAMES, momentum=0.9, weight_decay=0.0, accumulate=2)(toy_batch(), 0.1)


def test_poisoned_part_of_a_step_is_named_with_the_others(tmp_path):
    with pytest.raises(NotFiniteError, match=r"step 3 .*batch 3\) is not finite.*image ids of the batch: 102, 202, 1102, 1202"):
        ToyRun(tmp_path, poison=2, accumulate_steps=2).run()


# ---- steps that are not finite

def test_static_scale_skips_counts_and_gives_up(monkeypatch):
    monkeypatch.setattr(precision, "STATIC_SKIPS", 3)
    scale = LossScale(64.0)
    taken = [scale.update(finite) for finite in (False, False, True, False, False, False)]
    assert taken == [True, True, True, True, True, False]
    assert (scale.value, scale.skipped) == (64.0, 4)
    other = LossScale(64.0)
    other.load_state({**scale.state(), "in_a_row": 2})
    assert not other.update(False)
    assert not LossScale(1.0).update(False)     # float32 allows no skipped step


@pytest.mark.parametrize("before, now, value", [
    (LossScale(64.0), LossScale(), 1.0), (LossScale(dynamic=True), LossScale(64.0), 64.0),
    (LossScale(64.0), LossScale(dynamic=True), 2.0 ** 16), (LossScale(512.0, dynamic=True), LossScale(dynamic=True), 512.0)])
def test_another_scale_takes_effect_on_resume(before, now, value):
    """The update divides by the scale that multiplied the loss, so the steps equal those without a scale."""
    plain = {key: value for key, value in OPTIONS.items() if key != "clip_grad_norm"}
    first, other, expected = (TrainStep(ToyDetector(), LOSS_NAMES, loss_scale=scale, **plain)
                              for scale in (before, now, LossScale()))
    for step in (first, expected):
        step(toy_batch(0), 0.05)
    other.load_state(*first.state(), "the state")
    assert other.loss_scale.value == value
    for step in (other, expected):
        step(toy_batch(1), 0.05)
    for name, array in values(expected).items():
        np.testing.assert_allclose(values(other)[name], array, rtol=1e-5, atol=1e-6, err_msg=name)


def test_skipped_steps_are_reported_and_leave_the_weights(tmp_path, capsys):
    run = ToyRun(tmp_path, poison=1, log_interval=1, max_steps=3, loss_scale=64.0).run()
    assert [row["skipped_steps"] for row in metrics(tmp_path, "train")] == [0, 1, 1]
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert [line.endswith(", 1 step skipped") for line in said] == [False, True, True]
    assert run.loop.step == 3 and np.isfinite(run.weights()["network.backbone.weight"]).all()


# ---- early stopping

def test_early_stop_after_evaluations_without_a_better_ap(tmp_path, capsys):
    """Reaching 0.3 again is no improvement. The last epoch's weights are saved although its checkpoint was not due."""
    options = {"epoch_size": 9, "early_stop_patience": 2, "save_checkpoint_epochs": 4, "keep_checkpoint_max": 9}
    run = ToyRun(tmp_path, aps=(0.2, 0.3, 0.3, 0.1, 0.9), **options).run()
    assert (run.evaluations, run.loop.step, run.loop.best_ap, run.loop.best_epoch) == (4, 16, 0.3, 3)
    assert "stopped early: no better AP in 2 evaluations" in capsys.readouterr().out
    assert "toy-4_4.ckpt" in names(tmp_path)
    again = ToyRun(tmp_path, aps=(0.9,), **options).resume().run()
    assert not again.losses and again.evaluations == 0
    patient = ToyRun(tmp_path, aps=(0.2, 0.9, 0.1), **{**options, "early_stop_patience": 4, "epoch_size": 6}).resume().run()
    assert (patient.evaluations, patient.loop.step, patient.loop.best_ap) == (2, 24, 0.9)


def test_a_run_that_improves_in_time_is_not_stopped(tmp_path):
    run = ToyRun(tmp_path, aps=(0.2, 0.1, 0.3, 0.2), epoch_size=4, early_stop_patience=2).run()
    assert (run.evaluations, run.loop.step) == (4, 16)


# ---- lengths in steps

@pytest.mark.parametrize("epochs, most, end, schedule", [(3, 0, 30, 30), (3, 12, 12, 30), (0, 12, 12, 12), (0, 45, 45, 45)])
def test_length_of_a_run(epochs, most, end, schedule):
    config = load_config(overrides={"epoch_size": epochs, "max_steps": most})
    assert (end_step(config, 10), schedule_steps(config, 10)) == (end, schedule)


def test_epochs_of_pre_trained_are_not_run_again():
    """As in the old zoo's scripts, 2 of 8 epochs are left, and the cosine is at (1 + cos(3/4 pi)) / 2."""
    cosine = load_config(overrides={"epoch_size": 8, "pre_trained_epoch_size": 6, "lr_schedule": "cosine", "base_lr": 1.0,
                                    "warmup_step": 0})
    assert end_step(cosine, 10) == schedule_steps(cosine, 10) == 20
    rate = build_rate(cosine, 10, ranks=1)
    assert [rate(step) for step in (0, 10, 20)] == pytest.approx([0.14644661, 0.0732233, 0.0], abs=1e-8)
    stages = load_config(overrides={"epoch_size": 8, "pre_trained_epoch_size": 6, "sgd_step": [4, 7], "base_lr": 1.0,
                                    "warmup_step": 0})
    rate = build_rate(stages, 10, ranks=1)
    assert [rate(step) for step in (0, 9, 10)] == pytest.approx([0.1, 0.1, 0.01])


def test_epochs_of_pre_trained_must_leave_some(message):
    error = message(load_config, overrides={"epoch_size": 5, "pre_trained_epoch_size": 5})
    assert error == "pre_trained_epoch_size: 5 of 5 epochs (epoch_size) leave nothing to train"


def test_a_run_in_steps_crosses_epochs(tmp_path):
    run = ToyRun(tmp_path, epoch_size=0, max_steps=14, log_interval=1).run()
    assert run.loop.step == 14
    assert [line.split(",")[0] for line in lines(tmp_path)][-2:] == ["epoch: 4 step: 1", "epoch: 4 step: 2"]


@pytest.mark.parametrize("overrides, error", [
    ({"epoch_size": 0}, "epoch_size: 0 leaves the end of the run to max_steps"),
    ({"lr_steps": [5, 2]}, "lr_steps: expected rising steps"),
    ({"accumulate_steps": 0}, "accumulate_steps: expected at least 1"),
    ({"early_stop_patience": 2, "run_eval": False}, "early_stop_patience: needs run_eval: True"),
    ({"perf_steps": 5, "resume": "auto"}, "perf_steps: measures a new run"),
    ({"perf_steps": 5, "perf_warmup": 0}, "perf_warmup: expected at least 1"),
    ({"data_timeout": -1}, "data_timeout: expected at least 0")])
def test_faults(message, overrides, error):
    assert message(load_config, overrides=overrides).startswith(error)


# ---- speed

def test_figures_of_speed():
    figures = speed_figures(np.array([0.1, 0.2, 0.1, 0.4]), 5, 2, 4)
    assert figures["fps"] == pytest.approx(20.0)            # 4 steps of 4 images in 0.8 s
    assert (figures["step_time_median"], figures["step_time_p90"]) == pytest.approx((0.15, 0.34))
    assert speed_line(figures) == ("FPS: 20.000, step time median 0.150 s, 90th percentile 0.340 s, over 4 steps after 5 of "
                                   "warm-up, 2 devices, batch 4")


def test_noise_of_a_toy_is_used():
    """Image and noise change the toy's losses; the test of accumulated batches relies on it."""
    net, batch = ToyDetector(), toy_batch()
    before = [float(loss) for loss in net(*batch)]
    for i in (0, 5, 6):
        changed = [*batch]
        changed[i] = Tensor(changed[i].asnumpy() + 0.5)
        assert [float(loss) for loss in net(*changed)] != before
