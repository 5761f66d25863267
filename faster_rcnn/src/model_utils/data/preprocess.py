"""The preprocessing that a configuration asks for."""
from ..config import Config, InputError
from .transforms import InputSize, Preprocess


def build_preprocess(config: Config, train: bool = False) -> Preprocess:
    """The preprocessing that the configuration asks for."""
    if train and config.pad_to == "divisor":
        raise InputError("pad_to: divisor is for evaluation and inference; training takes inputs of one size: fixed "
                         "or HEIGHTxWIDTH")
    # Not every model has the keys that are asked for with `get`.
    size = InputSize(config.img_height, config.img_width, config.keep_ratio, config.pad_to, rounding=config.size_rounding,
                     exact_scale=config.get("scale_rule") == "factor")
    return Preprocess(size, config.image_mean, config.image_std, config.to_rgb, config.resize_mode, config.get("pad_black", False))
