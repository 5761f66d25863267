"""Keys of proposals and their sampling, in whole networks: outputs change as loops in numpy predict."""
import numpy as np
import pytest
from mindspore import Tensor, nn

from faster_rcnn.src.FasterRcnn.anchor_generator import AnchorGenerator
from mask_rcnn.src.MaskRcnn.anchor_generator import AnchorGenerator as MaskAnchorGenerator
from tests.narrow_network import (
    narrow_config,
    narrow_mask_config,
    narrow_network,
    noise,
    objects,
    outlines,
    pictures,
    spread_heads,
)
from tests.unit.test_assign_sample import sampled_by_hand
from tests.unit.test_proposal_generator import naive
from tests.unit.test_rcnn import losses_by_hand

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("eager")]

MODELS = {"faster_rcnn": (narrow_config, AnchorGenerator), "mask_rcnn": (narrow_mask_config, MaskAnchorGenerator)}
MANY = [(1, 20, 20, 90, 80), (2, 100, 30, 150, 60), (3, 60, 70, 120, 110)]
# Low, so that boxes suppress many boxes of other levels.
THRESHOLD = 0.3
# float32 sums in another order: boxes in pixels, scores, labels, valid, mask probabilities.
TOLERANCES = (0.01, 1e-4, 0, 0, 1e-3)


def network(model: str, **keys):
    """(configuration, network) with these keys; the keys do not change the weights."""
    config = MODELS[model][0](rpn_nms_thr=THRESHOLD, rpn_proposal_nms_thr=THRESHOLD, **keys)
    net = narrow_network(config, seed=5)
    spread_heads(net)
    return config, net


def batch(config, net):
    """Arguments of a training step: an image with three objects and one without objects."""
    shown = [MANY, []]
    edges = [outlines(config, shown)] if "mask_shape" in config else []
    return (*pictures(config, 2), *objects(config, shown), *edges, *noise(net, 2))


class Given(nn.Cell):
    """A stand-in for a proposal generator that returns given proposals."""

    def __init__(self, boxes, valid):
        super().__init__()
        self.boxes, self.valid = Tensor(boxes), Tensor(valid)

    def construct(self, logits, deltas, image_sizes, anchors):
        return self.boxes, self.boxes[..., 0], self.valid


def proposals_by_hand(model, config, net, image, info, across_levels: bool):
    """Boxes (2, 100, 4) and valid flags (2, 100) from a loop over the RPN's output; all limits of the networks are 100."""
    logits, deltas = ([level.asnumpy() for level in levels] for levels in net.dense(image))
    anchors = MODELS[model][1](config.anchor_scales, config.anchor_ratios, config.anchor_strides).levels(
        [level.shape[2:] for level in logits])
    boxes, valid = np.zeros((2, 100, 4), np.float32), np.zeros((2, 100), bool)
    for i, (height, width) in enumerate(info.asnumpy()[:, :2]):
        rows = naive([x[i] for x in logits], [x[i] for x in deltas], anchors, height, width, 100, 100, 100, THRESHOLD, 0.0,
                     across_levels)
        boxes[i, :len(rows)], valid[i, :len(rows)] = [row[1] for row in rows], True
    return boxes, valid


def losses(net, inputs):
    return np.array([float(loss) for loss in net(*inputs)])


def detections(net, inputs):
    return [part.asnumpy() for part in net.predict(*inputs)]


@pytest.fixture(scope="module", params=MODELS)
def plain(request):
    """(model, network with the default keys, its losses)."""
    config, net = network(request.param)
    return request.param, net, losses(net, batch(config, net))


def test_rpn_nms_across_levels(monkeypatch, plain):
    model, plain, _ = plain
    config, net = network(model, rpn_nms_across_levels=True)
    inputs = pictures(config, 2)
    unlike, got = detections(plain, inputs), detections(net, inputs)
    given = Given(*proposals_by_hand(model, config, net, *inputs, across_levels=True))
    monkeypatch.setattr(plain, "test_proposals", given)
    expected = detections(plain, inputs)
    assert got[3].sum() > 10
    for part, wanted, tolerance in zip(got, expected, TOLERANCES):
        np.testing.assert_allclose(part, wanted, rtol=0, atol=tolerance)
    assert np.abs(got[0] - unlike[0]).max() > 1


def test_rpn_proposal_nms_across_levels(monkeypatch, plain):
    model, plain, unlike = plain
    config, net = network(model, rpn_proposal_nms_across_levels=True)
    inputs = batch(config, net)
    got = losses(net, inputs)
    given = Given(*proposals_by_hand(model, config, net, *inputs[:2], across_levels=True))
    monkeypatch.setattr(plain, "train_proposals", given)
    expected = losses(plain, inputs)
    np.testing.assert_allclose(got, expected, rtol=1e-4)
    np.testing.assert_array_equal(got[:2], unlike[:2])                  # proposals do not affect the RPN's losses
    assert abs(got[2] - unlike[2]) > 1e-3 * unlike[2]


def heads(net, image, rois):
    """Logits (N, S, K + 1) and deltas (N, S, 4 K) of the given RoIs (N, S, 4)."""
    n, s, _ = rois.shape
    cells = net.roi_align.table_of(net.neck(net.backbone(image))[:net.pooled_levels])
    return [part.asnumpy().reshape(n, s, -1) for part in net.rcnn(net.roi_align.from_table(*cells, Tensor(rois)))]


def test_num_expected_neg_stage2(plain):
    """64 RoIs per image, at most 16 foreground and 10 background: more than half of the slots are padding."""
    model, _, unlike = plain
    config, net = network(model, num_expected_neg_stage2=10)
    inputs = batch(config, net)
    proposals = proposals_by_hand(model, config, net, *inputs[:2], across_levels=False)
    arrays = [*proposals, *(part.asnumpy() for part in (*inputs[2:5], inputs[-1]))]
    samples = [np.stack(parts) for parts in zip(*(sampled_by_hand(*(array[i] for array in arrays), 16, 64, 10) for i in range(2)))]
    rois, labels, targets, positive, valid, _ = samples
    assert positive[0].any() and (valid & ~positive).sum(1).tolist() == [10, 10]
    logits, deltas = heads(net, inputs[0], rois)
    expected = losses_by_hand(logits, deltas, labels, targets, positive, valid, config.rcnn_smooth_l1_beta)
    got = losses(net, inputs)
    np.testing.assert_allclose(got[2:4], expected, rtol=1e-4)
    assert (np.abs(got[2:4] - unlike[2:4]) > 1e-3 * unlike[2:4]).all()
    np.testing.assert_array_equal(got[:2], unlike[:2])
    np.testing.assert_array_equal(got[4:], unlike[4:])                  # only foreground RoIs have a mask loss
