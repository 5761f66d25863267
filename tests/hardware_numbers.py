"""Compute losses, gradients and detections of a narrow network on one device. hardware.py compares them with the CPU's.

usage (by hardware.py): python tests/hardware_numbers.py MODEL DEVICE LEVEL OUTPUT.npz [REFERENCE.npz]

LEVEL is amp_level. Weights and inputs come from REFERENCE if given, so that nothing depends on the device's random numbers. Prints
one JSON line about the device.
"""
import json
import sys
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
OBJECTS = [[(1, 12, 16, 60, 52), (2, 70, 20, 112, 60)], [(3, 24, 6, 88, 50)]]    # per image: label, x1, y1, x2, y2


def narrow(model: str, device: str):
    """Return the model's narrow config with this device, and its network on the device."""
    from importlib import import_module

    from tests import narrow_network, narrow_refinedet

    makers = {"faster_rcnn": (narrow_network.narrow_config, narrow_network.narrow_network),
              "mask_rcnn": (narrow_network.narrow_mask_config, narrow_network.narrow_network),
              "refinedet": (narrow_refinedet.narrow_config, narrow_refinedet.narrow_network)}
    make_config, make_network = makers[model]
    config = make_config(device_target=device)
    import_module(f"{model}.src.model_utils.local_adapter").setup_device(config)
    net = make_network(config)
    if model != "refinedet":
        narrow_network.spread_heads(net)
    return config, net


def inputs_of(model: str, config, net) -> dict:
    """Return {name: array} of the network's training arguments, in order."""
    from tests import narrow_network

    columns = [*narrow_network.pictures(config, len(OBJECTS)), *narrow_network.objects(config, OBJECTS)]
    if model == "mask_rcnn":
        columns.append(narrow_network.outlines(config, OBJECTS))
    columns += narrow_network.noise(net, len(OBJECTS))
    return {f"input.{number:02d}": column.asnumpy() for number, column in enumerate(columns)}


def compute(model: str, device: str, level: str, reference: dict) -> dict:
    """Return the weights, the inputs and the results. reference: arrays of an earlier call, or {}."""
    from importlib import import_module

    import mindspore as ms

    from tests.narrow_network import losses_and_gradients

    source = f"{model}.src"
    config, net = narrow(model, device)
    params = {param.name: param for param in net.get_parameters()}
    weights = {name: reference.get(f"weight.{name}", param.asnumpy()) for name, param in params.items()}
    for name, param in params.items():
        param.set_data(ms.Tensor(weights[name]))
    inputs = {name: reference.get(name, array) for name, array in inputs_of(model, config, net).items()}
    net = import_module(f"{source}.model_utils.training.precision").mixed_precision(net, level, device)
    tensors = [ms.Tensor(array) for array in inputs.values()]
    trained = net.trainable_params()
    net.set_train()
    losses, grads = losses_and_gradients(net, trained)(*tensors)
    results = {"losses": losses.asnumpy()}
    results |= {f"gradient.{param.name}": grad.asnumpy() for param, grad in zip(trained, grads)}
    infer = import_module(f"{source}.network_define").InferenceNet(net).set_train(False)
    outputs = import_module(f"{source}.model").OUTPUTS
    results |= {f"output.{name}": array.asnumpy() for name, array in zip(outputs, infer(*tensors[:2]))}
    return {f"weight.{name}": array for name, array in weights.items()} | inputs | results


def facts(device: str) -> dict:
    """Return what MindSpore reports about the device."""
    import mindspore as ms

    found = {"mindspore": ms.__version__, "count": 1, "name": device}
    if device != "CPU":
        found |= {"count": int(ms.hal.device_count(device)), "name": str(ms.hal.get_device_name(0, device)),
                 "memory_mb": round(ms.runtime.max_memory_allocated() / 2 ** 20)}
    return found


def main(model: str, device: str, level: str, output: str, reference: str = "") -> None:
    from faster_rcnn.src.model_utils.local_adapter import prepare_environment

    prepare_environment()
    arrays = {}
    if reference:
        with np.load(reference) as file:
            arrays = dict(file)
    np.savez(output, **compute(model, device, level, arrays))
    print(json.dumps(facts(device)))


if __name__ == "__main__":
    main(*sys.argv[1:])
