"""ONNX Runtime: a file, or a model in memory, as a function."""
from typing import Any

import numpy as np

from ..config import Config
from ..local_adapter import cpu_threads

PROVIDERS = {"Ascend": ["CANNExecutionProvider"], "GPU": ["CUDAExecutionProvider"]}


class OnnxSession:
    """session(image, image_info) -> arrays, the model's outputs. inputs: their names; input_shape: (N, H, W), None = any."""

    def __init__(self, session: Any):
        self.session = session
        self.inputs = [item.name for item in session.get_inputs()]
        sides = [session.get_inputs()[0].shape[i] for i in (0, 2, 3)] if self.inputs else []
        self.input_shape: tuple[int, int, int] | None = None
        if sides and all(isinstance(side, int) for side in sides):
            self.input_shape = sides[0], sides[1], sides[2]

    def __call__(self, image: np.ndarray, info: np.ndarray) -> list[np.ndarray]:
        return self.session.run(None, dict(zip(self.inputs, (np.asarray(image, np.float32), np.asarray(info, np.float32)))))


def open_session(model: str | bytes, config: Config, device: str, keep_memory: bool = True) -> OnnxSession:
    """Open a path or a model in memory; ImportError without onnxruntime, ValueError where it does not read the model.

    keep_memory: of one call for the next, which is faster; False where there are several sessions.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cpu_threads(config)
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = keep_memory
    # Threads that wait for work by spinning take the cores from those that read and draw.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = [name for name in PROVIDERS.get(device, []) if name in onnxruntime.get_available_providers()]
    try:
        return OnnxSession(onnxruntime.InferenceSession(model, options, providers=[*providers, "CPUExecutionProvider"]))
    except Exception as error:  # onnxruntime's own classes derive from Exception alone
        raise ValueError(str(error).splitlines()[0]) from error
