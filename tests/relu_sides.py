"""Which way activations within rounding of a border go, settled in float64.

A ReLU input that is 0 but for the rounding of float32 falls on either side, as the order of additions has it, and so does the
largest of a pooling window with a near neighbour. Each switches a whole path of the gradient: one input of -3.5e-6 in three million
moves gradient norms by 6e-3. So before gradients are compared between frameworks, the few such activations are moved to where they
are in float64.
"""
import numpy as np
from mindspore import Tensor, nn

from tests.numpy_layers import batch_norm, convolve, max_pool

CLEAR = 5e-7    # of the largest activation: what is moved lies so far from the border, for it is rounded again behind


class Moved(nn.Cell):
    """The convolution of a layer, its output moved by constants."""

    def __init__(self, conv, offset):
        super().__init__(auto_prefix=False)
        self.conv, self.offset = conv, Tensor(offset.astype(np.float32))

    def construct(self, x, weight):
        return self.conv(x, weight) + self.offset


class Settler:
    """Goes through a network twice at once, in float32 with its own layers and in float64: maps are pairs (mine, exact)."""

    def __init__(self):
        self.moved = 0  # activations

    def move(self, layer, mine, offset):
        """Let `layer` add `offset` where that is not 0; `mine` with it."""
        self.moved += np.count_nonzero(offset)
        if offset.any():
            # Past Cell's attributes, which would give the layer's parameters other names.
            layer._cells["conv"] = Moved(layer._cells["conv"], offset)
        return mine + offset.astype(np.float32)

    def relu(self, layer, mine, exact):
        """The ReLU of a map that `layer` has a part in."""
        clear = CLEAR * np.abs(exact).max()
        wrong = ((mine > 0) != (exact > 0)) | (np.abs(mine) < clear)
        mine = self.move(layer, mine, np.where(wrong, exact - mine + np.copysign(clear, exact), 0))
        return np.maximum(mine, 0), np.maximum(exact, 0)

    def pool(self, layer, mine, exact):
        """The largest of each 2x2 of what `layer` gave."""
        def windows(x):
            n, c, height, width = (*x.shape[:2], x.shape[2] // 2, x.shape[3] // 2)
            return x.reshape(n, c, height, 2, width, 2).transpose(0, 1, 2, 4, 3, 5).reshape(n, c, height, width, 4)

        def whole(x):
            n, c, height, width, _ = x.shape
            return x.reshape(n, c, height, width, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(n, c, 2 * height, 2 * width)

        theirs = windows(exact).argmax(-1)[..., None]
        best, largest = np.take_along_axis(windows(mine), theirs, -1), windows(mine).max(-1, keepdims=True)
        runner_up = np.sort(windows(mine), -1)[..., -2:-1]
        lead = np.diff(np.sort(windows(exact), -1)[..., -2:], axis=-1)          # 0 in plain parts of a picture, where any will do
        clear = CLEAR * np.abs(exact).max()
        behind = ((best < largest) | (largest - runner_up < clear)) & (lead > 1e-12 * np.abs(exact).max())
        offset = np.zeros_like(windows(mine))
        np.put_along_axis(offset, theirs, np.where(behind, largest - best + clear, 0), -1)
        mine = self.move(layer, mine, whole(offset))
        return windows(mine).max(-1), windows(exact).max(-1)


def settle_resnet(backbone, images, stride_in_1x1: bool) -> int:
    """A ResNet on `images` (N, 3, H, W). Returns the number of activations moved."""
    settler = Settler()

    def layer(cell, pair, stride=1):
        norm = [param.asnumpy() for param in (cell.gamma, cell.beta, cell.moving_mean, cell.moving_variance)]
        return cell(Tensor(pair[0])).asnumpy(), batch_norm(convolve(pair[1], cell.weight.asnumpy(), stride), *norm, cell.eps)

    def relu(cell, pair, stride=1):
        return settler.relu(cell, *layer(cell, pair, stride))

    x = relu(backbone.conv1, (images, images), 2)
    x = max_pool(x[0]), max_pool(x[1])
    for number, stage in enumerate((backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4)):
        for index, block in enumerate(stage):
            stride = 2 if number and not index else 1
            first, second = (stride, 1) if stride_in_1x1 else (1, stride)
            y = relu(block.conv2, relu(block.conv1, x, first), second)
            identity = x if block.downsample is None else layer(block.downsample, x, stride)
            x = settler.relu(block.conv3, *(a + b for a, b in zip(layer(block.conv3, y), identity)))
    return settler.moved


def settle_vgg(backbone, images) -> int:
    """A VGG-16 without norms, as far as conv5_3, on `images` (N, 3, H, W). Returns the number of activations moved."""
    settler, x = Settler(), (images, images)
    for name in ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3", "conv4_1", "conv4_2", "conv4_3",
                 "conv5_1", "conv5_2", "conv5_3"):
        cell = getattr(backbone, name)
        weight, bias = cell.weight.asnumpy(), cell.bias.asnumpy().reshape(-1, 1, 1)
        mine = cell.conv(Tensor(x[0]), cell.weight).asnumpy() + bias
        x = settler.relu(cell, mine, convolve(x[1], weight) + bias.astype(np.float64))
        if name in ("conv1_2", "conv2_2", "conv3_3", "conv4_3"):
            x = settler.pool(cell, *x)
    return settler.moved
