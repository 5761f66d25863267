"""What `backbone` stands for: blocks, widths, and what its ImageNet weights were trained with.

The names are those of the old zoo, whose resnet_v1_101 and resnet_v1_152 shrink in the 3x3 convolution like resnet_v1.5_50;
resnet_v1_50 alone shrinks in the 1x1. So do torchvision's ResNets of these depths. MSRA's ResNet-101 shrinks in the 1x1:
`stride_in_1x1`, which convention: detectron2 sets.
"""
from .inception_layout import BLOCKS, stage_channels

INCEPTION = "inception_resnet_v2"
_WIDTHS = {"resnet_in_channels": [64, 256, 512, 1024], "resnet_out_channels": [256, 512, 1024, 2048],
           "fpn_in_channels": [256, 512, 1024, 2048]}
_PIXELS = [127.5, 127.5, 127.5]

BACKBONES = {
    "resnet_v1.5_50": {**_WIDTHS, "resnet_block": [3, 4, 6, 3]},
    "resnet_v1_50": {**_WIDTHS, "resnet_block": [3, 4, 6, 3], "stride_in_1x1": True},
    "resnet_v1_101": {**_WIDTHS, "resnet_block": [3, 4, 23, 3]},
    "resnet_v1_152": {**_WIDTHS, "resnet_block": [3, 8, 36, 3]},
    INCEPTION: {
        "inception_block": list(BLOCKS), "inception_width": 1.0, "fpn_in_channels": stage_channels(1.0),
        "stride_in_1x1": False, "norm_eps": 1e-3, "to_rgb": True, "image_mean": _PIXELS, "image_std": _PIXELS,
    },
}

# Keys that only one kind of backbone reads, as they must be with the other.
_OF_RESNETS = {name: BACKBONES["resnet_v1.5_50"][name] for name in ("resnet_block", "resnet_in_channels", "resnet_out_channels")}
_OF_INCEPTION = {name: BACKBONES[INCEPTION][name] for name in ("inception_block", "inception_width")}


def check_backbone(config):
    """Yields faults, as `check_config` gives one, of keys that are not the backbone's and of channels that do not fit."""
    name, inception = config.backbone, config.backbone == INCEPTION
    own, others = (_OF_INCEPTION, _OF_RESNETS) if inception else (_OF_RESNETS, _OF_INCEPTION)
    for key, value in others.items():
        if config[key] != (tuple(value) if isinstance(value, list) else value):
            yield key, f"{name} does not read it: it has {', '.join(own)}"
    if config.stride_in_1x1 and inception:
        yield "stride_in_1x1", f"{name} has no bottlenecks"
    if not config.stride_in_1x1 and name == "resnet_v1_50":
        yield "stride_in_1x1", f"{name} shrinks in the 1x1; with the stride in the 3x3 it is resnet_v1.5_50"
    if not inception and config.resnet_in_channels[1:] != config.resnet_out_channels[:-1]:
        expected = [config.resnet_in_channels[0], *config.resnet_out_channels[:-1]]
        yield "resnet_in_channels", (f"expected the stem's, then resnet_out_channels of the stage before, {expected}, "
                                     f"got {list(config.resnet_in_channels)}")
    given, wanted = list(config.fpn_in_channels), list(config.resnet_out_channels)
    source = "the same as resnet_out_channels"
    if inception:
        wanted, source = stage_channels(config.inception_width), f"those of {name} at inception_width {config.inception_width:g}"
    if given != wanted:
        yield "fpn_in_channels", f"expected {source}, {wanted}, got {given}"
    if config.zero_init_residual and not config.train_norm and not inception:
        yield "zero_init_residual", "needs train_norm: without it fresh bottlenecks stay the identity"
