# Same as faster_rcnn/src/FasterRcnn/inception_layout.py
"""Inception-ResNet-v2 (Szegedy et al., "Inception-v4, Inception-ResNet and the Impact of Residual Connections", 2016) as data.

A convolution is (channels, kernel) or (channels, kernel, stride); a kernel is a side or (height, width). A branch is a tuple of
convolutions, each followed by norm and ReLU; AVERAGE stands for an average pool in front. The names are those of the PyTorch
implementations (timm, Cadene), whose weights convert_checkpoint.py reads.
"""

AVERAGE = "average"
CONVOLUTIONS = {
    "conv2d_1a": (32, 3, 2),
    "conv2d_2a": (32, 3),
    "conv2d_2b": (64, 3),
    "conv2d_3b": (80, 1),
    "conv2d_4a": (192, 3),
    "conv2d_7b": (1536, 1),
}
# Parallel branches whose channels are concatenated; where they have a stride, a max pool of the input is the last branch.
MIXED = {
    "mixed_5b": (((96, 1),), ((48, 1), (64, 5)), ((64, 1), (96, 3), (96, 3)), (AVERAGE, (64, 1))),
    "mixed_6a": (((384, 3, 2),), ((256, 1), (256, 3), (384, 3, 2))),
    "mixed_7a": (((256, 1), (384, 3, 2)), ((256, 1), (288, 3, 2)), ((256, 1), (288, 3), (320, 3, 2))),
}
# Branches of the residual blocks; a 1x1 convolution with bias maps their concatenated channels back to those of the input.
BLOCK35 = ((32, 1),), ((32, 1), (32, 3)), ((32, 1), (48, 3), (64, 3))
BLOCK17 = ((192, 1),), ((128, 1), (160, (1, 7)), (192, (7, 1)))
BLOCK8 = ((192, 1),), ((192, 1), (224, (1, 3)), (256, (3, 1)))
# Repeated blocks: (branches, scale of the residual). The last block, block8, occurs once, with scale 1.
REPEATS = {"repeat": (BLOCK35, 0.17), "repeat_1": (BLOCK17, 0.10), "repeat_2": (BLOCK8, 0.20)}
BLOCKS = (10, 20, 9)


def scaled(channels: int, width: float) -> int:
    """Return the channels of a convolution in a network `width` times as wide."""
    return max(1, round(channels * width))


def leaving(branches, width: float) -> int:
    """Return the number of channels of the concatenated branches."""
    return sum(scaled(branch[-1][0], width) for branch in branches)


def stage_channels(width: float) -> list:
    """Return the channels of C2..C5."""
    c3 = leaving(MIXED["mixed_5b"], width)
    return [scaled(CONVOLUTIONS["conv2d_4a"][0], width), c3, leaving(MIXED["mixed_6a"], width) + c3,
            scaled(CONVOLUTIONS["conv2d_7b"][0], width)]
