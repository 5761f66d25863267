"""The primitives of the compiled graphs: training step (forward, backward, update) and inference of each model, with their types.

usage: python -m tests.primitives OUTPUT.json [CASE | CASE:training | CASE:inference ...]

MindSpore compiles narrow networks, whose graphs have the same operators as wide ones, up to its last device-independent
representation, and writes that to files (`MS_DEV_PRECOMPILE_ONLY`, `MS_DEV_DUMP_IR_PASSES`). No kernel is chosen and nothing runs,
so graphs for other devices, such as mixed precision, also compile on a CPU.
"""
import contextlib
import json
import os
import re
import sys
import tempfile
from importlib import import_module
from pathlib import Path

LAST_PASS = "validate"
# Primitives of the virtual machine itself.
STRUCTURE = {"Load", "UpdateState", "Depend", "TupleGetItem", "MakeTuple", "Return", "Switch", "Partial", "Cond", "StopGradient",
             "SequenceLen", "ListGetItem", "MakeList"}
# A node, further lines of constants among its inputs, and the types of the inputs.
NODE = re.compile(r"^  %\S+ = (?:PrimFunc_|\w+::)?(\w+)\(.*\n(?:(?!  %|      : ).*\n)*      : \((.*)\) -> ", re.MULTILINE)
TENSOR = re.compile(r"Tensor\[(\w+)\]")


def primitives_in(text: str) -> dict:
    """Return {name: set of types of its tensor inputs, such as "Float32 Int32"} of a graph in MindSpore's text form."""
    found: dict = {}
    for name, inputs in NODE.findall(text):
        if name not in STRUCTURE:
            found.setdefault(name, set()).add(" ".join(TENSOR.findall(inputs)))
    return found


def cases() -> dict:
    """Return {name: function that gives its graphs}. Together they have every operator of the three models."""
    from tests.narrow_network import narrow_backbone, narrow_config, narrow_mask_config
    from tests.narrow_refinedet import NARROW_RESNET
    from tests.narrow_refinedet import narrow_config as narrow_refinedet_config

    found = {"faster_rcnn": lambda: graphs("faster_rcnn", narrow_config(clip_grad_norm=10.0, ema_decay=0.9))}
    for name in ("torchvision", "detectron2", "mmdet", "zoo", "mslab"):
        found[f"faster_rcnn {name}"] = lambda name=name: graphs("faster_rcnn", narrow_config(convention=name))
    found["faster_rcnn O2"] = lambda: graphs("faster_rcnn", narrow_config(), half=True)
    found["faster_rcnn inception"] = lambda: graphs("faster_rcnn", narrow_config(**narrow_backbone("inception_resnet_v2")))
    found["mask_rcnn"] = lambda: graphs("mask_rcnn", narrow_mask_config(accumulate_steps=2))
    found["mask_rcnn mslab"] = lambda: graphs("mask_rcnn", narrow_mask_config(convention="mslab", accumulate_steps=2))
    found["mask_rcnn O2"] = lambda: graphs("mask_rcnn", narrow_mask_config(), half=True)
    found["refinedet"] = lambda: graphs("refinedet", narrow_refinedet_config())
    found["refinedet batch_norm"] = lambda: graphs("refinedet", narrow_refinedet_config(batch_norm=True))
    found["refinedet resnet101"] = lambda: graphs("refinedet", narrow_refinedet_config(**NARROW_RESNET))
    found["refinedet O2"] = lambda: graphs("refinedet", narrow_refinedet_config(**NARROW_RESNET, batch_norm=True), half=True)
    found["fast convolution"] = fast_convolution
    return found


def graphs(model: str, config, half: bool = False) -> dict:
    """Return {"training": function that compiles it, "inference": likewise}. half: with amp_level O2."""
    import mindspore as ms
    from mindspore import ops

    from tests import hardware_numbers

    source = f"{model}.src"
    network_define, run, precision = (import_module(f"{source}.{name}") for name in (
        "network_define", "model_utils.training.run", "model_utils.training.precision"))
    net = network_define.build_network(config)
    inputs = [ms.Tensor(array) for array in hardware_numbers.inputs_of(model, config, net).values()]
    if half:
        net = precision.mixed_precision(net, "O2", "Ascend")
    scalar = ms.Tensor(1.0, ms.float32)

    def train() -> None:
        step = run.build_train_step(net.set_train(), config, 1)
        if step._add:
            step._clear(scalar)
            step._add(scalar, *inputs)
            step._gradients(ops.zeros(len(step.loss_names)), scalar)
        else:
            step._gradients(scalar, scalar, *inputs)
        step._update(scalar, scalar, *[ms.Tensor(param.asnumpy()) for param in step.params])
        if step.averages is not None:
            step._average(scalar)

    def infer() -> None:
        network = network_define.InferenceNet(net).set_train(False)

        @ms.jit
        def predict(image, image_info):
            return network(image, image_info)

        predict(*inputs[:2])

    return {"training": train, "inference": infer}


def fast_convolution() -> dict:
    """Return the graph of the 3x3 convolution that only the CPU uses, with its gradient."""
    import mindspore as ms
    from mindspore import ops

    from faster_rcnn.src.model_utils.layers.convolution import Conv2d

    layer = Conv2d(64, 64, 3, fast=True)

    def total(x):
        return layer(x).sum()

    gradient = ms.value_and_grad(total, 0, ms.ParameterTuple(layer.trainable_params()))

    @ms.jit
    def both(x):
        return gradient(x)

    return {"training": lambda: both(ops.zeros((1, 64, 9, 9)))}


@contextlib.contextmanager
def recorded():
    """Yield a dictionary. At the end it gets {primitive: types of its inputs} of the graphs compiled in the block."""
    import mindspore as ms

    found: dict = {}
    before = os.environ.get("MS_DEV_DUMP_IR_PASSES")
    os.environ["MS_DEV_DUMP_IR_PASSES"] = LAST_PASS
    with tempfile.TemporaryDirectory() as folder:
        ms.set_context(save_graphs=1, save_graphs_path=folder)
        try:
            yield found
        finally:
            ms.set_context(save_graphs=0)
            os.environ.pop("MS_DEV_DUMP_IR_PASSES")
            os.environ.update({} if before is None else {"MS_DEV_DUMP_IR_PASSES": before})
        for path in sorted(Path(folder).rglob(f"*{LAST_PASS}*.ir")):
            for primitive, types in primitives_in(path.read_text(encoding="utf-8")).items():
                found.setdefault(primitive, set()).update(types)


def dumped(compile_graphs) -> dict:
    """Return {primitive: types of its inputs} of the graphs that a function compiles."""
    with recorded() as found:
        compile_graphs()
    return {primitive: sorted(types) for primitive, types in sorted(found.items())}


def main(output: str, *names: str) -> None:
    os.environ["MS_DEV_PRECOMPILE_ONLY"] = "1"
    import mindspore as ms

    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)
    chosen = [name.partition(":")[::2] for name in names or cases()]
    found: dict = {case: {} for case, _ in chosen}
    for case, only in chosen:
        found[case] |= {stage: dumped(compile_graphs) for stage, compile_graphs in cases()[case]().items() if only in ("", stage)}
    Path(output).write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
