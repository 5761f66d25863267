"""Build the preprocessing that a configuration describes."""
from ..config import Config, InputError
from .transforms import InputSize, Preprocess


def build_preprocess(config: Config, train: bool = False) -> Preprocess:
    """Return the preprocessing. Raises InputError if pad_to is "divisor" in training, which needs inputs of one size."""
    if train and config.pad_to == "divisor":
        raise InputError("pad_to: divisor is for evaluation and inference; training needs inputs of one size: set fixed "
                         "or HEIGHTxWIDTH")
    # `get` is for keys that not every model has.
    size = InputSize(config.img_height, config.img_width, config.keep_ratio, config.pad_to, rounding=config.size_rounding,
                     exact_scale=config.get("scale_rule") == "factor")
    return Preprocess(size, config.image_mean, config.image_std, config.to_rgb, config.resize_mode, config.get("pad_black", False))
