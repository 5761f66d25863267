"""Choose the runtime for a network: MindSpore or, on the CPU, ONNX Runtime, which does not compile the graph at startup.

For ONNX Runtime the checkpoint's network is exported at batch size 1 for each input size. The graph is saved (kept_graphs.py), so
later runs do not import MindSpore. The weights are read from the checkpoint on every run.
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

# With pad_to=divisor there is one session per input size. Each holds a copy of the weights, so the least recently used is closed.
MOST_SESSIONS = 3
RUNTIMES = {"mindir_path": "mindspore", "onnx_path": "onnxruntime"}
log = logging.getLogger(__name__)


class UnavailableError(Exception):
    """ONNX Runtime cannot run the network; the message is the reason."""


def open_predictor(config: Config, device: str | None = None) -> Predictor:
    """Load the configuration's network in the runtime that `backend` selects.

    Args:
        config: exactly one of checkpoint_path, mindir_path and onnx_path must be set.
        device: the result of setup_device. If it is None, setup_device is called only if MindSpore is needed.

    Raises:
        InputError: the file is missing or unreadable, or `backend` cannot run it.
    """
    key, path = find_model(config)
    if config.backend not in ("auto", RUNTIMES.get(key, config.backend)):
        raise InputError(f"backend: {config.backend} cannot run {key}, which needs {RUNTIMES[key]}; set it to auto")
    if device is None and (key == "mindir_path" or not cpu_without_mindspore(config)):
        device = setup_device(config)
    # If device is still None, the network runs on the CPU and MindSpore has not been imported.
    if key == "checkpoint_path" and _takes_onnxruntime(config, device):
        try:
            return Predictor(OnnxCheckpoint(config, path, device))
        except UnavailableError as error:
            _fall_back(config, error)
    if key == "onnx_path" and device is None:
        return load_predictor(config, "CPU")
    return load_predictor(config, device or setup_device(config))


def _takes_onnxruntime(config: Config, device: str | None) -> bool:
    fault = f"runs on the CPU only, but the device is {device}" if device not in (None, "CPU") else ""
    fault = "runs in one process only, but distribute is set" if config.distribute else fault
    if fault and config.backend == "onnxruntime":
        raise InputError(f"backend: onnxruntime {fault}; set it to auto or mindspore")
    # MS_JIT=0 is set to debug MindSpore operator by operator, which ONNX Runtime would bypass.
    return not fault and (config.backend == "onnxruntime" or (config.backend == "auto" and os.environ.get("MS_JIT") != "0"))


def _fall_back(config: Config, error: UnavailableError) -> None:
    """Report why MindSpore runs the network instead.

    Raises:
        InputError: backend is onnxruntime, so MindSpore must not take over.
    """
    if config.backend == "onnxruntime":
        raise InputError(f"backend: onnxruntime cannot run the network: {error}") from error
    print(f"backend: mindspore, because onnxruntime cannot run the network: {error}", file=sys.stderr, flush=True)


class OnnxCheckpoint:
    """A checkpoint's network in ONNX Runtime: run(image, image_info) returns its outputs.

    Images run one by one, since the graph has batch size 1. Each input size has its own session.

    Raises:
        UnavailableError: in the constructor, if the configuration has a single input size and ONNX Runtime cannot run it.
        InputError: on a call, if ONNX Runtime cannot run a new input size and backend is onnxruntime. With backend auto, MindSpore
            takes over.
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
            self.content.clear()            # free the memory: the session holds a copy

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
        """Return the session for an input size (height, width), opening it if needed."""
        if size not in self.sessions:
            graph = self._graph(size)
            model = with_weights(graph.onnx, {name: self.content[name] for name in graph.used})
            while len(self.sessions) >= MOST_SESSIONS:
                self.sessions.popitem(last=False)
            self.sessions[size] = _open(model, self.config, size == self.only_size)
        self.sessions.move_to_end(size)
        return self.sessions[size]

    def _graph(self, size: tuple[int, int]) -> Graph:
        """Return a saved graph that matches the checkpoint, or export one and save it."""
        name = graph_name(self.config, size)
        kept = find_graph(self.path, name)
        if kept and self.path.suffix == ".ckpt" and STATE_KEY not in self.content and self._shapes() == kept.shapes:
            return kept
        _require_onnxruntime()
        start = time.monotonic()
        graph = self._export(size)
        message = f"backend: exported the network for onnxruntime, input {size[0]} x {size[1]}, in {time.monotonic() - start:.0f} s"
        try:
            message += f"; saved for later runs: {keep_graph(self.path, name, graph)}"
        except OSError as error:
            message += f"; not saved for later runs: {error}"
        print(message, file=sys.stderr, flush=True)
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
        except Exception as error:      # MindSpore's export raises exceptions of many types
            if getattr(error, "user_error", False):
                raise
            raise UnavailableError(f"the export failed: {_first_line(error)}") from error
        return Graph(onnx, self._shapes(), used)

    def _network(self) -> "nn.Cell":
        """Build the network to export, with the checkpoint's weights.

        Raises:
            InputError: the checkpoint does not fit the configuration.
            UnavailableError: loading converts the checkpoint's weights, so the graph could not read them from the file.
        """
        if self.net is None:
            self._set_up()
            from ...network_define import InferenceNet, build_network
            from ..training.precision import mixed_precision
            from ..weights.loading import load_checkpoint_into

            net = build_network(self.config, fast=False)     # the fast CPU operators have no ONNX equivalent
            load_checkpoint_into(net, self.path)
            expected = {param.name: tuple(param.shape) for param in net.get_parameters()}
            if self._shapes() != expected:
                raise UnavailableError("only MindSpore can read this checkpoint")
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
        raise UnavailableError(f"it cannot read the exported file: {error}") from error


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
