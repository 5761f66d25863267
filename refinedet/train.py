# Same as faster_rcnn/train.py with Faster R-CNN -> RefineDet, FasterRcnn.faster_rcnn -> refinedet, faster_rcnn -> refinedet
"""Train RefineDet.

usage: python train.py --config_path=F --coco_root=D [--pre_trained=C] [--resume=auto|PATH] [--key=value ...]

Writes to output_path: config.yaml, checkpoint/, loss_0.log, metrics.jsonl and TensorBoard events. Ctrl-C and SIGTERM
end it after the running step, with all that --resume=auto needs to go on as if nothing had happened.
"""
import functools
import logging
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))   # utils/

from src.model_utils.local_adapter import get_ranks, prepare_environment, setup_device

prepare_environment()               # before MindSpore is imported

from src.model_utils.config import InputError, parse_config, require_path, run_main, save_config
from src.model_utils.moxing_adapter import as_job

MODEL = "refinedet"
log = logging.getLogger("src.train")


def main() -> int:
    config = parse_config(default_path=HERE / "default_config.yaml", description=__doc__.splitlines()[0],
                          prepare=functools.partial(as_job, weights="pre_trained", data=True))
    if config.pre_trained:
        require_path(config, "pre_trained", "file")
    from src.checkpoint import StopRequest
    from src.train_loop import Stopped
    from src.train_step import NotFiniteError

    logging.basicConfig(format="%(message)s")
    start = time.monotonic()
    loop = build_loop(config)
    with StopRequest() as stop:
        try:
            train(loop, stop, config)
        except Stopped:
            log.warning("stopped after step %d of %d; %s", loop.step, loop.end, how_to_go_on(config))
            return stop.status
        except NotFiniteError as error:
            print(f"{Path(__file__).name}: {error}", file=sys.stderr)
            return 1
        finally:
            loop.log.close()
    log.info("%s", summary(loop, config, time.monotonic() - start))
    return 0


def train(loop, stop, config) -> None:
    if not config.perf_steps:
        loop.run(stop)
        return
    from src.speed import measure_speed

    measure_speed(loop, stop, steps=config.perf_steps, warmup=config.perf_warmup, devices=loop.train_step.rank_size,
                  batch=total_batch(config, loop.train_step.rank_size))


def total_batch(config, ranks: int) -> int:
    """Pictures of a step."""
    return config.batch_size * ranks * config.accumulate_steps


