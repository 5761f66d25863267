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

from src.model_utils.local_adapter import get_device_num, get_rank_id, prepare_environment, setup_device

prepare_environment()               # before MindSpore is imported

from src.model_utils.config import parse_config, require_path, run_main, save_config
from src.model_utils.moxing_adapter import as_job

MODEL = "refinedet"
log = logging.getLogger("src.train")


def main() -> int:
    config = parse_config(default_path=HERE / "default_config.yaml", description=__doc__.splitlines()[0],
                          prepare=functools.partial(as_job, weights="pre_trained", data=True))
    if config.pre_trained:
        require_path(config, "pre_trained", "file")
    from src.checkpoint import StopRequest
    from src.network_define import NotFiniteError
    from src.train_loop import Stopped

    logging.basicConfig(format="%(message)s")
    start = time.monotonic()
    loop = build_loop(config)
    with StopRequest() as stop:
        try:
            loop.run(stop)
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


def build_loop(config):
    """All that training needs, at the step where it begins or goes on."""
    from src import checkpoint, dataset, init_params, network_define
    from src.refinedet import LOSS_NAMES, build_network
    from src.train_log import TrainLog
    from src.train_loop import TrainLoop, end_step

    state_path = checkpoint.find_state(config.resume, config.output_path)
    transform = dataset.build_train_transform(config)
    device = setup_device(config)
    rank, ranks = get_rank_id(), get_device_num()
    logging.getLogger("src").setLevel(logging.INFO if rank == 0 else logging.ERROR)
    data = dataset.prepare_data(config, train=True)
    val = dataset.prepare_data(config, train=False, in_training=True) if config.run_eval else None
    facts = {"pictures": data.count, "devices": ranks}
    state = checkpoint.read_state(state_path) if state_path else None
    if state:
        checkpoint.check_same_run(state[1], config, facts, state_path)

    batches = functools.partial(train_batches, config, data, transform, rank, ranks)
    net = network_define.mixed_precision(build_network(config, fast=device == "CPU"), config.amp_level, device)
    if not state:
        init_params.set_first_weights(net, config, batches)
        network_define.same_on_all_ranks(net, ranks)
    train_step = build_train_step(net, LOSS_NAMES, config, ranks)
    steps_per_epoch = dataset.steps_per_epoch(data.count, config.batch_size, ranks)
    if rank == 0 and not state:
        open_output(config)
    log.info("%s: %d pictures, %d steps of %d per epoch, %d epochs", device, data.count, steps_per_epoch,
             config.batch_size * ranks, config.epoch_size)
    loop = TrainLoop(
        train_step, config=config, facts=facts, steps_per_epoch=steps_per_epoch, batches=batches,
        noise=functools.partial(draw_noise, net.noise_shapes(config.batch_size), config.seed, rank),
        rate=build_rate(config, steps_per_epoch, ranks),
        evaluate=build_evaluate(net, val, config, device) if val and rank == 0 else None,
        log=TrainLog(config.output_path, total_steps=end_step(config, steps_per_epoch), rank=rank, writer=rank == 0,
                     done_steps=state[1]["step"] if state else 0, images_per_step=config.batch_size * ranks,
                     log_interval=config.log_interval),
        folder=checkpoint.CheckpointFolder(config.output_path, MODEL, config.keep_checkpoint_max, writer=rank == 0))
    if state:
        loop.load_state(*state, state_path)
        if rank == 0:
            save_config(config, Path(config.output_path) / "config.yaml")
        log.info("resume: goes on after step %d, as %s has it", loop.step, state_path)
    elif config.resume:
        log.info("resume: nothing to go on with in %s: a new run", config.output_path)
    return loop


def open_output(config) -> None:
    """config.yaml in output_path; an earlier run there is set aside."""
    from src.checkpoint import set_aside

    shelf = set_aside(config.output_path)
    save_config(config, Path(config.output_path) / "config.yaml")
    if shelf:
        log.warning("the earlier run in %s was moved to %s (--resume=auto would have gone on with it)",
                    config.output_path, shelf)


