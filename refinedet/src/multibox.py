"""Heads on several feature maps (Liu et al., "SSD", 2016, section 2.1): box deltas and class logits of every anchor.

Shapes: N images, level l has H_l x W_l cells with a anchors each, A anchors in all, K logits an anchor. Rows are in the order
(level, y, x, anchor), that of the anchors.
"""

from mindspore import nn, ops
from mindspore.common.initializer import Normal

from .model_utils.layers.convolution import Conv2d, Convolution


class MultiBox(nn.Cell):
    """One 3x3 convolution for deltas and one for logits on each level; no level shares weights with another.

    Both run as one convolution: what it unfolds of the map, most of the work of so few channels, is the same for them. Fresh
    weights are small, so that the first predictions are the anchors themselves: losses of random ones spoil a fresh trunk.

    Args:
        in_channels: of the maps that the heads read; anchors, logits: a and K.
        blocks: a cell for each level that its map goes through first, for both heads; None: they read the maps themselves.
    """

    def __init__(self, in_channels, anchors: int, logits: int, fast: bool = False, blocks: nn.CellList = None):
        super().__init__()
        self.blocks = blocks
        self.loc = nn.CellList([Conv2d(channels, anchors * 4, 3, Normal(0.01)) for channels in in_channels])
        self.conf = nn.CellList([Conv2d(channels, anchors * logits, 3, Normal(0.01)) for channels in in_channels])
        self.anchors, self.logits = anchors, logits
        self.both = nn.CellList([Convolution(channels, anchors * (4 + logits), 3, fast=fast) for channels in in_channels])

    def construct(self, features):
        """Maps (N, C_l, H_l, W_l) -> deltas (N, A, 4), logits (N, A, K)."""
        deltas, logits = (), ()
        for i in range(len(features)):
            loc, conf = self.loc[i], self.conf[i]
            x = features[i] if self.blocks is None else self.blocks[i](features[i])
            x = self.both[i](x, ops.cat((loc.weight, conf.weight)))
            x = ops.bias_add(x, ops.cat((loc.bias, conf.bias)))                # (N, a*4 + a*K, H_l, W_l)
            n, width = x.shape[0], 4 * self.anchors
            x = ops.transpose(x, (0, 2, 3, 1))
            deltas += (x[..., :width].reshape(n, -1, 4),)
            logits += (x[..., width:].reshape(n, -1, self.logits),)
        return ops.cat(deltas, 1), ops.cat(logits, 1)
