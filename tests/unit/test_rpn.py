"""The region proposal network: outputs at chosen anchors equal those of the dense head; losses against loops."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops

from faster_rcnn.src.FasterRcnn.losses import binary_cross_entropy, smooth_l1
from faster_rcnn.src.FasterRcnn.rpn import RpnHead, rpn_losses
from faster_rcnn.src.model_utils.layers.convolution import Convolution
from tests.numpy_layers import convolve

pytestmark = pytest.mark.usefixtures("eager")

CHANNELS, HIDDEN, ANCHORS = 5, 6, 3
SHAPES = [(9, 11), (5, 6), (3, 3), (1, 2), (1, 1)]
TOTAL = sum(h * w * ANCHORS for h, w in SHAPES)


def head_and_features(fast=False, seed=0):
    """Weights and biases are of order 1, because small initial values would hide differences."""
    rng = np.random.default_rng(seed)
    net = RpnHead(CHANNELS, HIDDEN, ANCHORS, fast=fast)
    for param in net.get_parameters():
        param.set_data(Tensor(0.5 * rng.standard_normal(param.shape).astype(np.float32)))
    return net, [rng.standard_normal((2, CHANNELS, *shape)).astype(np.float32) for shape in SHAPES]


def flat(logits, deltas):
    """Maps per level -> (N, TOTAL), (N, TOTAL, 4) in the order (level, y, x, anchor)."""
    n = logits[0].shape[0]
    return (ops.cat([level.transpose(0, 2, 3, 1).reshape(n, -1) for level in logits], 1),
            ops.cat([level.transpose(0, 2, 3, 1).reshape(n, -1, 4) for level in deltas], 1))


@pytest.mark.parametrize("fast", [False, True])
def test_dense_head_matches_numpy(monkeypatch, fast):
    monkeypatch.setattr(Convolution, "WINOGRAD_CHANNELS", 1)
    net, features = head_and_features(fast)
    weights = {param.name: param.asnumpy() for param in net.get_parameters()}
    logits, deltas = ms.jit(net)(tuple(map(Tensor, features)))

    def layer(x, name):
        return convolve(x, weights[f"{name}.weight"]) + weights[f"{name}.bias"].reshape(-1, 1, 1)

    for feature, *got in zip(features, logits, deltas):
        hidden = np.maximum(layer(feature, "conv"), 0)
        for array, name in zip(got, ("cls", "reg")):
            np.testing.assert_allclose(array.asnumpy(), layer(hidden, name), atol=1e-4 if fast else 1e-5)


def test_at_anchors_equals_the_dense_head():
    """All anchors of all levels, borders included, in a different order per image; some occur twice."""
    net, features = head_and_features()
    rng = np.random.default_rng(1)
    index = np.stack([rng.permutation(np.r_[np.arange(TOTAL), rng.integers(0, TOTAL, 30)]) for _ in range(2)])

    @ms.jit
    def both(index, *features):
        logits, deltas = net(features)
        return flat(logits, deltas), net.at_anchors(features, index)

    dense, sparse = both(Tensor(index.astype(np.int32)), *map(Tensor, features))
    for whole, got in zip(dense, sparse):
        expected = np.stack([image[rows] for image, rows in zip(whole.asnumpy(), index)])
        np.testing.assert_allclose(got.asnumpy(), expected, atol=1e-5)


@pytest.mark.parametrize("fast", [False, True])
def test_gradients_equal_those_of_the_dense_head(monkeypatch, fast):
    """Gradients of both losses, for all levels' features and all parameters; `fast` forces Winograd in the dense head.

    The losses use 3 * 40 anchors: all of the coarse levels, corners and borders of the finest, some twice, some as padding.
    """
    monkeypatch.setattr(Convolution, "WINOGRAD_CHANNELS", 1)
    net, features = head_and_features(fast)
    rng = np.random.default_rng(2)
    corners = [0, 10 * ANCHORS, 88 * ANCHORS + 2, 98 * ANCHORS + 1]
    index = np.stack([np.r_[corners, np.arange(TOTAL - 40, TOTAL), rng.integers(0, TOTAL, 76)] for _ in range(2)])
    index = index.astype(np.int32)
    kind = rng.integers(0, 3, index.shape)
    targets = rng.standard_normal((*index.shape, 4)).astype(np.float32)
    params = ms.ParameterTuple(net.trainable_params())
    assert len(params) == 6

    def dense(index, features):
        logits, deltas = flat(*net(features))
        rows = index + Tensor(np.array([[0], [TOTAL]], np.int32))
        return ops.gather(logits.reshape(-1), rows, 0), ops.gather(deltas.reshape(-1, 4), rows, 0)

    def sparse(index, features):
        return net.at_anchors(features, index)

    def gradients(answer):
        def loss(index, targets, positive, negative, *features):
            losses = rpn_losses(*answer(index, features), targets, positive, negative)
            return losses[0] + 3 * losses[1]

        places = tuple(range(4, 4 + len(features)))
        grads = ms.jit(ms.grad(loss, places, params))(Tensor(index), Tensor(targets), Tensor(kind == 1), Tensor(kind == 2),
                                                      *map(Tensor, features))
        return [grad.asnumpy() for part in grads for grad in part]

    names = [f"features of level {i}" for i in range(len(features))] + [param.name for param in params]
    for name, got, expected in zip(names, gradients(sparse), gradients(dense)):
        assert np.abs(expected).max() > 1e-3, name
        np.testing.assert_allclose(got, expected, atol=(5e-5 if fast else 2e-6) * np.abs(expected).max(), err_msg=name)


def losses_by_hand(logits, deltas, targets, positive, negative, beta):
    cls = reg = count = 0
    for place in np.ndindex(positive.shape):
        if not (positive[place] or negative[place]):
            continue
        count += 1
        probability = 1 / (1 + np.exp(-float(logits[place])))
        cls -= np.log(probability if positive[place] else 1 - probability)
        if positive[place]:
            for distance in np.abs(deltas[place].astype(float) - targets[place]):
                reg += distance ** 2 / (2 * beta) if distance < beta else distance - beta / 2
    return cls / max(count, 1), reg / max(count, 1)


@pytest.mark.parametrize("beta", [1 / 9, 0.0])
def test_losses_match_loop(beta):
    """Three cases in one graph; padding slots hold values that would show."""
    @ms.jit
    def net(*arrays):
        return rpn_losses(*arrays, beta=beta)

    rng = np.random.default_rng(3)
    for case in ("mixed", "all background", "all padding"):
        logits = (3 * rng.standard_normal((2, 20))).astype(np.float32)
        targets = rng.standard_normal((2, 20, 4)).astype(np.float32)
        deltas = targets + (0.2 * rng.standard_normal((2, 20, 4))).astype(np.float32)       # on both sides of beta
        kind = {"mixed": rng.integers(0, 3, (2, 20)), "all background": np.full((2, 20), 2), "all padding": np.zeros((2, 20))}[case]
        logits[kind == 0], targets[kind != 1] = 80, 1e4
        arrays = logits, deltas, targets, kind == 1, kind == 2
        got = [float(loss) for loss in net(*map(Tensor, arrays))]
        np.testing.assert_allclose(got, losses_by_hand(*arrays, beta), rtol=1e-5, atol=1e-7, err_msg=case)
        assert (got[0] > 0, got[1] > 0) == (case != "all padding", case == "mixed")


def test_smooth_l1_by_hand():
    def total(prediction, target, beta):
        return smooth_l1(prediction, target, beta).sum()

    prediction, target = Tensor([0.0, 1.0, -1.0, 3.0, 2.05], ms.float32), Tensor([0.0, 1.5, -3.0, 3.0, 2.0], ms.float32)
    np.testing.assert_allclose(smooth_l1(prediction, target, 0).asnumpy(), [0, 0.5, 2, 0, 0.05], atol=1e-6)
    np.testing.assert_allclose(smooth_l1(prediction, target, 1.0).asnumpy(), [0, 0.125, 1.5, 0, 0.00125], atol=1e-6)
    for beta, expected in ((0, [0, -1, 1, 0, 1]), (1.0, [0, -0.5, 1, 0, 0.05])):
        slope = ms.jit(ms.grad(total))(prediction, target, beta).asnumpy()
        np.testing.assert_allclose(slope, expected, atol=1e-6)


def test_binary_cross_entropy_without_overflow():
    """The slope is sigmoid(x) - target, even at 0, where |x| has no derivative."""
    def total(logits, target):
        return binary_cross_entropy(logits, target).sum()

    logits = np.array([0, 2, -2, 100, -100, 1000, -1000], np.float32)
    for target in (0.0, 1.0):
        target = Tensor(np.full(7, target, np.float32))
        value = binary_cross_entropy(Tensor(logits), target).asnumpy()
        expected = np.logaddexp(0, logits.astype(np.float64)) - logits * target.asnumpy()
        np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-7)
        slope = ms.jit(ms.grad(total))(Tensor(logits), target).asnumpy()
        sigmoid = np.exp(-np.logaddexp(0, -logits.astype(np.float64)))
        np.testing.assert_allclose(slope, sigmoid - target.asnumpy(), atol=1e-6)
