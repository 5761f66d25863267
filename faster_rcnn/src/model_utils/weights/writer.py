"""Where a converted checkpoint goes: checked before anything is read, and there whole or not at all."""
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import InputError
from ..files import replacing
from .checksum import save_checked

# Before the names of tensors that a checkpoint holds for the way back alone; networks pass over them.
UNUSED = "unused."


def check_output(output: Path, source: Path, suffix: str = ".ckpt") -> Path:
    """`output`, a path that can be written to and is not the file to convert; InputError where it is not."""
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
    """Write name -> array as a MindSpore checkpoint, with a checksum."""
    import mindspore

    try:
        with replacing(output) as partial:
            save_checked(partial, {name: mindspore.Tensor(value) for name, value in tensors.items()})
    except OSError as error:
        raise InputError(f"--output_file: {output} cannot be written: {error.strerror}") from error
    except RuntimeError as error:
        raise InputError(f"--output_file: {output} cannot be written: {str(error).splitlines()[0]}") from error
