"""Settle in float64 on which side of a border the activations within rounding of it are.

A ReLU input within float32 rounding of 0 falls on either side, depending on the order of additions. The same holds for the largest
pixel of a pooling window with a close second, and for the sign of an L1 loss. Each of these switches a whole path of the gradient:
one input of -3.5e-6 among three million moves gradient norms by 6e-3. Each processor adds in its own order. Before gradients are
compared, these few activations are therefore moved to the side that they have in float64, away from the border.

Each layer's rounding is measured as the difference between its float32 output and float64 numpy. Only activations within CLEAR
times the rounding are moved. The measurement also checks the forward pass: a layer that computes something else exceeds NOISE.
"""
import numpy as np
from mindspore import Tensor, nn, ops

from mask_rcnn.src.MaskRcnn.rcnn_mask import kernel_of
from tests.numpy_layers import batch_norm, convolve, double, enlarge, l2_norm, max_pool, roi_align

CLEAR = 6       # times the rounding (root mean square of a channel): activations closer to a border are moved to this distance
NOISE = 2e-4    # of a layer's root mean square: the most that counts as rounding. Measured: 6e-6, 101 layers 2e-5, Winograd 1e-5


class Moved(nn.Cell):
    """A layer, or the convolution of one, with constants added to its output."""

    def __init__(self, conv, offset):
        super().__init__(auto_prefix=False)
        self.conv, self.offset = conv, Tensor(offset.astype(np.float32))

    def construct(self, *inputs):
        return self.conv(*inputs) + self.offset


class MovedInput(nn.Cell):
    """A layer with constants added to its first input."""

    def __init__(self, conv, offset):
        super().__init__(auto_prefix=False)
        self.conv, self.offset = conv, Tensor(offset.astype(np.float32))

    def construct(self, x, *others):
        return self.conv(x + self.offset, *others)


def rectify(pair):
    return tuple(np.maximum(x, 0) for x in pair)


