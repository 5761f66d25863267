# Same as faster_rcnn/src/lr_schedule.py
"""Learning rate schedule: warm-up, then decay in stages or along a cosine.

A step is one update of the weights, counted from 0. The functions keep no state.
"""
import math


def learning_rate(step: int, *, base_lr: float, warmup_steps: int, warmup_ratio: float, total_steps: int, schedule: str,
                  milestones=(), gamma: float = 0.1, warmup_mode: str = "linear") -> float:
    """Return the learning rate of one step.

    schedule: "multistep" multiplies the rate by `gamma` at each of `milestones` (steps); "cosine" decays from base_lr at the
    end of the warm-up to 0 at total_steps (Loshchilov and Hutter, "SGDR", 2017). `warmup_factor` multiplies either.
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
    """Return a factor that rises linearly from warmup_ratio at step 0 to 1 at warmup_steps, or warmup_ratio ("constant")."""
    if step >= warmup_steps:
        return 1.0
    if warmup_mode == "constant":
        return warmup_ratio
    if warmup_mode != "linear":
        raise ValueError(f"warmup_mode: expected linear or constant, got {warmup_mode!r}")
    return warmup_ratio + (1 - warmup_ratio) * step / warmup_steps


def scaled_base_lr(base_lr: float, total_batch: int, reference_batch: int) -> float:
    """Return base_lr scaled linearly from reference_batch to the batch over all devices (Goyal et al., 2017); 0: unscaled."""
    return base_lr * total_batch / reference_batch if reference_batch > 0 else base_lr
