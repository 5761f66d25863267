"""Time one program of the zoo on the CPU; print one JSON line.

usage: python tests/benchmarks/ours.py PROGRAM [--model faster_rcnn] [--height 768] [--width 1280] [--batch 2] [--threads 2]
                                       [--warm 2] [--steps 5] [--onnx FILE] [--serve]

train          a training step, as step.py times it
infer          inference in MindSpore (backend: mindspore), post-processing included; masks are pasted and encoded
onnxruntime    the same in ONNX Runtime (backend: auto), one image at a time; the network is exported to --onnx

The network is the model's default config with random weights, and detects 100 boxes per image if possible. compare.py starts this
with --serve.
"""
import sys
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from tests.benchmarks import step  # noqa: E402
from tests.benchmarks.measuring import run_apart, run_worker, worker_parser  # noqa: E402


def version() -> dict:
    import mindspore as ms

    return {"version": f"mindspore {ms.__version__}"}


def detecting_network(args, fast: bool):
    """Return the network and its config. Every (box, class) pair reaches NMS: with random weights few would pass a threshold."""
    net, config = step.build(args, fast, test_score_thr=0.0)
    import_module("tests.narrow_network").spread_heads(net)
    return net.set_train(False), config


def facts_of(outputs, **facts) -> dict:
    return facts | {"detections": int(outputs[3][0].sum())}


def train(args) -> tuple:
    net, config = step.build(args)
    return step.training_step(net, config, args), version()


def infer(args) -> tuple:
    once = step.inference(*detecting_network(args, fast=True), args, args.batch)
    return once, facts_of(once(), **version())


def export(args) -> None:
    """Write args.onnx if it does not exist."""
    if Path(args.onnx).exists():
        return
    net, config = detecting_network(args, fast=False)
    source = f"{args.model}.src"
    network_define, exporting = import_module(f"{source}.network_define"), import_module(f"{source}.model_utils.inference.export")
    shapes = dict(zip(exporting.INPUTS, ((1, 3, config.img_height, config.img_width), (1, 6))))
    outputs = import_module(f"{source}.model").OUTPUTS
    exporting.write_network(network_define.InferenceNet(net), shapes, outputs, "ONNX", Path(args.onnx).absolute())


def run_onnxruntime(args) -> tuple:
    import numpy as np
    import onnxruntime

    run_apart(export, args)
    source = f"{args.model}.src.model_utils"
    sizes = {"img_height": args.height, "img_width": args.width, "runtime_num_threads": args.threads, "device_target": "CPU"}
    config = import_module(f"{source}.config").load_config(ROOT / args.model / args.config, sizes)
    session = import_module(f"{source}.inference.onnx_session").open_session(args.onnx, config, "CPU")
    images, info, *_ = step.random_batch(np.random.default_rng(0), config, args, args.batch)

    def once() -> list:
        parts = [session(images[i:i + 1], info[i:i + 1]) for i in range(args.batch)]
        outputs = [np.concatenate(column) for column in zip(*parts)]
        step.paste_masks(outputs, config, args)
        return outputs

    return once, facts_of(once(), version=f"onnxruntime {onnxruntime.__version__}")


PROGRAMS = {"train": train, "infer": infer, "onnxruntime": run_onnxruntime}


def main() -> None:
    parser = worker_parser(__doc__.splitlines()[0], PROGRAMS)
    parser.set_defaults(config="default_config.yaml", backbone=None)        # read by step.build
    args = parser.parse_args()
    if args.program == "onnxruntime" and not args.onnx:
        parser.error("onnxruntime needs --onnx")
    run_worker(args, PROGRAMS)


if __name__ == "__main__":
    import_module("faster_rcnn.src.model_utils.config").run_main(main)
