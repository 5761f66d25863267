"""Non-maximum suppression against a greedy loop."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from faster_rcnn.src.model_utils.layers.nms import ClassNms, Nms

pytestmark = pytest.mark.usefixtures("eager")


def greedy(boxes, valid, threshold, labels=None):
    """Return the keep flags of boxes that are sorted by score, best first."""
    boxes = boxes.astype(np.float64)
    keep = np.zeros(len(boxes), bool)
    for i in np.flatnonzero(valid):
        keep[i] = True
        for j in np.flatnonzero(keep[:i]):
            if labels is not None and labels[i] != labels[j]:
                continue
            side = np.minimum(boxes[i, 2:], boxes[j, 2:]) - np.maximum(boxes[i, :2], boxes[j, :2])
            inter = np.prod(np.maximum(side, 0))
            areas = np.prod(boxes[i, 2:] - boxes[i, :2]) + np.prod(boxes[j, 2:] - boxes[j, :2])
            if inter > 0 and inter / (areas - inter) > threshold:
                keep[i] = False
                break
    return keep


def crowd(rng, n, k):
    """Return n images of k boxes in clusters."""
    centre = rng.uniform(0, 300, (n, 8, 2))[:, rng.integers(0, 8, k)] + rng.normal(0, 8, (n, k, 2))
    half = rng.uniform(20, 40, (n, k, 2)) / 2
    return np.concatenate([centre - half, centre + half], -1).astype(np.float32)


@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_nms_matches_greedy_loop(threshold):
    rng = np.random.default_rng(0)
    boxes, valid = crowd(rng, 3, 120), rng.uniform(size=(3, 120)) < 0.8
    valid[2] = False                                                               # all padding
    boxes[1, 50:60] = 0                                                            # empty boxes, which suppress nothing
    boxes[0, ~valid[0]] = np.nan                                                   # padding may hold any value
    got = ms.jit(Nms(threshold))(Tensor(boxes), Tensor(valid)).asnumpy()
    expected = np.stack([greedy(b, v, threshold) for b, v in zip(boxes, valid)])
    np.testing.assert_array_equal(got, expected)
    assert expected[0].sum() < valid[0].sum()


def test_overlap_at_the_threshold_stays():
    boxes = np.array([[[0, 0, 2, 1], [0, 0, 1, 1], [0, 0, 2, 1.01]]], np.float32)  # IoU 0.5 and 0.99 with the first
    got = ms.jit(Nms(0.5))(Tensor(boxes), Tensor(np.ones((1, 3), bool))).asnumpy()
    np.testing.assert_array_equal(got, [[True, True, False]])


def test_class_nms_matches_greedy_loop():
    rng = np.random.default_rng(1)
    boxes, labels = crowd(rng, 2, 120).clip(0, 320), rng.integers(0, 5, (2, 120)).astype(np.int32)
    valid = rng.uniform(size=(2, 120)) < 0.9
    got = ms.jit(ClassNms(0.5, num_classes=5, max_side=320))(Tensor(boxes), Tensor(valid), Tensor(labels)).asnumpy()
    expected = np.stack([greedy(b, v, 0.5, c) for b, v, c in zip(boxes, valid, labels)])
    np.testing.assert_array_equal(got, expected)
    assert expected.sum() > np.stack([greedy(b, v, 0.5) for b, v in zip(boxes, valid)]).sum()


def test_class_nms_of_boxes_that_are_not_clipped():
    """Boxes far outside the image and padding of any value suppress no box of another class."""
    rng = np.random.default_rng(3)
    boxes, valid, labels = crowd(rng, 2, 120) * 4 - 700, rng.uniform(size=(2, 120)) < 0.9, rng.integers(0, 5, (2, 120))
    boxes[0, ~valid[0]] = np.inf
    arrays = Tensor(boxes), Tensor(valid), Tensor(labels.astype(np.int32))
    expected = np.stack([greedy(*row[:2], 0.5, row[2]) for row in zip(boxes, valid, labels)])
    np.testing.assert_array_equal(ClassNms(0.5, 5, None)(*arrays).asnumpy(), expected)
    assert (ClassNms(0.5, 5, 300)(*arrays).asnumpy() != expected).any()


@pytest.mark.parametrize("threshold", ["0.3", "0.5", "0.7"])
def test_nms_parity(parity_file, threshold):
    fixture = np.load(parity_file("op_fixtures.npz"))
    order = np.argsort(-fixture["nms/scores"], kind="stable")
    boxes, labels = fixture["nms/boxes"][order][None], fixture["nms/classes"][order][None].astype(np.int32)
    valid = np.ones(labels.shape, bool)
    keep = ms.jit(Nms(float(threshold)))(Tensor(boxes), Tensor(valid)).asnumpy()[0]
    np.testing.assert_array_equal(order[keep], fixture[f"nms/keep_{threshold}"])
    nms = ClassNms(float(threshold), int(labels.max()) + 1, float(boxes.max()))
    keep = ms.jit(nms)(Tensor(boxes), Tensor(valid), Tensor(labels)).asnumpy()[0]
    np.testing.assert_array_equal(order[keep], fixture[f"nms/batched_keep_{threshold}"])
