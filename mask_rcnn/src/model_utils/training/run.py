# Same as faster_rcnn/src/model_utils/training/run.py
"""A training run: builds everything that loop.py needs to train.

    data, network -> first weights -> TrainStep -> TrainLoop, positioned at the step where the run starts or resumes
"""
import logging
import sys
import time
from pathlib import Path

from mindspore import nn

from ... import dataset, network_define
from ...model import NAME
from ...util import counted, format_seconds
from .. import locks
from ..config import Config, InputError, save_config
from ..data.loading import TrainBatches
from ..data.source import DataInfo, name_classes, require_same_classes
from ..evaluation.evaluate import Evaluation
from ..files import log_to_stderr
from ..inference.predictors import predictor_of
from ..local_adapter import get_ranks, setup_device
from . import checkpoint
from .log import TrainLog, cut_logs
from .loop import Stopped, TrainLoop
from .noise import SamplingNoise
from .outcome import Run
from .precision import LossScale, mixed_precision
from .ranks import exchange, first_then_others, from_first, same_on_all_ranks
from .schedule import build_rate, end_step, images_per_step
from .speed import measure_speed
from .step import NotFiniteError, TrainStep
from .stopping import StopRequest
from .validation import ValidationLoss

# Time to compile the network; measured only on a CPU with 2 cores.
COMPILING = {"CPU": "about half a minute on free cores, longer on busy ones", "Ascend": "up to some minutes"}
log = logging.getLogger(__name__)


def train_command(config: Config) -> int:
    """Train and return the exit status: 0 finished, 1 a loss was not finite, 128 + N stopped by signal N."""
    try:
        return train(config).status
    except NotFiniteError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        return 1


def train(config: Config) -> Run:
    """Train as configured and write the results to output_path; NotFiniteError if a loss is not finite."""
    log_to_stderr()
    try:
        return _run(config)
    finally:
        locks.release(config.output_path, locks.TRAINING)


def _run(config: Config) -> Run:
    start = time.monotonic()
    loop = build_loop(config)
    with StopRequest() as stop:
        try:
            if config.perf_steps:
                measure_speed(loop, stop, steps=config.perf_steps, warmup=config.perf_warmup,
                              devices=loop.train_step.rank_size, batch=images_per_step(config, loop.train_step.rank_size))
            else:
                loop.run(stop)
        except Stopped:
            log.warning("stopped after step %d of %d; %s", loop.step, loop.end, what_is_kept(config))
            return what_is_left(loop, config, stop.status)
        finally:
            if not config.perf_steps:
                loop.log.draw_curves()
            loop.log.close()
    log.info("%s", summary(loop, config, time.monotonic() - start))
    return what_is_left(loop, config)


