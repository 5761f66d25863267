"""The epochs of a training run: steps, checkpoints, evaluation, and the position from which a stopped run resumes."""
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mindspore import Parameter, Tensor

from ...util import counted
from ..config import Config
from ..evaluation.evaluate import Evaluation
from ..inference.predictors import Outputs, Predictor
from .checkpoint import STATE, CheckpointFolder
from .log import TrainLog, of_validation
from .ranks import wait_for_all
from .step import NotFiniteError, TrainStep
from .stopping import StopRequest

# Minimum seconds between plots of the curves, which are drawn at the end of an epoch.
CURVES_PAUSE = 60.0


class Stopped(Exception):
    """The run was asked to stop; its state has been saved."""


class TrainLoop:
    """Trains from `step` to `end`; both count steps of the whole run.

    Args:
        train_step: performs the updates.
        batches: `batches(epoch, start)` iterates over the batches of an epoch from step `start`, as many per step as the TrainStep
            accumulates. A batch holds the network's arguments without noise, then the image ids (TrainBatches).
        noise: `noise(step, part)` returns the network's remaining arguments for batch `part` of a step (SamplingNoise).
        rate: `rate(step)` is the learning rate.
        evaluation: its last Scores decide which weights are best; None disables evaluation.
        predict: the predictor that the evaluation runs.
        val_loss: computes the losses on the validation set, see ValidationLoss; None disables it.
        steps_per_epoch, end: number of steps in an epoch, and in the run.
        log, folder: where lines and checkpoints go.
        config: intervals of checkpoints and evaluations. facts: see check_same_run.
    """

    def __init__(self, train_step: TrainStep, *, batches: Callable[[int, int], Iterable[list[Tensor]]],
                 noise: Callable[[int, int], list[Tensor]], rate: Callable[[int], float], evaluation: Evaluation | None,
                 predict: Predictor | None, steps_per_epoch: int, end: int, log: TrainLog, folder: CheckpointFolder,
                 config: Config, facts: dict[str, Any],
                 val_loss: Callable[[Callable[[], None]], dict[str, float]] | None = None):
        self.train_step, self.batches, self.noise, self.rate = train_step, batches, noise, rate
        self.evaluation, self.predict, self.val_loss = evaluation, predict, val_loss
        self.steps_per_epoch, self.end, self.log, self.folder = steps_per_epoch, end, log, folder
        self.config, self.facts = config, facts
        self.step = 0
        self.best_ap, self.best_epoch = -math.inf, 0
        self.waited = 0                     # evaluations since the best AP
        self.evaluated = self.saved = 0     # step of the last evaluation and of the last checkpoint
        self.stop = StopRequest()           # replaced in `run` by the request that signals set
        self.stopping = False
        self.compiled = self.inference_compiled = False     # whether this process has compiled the network

    def run(self, stop: StopRequest) -> None:
        """Train to the end. Raises Stopped if `stop` is set, NotFiniteError if a step is not finite."""
        self.stop = stop
        try:
            # The state may lie between an epoch's last step and its evaluation.
            for epoch in itertools.count(max(self.step - 1, 0) // self.steps_per_epoch):
                if self.gave_up:            # already before the run was resumed
                    return
                self.train_one_epoch(epoch)
                self.finish_epoch(epoch)
                if self.step >= self.end:
                    return
        except Stopped:
            self.save_state()
            if self.config.save_checkpoint and self.saved < self.step:
                self.folder.save_last(self.train_step)
            wait_for_all(self.train_step.rank_size)     # the end of one process may end the others
            raise

    @property
    def gave_up(self) -> bool:
        """Whether the AP has not improved for early_stop_patience evaluations."""
        patience = self.config.early_stop_patience
        return 0 < patience <= self.waited

    @property
    def is_save_step(self) -> bool:
        """Whether save_checkpoint_steps requires a checkpoint after this step."""
        every = self.config.save_checkpoint_steps
        return bool(every) and self.step % every == 0

    def train_one_epoch(self, epoch: int) -> None:
        first = epoch * self.steps_per_epoch
        count = min(self.steps_per_epoch, self.end - first)
        start = self.step - first
        if start >= count:
            return
        for batch, parts in enumerate(self.steps(epoch, start), start + 1):
            self.one_step(epoch, batch, parts, batch == count)
            if batch == count:
                return
            if self.stopping:
                raise Stopped
            if self.is_save_step:
                self.save(epoch)

    def steps(self, epoch: int, start: int) -> Iterator[list[list[Tensor]]]:
        """Yield the batches of each step, starting at step `start` of the epoch."""
        batches = iter(self.batches(epoch, start))
        while parts := list(itertools.islice(batches, self.train_step.accumulate)):
            yield parts

    def one_step(self, epoch: int, batch: int, parts: list[list[Tensor]], last: bool) -> None:
        """Run step `batch` of the epoch. last: whether it is the last one of the epoch or of the run."""
        rate = self.rate(self.step)
        self.stop.compiling = not self.compiled
        self.stop.during = "the current step" if self.compiled else "the first step, which compiles the network"
        first, *more = ((*inputs, *self.noise(self.step, part)) for part, (*inputs, _) in enumerate(parts))
        try:
            result = self.train_step(first, rate, bool(self.stop), more)
        except NotFiniteError as error:
            ids = ", ".join(str(number) for *_, image_ids in parts for number in image_ids.asnumpy().tolist())
            raise NotFiniteError(f"step {self.step + 1} (epoch {epoch + 1}, batch {batch}) is not finite: {error}; "
                                 f"image ids of the batch: {ids}") from error
        self.stop.renew()
        self.step, self.compiled, self.stop.compiling = self.step + 1, True, False
        self.log.step(self.step, epoch + 1, batch, result, rate, self.train_step.loss_scale, last)
        # Several ranks stop after the same step, in which they all learn of the request.
        self.stopping = result.stop or bool(self.stop and self.train_step.rank_size == 1)

    def finish_epoch(self, epoch: int) -> None:
        """Save a checkpoint and evaluate if due after this epoch or at the end of the run."""
        final, config = self.step >= self.end, self.config
        if final or (epoch + 1) % config.save_checkpoint_epochs == 0 or self.is_save_step:
            self.save(epoch)
        if self.stopping and not final:
            raise Stopped
        since = epoch + 1 - config.eval_start_epoch
        due = since >= 0 and (final or since % config.eval_interval == 0)
        if self.evaluation and due and self.evaluated < self.step:
            self.evaluate_now(epoch)
            if self.saved == self.step:
                self.save_state()
            if self.gave_up and not final:
                self.save(epoch)
                self.log.say(f"stopped early: no better AP in {counted(self.waited, 'evaluation')} (early_stop_patience)")
        self.log.draw_curves(CURVES_PAUSE)

    def check(self) -> None:
        """Raise Stopped if requested. With several ranks none may stop by itself, since the others would wait for it."""
        self.stop.renew()
        if self.stop and self.train_step.rank_size == 1:
            raise Stopped

    def save(self, epoch: int) -> None:
        """Save weights and state, at most once per step."""
        if self.config.save_checkpoint and self.saved < self.step:
            self.saved = self.step
            self.train_step.share_statistics()
            self.folder.save(self.train_step, epoch + 1, self.step - epoch * self.steps_per_epoch)
            self.save_state()
            self.log.pause()

    def save_state(self) -> None:
        if self.config.save_checkpoint:
            self.train_step.share_statistics()
            self.folder.save_state(self.train_step, self.state())

    def evaluate_now(self, epoch: int) -> None:
        evaluation, predict = self.evaluation, self.predict
        if evaluation is None or predict is None:
            raise ValueError("the run has no evaluation")
        start = time.monotonic()
        self.stop.during, self.stop.compiling = "the current batch of the evaluation", True      # the first batch compiles
        if not self.inference_compiled:
            self.log.say(f"epoch: {epoch + 1} is being evaluated; the first evaluation also compiles the network for inference")
        self.train_step.share_statistics()
        with self.train_step.averaged():
            scores = evaluation.run(functools.partial(self._checked_predict, predict))
            losses = self.val_loss(self.check) if self.val_loss else {}
        self.evaluated, self.stop.compiling, self.inference_compiled = self.step, False, True
        seconds = time.monotonic() - start
        boxes, *others = scores
        self.log.record("eval", self.step, {"epoch": epoch + 1, **boxes.figures,
                                            **{item.iou_type: item.figures for item in others}, "images": boxes.images,
                                            "detections": boxes.detections, "seconds": round(seconds, 3), **of_validation(losses)})
        if losses:
            self.log.tell(f"epoch: {epoch + 1} " + ", ".join(f"{name}: {value:.5f}" for name, value in
                                                             of_validation(losses).items()))
        ap = scores[-1]["AP"]
        self.waited = 0 if ap > self.best_ap else self.waited + 1
        best = ap >= self.best_ap               # on a tie prefer the later weights, which were trained longer
        if best:
            self.best_ap, self.best_epoch = ap, epoch + 1
            if self.config.save_checkpoint and self.config.save_best_ckpt:
                self.folder.save_best(self.train_step)
        figures = [f"{'' if item is boxes else item.iou_type + ' '}{name}: {item[name]:.4f}"
                   for item in scores for name in ("AP", "AP50")]
        self.log.say(f"epoch: {epoch + 1} {', '.join(figures)} on {counted(boxes.images, 'image')} in {seconds:.1f} s"
                     + (", the best so far" if best else f"; best: {self.best_ap:.4f}"))
        self.log.pause()

    def _checked_predict(self, predict: Predictor, image: np.ndarray, image_info: np.ndarray) -> Outputs:
        """Return the detections of a batch; raise Stopped before it if requested."""
        self.check()
        return predict(image, image_info)

    def state(self) -> dict[str, Any]:
        """Return the position of the run, JSON-serialisable, for `load_state`."""
        epoch, batch = divmod(self.step, self.steps_per_epoch)
        return {"step": self.step, "epoch": epoch, "batch": batch, "evaluated": self.evaluated, "saved": self.saved,
                "best_ap": self.best_ap if self.best_epoch else None, "best_epoch": self.best_epoch, "waited": self.waited,
                "log": self.log.state(), "facts": self.facts, "config": self.config.to_dict()}

    def load_state(self, tensors: Mapping[str, Parameter], values: Mapping[str, Any], source: Path | str) -> None:
        """Restore position, weights and optimizer."""
        self.step, self.evaluated, self.saved = values["step"], values["evaluated"], values["saved"]
        self.best_epoch = values["best_epoch"]
        self.best_ap = values["best_ap"] if self.best_epoch else -math.inf
        self.waited = values.get("waited", 0)       # missing in older states
        self.log.load_state(values["log"])
        self.train_step.load_state(tensors, values, source)
        self.folder.sound = Path(source) == self.folder.path / STATE
