"""Train narrow networks on two images, in one process or on two ranks, and exchange data between ranks.

usage (by msrun, on two ranks): python tests/rank_steps.py OUTPUT_FOLDER
"""
import importlib
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

MODELS = ("mask_rcnn", "refinedet", "toy")      # Mask R-CNN has all losses of Faster R-CNN
COMPILED = "toy"            # the smallest graph; the other models run operator by operator, like the reference
ROOT = Path(__file__).resolve().parents[1]
STEPS, IMAGES = 2, 2
# Objects per image: label and corners. The images differ in the number of anchors and boxes that losses count.
OBJECTS = [[(1, 12, 16, 60, 52), (2, 70, 20, 112, 60), (3, 24, 8, 88, 60), (1, 4, 4, 120, 62)], [(2, 40, 30, 52, 41)]]


def build(model: str):
    """Return (network, inputs(step) of both images, names of the losses)."""
    from tests import narrow_network, narrow_refinedet, toy_network

    if model == "toy":
        config, net = narrow_network.narrow_config(img_height=64, img_width=128), toy_network.ToyDetector()
    elif model == "refinedet":
        config = narrow_refinedet.narrow_config(num_gts=4)
        net = narrow_refinedet.narrow_network(config)
    else:
        config = narrow_network.narrow_mask_config(img_height=64, img_width=128, num_expected_pos_stage2=8)
        net = narrow_network.narrow_network(config)
    names = toy_network.LOSS_NAMES if model == "toy" else importlib.import_module(f"{model}.src.network_define").LOSS_NAMES
    image, info = narrow_network.pictures(config, IMAGES)
    columns = [image, info, *narrow_network.objects(config, OBJECTS)]
    if model == "mask_rcnn":
        columns.append(narrow_network.outlines(config, OBJECTS))

    def inputs(step):
        noise = [] if model == "refinedet" else narrow_network.noise(net, IMAGES, step)
        return [*columns, *noise]

    return net, inputs, names


