# Same as faster_rcnn/src/model_utils/inference/export.py
"""Export a checkpoint's network to MINDIR, ONNX or AIR files."""
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import mindspore as ms
from mindspore import Tensor, nn, ops

from ...network_define import build_network, exported
from ..config import Config, InputError, save_config
from ..data.preprocess import build_preprocess
from ..files import replacing, scratch_folder
from ..local_adapter import setup_device
from ..training.checkpoint import CALL_KEYS
from ..training.precision import mixed_precision
from ..weights.class_names import with_class_names
from ..weights.loading import load_checkpoint_into
from ..weights.own_config import config_beside
from .aipp import write_aipp
from .network import ExportedNetwork

ENDINGS = {"MINDIR": ".mindir", "ONNX": ".onnx", "AIR": ".air"}
INPUTS = ("image", "image_info")


def export(config: Config) -> list[Path]:
    """Export the network of ckpt_file and print the files, inputs and outputs.

    The configuration is saved beside the file, unless `split` exports the network in parts.

    Args:
        config: ckpt_file, file_name and file_format name the input and the output.

    Returns:
        The exported files: one, or one per part with `split`.

    Raises:
        InputError: the checkpoint or the target is not usable, or the device cannot write file_format.
    """
    target = target_file(config.file_name, config.file_format)
    shapes = input_shapes(config)
    device = setup_device(config)
    if config.file_format == "AIR" and device != "Ascend":
        raise InputError(f"file_format: AIR can be written on Ascend only, but the device is {device}; "
                         "set MINDIR or ONNX")
    files = []
    for suffix, network, inputs, outputs in load_networks(config, device, dict(zip(INPUTS, shapes))):
        start = time.monotonic()
        file = target.with_name(f"{target.stem}{suffix}{target.suffix}")
        write_network(network, inputs, outputs, config.file_format, file)
        seconds = time.monotonic() - start
        files.append(file)
        print(f"{file}: {config.file_format}, {file.stat().st_size / 1e6:.1f} MB, {seconds:.0f} s")
        if not suffix:      # infer.py and Detector need the configuration, but cannot run parts
            save_config(with_class_names(config, config.ckpt_file), config_beside(file), CALL_KEYS)
        described = ", ".join(f"{name} {tuple(shape)}" for name, shape in inputs.items())
        print(f"inputs {described}; outputs {', '.join(outputs)}")
    if config.aipp_path:
        print(f"{write_aipp(config, *shapes[0][2:])}: preprocessing for Ascend (AIPP), not tested on a device yet")
    return files


def target_file(file_name: str, file_format: str) -> Path:
    """Return the absolute path of file_name, with the ending of file_format added if it is missing.

    Raises:
        InputError: file_name is a folder or has the ending of another format.
    """
    path, ending = Path(file_name).absolute(), ENDINGS[file_format]
    if path.is_dir():
        raise InputError(f"file_name: {file_name} is a folder; add the name of a file")
    if path.suffix.lower() == ending:
        return path
    if path.suffix.lower() in ENDINGS.values():
        raise InputError(f"file_name: {path.name}: file_format={file_format} needs the ending {ending}; change either")
    return path.with_name(path.name + ending)


def input_shapes(config: Config) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of the network's inputs, in the order of INPUTS.

    Raises:
        InputError: pad_to is divisor, which has no single input size.
    """
    size = build_preprocess(config).size.box()
    if size is None:
        raise InputError("pad_to: an exported network takes inputs of one size, but pad_to is divisor; set fixed or HEIGHTxWIDTH")
    n = config.test_batch_size
    return (n, 3, *size), (n, 6)


def load_networks(config: Config, device: str, inputs: dict[str, tuple[int, ...]]) -> list[ExportedNetwork]:
    """Build the networks to export (`exported` in network_define.py) and load the checkpoint's weights.

    Args:
        config: ckpt_file names the checkpoint.
        device: "CPU", "GPU" or "Ascend"; decides whether amp_level applies.
        inputs: {input name: shape} of the whole network.
    """
    net = build_network(config, fast=False)     # other runtimes do not have the fast CPU operators
    load_checkpoint_into(net, config.ckpt_file, config.coco_classes)
    return [part._replace(network=mixed_precision(part.network, config.amp_level, device).set_train(False))
            for part in exported(net, config, inputs)]


class SeparateOutputs(nn.Cell):
    """The network with an Identity behind each output.

    MindSpore 2.10 names the outputs of an ONNX file wrongly if another operator reads them too.
    """

    def __init__(self, network: nn.Cell):
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = ()
        for output in self.network(*inputs):
            outputs += (ops.Identity()(output),)
        return outputs


def write_network(network: nn.Cell, shapes: Mapping[str, tuple[int, ...]], outputs: Sequence[str], file_format: str,
                  target: Path) -> None:
    """Export a network to a file, atomically: `target` appears only when it is complete.

    Args:
        network: the network in inference mode.
        shapes: {input name: shape}; all inputs are float32.
        outputs: the names of the outputs. Only ONNX files hold them.
        file_format: "MINDIR", "ONNX" or "AIR".
        target: the file to write.

    Raises:
        InputError: `target` cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise InputError(f"file_name: {target} cannot be written: {error.strerror}") from error
    before = Path.cwd()
    with scratch_folder(target) as folder:
        os.chdir(folder)                # MindSpore refuses paths with a space, so pass it a bare name
        try:
            if file_format == "ONNX":
                write_onnx(network, shapes, outputs, "network.onnx")
            else:
                ms.export(network, *_inputs(shapes), file_name="network", file_format=file_format)
        finally:
            os.chdir(before)
        made = folder / f"network{ENDINGS[file_format]}"
        umask = os.umask(0o077)
        os.umask(umask)
        made.chmod(0o666 & ~umask)      # MindSpore writes the file with mode 0400
        with replacing(target) as partial:
            made.replace(partial)


def write_onnx(network: nn.Cell, shapes: Mapping[str, tuple[int, ...]], outputs: Sequence[str], file_name: str) -> None:
    """Write an ONNX file.

    Args:
        network: the network in inference mode.
        shapes: {input name: shape}; all inputs are float32.
        outputs: the names of the outputs.
        file_name: the file to write. MindSpore refuses a path with a space.
    """
    ms.onnx.export(SeparateOutputs(network).set_train(False), *_inputs(shapes), file_name=file_name, input_names=list(shapes),
                   output_names=list(outputs))


def _inputs(shapes: Mapping[str, tuple[int, ...]]) -> list[Tensor]:
    return [ms.ops.zeros(shape, ms.float32) for shape in shapes.values()]
