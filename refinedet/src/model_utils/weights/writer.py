# Same as faster_rcnn/src/model_utils/weights/writer.py
"""Write a converted checkpoint: check the output path before anything is read, and write all or nothing."""
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import InputError
from ..files import replacing
from .checksum import save_checked

# Prefix of tensors that a checkpoint only holds for the conversion back; networks ignore them.
UNUSED = "unused."


def check_output(output: Path, source: Path, suffix: str = ".ckpt") -> Path:
    """Return `output` if it can be written to and is not the file to convert. Raises InputError otherwise."""
    if output.suffix != suffix:
        raise InputError(f"--output_file: {output} must end with {suffix}")
    if not output.parent.is_dir():
        raise InputError(f"--output_file: no such folder: {output.parent}")
    if output.is_dir():
        raise InputError(f"--output_file: {output} is a folder")
    if output.exists() and source.exists() and output.samefile(source):
        raise InputError(f"--output_file: {output} is the file to convert")
    return output


def write_weights(tensors: Mapping[str, Any], output: Path) -> None:
    """Write `tensors` (name -> array) as a MindSpore checkpoint with a checksum. Raises InputError if that fails."""
    import mindspore

    try:
        with replacing(output) as partial:
            save_checked(partial, {name: mindspore.Tensor(value) for name, value in tensors.items()})
    except OSError as error:
        raise InputError(f"--output_file: {output} cannot be written: {error.strerror}") from error
    except RuntimeError as error:
        raise InputError(f"--output_file: {output} cannot be written: {str(error).splitlines()[0]}") from error
