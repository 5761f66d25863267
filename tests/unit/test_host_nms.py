"""NMS on the host against the network's last step, and against loops over boxes and classes."""
import mindspore as ms
import numpy as np
import pytest

from refinedet.src.host_nms import detections_of
from refinedet.src.network_define import host_steps
from tests.narrow_refinedet import narrow_config, narrow_network

LIMITS = {"score_thr": 0.3, "iou_thr": 0.5, "per_class": 15, "total": 40, "max_per_img": 12}


def iou(a, b) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def by_loops(boxes, scores, score_thr, iou_thr, per_class, total, max_per_img) -> list:
    """Return [(score, label, box)] of one image, best first."""
    candidates = []
    for k in range(scores.shape[1]):
        best = sorted(((scores[a, k], k + 1, tuple(boxes[a])) for a in range(len(boxes)) if scores[a, k] > score_thr), reverse=True)
        candidates += best[:per_class]
    kept = []
    for item in sorted(candidates, reverse=True)[:total]:
        if all(item[1] != other[1] or iou(item[2], other[2]) <= iou_thr for other in kept):
            kept.append(item)
    return kept[:max_per_img]


def crowd(seed: int, n: int = 2, a: int = 60, k: int = 4) -> tuple:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 60, (n, a, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(10, 40, (n, a, 2))], -1).astype(np.float32)
    return boxes, rng.random((n, a, k)).astype(np.float32)


@pytest.mark.parametrize("limits", [{}, {"per_class": 3}, {"total": 9}, {"max_per_img": 4}, {"score_thr": 0.97}, {"iou_thr": 0.1}],
                         ids=str)
def test_detections_match_loops(limits):
    limits = {**LIMITS, **limits}
    boxes, scores = crowd(1)
    found = detections_of(boxes, scores, **limits)
    for i, wanted in enumerate(by_loops(b, s, **limits) for b, s in zip(boxes, scores)):
        got_boxes, got_scores, labels, valid = (value[i] for value in found)
        assert valid.sum() == len(wanted) and valid[:len(wanted)].all()
        for row, (score, label, box) in enumerate(wanted):
            assert (got_scores[row], labels[row], tuple(got_boxes[row])) == (score, label, box)
        assert not got_scores[len(wanted):].any()


def test_shapes_are_fixed_without_detections():
    boxes, scores = crowd(2, a=5, k=2)
    found = detections_of(boxes, scores * 0, **LIMITS)
    assert [value.shape for value in found] == [(2, 10, 4), (2, 10), (2, 10), (2, 10)]
    assert not found[3].any()


def test_host_steps_match_the_network():
    config = narrow_config(test_batch_size=2)
    net = narrow_network(config)
    image = ms.Tensor(np.random.default_rng(5).normal(0, 1.5, (2, 3, 64, 128)).astype(np.float32))
    boxes, scores = (value.asnumpy() for value in net.decode(image))
    assert 0 < (scores == 0).mean() < 1         # low objectness sets some scores to 0
    got = host_steps(config)[2](boxes, scores)
    want = [value.asnumpy() for value in net.predict(image, ms.ops.ones((2, 6)))]
    assert [value.shape for value in got] == [value.shape for value in want]
    assert want[3].any() and np.array_equal(got[3], want[3])
    kept = want[3]
    for ours, theirs in zip(got[:3], want[:3]):
        np.testing.assert_allclose(ours[kept], theirs[kept], atol=1e-5)
