"""Run the epochs of training/loop.py on a toy network and random batches, to test checkpoints and resuming."""
import json

import numpy as np
import pytest
from mindspore import Tensor, int64

from faster_rcnn.src.model_utils.config import load_config
from faster_rcnn.src.model_utils.evaluation.coco_scores import Scores
from faster_rcnn.src.model_utils.training.checkpoint import CheckpointFolder, find_state, read_state
from faster_rcnn.src.model_utils.training.log import TrainLog
from faster_rcnn.src.model_utils.training.loop import Stopped, TrainLoop
from faster_rcnn.src.model_utils.training.precision import LossScale
from faster_rcnn.src.model_utils.training.schedule import end_step
from faster_rcnn.src.model_utils.training.step import TrainStep
from tests.toy_network import LOSS_NAMES, ToyDetector, toy_batch

STEPS = 4       # per epoch


class Wish:
    """A stop request that comes while step number `step` runs, or in evaluation number `evaluation`."""

    def __init__(self, step=None, evaluation=None):
        self.step, self.evaluation, self.here = step, evaluation, False

    def __bool__(self):
        return self.here

    def renew(self):
        """There is no signal handler to restore."""


class ToyEvaluation:
    """Stands in for an Evaluation. Its APs are those of a ToyRun."""

    def __init__(self, run):
        self.run = run.evaluate


class ToyRun:
    """A run of a toy network in `folder`. `aps`: results of its evaluations; a pair is for boxes and masks."""

    def __init__(self, folder, aps=(), poison=None, **overrides):
        overrides = {"epoch_size": 3, "log_interval": 3, "output_path": str(folder), "run_eval": bool(aps), **overrides}
        self.config = load_config(overrides=overrides)
        self.net = ToyDetector()
        self.train_step = TrainStep(
            self.net, LOSS_NAMES, momentum=0.9, weight_decay=1e-3, clip_grad_norm=2.0, ema_decay=self.config.ema_decay,
            loss_scale=LossScale(self.config.loss_scale, self.config.dynamic_loss_scale), accumulate=self.config.accumulate_steps)
        self.aps, self.poison, self.wish = iter(aps), poison, Wish()
        self.evaluations, self.losses = 0, {}
        self.folder = CheckpointFolder(folder, "toy", self.config.keep_checkpoint_max)
        self.log = TrainLog(folder, total_steps=end_step(self.config, STEPS), done_steps=0, images_per_step=2,
                            log_interval=self.config.log_interval)
        self.loop = TrainLoop(
            self.train_step, config=self.config, facts={"pictures": 8, "devices": 1}, steps_per_epoch=STEPS,
            end=end_step(self.config, STEPS), batches=self.batches, noise=self.noise, rate=lambda step: 0.02 / (1 + step),
            log=self.log, folder=self.folder, evaluation=ToyEvaluation(self) if aps else None,
            predict=lambda image, image_info: ())

    def batches(self, epoch, start):
        for batch in range(start, STEPS):
            step = epoch * STEPS + batch
            for first in range(0, 1000 * self.config.accumulate_steps, 1000):
                image, *rest = toy_batch(first + step)[:5]
                if first + step == self.poison:
                    image = image * np.nan
                yield image, *rest, Tensor([first + 100 + step, first + 200 + step], int64)

    def noise(self, step, part=0):
        if step + 1 == self.wish.step:
            self.wish.here = True
        rng = np.random.default_rng([1, step, part])
        return [Tensor(rng.random(shape, np.float32)) for shape in ToyDetector.noise_shapes(2).values()]

    def evaluate(self, predict):
        self.evaluations += 1
        if self.evaluations == self.wish.evaluation:
            self.wish.here = True
        predict(None, None)
        ap = next(self.aps)
        if not isinstance(ap, tuple):       # boxes only
            ap = (ap,)
        return [Scores(kind, {"AP": value, "AP50": 0.5}, {}, 2, 3) for kind, value in zip(("bbox", "segm"), ap)]

    def resume(self, where="auto"):
        path = find_state(where, self.config.output_path)
        if path:
            self.loop.load_state(*read_state(path), path)
        return self

    def run(self, wish=None):
        self.wish = Wish() if wish is None else wish
        step = self.log.step

        def record(number, epoch, batch, result, *rest):
            self.losses[number] = result.losses
            step(number, epoch, batch, result, *rest)

        self.log.step = record
        try:
            self.loop.run(self.wish)
        finally:
            self.log.close()
        return self

    def stopped(self, wish):
        with pytest.raises(Stopped):
            self.run(wish)
        return self

    def weights(self):
        return {name: param.asnumpy().copy() for name, param in self.train_step.state()[0].items()}


def lines(folder, name="loss_0.log"):
    return (folder / name).read_text(encoding="utf-8").splitlines()


def metrics(folder, kind):
    return [row for row in map(json.loads, lines(folder, "metrics.jsonl")) if row["kind"] == kind]


def names(folder):
    return sorted(path.name for path in (folder / "checkpoint").iterdir())


def equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)