def train(model: str, rank: int = 0, ranks: int = 1) -> dict:
    """Return {name: trained weights}, and the initial ones as "first.NAME"."""
    from mindspore import Tensor

    package = "faster_rcnn" if model == "toy" else model
    TrainStep = importlib.import_module(f"{package}.src.model_utils.training.step").TrainStep
    net, inputs, names = build(model)
    first = {param.name: param.asnumpy().copy() for param in net.trainable_params()}
    step = TrainStep(net, names, momentum=0.9, weight_decay=1e-4, clip_grad_norm=5.0, rank_size=ranks)
    share = slice(rank * IMAGES // ranks, (rank + 1) * IMAGES // ranks)
    for number in range(STEPS):
        step([Tensor(item.asnumpy()[share]) for item in inputs(number)], 0.005)
    trained = {param.name: param.asnumpy() for param in net.trainable_params()}
    return {**trained, **{f"first.{name}": value for name, value in first.items()}}


def statistics(rank: int, ranks: int) -> list:
    """Return the shared statistics, which start as [rank, 2] and [10 rank], and a parameter that is not a statistic."""
    import mindspore as ms
    from mindspore import Tensor, nn

    from faster_rcnn.src.model_utils.training.step import TrainStep

    class Norm(nn.Cell):
        learns_statistics = True

        def __init__(self):
            super().__init__()
            self.gamma = ms.Parameter(Tensor([1.0 + rank]), name="gamma")
            self.moving_mean = ms.Parameter(Tensor([float(rank), 2.0]), name="moving_mean", requires_grad=False)
            self.moving_variance = ms.Parameter(Tensor([10.0 * rank]), name="moving_variance", requires_grad=False)

    norm = Norm()
    TrainStep(norm, ("loss",), momentum=0.9, weight_decay=0.0, rank_size=ranks).share_statistics()
    return [param.asnumpy().tolist() for param in (norm.moving_mean, norm.moving_variance, norm.gamma)]


def norms(rank: int = 0, ranks: int = 1) -> dict:
    """Return {name: value} after two steps of convolutions with norms on batch statistics, and the losses."""
    import mindspore as ms
    from mindspore import Tensor, nn, ops

    from faster_rcnn.src.FasterRcnn.batch_norm import use_batch_statistics
    from faster_rcnn.src.model_utils.layers.convolution import ConvNorm
    from faster_rcnn.src.model_utils.training.step import TrainStep

    class Toy(nn.Cell):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.beside = ConvNorm(3, 4, 3), ConvNorm(4, 5, 3, 2), ConvNorm(4, 5, 1, 2)

        def construct(self, image, target):
            x = ops.relu(self.first(image))
            x = ops.relu(self.second(x) + self.beside(x))
            return (ops.square(x - target).mean(),)

    ms.set_seed(3)
    net = Toy()
    for number, param in enumerate(net.get_parameters()):
        rng = np.random.default_rng(number)
        param.set_data(Tensor(rng.uniform(0.2, 1, param.shape).astype(np.float32)))
    use_batch_statistics(net)
    step = TrainStep(net, ("loss",), momentum=0.9, weight_decay=1e-4, rank_size=ranks)
    rng, losses = np.random.default_rng(9), []
    images, targets = rng.normal(1, 3, (STEPS, 4, 3, 7, 9)), rng.normal(size=(STEPS, 4, 5, 4, 5))
    images[:, 2:] *= 4          # the images of the second rank have other statistics
    share = slice(rank * 4 // ranks, (rank + 1) * 4 // ranks)
    for batch in zip(images, targets):
        losses.append(step([Tensor(array[share].astype(np.float32)) for array in batch], 0.1).losses["loss"])
    return {**{param.name: param.asnumpy() for param in net.get_parameters()}, "losses": np.array(losses)}


def talk(rank: int, ranks: int) -> dict:
    """Return the results of exchanges between ranks, for JSON."""
    from faster_rcnn.src.model_utils.training import ranks as module

    results = {"texts": [item.decode() for item in module.exchange(b"x" * 5 * rank, ranks)]}
    big = module.exchange(bytes([rank]) * 3_000_001, ranks)
    results["big"] = [(len(item), item[0], item[-1]) for item in big]
    done = []

    def work():
        done.append(time.sleep(1.5))        # longer than POLL_S
        return {"rank": rank, "of": 0.1 + 0.2}

    results["result"], results["done here"] = module.from_first(work, rank, ranks, "work"), len(done)
    started = time.time()

    def in_turn():
        begun = time.time() - started
        time.sleep(1.5 * (rank == 0))
        return begun

    results["begun"] = module.first_then_others(in_turn, rank, ranks, "work")
    for name, bad, timeout in (("fails", lambda: 1 / 0, 0), ("too long", lambda: time.sleep(60), 0.5), ("no JSON", object, 0)):
        start = time.monotonic()
        try:
            module.from_first(bad, rank, ranks, "conversion", timeout)
        except (module.InputError, ZeroDivisionError, TypeError) as error:
            results[name] = [type(error).__name__, str(error), time.monotonic() - start]
    module.wait_for_all(ranks)
    return results


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    from faster_rcnn.src.model_utils.local_adapter import get_ranks, prepare_environment, setup_device

    os.environ["MS_JIT"] = "0"
    prepare_environment()
    from faster_rcnn.src.model_utils.config import load_config

    config = load_config(overrides={"device_target": "CPU", "distribute": True})
    setup_device(config)
    rank, ranks = get_ranks(config)
    folder = Path(sys.argv[1])
    (folder / f"told_{rank}.json").write_text(json.dumps({**talk(rank, ranks), "statistics": statistics(rank, ranks)}))
    os.environ["MS_JIT"] = "1"
    np.savez(folder / f"norms_{rank}.npz", **norms(rank, ranks))
    for model in MODELS:        # all are built, and all but COMPILED run, in PyNative mode
        os.environ["MS_JIT"] = "1" if model == COMPILED else "0"
        np.savez(folder / f"{model}_{rank}.npz", **train(model, rank, ranks))
