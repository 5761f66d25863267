"""RefineDet's matching, mining, losses and final detections, against plain loops."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops

from refinedet.src.box_utils import overlaps
from refinedet.src.l2norm import L2Norm
from refinedet.src.model_utils.config import load_config
from refinedet.src.refinedet import Detector, build_network
from refinedet.src.refinedet_loss_cell import Bipartite, Matcher, hard_negatives, multibox_losses
from refinedet.src.tcb import TransferConnections
from tests.narrow_refinedet import narrow_config

pytestmark = pytest.mark.usefixtures("eager")


def pairs_by_hand(iou) -> np.ndarray:
    """IoU (G, A) of one image: repeatedly pair the object and the anchor with the largest IoU."""
    left, own = iou.copy(), np.full(iou.shape[1], -1)
    while left.size and left.max() > 1e-6:
        g, a = np.unravel_index(left.argmax(), left.shape)
        own[a] = g
        left[g], left[:, a] = 0, 0
    return own


def iou_by_hand(a, b) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inter = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return inter / union if union > 0 else 0.0


def random_boxes(rng, *shape, side=64, least=4):
    corner = rng.uniform(0, side - least, (*shape, 2))
    return np.concatenate([corner, corner + rng.uniform(least, side / 2, (*shape, 2))], -1).astype(np.float32)


def test_bipartite_matches_the_loop():
    rng = np.random.default_rng(0)
    iou = rng.random((4, 9, 40)).astype(np.float32)
    iou[0, :, 3] += 1                    # all objects prefer one anchor, then another
    iou[0, :, 4] += 0.5
    iou[1, 5:] = -1                      # empty slots
    iou[2] = -1
    iou[3] *= rng.random((9, 40)) < 0.05     # some overlap nothing
    got = ms.jit(Bipartite())(Tensor(iou)).asnumpy()
    for mine, image in zip(got, iou):
        np.testing.assert_array_equal(mine, pairs_by_hand(image))


def test_bipartite_never_revises_a_pair():
    """The third object takes the second's best anchor; the second takes the first's best, which it overlaps more."""
    iou = np.array([[[0.6, 0.1, 0.2], [0.7, 0.8, 0.3], [0.0, 0.9, 0.1]]], np.float32)
    np.testing.assert_array_equal(ms.jit(Bipartite())(Tensor(iou)).asnumpy(), [[1, 2, 0]])


def test_matcher_adds_anchors_above_the_threshold():
    rng = np.random.default_rng(1)
    anchors, boxes = random_boxes(rng, 2, 200), random_boxes(rng, 2, 6)
    valid = np.array([[True] * 4 + [False] * 2, [False] * 6])
    got = ms.jit(Matcher(0.5))(overlaps(Tensor(anchors), Tensor(boxes), Tensor(valid))).asnumpy()
    iou = np.array([[iou_by_hand(box, anchor) for anchor in anchors[0]] for box in boxes[0][:4]])
    want = pairs_by_hand(iou)
    for a in range(200):
        if want[a] < 0 and iou[:, a].max() >= 0.5:
            want[a] = iou[:, a].argmax()
    np.testing.assert_array_equal(got[0], want)
    assert len(set(want)) == 5 and (got[1] == -1).all()


def mined_by_hand(loss, candidates, positives, ratio) -> np.ndarray:
    chosen = np.zeros(loss.shape, bool)
    for i in range(len(loss)):
        order = sorted(np.flatnonzero(candidates[i]), key=lambda a: -loss[i, a])
        chosen[i, order[:ratio * positives[i]]] = True
    return chosen


def test_hard_negatives():
    rng = np.random.default_rng(2)
    loss, candidates = rng.random((4, 50)).astype(np.float32), rng.random((4, 50)) < 0.5
    candidates[3, 2:] = False
    positives = np.array([3, 0, 30, 5], np.int32)
    got = hard_negatives(Tensor(loss), Tensor(candidates), Tensor(positives), 3).asnumpy()
    np.testing.assert_array_equal(got, mined_by_hand(loss, candidates, positives, 3))


@pytest.mark.parametrize("case", ["mixed", "nothing matched"])
def test_losses_of_a_stage(case):
    rng = np.random.default_rng(3)
    n, a, k, g = 2, 30, 4, 3
    anchors, boxes = random_boxes(rng, n, a), random_boxes(rng, n, g)
    deltas, logits = rng.normal(0, 1.5, (n, a, 4)).astype(np.float32), rng.normal(0, 2, (n, a, k)).astype(np.float32)
    matched = np.where(rng.random((n, a)) < 0.15, rng.integers(0, g, (n, a)), -1).astype(np.int32)
    if case == "nothing matched":
        matched[:] = -1
    labels = np.where(matched >= 0, rng.integers(1, k, (n, a)), 0).astype(np.int32)
    candidates = (matched < 0) & (rng.random((n, a)) < 0.7)
    got = multibox_losses(*map(Tensor, (deltas, logits, anchors, boxes, labels, matched, candidates)), 3, (0.1, 0.2))

    probabilities = np.exp(logits.astype(np.float64))
    probabilities /= probabilities.sum(-1, keepdims=True)
    mined = mined_by_hand(-np.log(probabilities[..., 0]), candidates, (matched >= 0).sum(1), 3)
    box_loss = class_loss = 0.0
    for i, j in np.argwhere((matched >= 0) | mined):
        class_loss -= np.log(probabilities[i, j, labels[i, j]])
        if matched[i, j] < 0:
            continue
        (ax, ay, bx, by), (cx, cy, dx, dy) = anchors[i, j].astype(float), boxes[i, matched[i, j]].astype(float)
        w, h = bx - ax, by - ay
        wanted = [((cx + dx) - (ax + bx)) / 2 / w / 0.1, ((cy + dy) - (ay + by)) / 2 / h / 0.1,
                  np.log((dx - cx) / w) / 0.2, np.log((dy - cy) / h) / 0.2]
        for x in np.abs(deltas[i, j] - wanted):
            box_loss += 0.5 * x * x if x < 1 else x - 0.5
    count = max((matched >= 0).sum(), 1)
    np.testing.assert_allclose([float(x) for x in got], [box_loss / count, class_loss / count], rtol=1e-4)
    assert case == "mixed" or got[0] == got[1] == 0


def detections_by_hand(boxes, scores, score_thr, iou_thr, per_class, most):
    found = []
    for k in range(scores.shape[1]):
        order = [a for a in np.argsort(-scores[:, k], kind="stable") if scores[a, k] > score_thr][:per_class]
        kept = []
        for a in order:
            if all(iou_by_hand(boxes[a], boxes[b]) <= iou_thr for b in kept):
                kept.append(a)
        found += [(scores[a, k], k + 1, a) for a in kept]
    return sorted(found, reverse=True)[:most]


@pytest.mark.parametrize(("per_class", "most", "total"), [(400, 200, 4000), (10, 200, 4000), (400, 5, 4000), (400, 8, 40)])
def test_detector(per_class, most, total):
    """A `total` that cuts candidates changes nothing as long as enough remain."""
    rng = np.random.default_rng(4)
    boxes = random_boxes(rng, 2, 60)
    boxes[0, 0] = [-40, -30, 500, 90]    # beyond the image of 64 pixels: not clipped before NMS
    scores = (rng.random((2, 60, 3)) ** 2).astype(np.float32)
    scores[1] = 0
    got = Detector(3, 0.3, 0.45, per_class, total, most, 64)(Tensor(boxes), Tensor(scores))
    got_boxes, got_scores, labels, valid = (x.asnumpy() for x in got)
    want = detections_by_hand(boxes[0].astype(float), scores[0], 0.3, 0.45, per_class, most)
    assert valid[0].sum() == len(want) and not valid[1].any()
    for i, (score, label, anchor) in enumerate(want):
        assert (got_scores[0, i], labels[0, i]) == (score, label)
        np.testing.assert_array_equal(got_boxes[0, i], boxes[0, anchor])


def test_l2norm_and_its_gradient():
    rng = np.random.default_rng(5)
    x = rng.normal(0, 3, (2, 6, 3, 4)).astype(np.float32)
    x[0, :, 1, 2] = 0                    # ReLU may zero all channels of a pixel
    norm = L2Norm(6, 10.0)
    want = 10 * x / np.sqrt((x.astype(np.float64) ** 2).sum(1, keepdims=True) + 1e-10)
    np.testing.assert_allclose(norm(Tensor(x)).asnumpy(), want, atol=1e-5)
    weight = Tensor(rng.normal(size=x.shape).astype(np.float32))

    def total(x):
        return (norm(x) * weight).sum()

    gradient = ms.grad(total)(Tensor(x)).asnumpy()
    assert np.isfinite(gradient).all()
    step = 1e-2
    for index in ((0, 1, 0, 0), (1, 5, 2, 3)):
        moved = [x.astype(np.float64) for _ in range(2)]
        moved[0][index] += step
        moved[1][index] -= step
        up, down = ((10 * y / np.sqrt((y ** 2).sum(1, keepdims=True) + 1e-10) * weight.asnumpy()).sum() for y in moved)
        np.testing.assert_allclose(gradient[index], (up - down) / (2 * step), rtol=1e-3, atol=1e-3)


def test_transfer_connections_add_coarser_maps():
    """The finest map sees the coarsest source through transposed convolutions; the coarsest map sees only its own source."""
    rng = np.random.default_rng(6)
    tcb = TransferConnections([4, 4, 4], 4)
    sources = [rng.normal(size=(1, 4, side, side)).astype(np.float32) for side in (8, 4, 2)]
    before = [x.asnumpy() for x in tcb(tuple(map(Tensor, sources)))]
    assert [x.shape for x in before] == [(1, 4, 8, 8), (1, 4, 4, 4), (1, 4, 2, 2)] and all((x >= 0).all() for x in before)
    sources[2] += 1
    after = [x.asnumpy() for x in tcb(tuple(map(Tensor, sources)))]
    assert all(np.abs(x - y).max() > 1e-4 for x, y in zip(before, after))
    sources[0] += 1
    again = [x.asnumpy() for x in tcb(tuple(map(Tensor, sources)))]
    np.testing.assert_array_equal(again[2], after[2])
    np.testing.assert_array_equal(again[1], after[1])


@pytest.mark.parametrize(("classes", "side", "count"), [(21, 320, 34_440_884), (81, 320, 36_100_484), (81, 512, 36_100_484)])
def test_parameter_count_matches_the_literature(classes, side, count):
    names = [] if classes == 81 else [f"c{i}" for i in range(classes - 1)]
    overrides = {"img_height": side, "img_width": side, "num_classes": classes}
    overrides["coco_classes"] = ["background", *names] if names else []
    net = build_network(load_config(overrides=overrides))
    assert sum(param.size for param in net.get_parameters()) == count
    assert net.anchors.shape == (1, {320: 6375, 512: 16320}[side], 4)


def small_network(**more):
    return build_network(narrow_config(img_height=128, img_width=128, num_gts=5, **more))


@pytest.mark.slow
@pytest.mark.parametrize("objects", [3, 0])
def test_losses_and_gradients_are_finite(objects):
    """This includes a batch without objects, whose losses are all 0."""
    rng = np.random.default_rng(7)
    net = small_network()
    boxes, labels = random_boxes(rng, 2, 5, side=128), rng.integers(1, 4, (2, 5)).astype(np.int32)
    valid = np.tile(np.arange(5) < objects, (2, 1))
    params = ms.ParameterTuple(net.trainable_params())

    def forward(*inputs):
        losses = ops.stack(net(*inputs))
        return losses.sum(), losses

    image = rng.normal(0, 1, (2, 3, 128, 128)).astype(np.float32)
    inputs = image, np.zeros((2, 6), np.float32), boxes, labels, valid
    (_, losses), grads = ms.jit(ms.value_and_grad(forward, None, params, has_aux=True))(*map(Tensor, inputs))
    losses = losses.asnumpy()
    assert np.isfinite(losses).all() and all(np.isfinite(grad.asnumpy()).all() for grad in grads)
    assert (losses > 0).all() if objects else (losses == 0).all()


def test_objectness_filters_scores():
    """A threshold above every objectness leaves no scores."""
    image = Tensor(np.random.default_rng(8).normal(0, 1, (1, 3, 128, 128)).astype(np.float32))
    boxes, scores = small_network(objectness_thre=0.0).decode(image)
    assert (scores.asnumpy() > 0).all() and boxes.shape == (1, 1020, 4)
    _, none = small_network(objectness_thre=1.0).decode(image)
    assert not none.asnumpy().any()
