"""Write a checkpoint's network as MINDIR, ONNX or AIR: the weights, and inference with NMS, in a file.

usage: python export.py --config_path=F --ckpt_file=C [--file_format=MINDIR|ONNX|AIR] [--file_name=N] [--key=value ...]

The network takes image (N, 3, H, W), normalised, and image_info (N, 6) (src/dataset.py tells what is in it), and gives
what src/outputs.py lists. N is test_batch_size; H x W is the padded input. infer.py and eval.py run MINDIR files
(--mindir_path) and ONNX files (--onnx_path) with the same configuration.
"""
import functools
import os
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))   # utils/

from src.model_utils.local_adapter import prepare_environment

prepare_environment()               # before MindSpore is imported

from src.model_utils.config import InputError, parse_config, run_main
from src.model_utils.moxing_adapter import as_job
from src.outputs import exported

ENDINGS = {"MINDIR": ".mindir", "ONNX": ".onnx", "AIR": ".air"}
INPUTS = ("image", "image_info")


def main() -> None:
    config = parse_config(default_path=HERE / "default_config.yaml", required=("ckpt_file", "file_name"),
                          description=__doc__.splitlines()[0], prepare=functools.partial(as_job, weights="ckpt_file"))
    target = target_file(config.file_name, config.file_format)
    shapes = input_shapes(config)
    from src.model_utils.local_adapter import setup_device

    device = setup_device(config)
    if config.file_format == "AIR" and device != "Ascend":
        raise InputError(f"file_format: AIR can be written on Ascend only, and the device is {device}: "
                         "take MINDIR or ONNX")
    for suffix, network, inputs, outputs in load_networks(config, device, dict(zip(INPUTS, shapes))):
        start = time.monotonic()
        file = target.with_name(f"{target.stem}{suffix}{target.suffix}")
        write_network(network, inputs, outputs, config.file_format, file)
        seconds = time.monotonic() - start
        print(f"{file}: {config.file_format}, {file.stat().st_size / 1e6:.1f} MB, {seconds:.0f} s")
        described = ", ".join(f"{name} {tuple(shape)}" for name, shape in inputs.items())
        print(f"inputs {described}; outputs {', '.join(outputs)}")


def target_file(file_name: str, file_format: str) -> Path:
    """Where the file goes: `file_name`, from the working directory, with the format's ending."""
    path, ending = Path(file_name).absolute(), ENDINGS[file_format]
    if path.is_dir():
        raise InputError(f"file_name: {file_name} is a folder: give the name of the file too")
    if path.suffix.lower() == ending:
        return path
    if path.suffix.lower() in ENDINGS.values():
        raise InputError(f"file_name: {path.name}: with file_format={file_format} the ending is {ending}")
    return path.with_name(path.name + ending)


def input_shapes(config) -> tuple:
    """Shapes of the inputs, in the order of INPUTS."""
    from src.dataset import build_preprocess

    size = build_preprocess(config).size.box()
    if size is None:
        raise InputError("pad_to: an exported network takes inputs of one size: fixed or HEIGHTxWIDTH")
    n = config.test_batch_size
    return (n, 3, *size), (n, 6)


def load_networks(config, device: str, inputs: dict) -> list:
    """As `exported` of outputs.py, with the checkpoint's weights."""
    from src import network_define
    from src.FasterRcnn.faster_rcnn import build_network

    net = build_network(config, fast=False)     # plain operators, which other runtimes know
    network_define.load_checkpoint_into(net, config.ckpt_file)
    return [(suffix, network_define.mixed_precision(network, config.amp_level, device).set_train(False), shapes, outputs)
            for suffix, network, shapes, outputs in exported(net, config, inputs)]


def separate_outputs(network):
    """The same with outputs that nothing else reads: MindSpore 2.10 renames no others correctly in ONNX."""
    from mindspore import nn, ops

    class SeparateOutputs(nn.Cell):
        def __init__(self):
            super().__init__(auto_prefix=False)
            self.network = network

        def construct(self, *inputs):
            outputs = ()
            for output in self.network(*inputs):
                outputs += (ops.Identity()(output),)
            return outputs

    return SeparateOutputs().set_train(False)


def write_network(network, shapes: dict, outputs, file_format: str, target: Path) -> None:
    """Export to `target`, which is there only when it is whole. shapes: {input: shape}."""
    import mindspore as ms

    inputs = [ms.ops.zeros(shape, ms.float32) for shape in shapes.values()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix=".export-", dir=target.parent)
    except OSError as error:
        raise InputError(f"file_name: {target} cannot be written: {error.strerror}") from error
    before = Path.cwd()
    with scratch as folder:
        os.chdir(folder)                # MindSpore refuses paths with a space, so it gets a bare name
        try:
            if file_format == "ONNX":
                ms.onnx.export(separate_outputs(network), *inputs, file_name="network.onnx", input_names=list(shapes),
                               output_names=list(outputs))
            else:
                ms.export(network, *inputs, file_name="network", file_format=file_format)
        finally:
            os.chdir(before)
        made = Path(folder, "network" + ENDINGS[file_format])
        umask = os.umask(0o077)
        os.umask(umask)
        made.chmod(0o666 & ~umask)      # MindSpore makes it read-only, and for the owner alone
        made.replace(target)


if __name__ == "__main__":
    run_main(main)
