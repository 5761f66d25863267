# Same as faster_rcnn/src/lr_schedule.py
"""Learning rate of a step: a warm-up, then a fall in stages or along a cosine.

A step is one update of the weights; the first is step 0. Nothing here keeps state.
"""
import math


def learning_rate(step: int, *, base_lr: float, warmup_steps: int, warmup_ratio: float, total_steps: int, schedule: str,
                  milestones=(), gamma: float = 0.1, warmup_mode: str = "linear") -> float:
    """The rate of one step.

    schedule: "multistep" multiplies the rate by `gamma` at each of `milestones` (steps); "cosine" lets it fall from
    base_lr at the end of the warm-up to 0 at total_steps. The warm-up multiplies that by `warmup_factor`.
    """
    if schedule == "multistep":
        rate = base_lr * gamma ** sum(step >= milestone for milestone in milestones)
    elif schedule == "cosine":
        progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
        rate = base_lr * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2
    else:
        raise ValueError(f"lr_schedule: expected multistep or cosine, got {schedule!r}")
    return rate * warmup_factor(step, warmup_steps, warmup_ratio, warmup_mode)


def warmup_factor(step: int, warmup_steps: int, warmup_ratio: float, warmup_mode: str = "linear") -> float:
    """From warmup_ratio at step 0 to 1 at warmup_steps along a line, or warmup_ratio until then ("constant")."""
    if step >= warmup_steps:
        return 1.0
    if warmup_mode == "constant":
        return warmup_ratio
    if warmup_mode != "linear":
        raise ValueError(f"warmup_mode: expected linear or constant, got {warmup_mode!r}")
    return warmup_ratio + (1 - warmup_ratio) * step / warmup_steps


def scaled_base_lr(base_lr: float, total_batch: int, reference_batch: int) -> float:
    """base_lr for the batch over all devices, in proportion to the batch that it is meant for (0: as it is)."""
    return base_lr * total_batch / reference_batch if reference_batch > 0 else base_lr