def train_batches(config, data, transform, rank: int, ranks: int, epoch: int, start: int):
    """Batches of an epoch from `start` on, as Tensors: the columns of dataset.py, image_id last."""
    from src.dataset import create_dataset, iterate

    return iterate(create_dataset(data.files, data.count, transform, config.batch_size, epoch=epoch, start_batch=start,
                                  rank=rank, rank_size=ranks, workers=config.num_parallel_workers))


def build_train_step(net, loss_names, config, ranks: int):
    """Forward, backward, update."""
    from src.network_define import LossScale, TrainStep

    return TrainStep(net, loss_names, momentum=config.momentum, weight_decay=config.weight_decay,
                     clip_grad_norm=config.clip_grad_norm, ema_decay=config.ema_decay, rank_size=ranks,
                     loss_scale=LossScale(config.loss_scale, config.dynamic_loss_scale),
                     # Of some models alone.
                     bias_lr_factor=config.get("bias_lr_factor", 1.0), bias_weight_decay=config.get("bias_weight_decay", True))


def build_rate(config, steps_per_epoch: int, ranks: int):
    """step -> learning rate."""
    from src.lr_schedule import learning_rate, scaled_base_lr

    batch = config.batch_size * ranks
    base = scaled_base_lr(config.base_lr, batch, config.lr_reference_batch)
    if base != config.base_lr:
        log.info("learning rate: %g for a batch of %d (base_lr %g is for %d)", base, batch, config.base_lr,
                 config.lr_reference_batch)
    return functools.partial(
        learning_rate, base_lr=base, warmup_steps=config.warmup_step, warmup_ratio=config.warmup_ratio,
        warmup_mode=config.warmup_mode, total_steps=config.epoch_size * steps_per_epoch, schedule=config.lr_schedule,
        milestones=[epoch * steps_per_epoch for epoch in config.sgd_step], gamma=config.lr_gamma)


def draw_noise(shapes: dict, seed: int, rank: int, step: int) -> list:
    """Uniform numbers in [0, 1) that decide what a step samples, where the network samples."""
    import numpy as np
    from mindspore import Tensor

    rng = np.random.default_rng([seed, step, rank])
    return [Tensor(rng.random(shape, np.float32)) for shape in shapes.values()]


def build_evaluate(net, val, config, device: str):
    """evaluate(check) -> [Scores] on the evaluation set, of each of IOU_TYPES; check() is called at each batch and may raise."""
    from mindspore import Tensor
    from src.coco_inputs import clean_ground_truth
    from src.coco_scores import coco_ap
    from src.dataset import EvalBatches, build_preprocess
    from src.network_define import InferenceNet, mixed_precision
    from src.outputs import IOU_TYPES, mask_encoder
    from src.util import run_inference

    annotations = val.ground_truth()
    for kind in IOU_TYPES:      # an epoch is not to end in a fault of the annotations
        clean_ground_truth(annotations, kind)
    infer = mixed_precision(InferenceNet(net), config.amp_level, device)
    batches = EvalBatches(val.files, val.count, build_preprocess(config), config.test_batch_size,
                          workers=config.num_parallel_workers)

    def run(check):
        infer.set_train(False)      # its layers are those of the training step

        def predict(image, image_info):
            check()
            return infer(Tensor(image), Tensor(image_info))

        found = run_inference(predict, batches, val.categories, val.count, encode=mask_encoder(config))
        truth = val.ground_truth()
        return [coco_ap(truth, found, kind, config.scorer) for kind in IOU_TYPES]

    return run


def how_to_go_on(config) -> str:
    if not config.save_checkpoint:
        return "nothing is kept of it (save_checkpoint is False)"
    return f"the same command with --resume=auto goes on from {Path(config.output_path) / 'checkpoint' / 'state.ckpt'}"


def summary(loop, config, seconds: float) -> str:
    """Where the results are."""
    from src.util import format_seconds

    best = f", best AP {loop.best_ap:.4f} in epoch {loop.best_epoch}" if loop.best_epoch else ""
    root = Path(config.output_path)
    weights = f"weights in {root / 'checkpoint'} (last.ckpt" + (", best.ckpt)" if best else ")")
    if not config.save_checkpoint:
        weights = "no weights written (save_checkpoint is False)"
    return f"trained {loop.step} steps in {format_seconds(seconds)}{best}; {weights}, losses in {root / 'loss_0.log'}"


if __name__ == "__main__":
    run_main(main)
