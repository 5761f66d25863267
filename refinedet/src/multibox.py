"""Heads on several feature maps (Liu et al., "SSD", 2016, section 2.1): box deltas and class logits for every anchor.

Shapes: N images, level l has H_l x W_l cells with a anchors each, A anchors in all, K logits per anchor. Rows are in the order
(level, y, x, anchor), like the anchors.
"""

from mindspore import nn, ops
from mindspore.common.initializer import Normal

from .model_utils.layers.convolution import Conv2d, Convolution


class MultiBox(nn.Cell):
    """A 3x3 convolution for deltas and one for logits on each level; levels do not share weights.

    Both run as one convolution, since they share the unfolding of the map, which is most of the work with so few channels. New
    weights are small, so that the first predictions are the anchors themselves: losses of random boxes would spoil a new trunk.

    Args:
        in_channels: channels of the maps that the heads read; anchors, logits: a and K.
        blocks: a cell per level that is applied to the map before both heads; None: none.
    """

    def __init__(self, in_channels, anchors: int, logits: int, fast: bool = False, blocks: nn.CellList = None):
        super().__init__()
        self.blocks = blocks
        self.loc = nn.CellList([Conv2d(channels, anchors * 4, 3, Normal(0.01)) for channels in in_channels])
        self.conf = nn.CellList([Conv2d(channels, anchors * logits, 3, Normal(0.01)) for channels in in_channels])
        self.anchors, self.logits = anchors, logits
        self.both = nn.CellList([Convolution(channels, anchors * (4 + logits), 3, fast=fast) for channels in in_channels])

    def construct(self, features):
        """Predict for maps (N, C_l, H_l, W_l): deltas (N, A, 4), logits (N, A, K)."""
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
