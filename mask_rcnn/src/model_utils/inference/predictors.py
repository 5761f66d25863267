# Same as faster_rcnn/src/model_utils/inference/predictors.py
"""Run a network from a checkpoint, a MINDIR or an ONNX file through one interface.

predict(image, image_info) returns NumPy arrays in the order of OUTPUTS in model.py. image is (N, 3, H, W) float32, normalised;
image_info is (N, 6) float32, see data/transforms.py.
"""
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...model import OUTPUTS
from ...util import counted
from ..config import Config, InputError
from .onnx_session import open_session

if TYPE_CHECKING:       # importing MindSpore takes seconds, and ONNX Runtime does not need it
    from mindspore import Tensor, nn

__all__ = ["Outputs", "Predict", "Predictor", "find_model", "load_predictor", "predictor_of"]

# Arrays in the order of OUTPUTS in model.py.
Outputs = tuple[np.ndarray, ...]
Predict = Callable[[np.ndarray, np.ndarray], Outputs]       # (image, image_info)
Masks = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]      # (image, boxes, labels) -> masks
MODEL_KEYS = ("checkpoint_path", "mindir_path", "onnx_path")


class ModelFile(NamedTuple):
    """A network's file, and the configuration key that names it."""

    key: str
    path: Path


class Predictor:
    """A network behind predict(image, image_info).

    Args:
        run: run(image, image_info) returns arrays or Tensors.
        input_shape: (N, H, W) if the file accepts a single input size, else None.
        steps: returns host_steps of network_define.py; called only if the number of outputs differs from OUTPUTS.
        masks: predicts the masks (N, S, m, m) for given boxes (N, S, 4); None if the network has no masks or cannot take boxes.

    Raises:
        InputError: on a call, if the image has another size than input_shape or the outputs are not those of this model.
    """

    def __init__(self, run: Callable[[np.ndarray, np.ndarray], Iterable], input_shape: tuple[int, int, int] | None = None,
                 steps: Callable[[], Mapping[int, Callable[..., Outputs]]] = dict, masks: Masks | None = None):
        self.run, self.input_shape, self.steps, self.masks = run, input_shape, steps, masks

    def __call__(self, image: np.ndarray, image_info: np.ndarray) -> Outputs:
        if self.input_shape and tuple(image.shape[i] for i in (0, 2, 3)) != self.input_shape:
            n, height, width = self.input_shape
            raise InputError(f"the exported network takes {n} x 3 x {height} x {width}, but the configuration gives "
                             f"{' x '.join(map(str, image.shape))}: pass the --config_path that it was exported with")
        outputs = tuple(value.asnumpy() if hasattr(value, "asnumpy") else value for value in self.run(image, image_info))
        if len(outputs) != len(OUTPUTS):
            steps = self.steps()
            if len(outputs) in steps:
                return steps[len(outputs)](*outputs)
            raise InputError(f"the network has {counted(len(outputs), 'output')}, expected {', '.join(OUTPUTS)}: export it with "
                             "this model's export.py, without --split (whose files are for ascend310_infer)")
        return outputs


def predictor_of(net: "nn.Cell", amp_level: str = "O0", device: str = "CPU") -> Predictor:
    """Return a predictor that calls the network's `predict` in MindSpore.

    Args:
        net: a network with predict(image, image_info).
        amp_level: "O0" for float32, otherwise see training/precision.py.
        device: "CPU", "GPU" or "Ascend".
    """
    from mindspore import Tensor

    from ..training.precision import mixed_precision
    from .network import InferenceNet

    infer = mixed_precision(InferenceNet(net), amp_level, device)

    def run(image: np.ndarray, image_info: np.ndarray) -> tuple["Tensor", ...]:
        infer.set_train(False)      # on every call, since a training step may have run in between
        return infer(Tensor(image), Tensor(image_info))

    return Predictor(run, masks=_masks_of(net, amp_level, device))


