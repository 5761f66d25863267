# Same as faster_rcnn/src/FasterRcnn/resnet50v1.py
"""ResNet-50 as first published (He et al., 2016): the stride of a stage is in the first 1x1 of its first bottleneck.

MSRA's and Caffe2's weights have this layout, and so have detectron2's ResNet-50 and ResNet-101.
"""

from collections.abc import Sequence

from .resnet import ResNet, learning


class ResNet50V1(ResNet):
    """`ResNet` with the stride in the 1x1."""

    def __init__(self, blocks: Sequence[int], in_channels: Sequence[int], out_channels: Sequence[int], frozen_stages: int = 2,
                 train_norm: bool = False, eps: float = 1e-5, fast: bool = False, pool_padding: str = "both"):
        super().__init__(blocks, in_channels, out_channels, frozen_stages, train_norm, True, eps, fast, pool_padding)


def build_resnet50v1(config, fast: bool = False) -> ResNet50V1:
    """Return the ResNet that the configuration describes."""
    return ResNet50V1(config.resnet_block, config.resnet_in_channels, config.resnet_out_channels,
                      pool_padding=config.stem_pool_padding, **learning(config, fast))
