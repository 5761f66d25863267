"""Write the configuration file for Ascend's preprocessing (AIPP), with which the device normalises uint8 pixels itself.

Pass the file to ATC as --insert_op_conf when converting a MINDIR or AIR file. This has not been tested on Ascend yet.
"""
from pathlib import Path

from ..config import Config, InputError
from ..files import write_text

AIPP = """# Bytes of red, green, blue, already resized and padded to {width}x{height} -> (pixel - mean) / standard deviation.
aipp_op {{
    aipp_mode: static
    related_input_rank: 0
    input_format: RGB888_U8
    src_image_size_w: {width}
    src_image_size_h: {height}
    csc_switch: false
    rbuv_swap_switch: {swap}
{channels}
}}
"""


def aipp_text(config: Config, height: int, width: int) -> str:
    """Return the content of the AIPP file. It swaps red and blue if the network expects BGR (to_rgb is False).

    Args:
        config: image_mean, image_std and to_rgb.
        height, width: the network's input size, pixels.
    """
    lines = [f"    min_chn_{i}: {mean:.10g}" for i, mean in enumerate(config.image_mean)]
    lines += [f"    var_reci_chn_{i}: {1 / std:.10g}" for i, std in enumerate(config.image_std)]
    return AIPP.format(width=width, height=height, swap="false" if config.to_rgb else "true", channels="\n".join(lines))


def write_aipp(config: Config, height: int, width: int) -> Path:
    """Write the AIPP file to aipp_path and return its path.

    Args:
        config: aipp_path, and the keys that `aipp_text` reads.
        height, width: the network's input size, pixels.

    Raises:
        InputError: the file cannot be written.
    """
    path = Path(config.aipp_path)
    try:
        write_text(path, aipp_text(config, height, width))
    except OSError as error:
        raise InputError(f"aipp_path: {path} cannot be written: {error.strerror}") from error
    return path
