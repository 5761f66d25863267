"""Which runtime a network runs in: MindSpore or, on the CPU, ONNX Runtime, which starts without compiling.

ONNX Runtime gets the checkpoint's network exported for one image of the input's size. The graph is kept for later runs
(kept_graphs.py), which then import no MindSpore; the weights are read from the checkpoint each time.
"""
import logging
import os
import sys
import tempfile
import time
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...model import OUTPUTS
from ..config import Config, InputError
from ..data.preprocess import build_preprocess
from ..local_adapter import cpu_without_mindspore, setup_device
from ..weights.checksum import require_finite
from ..weights.class_names import check_order, class_names_of
from ..weights.mindspore_file import STATE_KEY, is_weight, read_mindspore
from .kept_graphs import Graph, find_graph, graph_name, keep_graph
from .onnx_graph import with_weights, without_weights
from .onnx_session import OnnxSession, open_session
from .predictors import Outputs, Predictor, find_model, load_predictor

if TYPE_CHECKING:
    from mindspore import nn

# Sizes of the input that are ready to run, where there are several (pad_to=divisor): each session holds the weights.
MOST_SESSIONS = 3
RUNTIMES = {"mindir_path": "mindspore", "onnx_path": "onnxruntime"}
log = logging.getLogger(__name__)


class UnavailableError(Exception):
    """ONNX Runtime cannot run the network; the text says why."""


def open_predictor(config: Config, device: str | None = None) -> Predictor:
    """The predictor of the configuration's network, in the runtime that `backend` asks for.

    device: what setup_device gave, if it has been called; if not, this calls it where MindSpore is needed.
    """
    key, path = find_model(config)
    if config.backend not in ("auto", RUNTIMES.get(key, config.backend)):
        raise InputError(f"backend: {config.backend} does not run the file of {key}: leave it at auto")
    if device is None and (key == "mindir_path" or not cpu_without_mindspore(config)):
        device = setup_device(config)
    # From here on None is the CPU, and MindSpore has not been imported.
    if key == "checkpoint_path" and _takes_onnxruntime(config, device):
        try:
            return Predictor(OnnxCheckpoint(config, path, device))
        except UnavailableError as error:
            _fall_back(config, error)
    if key == "onnx_path" and device is None:
        return load_predictor(config, "CPU")
    return load_predictor(config, device or setup_device(config))


def _takes_onnxruntime(config: Config, device: str | None) -> bool:
    fault = f"runs on the CPU only, and the device is {device}" if device not in (None, "CPU") else ""
    fault = "runs in one process only, and distribute is set" if config.distribute else fault
    if fault and config.backend == "onnxruntime":
        raise InputError(f"backend: onnxruntime {fault}: take auto or mindspore")
    # With MS_JIT=0 somebody wants to see MindSpore's operators one by one.
    return not fault and (config.backend == "onnxruntime" or (config.backend == "auto" and os.environ.get("MS_JIT") != "0"))


def _fall_back(config: Config, error: UnavailableError) -> None:
    """Say why MindSpore runs the network; InputError if it may not."""
    if config.backend == "onnxruntime":
        raise InputError(f"backend: onnxruntime cannot run the network: {error}") from error
    print(f"backend: mindspore, because onnxruntime cannot run the network: {error}", file=sys.stderr, flush=True)