def build_loop(config: Config) -> TrainLoop:
    """Return a loop positioned where the run starts or resumes; output_path stays locked for this process."""
    checkpoint.find_state(config.resume, config.output_path)        # report a wrong path before converting the data
    transform = dataset.build_train_transform(config)
    device = setup_device(config, training=True)
    rank, ranks = get_ranks(config)
    logging.getLogger(__name__.partition(".model_utils")[0]).setLevel(logging.INFO if rank == 0 else logging.ERROR)
    from_first(lambda: locks.take(config.output_path, locks.TRAINING), rank, ranks, "output_path")
    config, data, val = find_data(config, rank, ranks)
    facts = {"pictures": data.count, "devices": ranks}
    state, state_path = checkpoint.open_state(config.resume, config.output_path) or (None, None)
    if state and state_path:
        checkpoint.check_same_run(state.values, config, facts, state_path)
        if config.pre_trained:
            log.warning("pre_trained: %s is not loaded: the run resumes from %s; without --resume a new run starts from it",
                        config.pre_trained, state_path)
    require_same_start(state.values["step"] if state else 0, config, ranks)

    net = mixed_precision(network_define.build_network(config, fast=device == "CPU"), config.amp_level, device)
    if not state:
        # All ranks calibrate on the same images.
        network_define.set_first_weights(net, config, TrainBatches(data, transform, config, rank=0, ranks=1))
        same_on_all_ranks(net, rank, ranks)
    train_step = build_train_step(net, config, ranks)
    batches = TrainBatches(data, transform, config, rank, ranks)
    end = end_step(config, batches.steps_per_epoch)
    if rank == 0 and not state:
        open_output(config)
    if rank == 0 and state and state_path and Path(config.output_path, "checkpoint").resolve() == state_path.resolve().parent:
        cut_logs(config.output_path, state.values)
    log.info("%s: %s, %s of %d per epoch, %s", device, counted(data.count, "image"), counted(batches.steps_per_epoch, "step"),
             images_per_step(config, ranks), counted(-(-end // batches.steps_per_epoch), "epoch"))
    loop = TrainLoop(
        train_step, config=config, facts=facts, steps_per_epoch=batches.steps_per_epoch, end=end, batches=batches,
        noise=SamplingNoise(net.noise_shapes(config.batch_size), config, rank),
        rate=build_rate(config, batches.steps_per_epoch, ranks),
        evaluation=Evaluation(val, config, rank, ranks) if val else None,
        predict=predictor_of(net, config.amp_level, device) if val else None,
        val_loss=ValidationLoss(net, val, config, rank, ranks) if val and config.val_loss else None,
        log=TrainLog(config.output_path, total_steps=end, rank=rank, writer=rank == 0, log_interval=config.log_interval,
                     done_steps=state.values["step"] if state else 0, images_per_step=images_per_step(config, ranks)),
        folder=checkpoint.CheckpointFolder(config.output_path, NAME, config.keep_checkpoint_max, writer=rank == 0,
                                           classes=config.coco_classes))
    if state and state_path:
        loop.load_state(*state, state_path)
        if rank == 0:
            write_config(config)
        log.info("resume: continuing after step %d of %s", loop.step, state_path)
    elif config.resume:
        log.info("resume: no state in %s: starting a new run", config.output_path)
    if loop.step < end:
        log.info("the first step also compiles the network, for %s", COMPILING.get(device, COMPILING["Ascend"]))
    return loop


def build_train_step(net: nn.Cell, config: Config, ranks: int) -> TrainStep:
    """Return the TrainStep of this network, configured."""
    return TrainStep(net, network_define.LOSS_NAMES, momentum=config.momentum, weight_decay=config.weight_decay,
                     clip_grad_norm=config.clip_grad_norm, ema_decay=config.ema_decay, rank_size=ranks,
                     loss_scale=LossScale(config.loss_scale, config.dynamic_loss_scale), accumulate=config.accumulate_steps,
                     bias_lr_factor=config.bias_lr_factor, bias_weight_decay=config.bias_weight_decay)


def find_data(config: Config, rank: int, ranks: int) -> tuple[Config, DataInfo, DataInfo | None]:
    """Return the configuration with the classes of the data, the training set, and the validation set (None: no evaluation).

    Rank 0 converts the data while the other ranks wait.
    """

    def prepare() -> tuple[Config, DataInfo, DataInfo | None]:
        data = dataset.prepare_data(config, train=True)
        named = name_classes(config, data)
        if not config.run_eval or config.perf_steps:
            return named, data, None
        require_same_classes(config, data)
        return named, data, dataset.prepare_data(named, train=False, in_training=True)

    return first_then_others(prepare, rank, ranks, "conversion of the data", config.data_timeout)


def require_same_start(step: int, config: Config, ranks: int) -> None:
    """Raise InputError if the ranks found different states to resume from, for example in folders that they do not share."""
    steps = [int(found) for found in exchange(str(step).encode(), ranks)]
    if len(set(steps)) > 1:
        raise InputError(f"resume: the ranks would resume after different steps, {steps}; make {config.output_path} the same "
                         "folder for all ranks")


def open_output(config: Config) -> None:
    """Write config.yaml to output_path; the files of an earlier run there are moved away."""
    shelf = checkpoint.set_aside(config.output_path)
    write_config(config)
    if shelf:
        log.warning("the earlier run in %s was moved to %s (--resume=auto would have resumed it)",
                    config.output_path, shelf)


def write_config(config: Config) -> None:
    """Write config.yaml to output_path."""
    save_config(config, Path(config.output_path) / "config.yaml", checkpoint.CALL_KEYS)


def what_is_left(loop: TrainLoop, config: Config, status: int = 0) -> Run:
    """Return the result of the run. status: see Run."""
    evaluated = loop.best_epoch > 0
    return Run(Path(config.output_path).absolute(), status, loop.step, loop.best_ap if evaluated else None,
               loop.best_epoch if evaluated else None)


def what_is_kept(config: Config) -> str:
    """Return a message about what a stopped run has saved."""
    if not config.save_checkpoint or config.perf_steps:
        return "nothing was saved (save_checkpoint is False, or perf_steps is set)"
    folder = Path(config.output_path) / "checkpoint"
    return f"weights in {folder / 'last.ckpt'}; the same command with --resume=auto resumes from {folder / 'state.ckpt'}"


def summary(loop: TrainLoop, config: Config, seconds: float) -> str:
    """Return the last line of a run, which says where the results are."""
    best = f", best AP {loop.best_ap:.4f} in epoch {loop.best_epoch}" if loop.best_epoch else ""
    skipped = loop.train_step.loss_scale.skipped
    best = f", {skipped} of them skipped because they were not finite{best}" if skipped else best
    root = Path(config.output_path)
    weights = f"weights in {root / 'checkpoint'} (last.ckpt" + (", best.ckpt)" if loop.best_epoch else ")")
    if not config.save_checkpoint or config.perf_steps:
        weights = "no weights written (save_checkpoint is False, or perf_steps is set)"
    early = " (stopped early)" if loop.gave_up and loop.step < loop.end else ""
    trained = f"trained {counted(loop.step, 'step')}{early} in {format_seconds(seconds)}"
    return f"{trained}{best}; {weights}, losses in {root / 'loss_0.log'}"
