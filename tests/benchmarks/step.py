"""Time a training step and the inference of one image; print one JSON line.

usage: python tests/benchmarks/step.py [--model faster_rcnn] [--config YAML | --backbone NAME] [--height 768] [--width 1280]
       [--batch 2] [--threads 2] [--steps 5]

The network is the model's default config, or another config in its folder, at the config's size without --height or --width.
Weights are random, scaled so that values stay finite. Each image has 8 objects; for Mask R-CNN they are polygons with 12 corners.
`compile_s` is the first step minus the median of the others; `train_step_s` is that median, `train_steps_s` lists all steps.
`infer_s` is one image with post-processing (masks pasted and encoded); `peak_rss_mb` is the peak memory of training. `*_cpu_s` are
the CPU seconds of all threads: on a shared machine, they are more reliable than the clock. torch_floor.py gives the lower bound.
"""

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from tests.benchmarks.measuring import CORNERS, OBJECTS, medians, peak_rss_mb, timed  # noqa: E402

MODELS = ("faster_rcnn", "mask_rcnn", "refinedet")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="faster_rcnn", choices=MODELS)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--config", default="default_config.yaml", help="relative to the model's folder")
    which.add_argument("--backbone", help="in place of the default config's")
    parser.add_argument("--height", type=int, help="in place of the config's")
    parser.add_argument("--width", type=int, help="in place of the config's")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    return parser.parse_args()


def random_batch(rng, config, args, batch: int) -> tuple:
    """Return image, image_info, gt_boxes, gt_labels, gt_valid with 8 objects per image; for Mask R-CNN also gt_edges."""
    import numpy as np

    height, width = config.img_height, config.img_width
    image = rng.standard_normal((batch, 3, height, width), np.float32)
    info = np.tile(np.array([height, width, 1, 1, height, width], np.float32), (batch, 1))
    corner, size = rng.uniform(0, 0.6, (batch, OBJECTS, 2)), rng.uniform(0.05, 0.35, (batch, OBJECTS, 2))
    boxes = np.zeros((batch, config.num_gts, 4), np.float32)
    boxes[:, :OBJECTS] = np.concatenate([corner, corner + size], 2) * [width, height, width, height]
    labels = np.zeros((batch, config.num_gts), np.int32)
    labels[:, :OBJECTS] = rng.integers(1, config.num_classes, (batch, OBJECTS))
    columns = image, info, boxes, labels, labels > 0
    if args.model != "mask_rcnn":
        return columns
    angle = np.arange(CORNERS) * (2 * np.pi / CORNERS)
    points = 0.5 + 0.5 * np.stack([np.cos(angle), np.sin(angle)], 1)                     # in the unit square
    points = boxes[:, :OBJECTS, None, :2] + points * (boxes[:, :OBJECTS, None, 2:] - boxes[:, :OBJECTS, None, :2])
    edges = np.zeros((batch, config.num_gts, config.max_mask_edges, 5), np.float32)
    edges[:, :OBJECTS, :CORNERS, :4] = np.concatenate([points, np.roll(points, -1, 2)], -1)
    return (*columns, edges)


def build(args, fast: bool = True, **settings):
    """Return the network and its config. fast: for MindSpore on the CPU, not for export; settings: further config keys."""
    source = f"{args.model}.src"
    local_adapter = import_module(f"{source}.model_utils.local_adapter")
    local_adapter.prepare_environment(args.threads)
    given = {"img_height": args.height, "img_width": args.width, "backbone": args.backbone}
    overrides = {"runtime_num_threads": args.threads, "device_target": "CPU"}
    overrides |= settings | {key: value for key, value in given.items() if value is not None}
    config = import_module(f"{source}.model_utils.config").load_config(ROOT / args.model / args.config, overrides)
    args.height, args.width, args.backbone = config.img_height, config.img_width, config.get("backbone")
    local_adapter.setup_device(config)
    network_define = import_module(f"{source}.network_define")
    net = network_define.build_network(config, fast=fast)

    import mindspore as ms
    import numpy as np

    images = ms.Tensor(np.random.default_rng(0).standard_normal((8, 3, 256, 256), np.float32))
    network_define.set_first_weights(net, config, lambda epoch, start: iter([(images,)]))
    return net, config


def training_step(net, config, args):
    """Return a function that trains one step on the same random images each time."""
    import numpy as np
    from mindspore import Tensor

    source = f"{args.model}.src"
    rng = np.random.default_rng(0)
    noise = (rng.random(shape, np.float32) for shape in net.noise_shapes(args.batch).values())
    inputs = tuple(Tensor(array) for array in (*random_batch(rng, config, args, args.batch), *noise))
    names = import_module(f"{source}.network_define").LOSS_NAMES
    step = import_module(f"{source}.model_utils.training.step").TrainStep(net, names, momentum=config.momentum,
                                                                          weight_decay=config.weight_decay)

    smallest = min(net.trainable_params(), key=lambda param: param.size)

    def once():
        step(inputs, 1e-4)
        smallest.asnumpy()      # waits for the update of the weights

    return once


def time_training(net, config, args) -> dict:
    once = training_step(net, config, args)
    first, _ = timed(once)
    times = [timed(once) for _ in range(args.steps)]
    wall, cpu = medians(times)
    return {"compile_s": round(first - wall, 2), "train_step_s": round(wall, 3), "train_step_cpu_s": round(cpu, 3),
            "train_steps_s": [round(seconds, 3) for seconds, _ in times], "peak_rss_mb": peak_rss_mb()}


def paste_masks(outputs, config, args) -> None:
    """Paste and encode the network's output masks as infer.py does. Other models have none."""
    if args.model == "mask_rcnn":
        paste = import_module(f"{args.model}.src.paste_masks").paste_rle
        for boxes, masks in zip(outputs[0], outputs[4]):
            paste(masks, boxes, config.img_height, config.img_width, config.mask_thr_binary)


def inference(net, config, args, batch: int):
    """Return a function that detects objects in the same random images each time and returns the network's outputs."""
    import numpy as np
    from mindspore import Tensor

    import_module(f"{args.model}.src.model_utils.layers.convolution").keep_filters(net)     # as predictors.py does
    infer = import_module(f"{args.model}.src.network_define").InferenceNet(net)
    image, info, *_ = (Tensor(array) for array in random_batch(np.random.default_rng(0), config, args, batch))

    def once() -> list:
        outputs = [output.asnumpy() for output in infer(image, info)]
        paste_masks(outputs, config, args)
        return outputs

    return once


def time_inference(net, config, args) -> dict:
    once = inference(net, config, args, batch=1)
    first, _ = timed(once)
    times = [timed(once) for _ in range(args.steps)]
    wall, cpu = medians(times)
    return {"infer_compile_s": round(first - wall, 2), "infer_s": round(wall, 3), "infer_cpu_s": round(cpu, 3)}


def main() -> None:
    args = parse_arguments()
    net, config = build(args)
    result = vars(args) | time_training(net, config, args)
    print(json.dumps(result | time_inference(net, config, args)))


if __name__ == "__main__":
    import_module("faster_rcnn.src.model_utils.config").run_main(main)
