# Same as faster_rcnn/src/FasterRcnn/backbones.py
"""The backbone that `backbone` names: (N, 3, H, W) -> C2..C5, strides 4 to 32."""

from mindspore import nn

from .inceptionresnetv2 import InceptionResNetV2
from .resnet import ResNet
from .resnet50v1 import ResNet50V1


def build_backbone(config, fast: bool = False) -> nn.Cell:
    """config: see default_config.yaml; fast: the CPU's fast convolutions."""
    learning = {"frozen_stages": config.frozen_stages, "train_norm": config.train_norm, "eps": config.norm_eps, "fast": fast}
    if config.backbone == "inception_resnet_v2":
        return InceptionResNetV2(config.inception_block, config.inception_width, **learning)
    widths = config.resnet_block, config.resnet_in_channels, config.resnet_out_channels
    if config.backbone == "resnet_v1_50":
        return ResNet50V1(*widths, **learning)
    return ResNet(*widths, stride_in_1x1=config.stride_in_1x1, **learning)
