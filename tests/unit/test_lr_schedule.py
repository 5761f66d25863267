"""The learning rate against literals of detectron2's 1x schedule and of a short run."""
import math

import pytest

from faster_rcnn.src.lr_schedule import learning_rate, scaled_base_lr, warmup_factor
from faster_rcnn.src.model_utils.config import load_config
from faster_rcnn.src.model_utils.training.schedule import build_rate

# detectron2's R50-FPN 1x: base rate 0.02, warm-up from 1/1000 over 1000 steps, drops at 60k and 80k of 90k steps.
ONE_X = {"base_lr": 0.02, "warmup_steps": 1000, "warmup_ratio": 1e-3, "total_steps": 90000, "schedule": "multistep",
         "milestones": (60000, 80000), "gamma": 0.1}


@pytest.mark.parametrize("step, expected", [
    (0, 2e-5), (500, 0.01001), (999, 0.01998002), (1000, 0.02), (59999, 0.02), (60000, 2e-3), (79999, 2e-3),
    (80000, 2e-4), (90000, 2e-4)])
def test_multistep(step, expected):
    assert learning_rate(step, **ONE_X) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("step, expected", [
    # The old zoo's init_lr + (base_lr - init_lr) * step / warmup_steps, with base_lr 0.02 and ratio 1/3.
    (0, 0.02 / 3), (1, 0.02 / 3 + (0.02 - 0.02 / 3) / 500), (250, 0.02 * 2 / 3), (500, 0.02)])
def test_linear_warmup_of_the_old_zoo(step, expected):
    got = learning_rate(step, **{**ONE_X, "warmup_steps": 500, "warmup_ratio": 1 / 3})
    assert got == pytest.approx(expected, rel=1e-12)


def test_constant_warmup():
    options = {**ONE_X, "warmup_steps": 2, "warmup_ratio": 0.25, "warmup_mode": "constant"}
    rates = [learning_rate(step, **options) for step in range(3)]
    assert rates == pytest.approx([0.005, 0.005, 0.02], rel=1e-12)


@pytest.mark.parametrize("step, expected", [
    (0, 0.5), (4, 0.9), (5, 1.0), (10, (1 + math.sqrt(0.5)) / 2), (15, 0.5), (25, 0.0), (26, 0.0)])
def test_cosine(step, expected):
    got = learning_rate(step, base_lr=1.0, warmup_steps=5, warmup_ratio=0.5, total_steps=25, schedule="cosine")
    assert got == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("schedule", ["multistep", "cosine"])
def test_no_warmup_starts_at_the_base_rate(schedule):
    assert learning_rate(0, base_lr=0.1, warmup_steps=0, warmup_ratio=0.0, total_steps=10, schedule=schedule) == 0.1


def test_milestone_inside_the_warmup_counts():
    """As in detectron2, the warm-up multiplies the rate of the schedule."""
    got = learning_rate(6, **{**ONE_X, "warmup_steps": 12, "warmup_ratio": 0.5, "milestones": (6,)})
    assert got == pytest.approx(0.02 * 0.1 * 0.75, rel=1e-12)


def test_cosine_never_rises_after_the_warmup():
    options = {"base_lr": 0.3, "warmup_steps": 3, "warmup_ratio": 0.1, "total_steps": 40, "schedule": "cosine"}
    rates = [learning_rate(step, **options) for step in range(41)]
    assert rates[:4] == sorted(rates[:4])
    assert rates[3:] == sorted(rates[3:], reverse=True)


def test_warmup_longer_than_the_run():
    got = learning_rate(9, base_lr=1.0, warmup_steps=20, warmup_ratio=0.0, total_steps=10, schedule="cosine")
    assert got == pytest.approx(0.45)


@pytest.mark.parametrize(("warmup", "epochs", "taken"), [(500, 10, 50), (50, 10, 50), (51, 10, 50), (30, 10, 30), (0, 10, 0)])
def test_warmup_is_at_most_a_tenth_of_the_run(caplog, warmup, epochs, taken):
    """50 steps per epoch. max_steps only ends a run earlier and does not change the warm-up."""
    config = load_config(overrides={"warmup_step": warmup, "epoch_size": epochs, "warmup_ratio": 0.25, "max_steps": 60,
                                    "base_lr": 1.0, "sgd_step": [], "lr_reference_batch": 0})
    rate = build_rate(config, 50, 1)
    assert [rate(taken), rate(max(taken - 1, 0)) < 1] == [1.0, taken > 0]
    shortened = f"warmup_step: {warmup} is more than a tenth of the run's 500 steps: shortened to 50"
    assert (shortened in caplog.text) == (warmup > 50)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="polynomial"):
        learning_rate(0, **{**ONE_X, "schedule": "polynomial"})
    with pytest.raises(ValueError, match="burnin"):
        warmup_factor(0, 5, 0.1, "burnin")


@pytest.mark.parametrize("total, reference, expected", [(2, 0, 0.02), (2, 16, 0.0025), (32, 16, 0.04)])
def test_scaled_base_lr(total, reference, expected):
    assert scaled_base_lr(0.02, total, reference) == pytest.approx(expected, rel=1e-12)
