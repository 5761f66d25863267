"""Parts of the trunk that do not train."""

from .model_utils.layers.convolution import Conv2d, ConvNorm

# What each step of frozen_stages adds: how the names of its layers begin.
STAGES = {
    "vgg16": ("conv1_", "conv2_", "conv3_", "conv4_", "conv5_"),
    "resnet101": ("conv1", "layer1.", "layer2.", "layer3.", "layer4."),
}


def freeze(backbone, kind: str, stages: int) -> None:
    """Let the first `stages` of the trunk `kind` keep their weights, and their norms the statistics that they have."""
    frozen = STAGES[kind][:stages]
    for name, cell in backbone.cells_and_names():
        # The factors of conv4_3_norm and conv5_3_norm belong to what the trunk hands on, and train.
        if not (frozen and name.startswith(frozen) and isinstance(cell, (Conv2d, ConvNorm))):
            continue
        for param in cell.get_parameters():
            param.requires_grad = False
        if isinstance(cell, ConvNorm):
            cell.learns_statistics = False