def build_loop(config):
    """All that training needs, at the step where it begins or goes on."""
    from src import checkpoint, dataset, network_define
    from src.refinedet import LOSS_NAMES, build_network
    from src.train_log import TrainLog
    from src.train_loop import TrainLoop, end_step

    state_path = checkpoint.find_state(config.resume, config.output_path)
    transform = dataset.build_train_transform(config)
    device = setup_device(config)
    rank, ranks = get_ranks(config)
    logging.getLogger("src").setLevel(logging.INFO if rank == 0 else logging.ERROR)
    data, val = find_data(config, rank, ranks)
    facts = {"pictures": data.count, "devices": ranks}
    state = checkpoint.read_state(state_path) if state_path else None
    if state:
        checkpoint.check_same_run(state[1], config, facts, state_path)
    require_same_start(state[1]["step"] if state else 0, config, ranks)

    net = network_define.mixed_precision(build_network(config, fast=device == "CPU"), config.amp_level, device)
    if not state:
        set_first_weights(net, config, data, transform, rank, ranks)
    train_step = build_train_step(net, LOSS_NAMES, config, ranks)
    batch = total_batch(config, ranks)
    steps_per_epoch = dataset.steps_per_epoch(dataset.epoch_pictures(data.count, data.repeats), batch)
    end = config.perf_warmup + config.perf_steps if config.perf_steps else end_step(config, steps_per_epoch)
    if rank == 0 and not state:
        open_output(config)
    log.info("%s: %d pictures, %d steps of %d per epoch, %d epochs", device, data.count, steps_per_epoch, batch,
             -(-end // steps_per_epoch))
    loop = TrainLoop(
        train_step, config=config, facts=facts, steps_per_epoch=steps_per_epoch,
        batches=functools.partial(train_batches, config, data, transform, rank, ranks),
        noise=functools.partial(draw_noise, net.noise_shapes(config.batch_size), config, rank),
        rate=build_rate(config, steps_per_epoch, ranks),
        evaluate=build_evaluate(net, val, config, device, rank, ranks) if val else None,
        log=TrainLog(config.output_path, total_steps=end, rank=rank, writer=rank == 0,
                     done_steps=state[1]["step"] if state else 0, images_per_step=batch, log_interval=config.log_interval),
        folder=checkpoint.CheckpointFolder(config.output_path, MODEL, config.keep_checkpoint_max, writer=rank == 0))
    if state:
        loop.load_state(*state, state_path)
        if rank == 0:
            save_config(config, Path(config.output_path) / "config.yaml")
        log.info("resume: goes on after step %d, as %s has it", loop.step, state_path)
    elif config.resume:
        log.info("resume: nothing to go on with in %s: a new run", config.output_path)
    return loop


def set_first_weights(net, config, data, transform, rank: int, ranks: int) -> None:
    """Those of one process: all ranks take statistics of the same pictures, and all have the weights of the first."""
    from src import init_params
    from src.ranks import same_on_all_ranks

    init_params.set_first_weights(net, config, functools.partial(train_batches, config, data, transform, 0, 1))
    same_on_all_ranks(net, rank, ranks)


def find_data(config, rank: int, ranks: int) -> tuple:
    """The sets to train and to evaluate on (None: no evaluation); rank 0 converts what is not yet, the others wait."""
    from src.dataset import prepare_data
    from src.ranks import first_then_others

    def prepare():
        data = prepare_data(config, train=True)
        evaluated = config.run_eval and not config.perf_steps
        return data, prepare_data(config, train=False, in_training=True) if evaluated else None

    return first_then_others(prepare, rank, ranks, "conversion of the data", config.data_timeout)


def require_same_start(step: int, config, ranks: int) -> None:
    """InputError where the ranks found different states to go on from, on folders that they do not share for example."""
    from src.ranks import exchange

    steps = [int(told) for told in exchange(str(step).encode(), ranks)]
    if len(set(steps)) > 1:
        raise InputError(f"resume: the ranks would go on after different steps, {steps}: is {config.output_path} the same "
                         "folder for all of them?")


def open_output(config) -> None:
    """config.yaml in output_path; an earlier run there is set aside."""
    from src.checkpoint import set_aside

    shelf = set_aside(config.output_path)
    save_config(config, Path(config.output_path) / "config.yaml")
    if shelf:
        log.warning("the earlier run in %s was moved to %s (--resume=auto would have gone on with it)",
                    config.output_path, shelf)


def train_batches(config, data, transform, rank: int, ranks: int, epoch: int, start: int):
    """Batches of an epoch from step `start` on, as Tensors: the columns of dataset.py, image_id last."""
    from src.dataset import create_dataset, iterate

    return iterate(create_dataset(data.files, data.count, transform, config.batch_size, epoch=epoch, start_batch=start,
                                  rank=rank, rank_size=ranks, workers=config.num_parallel_workers,
                                  accumulate=config.accumulate_steps, repeats=data.repeats))


def build_train_step(net, loss_names, config, ranks: int):
    """Forward, backward, update."""
    from src.precision import LossScale
    from src.train_step import TrainStep

    return TrainStep(net, loss_names, momentum=config.momentum, weight_decay=config.weight_decay,
                     clip_grad_norm=config.clip_grad_norm, ema_decay=config.ema_decay, rank_size=ranks,
                     loss_scale=LossScale(config.loss_scale, config.dynamic_loss_scale), accumulate=config.accumulate_steps,
                     # Of some models alone.
                     bias_lr_factor=config.get("bias_lr_factor", 1.0), bias_weight_decay=config.get("bias_weight_decay", True))


def build_rate(config, steps_per_epoch: int, ranks: int):
    """step -> learning rate."""
    from src.lr_schedule import learning_rate, scaled_base_lr
    from src.train_loop import schedule_steps

    base = scaled_base_lr(config.base_lr, total_batch(config, ranks), config.lr_reference_batch)
    scaled = f", base_lr {config.base_lr:g} is for {config.lr_reference_batch}" if config.lr_reference_batch else ""
    log.info("learning rate: %g for a batch of %d (%d on each of %d devices, %d times%s)", base, total_batch(config, ranks),
             config.batch_size, ranks, config.accumulate_steps, scaled)
    return functools.partial(
        learning_rate, base_lr=base, warmup_steps=config.warmup_step, warmup_ratio=config.warmup_ratio,
        warmup_mode=config.warmup_mode, total_steps=schedule_steps(config, steps_per_epoch), schedule=config.lr_schedule,
        milestones=config.lr_steps or [epoch * steps_per_epoch for epoch in config.sgd_step], gamma=config.lr_gamma)


def draw_noise(shapes: dict, config, rank: int, step: int, part: int = 0) -> list:
    """Uniform numbers in [0, 1) that decide what a step samples, where the network samples; part: which of its batches.

    Those of a picture follow from its place among all of the step, over all ranks and batches.
    """
    import numpy as np
    from mindspore import Tensor

    if not shapes.values():
        return []
    first = (rank * config.accumulate_steps + part) * config.batch_size
    rows = [np.random.default_rng([config.seed, step, first + i]) for i in range(config.batch_size)]
    return [Tensor(np.stack([rng.random(shape[1:], np.float32) for rng in rows])) for shape in shapes.values()]


def build_evaluate(net, val, config, device: str, rank: int = 0, ranks: int = 1):
    """evaluate(check) -> [Scores] on the evaluation set, of each of IOU_TYPES; check() is called at each batch and may raise.

    Of several ranks all call it: each infers its share, the first scores, and all get the figures.
    """
    from mindspore import Tensor
    from src.coco_inputs import clean_ground_truth
    from src.coco_scores import Scores, coco_ap
    from src.dataset import EvalBatches, build_preprocess
    from src.network_define import InferenceNet, mixed_precision
    from src.outputs import IOU_TYPES, mask_encoder
    from src.ranks import exchange, from_first
    from src.util import run_inference

    if rank == 0:
        annotations = val.ground_truth()
        for kind in IOU_TYPES:      # an epoch is not to end in a fault of the annotations
            clean_ground_truth(annotations, kind)
    infer = mixed_precision(InferenceNet(net), config.amp_level, device)
    batches = EvalBatches(val.files, val.count, build_preprocess(config), config.test_batch_size, rank=rank, rank_size=ranks,
                          workers=config.num_parallel_workers)
    gather = functools.partial(exchange, ranks=ranks) if ranks > 1 else None

    def run(check):
        infer.set_train(False)      # its layers are those of the training step

        def predict(image, image_info):
            check()
            return infer(Tensor(image), Tensor(image_info))

        found = run_inference(predict, batches, val.categories, batches.count, encode=mask_encoder(config), gather=gather)

        def score():
            truth = val.ground_truth()
            scores = [coco_ap(truth, found, kind, config.scorer) for kind in IOU_TYPES]
            return [(item.iou_type, item.figures, item.per_class, item.images, item.detections) for item in scores]

        return [Scores(*fields) for fields in from_first(score, rank, ranks, "evaluation")]

    return run


def how_to_go_on(config) -> str:
    if not config.save_checkpoint or config.perf_steps:
        return "nothing is kept of it (save_checkpoint is False, or perf_steps is set)"
    return f"the same command with --resume=auto goes on from {Path(config.output_path) / 'checkpoint' / 'state.ckpt'}"


def summary(loop, config, seconds: float) -> str:
    """Where the results are."""
    from src.util import format_seconds

    best = f", best AP {loop.best_ap:.4f} in epoch {loop.best_epoch}" if loop.best_epoch else ""
    skipped = loop.train_step.loss_scale.skipped
    best = f", {skipped} of them skipped because they were not finite{best}" if skipped else best
    root = Path(config.output_path)
    weights = f"weights in {root / 'checkpoint'} (last.ckpt" + (", best.ckpt)" if loop.best_epoch else ")")
    if not config.save_checkpoint or config.perf_steps:
        weights = "no weights written (save_checkpoint is False, or perf_steps is set)"
    early = " (stopped early)" if loop.gave_up and loop.step < loop.end else ""
    return f"trained {loop.step} steps{early} in {format_seconds(seconds)}{best}; {weights}, losses in {root / 'loss_0.log'}"


if __name__ == "__main__":
    run_main(main)
