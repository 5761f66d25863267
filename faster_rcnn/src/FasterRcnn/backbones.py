"""Build and check the backbone that the key `backbone` names; backbones.yaml describes each name."""
from collections.abc import Iterator
from pathlib import Path

from ..model_utils.layers.backbone_table import check_reads, read_backbones
from .inception_layout import stage_channels

BACKBONES = read_backbones(Path(__file__).with_suffix(".yaml"), __package__)
RESNET, INCEPTION = BACKBONES["resnet_v1.5_50"], BACKBONES["inception_resnet_v2"]


def build_backbone(config, fast: bool = False):
    """Return the backbone cell, (N, 3, H, W) -> C2..C5.

    Args:
        config: see default_config.yaml.
        fast: use the CPU's fast convolutions (convolution.py).
    """
    return BACKBONES[config.backbone].build(config, fast)


def check_backbone(config) -> Iterator[tuple[str, str]]:
    """Yield (key, fault) for keys that the backbone does not read and for channels that do not fit."""
    chosen = BACKBONES[config.backbone]
    yield from check_reads(config, BACKBONES, {**RESNET.keys, **INCEPTION.keys})
    if chosen.reads == RESNET.reads:
        yield from _check_resnet(config)
    elif chosen.reads == INCEPTION.reads:
        yield from _check_inception(config)


def _check_resnet(config):
    if not config.stride_in_1x1 and config.backbone == "resnet_v1_50":
        yield "stride_in_1x1", "resnet_v1_50 has its stride in the 1x1; for a stride in the 3x3 set backbone: resnet_v1.5_50"
    if config.resnet_in_channels[1:] != config.resnet_out_channels[:-1]:
        expected = [config.resnet_in_channels[0], *config.resnet_out_channels[:-1]]
        yield "resnet_in_channels", (f"expected {expected}, the stem's channels and then resnet_out_channels of the stage before, "
                                     f"got {list(config.resnet_in_channels)}")
    yield from _check_pyramid(config, list(config.resnet_out_channels), "the same as resnet_out_channels")
    if config.zero_init_residual and not config.train_norm:
        yield "zero_init_residual", "needs train_norm: True; otherwise the new bottlenecks stay the identity"


def _check_inception(config):
    name, width = config.backbone, config.inception_width
    if config.stride_in_1x1:
        yield "stride_in_1x1", f"{name} has no bottlenecks; set stride_in_1x1: False"
    yield from _check_pyramid(config, stage_channels(width), f"those of {name} at inception_width {width:g}")


def _check_pyramid(config, wanted: list[int], source: str):
    if list(config.fpn_in_channels) != wanted:
        yield "fpn_in_channels", f"expected {source}, {wanted}, got {list(config.fpn_in_channels)}"
