"""The mask loss of positive slots in groups, against the loss of all slots at once."""
import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from mask_rcnn.src.MaskRcnn import mask_loss
from mask_rcnn.src.MaskRcnn.mask_loss import MaskLossSum, positive_slots
from mask_rcnn.src.MaskRcnn.rcnn_mask import MaskHead, mask_head_loss
from mask_rcnn.src.MaskRcnn.roi_align import RoiAlign
from mask_rcnn.src.MaskRcnn.target_rules import MaskTargets
from mask_rcnn.src.model_utils.layers.convolution import Convolution

N, G, Q, CHANNELS, SIDE, AT_ONCE = 2, 3, 5, 4, 4, 3
CORNERS = np.array([[0, 0.4], [0.5, 0], [1, 0.6], [0.4, 1]])


class Losses(nn.Cell):
    """The mask loss, weighted by 0.7, of all slots at once or of groups of slots."""

    def __init__(self, align, head, rule, some):
        super().__init__()
        self.align, self.head, self.targets = align, head, MaskTargets(rule, 4, True)
        self.loss_sum = MaskLossSum(align, head, self.targets) if some else None

    def construct(self, fine, coarse, rois, labels, positive, matched, edges):
        table, shapes = self.align.table_of((fine, coarse))
        if self.loss_sum is not None:
            slots, count = positive_slots(rois, labels, positive, matched, edges.shape[1])
            total, _, _ = self.loss_sum(table, self.head.weights(), edges, slots, count, shapes)
            return 0.7 * total / (ops.maximum(count, 1) * (2 * SIDE) ** 2)
        logits = self.head(self.align.from_table(table, shapes, rois), labels.reshape(-1))
        logits = logits.reshape(N, Q, 2 * SIDE, 2 * SIDE)
        return 0.7 * mask_head_loss(logits, self.targets(edges, matched, rois, 2 * SIDE, shapes), positive)


def sampled(counts, seed=0):
    """Return levels and slots; image i has counts[i] positive slots, then random ones that would change the loss if read."""
    rng = np.random.default_rng(seed)
    levels = [rng.standard_normal((N, CHANNELS, 64 // s, 96 // s)).astype(np.float32) for s in (4, 8)]
    boxes = np.concatenate([low := rng.uniform(0, 30, (N, G, 2)), low + rng.uniform(8, 40, (N, G, 2))], -1)
    points = boxes[:, :, None, :2] + CORNERS * (boxes[:, :, None, 2:] - boxes[:, :, None, :2])
    edges = np.concatenate([points, np.roll(points, -1, 2), np.zeros((N, G, len(CORNERS), 1))], -1)
    matched = rng.integers(0, G, (N, Q)).astype(np.int32)
    rois = np.take_along_axis(boxes, matched[..., None], 1) + rng.uniform(-3, 3, (N, Q, 4))
    positive = np.arange(Q) < np.array(counts)[:, None]
    return [Tensor(x) for x in (
        *levels, rois.astype(np.float32), rng.integers(1, 4, (N, Q)).astype(np.int32), positive, matched, edges.astype(np.float32))]


def gradients_of(rule, some, monkeypatch):
    monkeypatch.setattr(Convolution, "WINOGRAD_CHANNELS", 1)
    monkeypatch.setattr(mask_loss, "ROIS_AT_ONCE", AT_ONCE)
    ms.set_seed(1)      # equal weights in both networks
    net = Losses(RoiAlign(SIDE, 2, (4, 8), 20.0, fast=True), MaskHead(CHANNELS, CHANNELS, 3, num_convs=1, fast=True), rule, some)
    params = ms.ParameterTuple(net.trainable_params())
    assert [param.name.split(".")[0] for param in params] == ["head"] * 6
    gradients = ms.value_and_grad(net, (0, 1), params)
    return ms.jit(gradients) if some else gradients


def test_losses_and_gradients_equal_those_of_all_slots(monkeypatch):
    """No positive slots, fewer than a group, one group, one more, and all slots, in one compiled graph."""
    some, whole = gradients_of("outline", True, monkeypatch), gradients_of("outline", False, monkeypatch)
    for counts in ([0, 0], [2, 0], [0, 3], [3, 1], [5, 5]):
        inputs = sampled(counts)
        (loss, (dlevels, dparams)), (expected, (levels, params)) = some(*inputs), whole(*inputs)
        assert (float(expected) > 0) == (sum(counts) > 0)
        np.testing.assert_allclose(float(loss), float(expected), rtol=1e-5)
        for mine, theirs in zip((*dlevels, *dparams), (*levels, *params)):
            theirs = theirs.asnumpy()
            np.testing.assert_allclose(mine.asnumpy(), theirs, rtol=0, atol=2e-5 * np.abs(theirs).max())


def test_targets_of_a_bitmap_compile_with_all_slots(monkeypatch):
    """Training uses all slots with bitmap targets. Compiled gradients equal those computed operator by operator."""
    plain, inputs = gradients_of("bitmap", False, monkeypatch), sampled([3, 1])
    (loss, (dlevels, dparams)), (expected, (levels, params)) = ms.jit(plain)(*inputs), plain(*inputs)
    np.testing.assert_allclose(float(loss), float(expected), rtol=1e-5)
    for mine, theirs in zip((*dlevels, *dparams), (*levels, *params)):
        np.testing.assert_allclose(mine.asnumpy(), theirs.asnumpy(), rtol=0, atol=2e-5 * np.abs(theirs.asnumpy()).max())
