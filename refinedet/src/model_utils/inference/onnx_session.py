# Same as faster_rcnn/src/model_utils/inference/onnx_session.py
"""Run an ONNX file, or an ONNX model in memory, in ONNX Runtime."""
from typing import Any

import numpy as np

from ..config import Config
from ..local_adapter import cpu_threads

PROVIDERS = {"Ascend": ["CANNExecutionProvider"], "GPU": ["CUDAExecutionProvider"]}


class OnnxSession:
    """An ONNX model as a function: session(image, image_info) returns the model's outputs as arrays.

    Attributes:
        inputs: the names of the model's inputs.
        input_shape: (N, H, W) of the image input; None if the model accepts any size.
    """

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
    """Open an ONNX model in ONNX Runtime.

    Args:
        model: the path of a file, or its content.
        config: runtime_num_threads sets the number of threads.
        device: "CPU", "GPU" or "Ascend"; falls back to the CPU if onnxruntime has no provider for the device.
        keep_memory: reuse the memory of one call for the next. This is faster, but costs memory in each of several sessions.

    Raises:
        ImportError: onnxruntime is not installed.
        ValueError: onnxruntime cannot read the model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cpu_threads(config)
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = keep_memory
    # Spinning worker threads would take cores from the threads that decode and draw images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = [name for name in PROVIDERS.get(device, []) if name in onnxruntime.get_available_providers()]
    try:
        return OnnxSession(onnxruntime.InferenceSession(model, options, providers=[*providers, "CPUExecutionProvider"]))
    except Exception as error:  # onnxruntime's exceptions share no base class below Exception
        raise ValueError(str(error).splitlines()[0]) from error
