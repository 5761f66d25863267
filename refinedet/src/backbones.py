"""Build the backbone that the key `backbone` names; backbones.yaml describes each name."""
from pathlib import Path

from .model_utils.layers.backbone_table import read_backbones

BACKBONES = read_backbones(Path(__file__).with_suffix(".yaml"), __package__)


def build_backbone(config, fast: bool = False):
    """Return the cell (N, 3, H, W) -> four source maps, fine to coarse.

    The cell's attribute `out_channels` holds the channels of the maps. If `residual` is set, the heads and transfer connections
    use bottlenecks and norms, too.
    """
    return BACKBONES[config.backbone].build(config, fast)
