# Same as faster_rcnn/src/model_utils/training/schedule.py
"""The learning rate schedule of a run, from its configuration."""
import functools
import logging
import math
from collections.abc import Callable

from ...lr_schedule import learning_rate, scaled_base_lr
from ..config import Config

WARMUP_SHARE = 10
log = logging.getLogger(__name__)


def images_per_step(config: Config, ranks: int) -> int:
    """Return the images per step, over all devices and accumulated batches."""
    return config.batch_size * ranks * config.accumulate_steps


def end_step(config: Config, steps_per_epoch: int) -> int:
    """Return the number of steps of the whole run."""
    if config.perf_steps:
        return config.perf_warmup + config.perf_steps
    total = schedule_steps(config, steps_per_epoch)
    return min(total, config.max_steps) if config.max_steps else total


def schedule_steps(config: Config, steps_per_epoch: int) -> int:
    """Return the length of the schedule in steps: the remaining epochs, or max_steps if epoch_size does not limit the run."""
    return (config.epoch_size - config.pre_trained_epoch_size) * steps_per_epoch or config.max_steps


def rate_left(config: Config) -> float:
    """Return the factor that a cosine schedule has reached after the epochs pre_trained was trained for."""
    done = config.pre_trained_epoch_size
    return (1 + math.cos(math.pi * done / config.epoch_size)) / 2 if done and config.lr_schedule == "cosine" else 1.0


def build_rate(config: Config, steps_per_epoch: int, ranks: int) -> Callable[[int], float]:
    """Return the function step -> learning rate."""
    batch = images_per_step(config, ranks)
    base = scaled_base_lr(config.base_lr, batch, config.lr_reference_batch) * rate_left(config)
    done = config.pre_trained_epoch_size * steps_per_epoch
    scaled = f", base_lr {config.base_lr:g} is for {config.lr_reference_batch}" if config.lr_reference_batch else ""
    log.info("learning rate: %g for a batch of %d (batch_size %d x devices %d x accumulate_steps %d%s)", base, batch,
             config.batch_size, ranks, config.accumulate_steps, scaled)
    total = schedule_steps(config, steps_per_epoch)
    return functools.partial(
        learning_rate, base_lr=base, warmup_steps=warmup_steps(config, total), warmup_ratio=config.warmup_ratio,
        warmup_mode=config.warmup_mode, total_steps=total, schedule=config.lr_schedule,
        milestones=[step - done for step in config.lr_steps or [epoch * steps_per_epoch for epoch in config.sgd_step]],
        gamma=config.lr_gamma)


def warmup_steps(config: Config, total: int) -> int:
    """Return the warm-up steps, at most a tenth of the schedule: a short run would otherwise end during warm-up."""
    most = total // WARMUP_SHARE
    if config.warmup_step > most:
        log.warning("warmup_step: %d is more than a tenth of the run's %d steps: shortened to %d", config.warmup_step, total, most)
    return min(config.warmup_step, most)