def _masks_of(net: "nn.Cell", amp_level: str, device: str) -> Masks | None:
    """Return a function that predicts masks for given boxes, or None if the network has no masks."""
    from mindspore import Tensor

    from ...network_define import masks_network
    from ..training.precision import mixed_precision

    network = masks_network(net)
    if network is None:
        return None
    given = mixed_precision(network, amp_level, device)

    def masks(image: np.ndarray, boxes: np.ndarray, labels: np.ndarray) -> np.ndarray:
        given.set_train(False)
        return given(Tensor(image), Tensor(boxes), Tensor(labels)).asnumpy()

    return masks


def load_predictor(config: Config, device: str) -> Predictor:
    """Load the file named by checkpoint_path, mindir_path or onnx_path. Checkpoints and MINDIR files run in MindSpore.

    Args:
        config: exactly one of the three keys must be set.
        device: "CPU", "GPU" or "Ascend".

    Raises:
        InputError: none or several of the keys are set, or the file is missing or unreadable.
    """
    key, path = find_model(config)
    loaders = {"checkpoint_path": _from_checkpoint, "mindir_path": _from_mindir, "onnx_path": _from_onnx}
    return loaders[key](config, path, device)


def find_model(config: Config, *others: str) -> ModelFile:
    """Return the network's file.

    Args:
        config: exactly one of checkpoint_path, mindir_path and onnx_path must be set.
        others: further keys that the error message offers.

    Raises:
        InputError: none or several of the keys are set, or the file does not exist.
    """
    given = [key for key in MODEL_KEYS if config[key]]
    if len(given) != 1:
        flags = ", ".join(f"--{key}" for key in (*MODEL_KEYS, *others))
        raise InputError(f"give exactly one of {flags}" + (f", not {' and '.join(given)}" if given else ""))
    path = Path(config[given[0]])
    if not path.is_file():
        raise InputError(f"{given[0]}: no such file: {path}")
    return ModelFile(given[0], path)


def _from_checkpoint(config: Config, path: Path, device: str) -> Predictor:
    from ...network_define import build_network
    from ..layers.convolution import keep_filters
    from ..weights.loading import load_checkpoint_into

    net = build_network(config, fast=device == "CPU")
    load_checkpoint_into(net, path, config.coco_classes)
    if device == "CPU":
        keep_filters(net)
    return predictor_of(net, config.amp_level, device)


def _from_mindir(config: Config, path: Path, device: str) -> Predictor:
    import mindspore as ms
    from mindspore import nn

    try:
        graph = nn.GraphCell(ms.load(str(path)))
    except (RuntimeError, ValueError, TypeError) as error:
        raise InputError(f"{path}: not a MINDIR file that MindSpore {ms.__version__} can read "
                         f"({str(error).strip().splitlines()[0]})") from error

    def run(image: np.ndarray, info: np.ndarray) -> tuple["Tensor", ...]:
        try:
            return graph(ms.Tensor(image), ms.Tensor(info))
        except (RuntimeError, ValueError, TypeError) as error:
            shape = " x ".join(map(str, image.shape))
            raise InputError(f"{path}: does not run on an input of {shape}: export it without --split and pass the --config_path "
                             f"that it was exported with ({str(error).strip().splitlines()[0]})") from error

    return Predictor(run, steps=lambda: _host_steps(config))


def _from_onnx(config: Config, path: Path, device: str) -> Predictor:
    try:
        session = open_session(str(path), config, device)
    except ImportError as error:
        raise InputError(f"onnx_path: onnxruntime is not installed ({error}): pip install onnxruntime") from error
    except ValueError as error:
        raise InputError(f"{path}: not an ONNX file that onnxruntime can read ({error})") from error
    if len(session.inputs) not in (1, 2):    # the exporter drops image_info if the network does not read it
        raise InputError(f"{path}: expected the inputs image and image_info, found {', '.join(session.inputs) or 'none'}")
    return Predictor(session, session.input_shape, lambda: _host_steps(config))


def _host_steps(config: Config) -> Mapping[int, Callable[..., Outputs]]:
    from ...network_define import host_steps

    return host_steps(config)