class Settler:
    """Runs a network side by side in float32, with its own layers, and in float64. Maps are pairs (mine, exact).

    Attributes:
        moved, seen: numbers of moved activations, and of all that gradients pass.
        noise: rounding of each layer: root mean square, relative to that of the activations.
        border: distance to 0 that activations of the last layer keep, for each channel.
    """

    def __init__(self):
        self.moved, self.seen, self.noise, self.border = 0, 0, [], 0.0

    def clear(self, mine, exact, channel: int = 1):
        """Measure the rounding of a layer. Return the distance to borders that activations keep, for each channel."""
        axes = tuple(axis for axis in range(mine.ndim) if axis != channel)
        rounding, size = (np.sqrt((x ** 2).mean(axes, keepdims=True)) for x in (mine - exact, exact))
        self.noise.append(np.sqrt((rounding ** 2).mean() / (size ** 2).mean()))
        assert self.noise[-1] < NOISE, f"layer {len(self.noise)}: rounding is {self.noise[-1]} of activations up to {size.max()}"
        self.seen += mine.size
        self.border = np.maximum(CLEAR * rounding, 1e-7 * size.max())
        return self.border

    def offsets(self, mine, exact, channel: int = 1):
        """Return what to add to `mine` so that its signs are those of `exact` in spite of rounding."""
        clear = self.clear(mine, exact, channel)
        wrong = ((mine > 0) != (exact > 0)) | (np.abs(mine) < clear)
        wanted = np.where(exact > 0, np.maximum(exact, clear), np.minimum(exact, -clear))
        offset = np.where(wrong, wanted - mine, 0).astype(np.float32)
        self.moved += np.count_nonzero(offset)
        return offset

    def move(self, cells: dict, key: str, mine, offset):
        """Make the cell of this key add `offset`. Return `mine` plus `offset`.

        cells: `_cells` of the layer. Assigning the attribute would rename the layer's parameters.
        """
        if offset.any():
            cells[key] = Moved(cells[key], offset)
        return mine + offset.astype(np.float32)

    def relu(self, layer, mine, exact, key: str = "conv"):
        """Return the settled ReLU of a map that `layer` adds to."""
        return rectify((self.move(layer._cells, key, mine, self.offsets(mine, exact)), exact))

    def pool(self, layer, mine, exact):
        """Settle the 2x2 max pooling of the last result of `relu`, for `layer`. Return the pair before the pooling."""
        border, theirs = self.border[..., None], windows(exact).argmax(-1)[..., None]
        best, others = np.take_along_axis(windows(mine), theirs, -1), windows(mine).copy()
        np.put_along_axis(others, theirs, -np.inf, -1)
        rival = others.max(-1, keepdims=True)
        lead = np.diff(np.sort(windows(exact), -1)[..., -2:], axis=-1)      # 0 in uniform parts of an image, where any will do
        behind = (best - rival < border) & (lead > 1e-12 * np.abs(exact).max())
        offset = np.zeros_like(windows(mine))
        np.put_along_axis(offset, theirs, np.where(behind, rival - best + border, 0), -1)
        self.moved += np.count_nonzero(offset)
        n, c, height, width = mine.shape
        offset = offset.reshape(n, c, height // 2, width // 2, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(mine.shape)
        return self.move(layer._cells, "conv", mine, offset), exact


def windows(x):
    """(N, C, H, W) -> (N, C, H/2, W/2, 4)."""
    n, c, height, width = x.shape
    return x.reshape(n, c, height // 2, 2, width // 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(n, c, height // 2, width // 2, 4)


def values(*parameters) -> list:
    return [param.asnumpy().astype(np.float64) for param in parameters]


def with_bias(cell, pair, stride: int = 1, dilation: int = 1):
    """Run a Conv2d without the pooling that follows some of them."""
    weight, bias = values(cell.weight, cell.bias)
    bias = bias.reshape(-1, 1, 1)
    mine = cell.conv(Tensor(pair[0]), cell.weight).asnumpy() + bias.astype(np.float32)
    return mine, convolve(pair[1], weight, stride, dilation=dilation) + bias


def dense(cell, pair):
    """Run a fully connected layer."""
    weight, bias = values(cell.weight, cell.bias)
    return cell(Tensor(pair[0])).asnumpy(), pair[1] @ weight.T + bias


def settle_resnet(settler, backbone, images, stride_in_1x1: bool) -> list:
    """Settle a ResNet with a frozen stem on `images` (N, 3, H, W). Return the pairs of C2..C5.

    No gradient passes the ReLUs of frozen layers or the pooling of the stem.
    """
    assert not backbone.conv1.weight.requires_grad

    def layer(cell, pair, stride=1):
        norm = values(cell.gamma, cell.beta, cell.moving_mean, cell.moving_variance)
        return cell(Tensor(pair[0])).asnumpy(), batch_norm(convolve(pair[1], cell.weight.asnumpy(), stride), *norm, cell.eps)

    def relu(cell, pair):
        return settler.relu(cell, *pair) if cell.weight.requires_grad else rectify(pair)

    x = relu(backbone.conv1, layer(backbone.conv1, (images, images), 2))
    x, stages = (max_pool(x[0]), max_pool(x[1])), []
    for number, stage in enumerate((backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4)):
        for index, block in enumerate(stage):
            stride = 2 if number and not index else 1
            first, second = (stride, 1) if stride_in_1x1 else (1, stride)
            y = relu(block.conv1, layer(block.conv1, x, first))
            y = relu(block.conv2, layer(block.conv2, y, second))
            identity = x if block.downsample is None else layer(block.downsample, x, stride)
            x = relu(block.conv3, tuple(a + b for a, b in zip(layer(block.conv3, y), identity)))
        stages.append(x)
    return stages


def pyramid(neck, stages) -> list:
    """Return the pairs of P2..P6 from those of C2..C5. There is no ReLU."""
    merged, exact = None, []
    for level in (3, 2, 1, 0):
        lateral, output = neck.laterals[level], neck.outputs[level]
        (weight, bias), (_, x) = values(lateral.weight, lateral.bias), stages[level]
        x = convolve(x, weight) + bias.reshape(-1, 1, 1)
        merged = x if merged is None else x + enlarge(merged, x.shape[2:])
        weight, bias = values(output.weight, output.bias)
        exact.insert(0, convolve(merged, weight) + bias.reshape(-1, 1, 1))
    exact.append(exact[-1][:, :, ::2, ::2])
    return list(zip([x.asnumpy() for x in neck(tuple(Tensor(mine) for mine, _ in stages))], exact))


def settle_rpn(settler, rpn, features, index):
    """Settle the hidden layer of the RPN at the anchors `index` (N, M), on pairs of P2..P6. Return the pair of deltas (N, M, 4).

    The convolution is a product with patches there. The least change that moves the product as wanted is added to the patches.
    """
    weight, bias = values(rpn.conv.weight, rpn.conv.bias)
    channels = len(weight)
    maps = [convolve(exact, weight) + bias.reshape(-1, 1, 1) for _, exact in features]
    cells = np.concatenate([x.reshape(*x.shape[:2], -1) for x in maps], 2).transpose(0, 2, 1)
    exact = np.take_along_axis(cells, (index // rpn.num_anchors)[..., None], 1)
    patches = rpn.patches(tuple(Tensor(mine) for mine, _ in features), Tensor(index))
    weight = weight.reshape(channels, -1)
    mine = ops.matmul(patches, Tensor(weight.T.astype(np.float32))).asnumpy() + rpn.conv.bias.asnumpy()
    offset = settler.offsets(mine, exact, 2)
    if offset.any():
        rpn.__dict__["patches"] = Moved(rpn.patches, offset @ np.linalg.pinv(weight).T)     # hides the method
    weight, bias = values(rpn.reg.weight, rpn.reg.bias)
    own = index[..., None] % rpn.num_anchors * 4 + np.arange(4)
    deltas = [x @ weight.reshape(len(weight), -1).T.astype(x.dtype) + bias.astype(x.dtype)
              for x in rectify((mine + offset, exact))]
    return tuple(np.take_along_axis(x, own, 2) for x in deltas)


def settle_box_head(settler, head, pooled):
    """Settle the fully connected layers on the pair of pooled features (R, C, S, S). Return the pair of deltas (R, 4K)."""
    x = tuple(x.reshape(len(x), -1) for x in pooled)
    for i, fc in enumerate(head.fcs):
        x = settler.relu(head.fcs, *dense(fc, x), str(i))
    return dense(head.bbox_pred, x)


def settle_mask_head(settler, head, pooled):
    """Settle the convolutions and the transposed convolution on the pair of pooled features (M, C, s, s).

    The transposed convolution has four outputs per channel and runs on a few RoIs at a time, so its input is moved. Each pixel
    gets the least change that moves the outputs within rounding of 0 as wanted and keeps the other outputs close to 0.
    """
    x = pooled
    for conv in head.convs:
        x = settler.relu(conv, *with_bias(conv, x))
    kernel, bias = kernel_of(head.deconv.weight, head.deconv.bias)
    mine = head.double.part.conv(Tensor(x[0]), kernel).asnumpy() + bias.asnumpy().reshape(-1, 1, 1)
    kernel, bias = kernel.asnumpy().astype(np.float64)[:, :, 0, 0], bias.asnumpy().astype(np.float64)
    exact = np.einsum("oc,mcp->mop", kernel, x[1].reshape(*x[1].shape[:2], -1), optimize=True) + bias[:, None]
    mine = mine.reshape(exact.shape)
    offset = settler.offsets(mine, exact)
    near = np.abs(mine) < 10 * np.abs(offset).max()
    moves = np.zeros((*pooled[0].shape[:1], kernel.shape[1], exact.shape[2]))
    for m, pixel in sorted({(m, pixel) for m, _, pixel in zip(*np.nonzero(offset))}):
        rows = near[m, :, pixel]
        moves[m, :, pixel] = np.linalg.pinv(kernel[rows]) @ offset[m, rows, pixel]
    mine += np.einsum("oc,mcp->mop", kernel, moves, optimize=True).astype(np.float32)
    assert ((mine > 0) == (exact > 0)).all()
    if moves.any():
        head._cells["double"] = MovedInput(head.double, moves.reshape(len(moves), -1, *pooled[0].shape[2:]))


def settle_targets(settler, deltas, targets, positive):
    """Move targets of an L1 loss (N, Q, 4) float32 away from the pair of deltas where they are within rounding. Return them."""
    mine, exact = (x[positive] for x in deltas)
    wanted = targets[positive]
    clear = settler.clear(mine, exact)
    apart, side = mine - wanted, np.where(exact > wanted, 1, -1).astype(np.float32)
    close = apart * side < clear
    settler.moved += close.sum()
    targets = targets.copy()
    targets[positive] = np.where(close, mine - side * np.float32(clear), wanted)
    return targets


def settle_two_stage(settler, net, images, samples, conventions) -> list:
    """Settle a Faster or Mask R-CNN on `images` and given samples. Return the samples with settled targets.

    samples: [(anchors (N, M), targets (N, M, 4), positive (N, M), ...), (RoIs (N, S, 4), labels (N, S), targets (N, Q, 4), positive
    (N, Q), ...)], for masks also (boxes, ...). conventions: stride_in_1x1, and the last arguments of numpy_layers.roi_align.
    """
    samples = [list(part) for part in samples]
    (index, rpn_targets, rpn_positive, _), (rois, labels, targets, positive, _), *masks = samples
    features = pyramid(net.neck, settle_resnet(settler, net.backbone, images, conventions["stride_in_1x1"]))

    def pool(layer, boxes):
        levels = tuple(Tensor(mine) for mine, _ in features[:4])
        rule = {name: conventions[name] for name in ("aligned", "samples", "level_of")}
        exact = roi_align([exact for _, exact in features[:4]], boxes, layer.out_size, **rule)
        return layer(levels, Tensor(boxes)).asnumpy(), exact

    deltas = settle_rpn(settler, net.rpn, features, index)
    if net.betas[0] == 0:
        samples[0][1] = settle_targets(settler, deltas, rpn_targets, rpn_positive)
    deltas = settle_box_head(settler, net.rcnn, pool(net.roi_align, rois))
    if net.betas[1] == 0:
        n, q = positive.shape
        own = np.maximum(labels[:, :q, None, None] - 1, 0)
        deltas = [np.take_along_axis(x.reshape(n, -1, x.shape[1] // 4, 4)[:, :q], own, 2)[:, :, 0] for x in deltas]
        samples[1][2] = settle_targets(settler, deltas, targets, positive)
    for boxes, *_ in masks:
        settle_mask_head(settler, net.rcnn_mask, pool(net.mask_align, boxes))
    return samples


def settle_vgg(settler, backbone, images) -> list:
    """Settle a VGG-16 without norms on `images` (N, 3, H, W). Return the pairs of its four source maps."""
    def relu(name, pair, stride=1, dilation=1):
        cell = getattr(backbone, name)
        return settler.relu(cell, *with_bias(cell, pair, stride, dilation))

    def normalised(name, pair):
        cell = getattr(backbone, f"{name}_norm")
        return cell(Tensor(pair[0])).asnumpy(), l2_norm(pair[1], cell.scale.asnumpy())

    x, maps = (images, images), []
    for name in ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3", "conv4_1", "conv4_2", "conv4_3",
                 "conv5_1", "conv5_2", "conv5_3"):
        x = relu(name, x)
        if name in ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3"):
            x = settler.pool(getattr(backbone, name), *x)
            if name in ("conv4_3", "conv5_3"):
                maps.append(normalised(name, x))
            x = tuple(windows(y).max(-1) for y in x)
    x = relu("fc7", relu("fc6", x, dilation=3))
    return [*maps, x, relu("conv6_2", relu("conv6_1", x), 2)]


def settle_refinedet(settler, net, images) -> None:
    """Settle a RefineDet with a VGG-16 on `images` (N, 3, H, W): the trunk and the transfer connection blocks."""
    sources, tcb, above = settle_vgg(settler, net.backbone, images), net.tcb, None
    for level in range(len(sources) - 1, -1, -1):
        x = settler.relu(tcb.first[level], *with_bias(tcb.first[level], sources[level]))
        x = with_bias(tcb.second[level], x)
        if above is not None:
            up = tcb.up[level]
            above = up(Tensor(above[0])).asnumpy(), double(above[1], *values(up.weight, up.bias))
            x = tuple(a + b for a, b in zip(x, above))
        x = settler.relu(tcb.second[level], *x)
        above = settler.relu(tcb.last[level], *with_bias(tcb.last[level], x))
