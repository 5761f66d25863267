"""Freeze parts of the trunk."""

from .model_utils.layers.convolution import Conv2d, ConvNorm


def freeze(backbone, frozen: tuple[str, ...]) -> None:
    """Freeze the weights and norm statistics of all layers whose names begin with one of `frozen`."""
    for name, cell in backbone.cells_and_names():
        # The factors of conv4_3_norm and conv5_3_norm belong to the trunk's outputs, so they train.
        if not (frozen and name.startswith(frozen) and isinstance(cell, (Conv2d, ConvNorm))):
            continue
        for param in cell.get_parameters():
            param.requires_grad = False
        if isinstance(cell, ConvNorm):
            cell.learns_statistics = False
