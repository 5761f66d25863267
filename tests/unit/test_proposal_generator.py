"""Proposals against a loop in numpy, and against other frameworks given their RPN output."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from faster_rcnn.src.FasterRcnn.anchor_generator import AnchorGenerator
from faster_rcnn.src.FasterRcnn.proposal_generator import ProposalGenerator
from tests.parity_models import LEVELS, ParityModel, fixture_folders, label

pytestmark = pytest.mark.usefixtures("eager")

SHAPES = [(6, 8), (3, 4), (2, 2)]
STRIDES = [8, 16, 32]
SIZES = np.array([[48, 64], [40, 50]], np.float32)


def rpn_output(seed=0):
    rng = np.random.default_rng(seed)
    logits = [rng.standard_normal((2, 3, h, w)).astype(np.float32) for h, w in SHAPES]
    deltas = [0.5 * rng.standard_normal((2, 12, h, w)).astype(np.float32) for h, w in SHAPES]
    return logits, deltas


def naive(logits, deltas, anchors, height, width, nms_pre, nms_post, max_num, threshold, min_size, across_levels=False,
          cut_first=False, filter_first=False, limit=4.135166556742356):
    """One image: [(score, box), ...], best first."""
    best = []
    for level_logits, level_deltas, level_anchors in zip(logits, deltas, anchors):
        _, h, w = level_logits.shape
        rows = []
        for number, anchor in enumerate(level_anchors.astype(np.float64)):
            pixel, a = divmod(number, 3)
            y, x = divmod(pixel, w)
            dx, dy, dw, dh = level_deltas[4 * a:4 * a + 4, y, x]
            size = anchor[2:] - anchor[:2]
            centre = anchor[:2] + size / 2 + size * [dx, dy]
            half = size * np.exp(np.minimum([dw, dh], limit)) / 2
            box = np.clip(np.concatenate([centre - half, centre + half]), 0, [width, height] * 2)
            rows.append((level_logits[a, y, x], box))
        rows = sorted(rows, key=lambda row: -row[0])[:None if filter_first else nms_pre]
        rows = [row for row in rows if min(row[1][2:] - row[1][:2]) > max(min_size, 1e-9)][:nms_pre]
        best += greedy(rows, threshold)[:nms_post]
    best = sorted(best, key=lambda row: -row[0])[:max_num if cut_first else None]
    return (greedy(best, threshold) if across_levels else best)[:max_num]


def greedy(rows, threshold):
    kept = []
    for score, box in rows:
        if all(iou(box, other) <= threshold for _, other in kept):
            kept.append((score, box))
    return kept


def iou(p, q):
    w, h = np.maximum(np.minimum(p[2:], q[2:]) - np.maximum(p[:2], q[:2]), 0)
    return w * h / (np.prod(p[2:] - p[:2]) + np.prod(q[2:] - q[:2]) - w * h)


@pytest.mark.parametrize("across_levels", [False, True])
@pytest.mark.parametrize("nms_pre, nms_post, max_num, min_size", [
    (60, 60, 40, 0.0),      # levels have 144, 36 and 12 anchors: k is cut to the level
    (60, 10, 500, 0.0),     # fewer proposals than max_num: padding; nms_post cuts
    (100, 100, 50, 12.0),   # min_size filters
])
def test_proposals_match_loop(nms_pre, nms_post, max_num, min_size, across_levels):
    logits, deltas = rpn_output()
    anchors = AnchorGenerator([2], [0.5, 1.0, 2.0], STRIDES).levels(SHAPES)
    net = ProposalGenerator(anchors, nms_pre, nms_post, max_num, 0.5, min_size, across_levels=across_levels)
    got = ms.jit(net)(tuple(map(Tensor, logits)), tuple(map(Tensor, deltas)), Tensor(SIZES))
    boxes, scores, valid = (part.asnumpy() for part in got)
    assert boxes.shape == (2, max_num, 4)
    for i in range(2):
        arguments = [x[i] for x in logits], [x[i] for x in deltas], anchors, *SIZES[i], nms_pre, nms_post, max_num, 0.5, min_size
        expected, other = naive(*arguments, across_levels), naive(*arguments, not across_levels)
        count = len(expected)
        assert valid[i].sum() == count and valid[i, :count].all()
        np.testing.assert_allclose(scores[i, :count], [row[0] for row in expected])
        np.testing.assert_allclose(boxes[i, :count], [row[1] for row in expected], atol=1e-4)
        assert (boxes[i, count:] == 0).all()
        assert [row[0] for row in other] != [row[0] for row in expected]


@pytest.mark.parametrize("own", [{"across_levels": True, "cut_first": True}, {"filter_first": True}, {"max_log_ratio": 0.1}],
                         ids=lambda own: list(own)[-1])
def test_proposals_of_mindspore_lab_match_loop(own):
    """Each rule of MindSpore Lab matches the loop and changes the proposals."""
    logits, deltas = rpn_output()
    anchors = AnchorGenerator([2], [0.5, 1.0, 2.0], STRIDES).levels(SHAPES)
    net = ProposalGenerator(anchors, 25, 25, 12, 0.5, 12.0, **own)
    boxes, scores, valid = (part.asnumpy() for part in net(tuple(map(Tensor, logits)), tuple(map(Tensor, deltas)), Tensor(SIZES)))
    rules = {"limit" if key == "max_log_ratio" else key: value for key, value in own.items()}
    others, differing = {"across_levels": True} if "cut_first" in own else {}, []
    for i in range(2):
        arguments = [x[i] for x in logits], [x[i] for x in deltas], anchors, *SIZES[i], 25, 25, 12, 0.5, 12.0
        expected, other = naive(*arguments, **rules), naive(*arguments, **others)
        count = len(expected)
        differing.append([row[0] for row in other] != [row[0] for row in expected])
        assert valid[i].sum() == count and valid[i, :count].all()
        np.testing.assert_allclose(scores[i, :count], [row[0] for row in expected])
        np.testing.assert_allclose(boxes[i, :count], [row[1] for row in expected], atol=1e-4)
    assert any(differing)


@pytest.mark.parametrize("across_levels, kept", [(False, 5), (True, 3)])
def test_equal_scores_on_two_levels(across_levels, kept):
    """NMS across levels keeps one of two equal boxes with equal scores; separate boxes survive. The other slots are padding."""
    apart = [[40, 0, 56, 16], [40, 30, 56, 46]]
    anchors = [np.array([[0, 0, 16, 16], apart[0]], np.float32), np.array([[0, 0, 16, 16], *apart], np.float32)]
    logits = tuple(Tensor(np.ones((1, 1, len(level), 1), np.float32)) for level in anchors)
    deltas = tuple(Tensor(np.zeros((1, 4, len(level), 1), np.float32)) for level in anchors)
    net = ProposalGenerator(anchors, 10, 10, 8, 0.7, across_levels=across_levels)
    boxes, _, valid = (part.asnumpy() for part in ms.jit(net)(logits, deltas, Tensor(SIZES[:1])))
    assert valid[0].tolist() == [True] * kept + [False] * (8 - kept)
    assert {tuple(box) for box in boxes[0, :kept].tolist()} == {tuple(box) for box in anchors[1].tolist()}
    assert (boxes[0, kept:] == 0).all()


@pytest.mark.parametrize("across_levels", [False, True])
def test_no_proposals_from_an_empty_image_or_nan(across_levels):
    logits, deltas = rpn_output()
    deltas = [np.concatenate([level[:1], np.full_like(level[1:], np.nan)]) for level in deltas]
    anchors = AnchorGenerator([2], [0.5, 1.0, 2.0], STRIDES).levels(SHAPES)
    net = ProposalGenerator(anchors, 60, 60, 40, 0.5, across_levels=across_levels)
    sizes = np.array([[0, 0], [40, 50]], np.float32)
    boxes, _, valid = ms.jit(net)(tuple(map(Tensor, logits)), tuple(map(Tensor, deltas)), Tensor(sizes))
    assert not valid.asnumpy().any()
    assert (boxes.asnumpy() == 0).all()


def test_anchors_of_a_call_override_the_constructors():
    logits, deltas = rpn_output()
    generator = AnchorGenerator([2], [0.5, 1.0, 2.0], STRIDES)
    arguments = tuple(map(Tensor, logits)), tuple(map(Tensor, deltas)), Tensor(SIZES)
    net = ProposalGenerator(generator.levels(SHAPES), 60, 60, 40, 0.5)
    other = ProposalGenerator(generator.levels([(1, 1)] * 3), 60, 60, 40, 0.5)
    expected = ms.jit(net)(*arguments)
    got = ms.jit(other)(*arguments, tuple(map(Tensor, generator.levels(SHAPES))))
    for a, b in zip(got, expected):
        np.testing.assert_array_equal(a.asnumpy(), b.asnumpy())


OPTIONS = {"detectron2": {}, "torchvision": {"min_size": 1e-3}, "mmdet": {"clamp_both": True},
           "mslab": {"min_size": 1.0000001, "max_log_ratio": 4.0, "across_levels": True, "cut_first": True, "filter_first": True}}


@pytest.mark.parametrize("folder", fixture_folders(masks=False), ids=label)
def test_proposals_parity(folder):
    model = ParityModel(folder)
    fixture, (generator, strides) = model.arrays, model.anchors()
    logits, deltas = ([fixture[f"rpn/{kind}_{name}"] for name in LEVELS] for kind in ("logits", "deltas"))
    mslab = model.framework == "mslab"
    most = 2000 if mslab else 1000
    net = ProposalGenerator(generator.levels(model.shapes, strides), most, most, 1000, 0.7, **OPTIONS[model.framework])
    sizes = fixture["input/image_sizes"].astype(np.float32)
    if mslab:       # mslab clips to the last pixel of the padded input
        sizes = np.full_like(sizes, np.array(fixture["input/images"].shape[2:]) - 1)
    sizes = Tensor(sizes)
    got = ms.jit(net)(tuple(map(Tensor, logits)), tuple(map(Tensor, deltas)), sizes)
    boxes, scores, valid = (part.asnumpy() for part in got)
    if model.framework != "detectron2":
        scores = 1 / (1 + np.exp(-scores))
    for i in range(len(boxes)):
        expected, expected_scores = fixture[f"proposals/boxes{i}"], fixture[f"proposals/scores{i}"]
        distance = np.abs(boxes[i, valid[i]][:, None] - expected).max(-1)
        distance = distance + 100 * (np.abs(scores[i, valid[i]][:, None] - expected_scores) > 1e-5)
        assert distance.shape[0] == distance.shape[1]
        assert distance.min(0).max() < 1e-3 and distance.min(1).max() < 1e-3
