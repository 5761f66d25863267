"""Which side of 0 the backbone's ReLU inputs are on, settled in float64.

A ReLU input that is 0 but for the rounding of float32 falls on either side, as the order of additions has it, and switches a
whole path of the gradient: one of -3.5e-6 in three million moves gradient norms by 6e-3. So before gradients are compared between
frameworks, the few such inputs are moved to the side on which they are in float64.
"""
import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from tests.numpy_layers import batch_norm, convolve, max_pool

CLEAR = 2e-6    # from 0, that a graph may round otherwise than the same operators one by one


class Moved(nn.Cell):
    """A layer, its output moved by constants."""

    def __init__(self, layer, offset):
        super().__init__(auto_prefix=False)
        self.layer, self.offset = layer, Tensor(offset.astype(np.float32))

    def construct(self, x):
        return self.layer(x) + self.offset


def settle_sides(backbone, images, stride_in_1x1: bool) -> int:
    """Replace layers of a ResNet, whose outputs on `images` (N, 3, H, W) enter a ReLU on the wrong side of 0, by moved ones.

    Goes through the network twice at once, in float32 with its own layers and in float64. Returns the number of inputs moved.
    """
    moved = 0

    def layer(cell, pair, stride=1):
        norm = [param.asnumpy() for param in (cell.gamma, cell.beta, cell.moving_mean, cell.moving_variance)]
        return cell(Tensor(pair[0])).asnumpy(), batch_norm(convolve(pair[1], cell.weight.asnumpy(), stride), *norm, cell.eps)

    def relu(owner, name, mine, exact):
        nonlocal moved
        wrong = ((mine > 0) != (exact > 0)) | (np.abs(mine) < CLEAR)
        if wrong.any():
            moved += int(wrong.sum())
            offset = np.where(wrong, exact - mine + np.copysign(CLEAR, exact), 0)
            # Past Cell's attributes, which would give the layer's parameters other names.
            owner._cells[name] = Moved(owner._cells[name], offset)
            mine = mine + offset.astype(np.float32)
        return np.maximum(mine, 0), np.maximum(exact, 0)

    x = relu(backbone, "conv1", *layer(backbone.conv1, (images, images), 2))
    x = max_pool(x[0]), max_pool(x[1])
    for number, stage in enumerate((backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4)):
        for index, block in enumerate(stage):
            stride = 2 if number and not index else 1
            first, second = (stride, 1) if stride_in_1x1 else (1, stride)
            y = relu(block, "conv1", *layer(block.conv1, x, first))
            y = relu(block, "conv2", *layer(block.conv2, y, second))
            identity = x if block.downsample is None else layer(block.downsample, x, stride)
            x = relu(block, "conv3", *(a + b for a, b in zip(layer(block.conv3, y), identity)))
    return moved
