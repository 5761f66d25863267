"""The mask head and its loss against numpy."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mask_rcnn.src.MaskRcnn import rcnn_mask
from mask_rcnn.src.MaskRcnn.rcnn_mask import MaskHead, mask_head_loss
from mask_rcnn.src.model_utils.layers.convolution import Convolution
from tests.numpy_layers import convolve

pytestmark = pytest.mark.usefixtures("eager")

CHANNELS, WIDTH, CLASSES = 3, 5, 4


def random_head(fast=False, seed=0):
    rng = np.random.default_rng(seed)
    net = MaskHead(CHANNELS, WIDTH, CLASSES, num_convs=2, fast=fast)
    for param in net.get_parameters():
        scale = np.sqrt(2 / max(np.prod(param.shape[1:]), 1))
        param.set_data(Tensor((scale * rng.standard_normal(param.shape)).astype(np.float32)))
    return net


def head_by_hand(weights, feats, labels):
    """Logits (M, 2H, 2W) of each RoI's class; the transposed convolution runs pixel by pixel."""
    x = feats.astype(np.float64)
    for i in range(sum(name.startswith("convs") and name.endswith("weight") for name in weights)):
        bias = weights[f"convs.{i}.bias"].reshape(-1, 1, 1)
        x = np.maximum(convolve(x, weights[f"convs.{i}.weight"]) + bias, 0)
    m, _, height, width = x.shape
    doubled = np.zeros((m, weights["deconv.weight"].shape[1], 2 * height, 2 * width))
    for y, z in np.ndindex(height, width):
        for a, b in np.ndindex(2, 2):
            doubled[:, :, 2 * y + a, 2 * z + b] = x[:, :, y, z] @ weights["deconv.weight"][:, :, a, b] + weights["deconv.bias"]
    logits = convolve(np.maximum(doubled, 0), weights["logits.weight"]) + weights["logits.bias"].reshape(-1, 1, 1)
    return np.stack([logits[i, label - 1] for i, label in enumerate(labels)])


def weights_of(net):
    return {param.name: param.asnumpy().astype(np.float64) for param in net.get_parameters()}


@pytest.mark.parametrize("side, fast", [(3, False), (14, False), (14, True)])
def test_head_matches_numpy(monkeypatch, side, fast):
    monkeypatch.setattr(Convolution, "WINOGRAD_CHANNELS", 1)
    net, rng = random_head(fast), np.random.default_rng(1)
    assert (net.convs[0].conv.winograd is not None) == fast
    feats = rng.standard_normal((6, CHANNELS, side, side)).astype(np.float32)
    labels = np.array([1, 4, 2, 4, 3, 1], np.int32)
    got = ms.jit(net)(Tensor(feats), Tensor(labels)).asnumpy()
    expected = head_by_hand(weights_of(net), feats, labels)
    assert got.shape == (6, 2 * side, 2 * side) and expected.std() > 0.3
    np.testing.assert_allclose(got, expected, atol=1e-3 if fast else 1e-5)


def test_labels_outside_the_classes_give_finite_logits():
    """Background and padding slots are computed too, and do not affect other slots."""
    net, feats = random_head(), np.random.default_rng(2).standard_normal((3, CHANNELS, 3, 3)).astype(np.float32)
    got = ms.jit(net)(Tensor(feats), Tensor([0, 2, 9], ms.int32)).asnumpy()
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got[1], head_by_hand(weights_of(net), feats[1:2], [2])[0], atol=1e-5)


@pytest.mark.parametrize("case", ["mixed", "all objects", "no objects"])
def test_loss_matches_loop(case):
    """The loss is the mean over all pixels of positive slots; the other slots hold values that would show."""
    n, q, side = 2, 4, 6
    rng = np.random.default_rng(3)
    logits = (4 * rng.standard_normal((n, q, side, side))).astype(np.float32)
    targets = (rng.uniform(size=logits.shape) < 0.4).astype(np.float32)
    counts = {"mixed": [3, 1], "all objects": [4, 4], "no objects": [0, 0]}[case]
    positive = np.arange(q) < np.array(counts)[:, None]
    logits[~positive], targets[~positive] = 1e4, 0
    total = 0.0
    for place in np.argwhere(positive):
        z, t = logits[tuple(place)].astype(float), targets[tuple(place)]
        total -= (t * np.log(1 / (1 + np.exp(-z))) + (1 - t) * np.log(1 / (1 + np.exp(z)))).mean()
    got = float(ms.jit(mask_head_loss)(Tensor(logits), Tensor(targets), Tensor(positive)))
    np.testing.assert_allclose(got, total / max(positive.sum(), 1), rtol=1e-5)
    assert (got > 0) == (case != "no objects")


def test_parts_equal_the_whole(monkeypatch):
    """Values and gradients of 7 RoIs are the same at once and in parts of 3."""
    rng = np.random.default_rng(5)
    feats, upstream = (rng.standard_normal(shape).astype(np.float32) for shape in ((7, CHANNELS, 3, 3), (7, 6, 6)))

    def run(size):
        monkeypatch.setattr(rcnn_mask, "ROIS_AT_ONCE", size)
        net = random_head()

        def loss(feats, labels, upstream):
            out = net(feats, labels)
            return (out * upstream).sum(), out

        graph = ms.jit(ms.value_and_grad(loss, 0, ms.ParameterTuple(net.trainable_params()), has_aux=True))
        (_, out), (dfeats, dparams) = graph(Tensor(feats), Tensor([1, 2, 3, 4, 4, 2, 1], ms.int32), Tensor(upstream))
        return [x.asnumpy() for x in (out, dfeats, *dparams)]

    for whole, parts in zip(run(64), run(3)):
        assert np.abs(whole).max() > 0
        np.testing.assert_allclose(parts, whole, atol=1e-5 * np.abs(whole).max())


def test_gradient_reaches_only_classes_of_positive_slots():
    """Logits of a class without a positive slot do not learn; features of other slots get no gradient."""
    net, rng = random_head(), np.random.default_rng(4)
    feats = rng.standard_normal((4, CHANNELS, 3, 3)).astype(np.float32)
    labels, positive = np.array([2, 2, 4, 0], np.int32), np.array([[True, True, False, False]])
    targets = (rng.uniform(size=(1, 4, 6, 6)) < 0.5).astype(np.float32)

    def loss(feats, labels, targets, positive):
        return mask_head_loss(net(feats, labels).reshape(1, 4, 6, 6), targets, positive)

    params = ms.ParameterTuple(net.trainable_params())
    dfeats, dparams = ms.jit(ms.grad(loss, 0, params))(*map(Tensor, (feats, labels, targets, positive)))
    assert (np.abs(dfeats.asnumpy()).max((1, 2, 3)) > 0).tolist() == [True, True, False, False]
    grads = {param.name: grad.asnumpy() for param, grad in zip(params, dparams)}
    assert (np.abs(grads["logits.weight"]).max((1, 2, 3)) > 0).tolist() == [False, True, False, False]
    assert (np.abs(grads["logits.bias"]) > 0).tolist() == [False, True, False, False]
    assert all(np.abs(grad).max() > 0 for grad in grads.values())
