"""Parts of the trunk that do not train."""

from .model_utils.layers.convolution import Conv2d, ConvNorm


def freeze(backbone, frozen: tuple[str, ...]) -> None:
    """Let the layers whose names begin so keep their weights, and their norms the statistics that they have."""
    for name, cell in backbone.cells_and_names():
        # The factors of conv4_3_norm and conv5_3_norm belong to what the trunk hands on, and train.
        if not (frozen and name.startswith(frozen) and isinstance(cell, (Conv2d, ConvNorm))):
            continue
        for param in cell.get_parameters():
            param.requires_grad = False
        if isinstance(cell, ConvNorm):
            cell.learns_statistics = False