class OnnxCheckpoint:
    """run(image, image_info) -> the outputs of a checkpoint's network, an image at a time; one session for each input size.

    UnavailableError if that is impossible, of a network for inputs of one size at once. If it shows later, MindSpore runs the
    inputs of this size, or, where it may not, InputError is raised.
    """

    def __init__(self, config: Config, path: Path, device: str | None):
        self.config, self.path, self.device = config, path, device
        self.content = read_mindspore(path) or {}
        require_finite(self._weights(), path)
        warning = check_order(class_names_of(self.content, path) if config.coco_classes else None, config.coco_classes, path)
        if warning:
            log.warning("%s", warning)
        self.sessions: OrderedDict[tuple[int, int], OnnxSession] = OrderedDict()
        self.net: nn.Cell | None = None
        self.mindspore: Predictor | None = None
        self.only_size = build_preprocess(config).size.box()
        if self.only_size:
            self.session(self.only_size)
            self.content.clear()            # the session holds a copy

    def __call__(self, image: np.ndarray, info: np.ndarray) -> Outputs:
        try:
            session = self.mindspore or self.session((image.shape[2], image.shape[3]))
        except UnavailableError as error:
            _fall_back(self.config, error)
            session = self.mindspore = load_predictor(self.config, self._set_up())
        if isinstance(session, Predictor):
            return session(image, info)
        images = [session(image[i:i + 1], info[i:i + 1]) for i in range(len(image))]
        return tuple(np.concatenate(parts) for parts in zip(*images))

    def session(self, size: tuple[int, int]) -> OnnxSession:
        """Return the session for inputs of (height, width)."""
        if size not in self.sessions:
            graph = self._graph(size)
            model = with_weights(graph.onnx, {name: self.content[name] for name in graph.used})
            while len(self.sessions) >= MOST_SESSIONS:
                self.sessions.popitem(last=False)
            self.sessions[size] = _open(model, self.config, size == self.only_size)
        self.sessions.move_to_end(size)
        return self.sessions[size]

    def _graph(self, size: tuple[int, int]) -> Graph:
        """Return a kept graph that the checkpoint fits, or export it."""
        name = graph_name(self.config, size)
        kept = find_graph(self.path, name)
        if kept and self.path.suffix == ".ckpt" and STATE_KEY not in self.content and self._shapes() == kept.shapes:
            return kept
        _require_onnxruntime()
        start = time.monotonic()
        graph = self._export(size)
        told = f"backend: exported the network for onnxruntime, {size[0]} x {size[1]}, in {time.monotonic() - start:.0f} s"
        try:
            told += f"; kept for later runs: {keep_graph(self.path, name, graph)}"
        except OSError as error:
            told += f"; not kept for later runs: {error}"
        print(told, file=sys.stderr, flush=True)
        return graph

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: value.shape for name, value in self._weights().items()}

    def _weights(self) -> dict[str, np.ndarray]:
        return {name: value for name, value in self.content.items() if is_weight(name) and isinstance(value, np.ndarray)}

    def _export(self, size: tuple[int, int]) -> Graph:
        try:
            net = self._network()
            from .export import INPUTS, write_onnx
            with tempfile.TemporaryDirectory() as folder:
                shapes = dict(zip(INPUTS, ((1, 3, *size), (1, 6))))
                write_onnx(net, shapes, OUTPUTS, f"{folder}/network.onnx")
                onnx, used = without_weights(Path(folder, "network.onnx").read_bytes(), self.content)
        except Exception as error:      # MindSpore raises all kinds
            if getattr(error, "user_error", False):
                raise
            raise UnavailableError(f"its export failed: {_first_line(error)}") from error
        return Graph(onnx, self._shapes(), used)

    def _network(self) -> "nn.Cell":
        """Return the network as it is exported; what is wrong with the checkpoint is an InputError."""
        if self.net is None:
            self._set_up()
            from ...network_define import InferenceNet, build_network
            from ..training.precision import mixed_precision
            from ..weights.loading import load_checkpoint_into

            net = build_network(self.config, fast=False)     # plain operators, which ONNX has
            load_checkpoint_into(net, self.path)
            expected = {param.name: tuple(param.shape) for param in net.get_parameters()}
            if self._shapes() != expected:
                raise UnavailableError("only MindSpore reads this checkpoint")
            network = mixed_precision(InferenceNet(net), self.config.amp_level, "CPU").set_train(False)
            self.net = None if self.only_size else network
            return network
        return self.net

    def _set_up(self) -> str:
        self.device = self.device or setup_device(self.config)
        return self.device


def _require_onnxruntime() -> None:
    try:
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UnavailableError(f"onnxruntime is not installed ({error}): pip install onnxruntime") from error


def _open(model: bytes, config: Config, only: bool) -> OnnxSession:
    try:
        return open_session(model, config, "CPU", keep_memory=only)
    except ImportError as error:
        raise UnavailableError(f"onnxruntime is not installed ({error}): pip install onnxruntime") from error
    except ValueError as error:
        raise UnavailableError(f"it does not read the exported file: {error}") from error


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
