"""The second stage against numpy: the box head, its losses, and the final detections."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from faster_rcnn.src.FasterRcnn.rcnn import BoxHead, Detector, box_head_losses
from faster_rcnn.src.model_utils.layers.nms import ClassNms
from tests.numpy_layers import softmax

pytestmark = pytest.mark.usefixtures("eager")

STDS = (0.1, 0.1, 0.2, 0.2)


def test_box_head_matches_numpy():
    """Features are flattened channels first, as other frameworks' weights expect; ReLU follows every hidden layer."""
    rng = np.random.default_rng(0)
    net = BoxHead(in_channels=3, roi_size=2, fc_channels=7, num_classes=4, num_layers=2)
    for param in net.get_parameters():
        param.set_data(Tensor(rng.standard_normal(param.shape).astype(np.float32)))
    weights = {param.name: param.asnumpy().astype(np.float64) for param in net.get_parameters()}
    feats = rng.standard_normal((5, 3, 2, 2)).astype(np.float32)
    logits, deltas = ms.jit(net)(Tensor(feats))
    x = feats.reshape(5, 12)
    for name in ("fcs.0", "fcs.1"):
        x = np.maximum(x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"], 0)
    for got, name, width in ((logits, "cls_score", 5), (deltas, "bbox_pred", 16)):
        assert got.shape == (5, width)
        np.testing.assert_allclose(got.asnumpy(), x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"], atol=1e-4)


def losses_by_hand(logits, deltas, labels, targets, positive, valid, beta):
    probabilities, cls, reg = softmax(logits), 0, 0
    for place in np.argwhere(valid):
        place = tuple(place)
        cls -= np.log(probabilities[place][labels[place]])
        if place[1] < positive.shape[1] and positive[place]:
            own = deltas[place].reshape(-1, 4)[labels[place] - 1].astype(float)
            for distance in np.abs(own - targets[place]):
                reg += distance ** 2 / (2 * beta) if distance < beta else distance - beta / 2
    return cls / max(valid.sum(), 1), reg / max(valid.sum(), 1)


@pytest.mark.parametrize("beta", [1.0, 0.0])
def test_losses_match_loop(beta):
    """Four cases in one graph; padding holds values that would show. S = 12 RoIs; objects use only the first Q = 5 slots."""
    @ms.jit
    def net(*arrays):
        return box_head_losses(*arrays, beta=beta)

    n, s, q, classes = 2, 12, 5, 3
    rng = np.random.default_rng(1)
    for case in ("mixed", "all objects", "all background", "all padding"):
        logits = (3 * rng.standard_normal((n, s, classes + 1))).astype(np.float32)
        targets = rng.standard_normal((n, q, 4)).astype(np.float32)
        deltas = np.tile(targets, classes) + rng.standard_normal((n, q, 4 * classes)).astype(np.float32)
        counts = {"mixed": ([3, 0], [9, 2]), "all objects": ([5, 5], [5, 5]), "all background": ([0, 0], [12, 7]),
                  "all padding": ([0, 0], [0, 0])}[case]
        positive, valid = (np.arange(s) < np.array(count)[:, None] for count in counts)
        labels = (rng.integers(1, classes + 1, (n, s)) * positive).astype(np.int32)
        positive = positive[:, :q]
        logits[~valid], targets[~positive], deltas[~positive] = 80, 1e4, -1e4
        arrays = logits, deltas, labels, targets, positive, valid
        got = [float(loss) for loss in net(*map(Tensor, arrays))]
        np.testing.assert_allclose(got, losses_by_hand(*arrays, beta), rtol=1e-5, atol=1e-7, err_msg=case)
        assert (got[0] > 0, got[1] > 0) == (case != "all padding", case in ("mixed", "all objects"))


def test_gradient_reaches_only_the_objects_class():
    """With beta 0, d(loss)/d(deltas) is the error's sign over the number of RoIs, only in the columns of the object's class."""
    def loss(deltas, *arrays):
        return box_head_losses(arrays[0], deltas, *arrays[1:], beta=0.0)[1]

    logits = Tensor(np.zeros((1, 3, 3), np.float32))
    deltas = np.array([[[9, 9, 9, 9, 2, -2, 2, -2], [1, 1, -1, -1, 9, 9, 9, 9]]], np.float32)
    arrays = Tensor([[2, 1, 0]], ms.int32), Tensor(np.zeros((1, 2, 4), np.float32)), Tensor([[True, True]]), Tensor([[True] * 3])
    grad = ms.jit(ms.grad(loss))(Tensor(deltas), logits, *arrays).asnumpy()
    expected = np.array([[[0, 0, 0, 0, 1, -1, 1, -1], [1, 1, -1, -1, 0, 0, 0, 0]]]) / 3
    np.testing.assert_allclose(grad, expected, atol=1e-6)


def iou(p, q):
    w, h = np.maximum(np.minimum(p[2:], q[2:]) - np.maximum(p[:2], q[:2]), 0)
    return w * h / (np.prod(p[2:] - p[:2]) + np.prod(q[2:] - q[:2]) - w * h) if w * h > 0 else 0.0


def detections_by_hand(logits, deltas, proposals, valid, size, score_thr, iou_thr, max_per_img, nms_pre):
    """One image: [(score, label, box)], best first."""
    rows = []
    for proposal, delta, probability in zip(proposals[valid].astype(float), deltas[valid], softmax(logits[valid])):
        for label in range(1, len(probability)):
            if probability[label] <= score_thr:
                continue
            dx, dy, dw, dh = delta[4 * (label - 1):4 * label] * STDS
            side = proposal[2:] - proposal[:2]
            centre = proposal[:2] + side / 2 + side * [dx, dy]
            half = side * np.exp(np.minimum([dw, dh], np.log(1000 / 16))) / 2
            box = np.clip(np.concatenate([centre - half, centre + half]), 0, [size[1], size[0]] * 2)
            rows.append((probability[label], label, box))
    rows = sorted(rows, key=lambda row: -row[0])[:nms_pre]
    kept = []
    for score, label, box in rows:
        if all(iou(box, other) <= iou_thr for _, name, other in kept if name == label):
            kept.append((score, label, box))
    return kept[:max_per_img]


def box_head_output(seed, n=2, p=40, classes=3, sharpness=3.0):
    """Clustered proposals, a third of them padding; the last image is smaller."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(20, 80, (n, 4, 2))[:, rng.integers(0, 4, p)] + rng.normal(0, 4, (n, p, 2))
    half = rng.uniform(8, 20, (n, p, 2))
    proposals = np.concatenate([centre - half, centre + half], -1).astype(np.float32)
    valid = rng.uniform(size=(n, p)) < 0.67
    logits = (sharpness * rng.standard_normal((n, p, classes + 1))).astype(np.float32)
    deltas = (0.7 * rng.standard_normal((n, p, 4 * classes))).astype(np.float32)
    deltas[:, ::7, 2] = 30                      # beyond the clamp: exp would give 400
    sizes = np.stack([np.linspace(100, 70, n), np.linspace(110, 85, n)], 1).astype(np.float32)
    return logits, deltas, proposals, valid, sizes


def detect(arrays, score_thr=0.05, iou_thr=0.5, max_per_img=100, nms_pre=1000):
    classes = arrays[0].shape[-1] - 1
    net = Detector(ClassNms(iou_thr, classes, 110), STDS, (0.0,) * 4, score_thr, max_per_img, nms_pre)
    return [part.asnumpy() for part in ms.jit(net)(*map(Tensor, arrays))]


def test_min_size_both_clamps_and_inclusive_boxes():
    """One proposal whose box shrinks beyond the clamp."""
    def boxes(**options):
        net = Detector(ClassNms(0.5, 1, 110), STDS, (0.0,) * 4, 0.05, 1, 10, **options)
        arrays = [[0.0, 3.0]], [[0.0, 0.0, -100.0, 0.0]], [[10.0, 10.0, 50.0, 50.0]]
        size = Tensor(np.array([[90, 90]], np.float32))
        found = net(*(Tensor(np.array([x], np.float32)) for x in arrays), Tensor([[True]]), size)
        return [part.asnumpy()[0] for part in found]

    box, _, _, valid = boxes()
    assert valid.all() and box[0, 2] - box[0, 0] < 1e-3             # 40 * exp(-20)
    box, *_ = boxes(clamp_both=True)
    np.testing.assert_allclose(box[0], [29.68, 10, 30.32, 50], atol=1e-4)        # 40 * 16 / 1000 wide
    assert not boxes(min_size=0.01)[3].any() and boxes(min_size=0.6, clamp_both=True)[3].all()
    assert not boxes(min_size=0.7, clamp_both=True)[3].any()
    box, *_ = boxes(clamp_both=True, offset=1)                      # 41 * 16 / 1000 wide: the last pixel counts
    np.testing.assert_allclose(box[0], [30.172, 10, 29.828, 50], atol=1e-4)


def test_boxes_clipped_after_nms():
    """Two boxes of a class have an IoU of 0.4, but are equal once clipped to 20 x 20 pixels; a third loses its width."""
    proposals = np.float32([[[10, 0, 30, 20], [10, 0, 60, 20], [20, 0, 40, 20], [0, 0, 9, 9]]])
    valid = np.array([[True, True, True, False]])
    arrays = [np.tile(np.float32([0, 9]), (1, 4, 1)), np.zeros((1, 4, 4), np.float32), proposals, valid, np.float32([[20, 20]])]
    for clip_last, count in ((False, 2), (True, 3)):
        net = Detector(ClassNms(0.5, 1, None), STDS, (0.0,) * 4, 0.05, 4, 10, clip_last=clip_last)
        boxes, _, _, valid = (part.asnumpy()[0] for part in net(*map(Tensor, arrays)))
        assert valid.sum() == count
        assert {tuple(box) for box in boxes[valid].tolist()} == {(10, 0, 20, 20), (20, 0, 20, 20)}


def test_detections_name_their_proposals():
    logits, deltas, proposals, valid, sizes = box_head_output(4)
    net = Detector(ClassNms(0.5, 3, None), STDS, (0.0,) * 4, 0.05, 30, 1000, max_log_ratio=0.5, clip_last=True)
    (boxes, _, labels, found), roi = net.with_proposals(*map(Tensor, (logits, deltas, proposals, valid, sizes)))
    boxes, labels, found, roi = (x.asnumpy() for x in (boxes, labels, found, roi))
    assert found.sum() > 20
    for i, row in np.argwhere(found):
        own = roi[i, row]
        assert valid[i, own]
        delta = deltas[i, own].reshape(-1, 4)[labels[i, row] - 1] * STDS
        side = proposals[i, own, 2:] - proposals[i, own, :2]
        centre, half = proposals[i, own, :2] + side * (0.5 + delta[:2]), side * np.exp(np.minimum(delta[2:], 0.5)) / 2
        wanted = np.clip(np.concatenate([centre - half, centre + half]), 0, np.tile(sizes[i, ::-1], 2))
        np.testing.assert_allclose(boxes[i, row], wanted, atol=1e-3)


@pytest.mark.parametrize("case, options", [
    ("all that survive", {}),                                           # fewer than max_per_img: padding
    ("the best", {"max_per_img": 7, "iou_thr": 0.3}),
    ("more candidates than nms_pre", {"nms_pre": 12}),
    ("nothing above the threshold", {"score_thr": 0.9999}),
    ("one class", {"score_thr": 0.5}),
    ("no proposal is valid", {}),
])
def test_detections_match_loop(case, options):
    logits, deltas, proposals, valid, sizes = box_head_output(2, classes=1 if case == "one class" else 3)
    if case == "no proposal is valid":
        valid[0] = False                                                # the other image is unaffected
    options = {"score_thr": 0.05, "iou_thr": 0.5, "max_per_img": 100, "nms_pre": 1000, **options}
    boxes, scores, labels, found = detect((logits, deltas, proposals, valid, sizes), **options)
    width = min(options["max_per_img"], options["nms_pre"], logits.shape[1] * (logits.shape[2] - 1))
    assert boxes.shape == (2, width, 4) and labels.dtype == np.int32 and found.dtype == bool
    counts = []
    for i in range(2):
        expected = detections_by_hand(logits[i], deltas[i], proposals[i], valid[i], sizes[i], **options)
        counts.append(len(expected))
        assert found[i].sum() == len(expected) and found[i, :len(expected)].all()
        for row, (score, label, box) in enumerate(expected):
            assert labels[i, row] == label
            np.testing.assert_allclose(scores[i, row], score, rtol=1e-5)
            np.testing.assert_allclose(boxes[i, row], box, atol=1e-3)
    above = [(softmax(logits[i])[valid[i]][:, 1:] > options["score_thr"]).sum() for i in range(2)]
    reached = {                                                         # each case does what its name says
        "all that survive": all(0 < count < above[i] for i, count in enumerate(counts)),
        "the best": counts == [7, 7],
        "more candidates than nms_pre": min(above) > 12 > max(counts) > 0,
        "nothing above the threshold": counts == [0, 0],
        "one class": min(counts) > 0,
        "no proposal is valid": counts[0] == 0 < counts[1],
    }
    assert reached[case]


def test_nms_pre_changes_nothing_while_enough_candidates_survive():
    arrays = box_head_output(3, p=60)
    whole = detect(arrays, max_per_img=8)
    cut = detect(arrays, max_per_img=8, nms_pre=40)
    assert whole[3].all()
    assert (softmax(arrays[0])[:, :, 1:] * arrays[3][..., None] > 0.05).sum((1, 2)).min() > 40
    for a, b in zip(whole, cut):
        np.testing.assert_array_equal(a, b)
