"""Box coder, clipping and overlap against numpy, laws and arrays of other frameworks."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from faster_rcnn.src.model_utils.layers.boxes import clip_boxes, decode, encode, pairwise_iou, take_rows

pytestmark = pytest.mark.usefixtures("eager")

STDS, MEANS = (0.1, 0.1, 0.2, 0.2), (0.02, -0.01, 0.0, 0.1)


def random_boxes(rng, *shape, size=200.0):
    corner = rng.uniform(0, size, (*shape, 2))
    return np.concatenate([corner, corner + rng.uniform(5, size, (*shape, 2))], -1).astype(np.float32)


def run(function, *arrays, **options):
    """Run the function, compiled, on numpy arrays."""
    @ms.jit
    def compiled(*tensors):
        return function(*tensors, **options)

    return compiled(*(Tensor(array) for array in arrays)).asnumpy()


@pytest.mark.parametrize("offset", [0, 1])
def test_decode_undoes_encode(offset):
    rng = np.random.default_rng(0)
    anchors, boxes = random_boxes(rng, 2, 50), random_boxes(rng, 2, 50)
    deltas = run(encode, anchors, boxes, stds=STDS, means=MEANS, offset=offset)
    back = run(decode, anchors, deltas, stds=STDS, means=MEANS, offset=offset)
    np.testing.assert_allclose(back, boxes, atol=1e-3)


def test_encode_literals():
    anchors = np.array([[10, 20, 30, 60], [0, 0, 10, 10]], np.float32)             # 20 x 40 around (20, 40), 10 x 10
    boxes = np.array([[20, 20, 60, 60], [0, 0, 10, 10]], np.float32)               # 40 x 40 around (40, 40)
    expected = [[1.0, 0.0, np.log(2), 0.0], [0, 0, 0, 0]]
    np.testing.assert_allclose(run(encode, anchors, boxes), expected, atol=1e-6)


def test_old_boxes_count_the_last_pixel():
    """Old zoo: a box (0, 0, 9, 9) is 10 wide, with its centre at (4.5, 4.5)."""
    anchor = np.array([[0, 0, 9, 9]], np.float32)
    delta = np.array([[0.1, 0.0, np.log(2), 0.0]], np.float32)
    # centre 4.5 + 0.1 * 10, width 20: from 5.5 - 9.5 to 5.5 + 9.5
    np.testing.assert_allclose(run(decode, anchor, delta, offset=1), [[-4, 0, 15, 9]], atol=1e-5)


def test_padding_gives_finite_deltas():
    nothing, box = np.zeros((3, 4), np.float32), np.array([[1, 2, 30, 40]] * 3, np.float32)
    assert np.isfinite(run(encode, box, nothing)).all()
    assert np.isfinite(run(encode, nothing, box)).all()


def test_clamp_above_and_on_both_sides():
    anchor = np.array([[0, 0, 10, 10]], np.float32)
    delta = np.array([[0, 0, 50, -50]], np.float32)
    above = run(decode, anchor, delta)[0]
    assert above[2] - above[0] == pytest.approx(10 * 1000 / 16, rel=1e-5)
    assert above[3] - above[1] == pytest.approx(0, abs=1e-6)
    both = run(decode, anchor, delta, clamp_both=True)[0]
    assert both[3] - both[1] == pytest.approx(10 * 16 / 1000, rel=1e-4)


@pytest.mark.parametrize("offset", [0, 1])
def test_clip_boxes(offset):
    boxes = np.array([[[-5, 3, 700, 50], [1, 2, 3, 4]], [[-9, -9, -1, -1], [600, 5, 900, 900]]], np.float32)
    sizes = np.array([[480, 640], [100, 800]], np.float32)
    limit = np.stack([sizes[:, 1], sizes[:, 0]] * 2, -1)[:, None] - offset
    np.testing.assert_array_equal(run(clip_boxes, boxes, sizes, offset=offset), np.clip(boxes, 0, limit))


@pytest.mark.parametrize("offset", [0, 1])
def test_iou_matches_loop(offset):
    rng = np.random.default_rng(1)
    a, b = random_boxes(rng, 2, 20), random_boxes(rng, 2, 9)
    a[0, 3] = a[1, 4] = b[0, 2] = 0                                                # padding
    a[1, 5] = b[1, 1]
    expected = np.zeros((2, 20, 9))
    for n, i, j in np.ndindex(2, 20, 9):
        p, q = a[n, i].astype(np.float64), b[n, j].astype(np.float64)
        width = min(p[2], q[2]) - max(p[0], q[0]) + offset
        height = min(p[3], q[3]) - max(p[1], q[1]) + offset
        inter = max(width, 0) * max(height, 0)
        areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (p, q)]
        expected[n, i, j] = inter / (sum(areas) - inter) if inter > 0 else 0
    got = run(pairwise_iou, a, b, offset=offset)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert got[1, 5, 1] == 1


def test_take_rows():
    rng = np.random.default_rng(2)
    table, index = rng.standard_normal((3, 7, 4)).astype(np.float32), rng.integers(0, 7, (3, 5)).astype(np.int32)
    np.testing.assert_array_equal(run(take_rows, table, index), np.stack([t[i] for t, i in zip(table, index)]))


@pytest.mark.parametrize("name, stds", [("w1", (1.0, 1.0, 1.0, 1.0)), ("w10", (0.1, 0.1, 0.2, 0.2))])
def test_coder_parity(parity_file, name, stds):
    fixture = np.load(parity_file("op_fixtures.npz"))
    anchors = fixture["coder/src"]
    encoded = run(encode, anchors, fixture["coder/dst"], stds=stds)
    np.testing.assert_allclose(encoded, fixture[f"coder/{name}/encode"], rtol=1e-5, atol=1e-5)
    decoded = run(decode, anchors, fixture["coder/deltas"], stds=stds)
    np.testing.assert_allclose(decoded, fixture[f"coder/{name}/decode"], rtol=1e-5, atol=1e-4)


def test_iou_parity(parity_file):
    fixture = np.load(parity_file("op_fixtures.npz"))
    got = run(pairwise_iou, fixture["match/gt"], fixture["coder/src"])
    np.testing.assert_allclose(got, fixture["match/iou"], atol=1e-6)
