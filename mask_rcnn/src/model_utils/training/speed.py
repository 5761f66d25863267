# Same as faster_rcnn/src/model_utils/training/speed.py
"""Measure the training speed: steps including data loading, without evaluations and checkpoints."""
import itertools
import time
from collections.abc import Mapping

import numpy as np

from .loop import Stopped, TrainLoop
from .stopping import StopRequest


def measure_speed(loop: TrainLoop, stop: StopRequest, *, steps: int, warmup: int, devices: int, batch: int) -> dict[str, float]:
    """Train `warmup` and then `steps` steps; print, record and return the speed of the latter.

    loop: not yet started. batch: images per step over all devices and accumulated batches. The warm-up includes compilation.
    Raises Stopped if `stop` is set.
    """
    loop.stop = stop
    ends: list[float] = []
    batches = ((epoch, *step) for epoch in itertools.count() for step in enumerate(loop.steps(epoch, 0), 1))
    for epoch, number, parts in itertools.islice(batches, warmup + steps):
        loop.one_step(epoch, number, parts, len(ends) + 1 == warmup + steps or number == loop.steps_per_epoch)
        ends.append(time.monotonic())
        if loop.stopping:
            raise Stopped
    figures = speed_figures(np.diff(ends)[-steps:], warmup, devices, batch)
    loop.log.record("speed", loop.step, figures)
    loop.log.say(speed_line(figures))
    return figures


def speed_figures(times: np.ndarray, warmup: int, devices: int, batch: int) -> dict[str, float]:
    """Return the figures of metrics.jsonl. times: seconds per step."""
    return {"fps": float(batch * len(times) / np.sum(times)), "step_time_median": float(np.median(times)),
            "step_time_p90": float(np.percentile(times, 90)), "steps": len(times), "warmup": warmup, "devices": devices,
            "batch": batch}


def speed_line(figures: Mapping[str, float]) -> str:
    return ("FPS: {fps:.3f}, step time median {step_time_median:.3f} s, 90th percentile {step_time_p90:.3f} s, over {steps} steps "
            "after {warmup} of warm-up, {devices} devices, batch {batch}").format(**figures)
