"""The backbone that the key `backbone` names: backbones.yaml says what each name stands for."""
from pathlib import Path

from .model_utils.layers.backbone_table import read_backbones

BACKBONES = read_backbones(Path(__file__).with_suffix(".yaml"), __package__)


def build_backbone(config, fast: bool = False):
    """Return the cell (N, 3, H, W) -> four source maps, fine to coarse.

    `out_channels` are those of the maps. With `residual` the heads and the transfer connections are made of bottlenecks and
    norms too.
    """
    return BACKBONES[config.backbone].build(config, fast)
