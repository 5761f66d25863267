# Same as faster_rcnn/src/FasterRcnn/rpn.py
"""Region proposal network: the head, and its losses on the sampled anchors (Ren et al., "Faster R-CNN", 2015, section 3.1).

Shapes: N images; level l has H_l x W_l pixels with A anchors each, numbered (level, y, x, anchor); M sampled anchors per image.
Deltas are (dx, dy, dw, dh); channel of the delta map = anchor * 4 + coordinate.
"""

from collections.abc import Sequence

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.common.initializer import Normal

from ..model_utils.layers.convolution import Conv2d
from ..model_utils.training.ranks import shared_count
from .losses import binary_cross_entropy, smooth_l1


class RpnHead(nn.Cell):
    """A 3x3 convolution and two 1x1 convolutions, shared by all levels.

    `construct` predicts for every anchor, `at_anchors` for a few. Training uses both: proposals need every anchor but no
    gradient, and the losses only touch the 256 sampled anchors of an image, so that their gradient passes through 256 patches of
    3x3 pixels instead of whole feature maps. The result equals the dense gradient, which is almost all zeros.
    """

    def __init__(self, in_channels: int, feat_channels: int, num_anchors: int, fast: bool = False):
        super().__init__()
        self.conv = Conv2d(in_channels, feat_channels, 3, Normal(0.01), fast=fast)
        self.cls = Conv2d(feat_channels, num_anchors, 1, Normal(0.01))
        self.reg = Conv2d(feat_channels, num_anchors * 4, 1, Normal(0.01))
        self.num_anchors = num_anchors
        self.offset_y = Tensor(np.repeat([-1, 0, 1], 3).astype(np.int32))      # (9,), in the order of a 3x3 kernel
        self.offset_x = Tensor(np.tile([-1, 0, 1], 3).astype(np.int32))

    def construct(self, features: Sequence):
        """Predict for P2..P6 (N, C, H_l, W_l): logits (N, A, H_l, W_l) and deltas (N, 4A, H_l, W_l) per level."""
        logits, deltas = [], []
        for feature in features:
            hidden = ops.relu(self.conv(feature))
            logits.append(self.cls(hidden))
            deltas.append(self.reg(hidden))
        return logits, deltas

    def at_anchors(self, features: Sequence, index):
        """Predict at the anchors `index` int32 (N, M): logits (N, M), deltas (N, M, 4)."""
        n, m = index.shape
        patches = self.patches(features, index)                                # (N, M, C*9)
        feat_channels = self.conv.weight.shape[0]
        hidden = ops.matmul(patches, self.conv.weight.reshape(feat_channels, -1).transpose(1, 0)) + self.conv.bias
        hidden = ops.relu(hidden)                                              # (N, M, F)
        logits = ops.matmul(hidden, self.cls.weight.reshape(-1, feat_channels).transpose(1, 0)) + self.cls.bias
        deltas = ops.matmul(hidden, self.reg.weight.reshape(-1, feat_channels).transpose(1, 0)) + self.reg.bias
        chosen = (ops.arange(self.num_anchors) == (index % self.num_anchors).expand_dims(-1)).astype(logits.dtype)
        logits = (logits * chosen).sum(-1)                                     # (N, M)
        deltas = (deltas.reshape(n, m, self.num_anchors, 4) * chosen.expand_dims(-1)).sum(2)
        return logits, deltas

    def patches(self, features: Sequence, index):
        """Return the 3x3 patches around the anchors' cells, 0 outside the map: (N, M, C*9) in the order of the kernel."""
        n, m = index.shape
        start, total = 0, None
        for feature in features:
            channels, height, width = feature.shape[1:]
            count = height * width * self.num_anchors
            local = index - start
            here = ops.logical_and(local >= 0, local < count)
            pixel = ops.clamp(local, 0, count - 1) // self.num_anchors
            y = (pixel // width).expand_dims(-1) + self.offset_y               # (N, M, 9)
            x = (pixel % width).expand_dims(-1) + self.offset_x
            inside = ops.logical_and(ops.logical_and(y >= 0, y < height), ops.logical_and(x >= 0, x < width))
            inside = ops.logical_and(inside, here.expand_dims(-1)).astype(feature.dtype)
            where = ops.clamp(y, 0, height - 1) * width + ops.clamp(x, 0, width - 1)
            where = ops.broadcast_to(where.reshape(n, 1, m * 9), (n, channels, m * 9))
            taken = ops.gather_d(feature.reshape(n, channels, height * width), 2, where)
            taken = taken * inside.reshape(n, 1, m * 9)
            total = taken if total is None else total + taken
            start += count
        return total.reshape(n, -1, m, 9).transpose(0, 2, 1, 3).reshape(n, m, -1)


def rpn_losses(logits, deltas, targets, positive, negative, beta: float = 1 / 9, added: float = 0.0):
    """Return the objectness and box losses of the sampled anchors.

    Args:
        logits: (N, M); deltas, targets: (N, M, 4).
        positive, negative: bool (N, M); a slot that is neither is padding and does not count.
        beta: transition point of the smooth L1 loss; added: see shared_count.

    Returns:
        Binary cross entropy and smooth L1, both summed and divided by the number of sampled anchors in the batch over all
        devices: see shared_count.
    """
    dtype = logits.dtype
    positive, sampled = positive.astype(dtype), ops.logical_or(positive, negative).astype(dtype)
    count = shared_count(sampled.sum(), added)
    cls_loss = (binary_cross_entropy(logits, positive) * sampled).sum() / count
    reg_loss = (smooth_l1(deltas, targets, beta).sum(-1) * positive).sum() / count
    return cls_loss, reg_loss
