# Same as faster_rcnn/src/model_utils/inference/aipp.py
"""Ascend's preprocessing (AIPP): the device takes bytes of pixels and normalises them as the configuration says.

ATC takes the file with --insert_op_conf when it converts a MINDIR or AIR file. Nothing of this has run on Ascend yet.
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
    """Return the file for inputs of height x width pixels. A network for blue, green, red has the channels swapped first."""
    lines = [f"    min_chn_{i}: {mean:.10g}" for i, mean in enumerate(config.image_mean)]
    lines += [f"    var_reci_chn_{i}: {1 / std:.10g}" for i, std in enumerate(config.image_std)]
    return AIPP.format(width=width, height=height, swap="false" if config.to_rgb else "true", channels="\n".join(lines))


def write_aipp(config: Config, height: int, width: int) -> Path:
    """Write the file that aipp_path names."""
    path = Path(config.aipp_path)
    try:
        write_text(path, aipp_text(config, height, width))
    except OSError as error:
        raise InputError(f"aipp_path: {path} cannot be written: {error.strerror}") from error
    return path
