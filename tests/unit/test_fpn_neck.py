"""The feature pyramid against numpy: values, and the gradients of its upsampling."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from faster_rcnn.src.FasterRcnn.fpn_neck import FeaturePyramid, UpsampleTwice, upsample_bilinear, upsample_nearest
from faster_rcnn.src.model_utils.layers.convolution import Convolution
from tests.numpy_layers import convolve

CHANNELS, WIDTH = (3, 5, 6, 7), 4
EVEN = [(16, 24), (8, 12), (4, 6), (2, 3)]
ODD = [(19, 25), (10, 13), (5, 7), (3, 4)]     # C3 is more than half of C2, so its last row or column is used once


def repeated(x, height, width):
    """Upsample to the nearest neighbour: pixel i of H comes from i * h // H."""
    rows, columns = (np.arange(big) * small // big for big, small in zip((height, width), x.shape[2:]))
    return x[:, :, rows][..., columns]


def naive(weights, features, extra):
    merged, out = None, []
    for level in reversed(range(4)):
        def layer(x, name, level=level):
            return convolve(x, weights[f"{name}.{level}.weight"]) + weights[f"{name}.{level}.bias"].reshape(-1, 1, 1)

        lateral = layer(features[level], "laterals")
        merged = lateral if merged is None else lateral + repeated(merged, *lateral.shape[2:])
        out.insert(0, layer(merged, "outputs"))
    for _ in range(extra):
        out.append(out[-1][:, :, ::2, ::2])
    return out


@pytest.mark.parametrize("shapes, num_outs, fast", [(EVEN, 5, False), (EVEN, 5, True), (ODD, 6, False), (ODD, 4, True)])
def test_levels_match_numpy(monkeypatch, shapes, num_outs, fast):
    """With `fast`, Winograd runs on all widths and rounds ten times as much."""
    monkeypatch.setattr(Convolution, "WINOGRAD_CHANNELS", 1)
    rng = np.random.default_rng(0)
    net = FeaturePyramid(CHANNELS, WIDTH, num_outs, fast=fast)
    for param in net.get_parameters():
        param.set_data(Tensor(rng.standard_normal(param.shape).astype(np.float32)))
    features = [rng.standard_normal((2, c, *shape)).astype(np.float32) for c, shape in zip(CHANNELS, shapes)]
    got = [level.asnumpy() for level in ms.jit(net)(tuple(map(Tensor, features)))]
    expected = naive({param.name: param.asnumpy() for param in net.get_parameters()}, features, num_outs - 4)
    assert len(got) == num_outs
    for level, wanted in zip(got, expected):
        np.testing.assert_allclose(level, wanted, atol=(1e-4 if fast else 1e-5) * expected[0].std())


@pytest.mark.parametrize("shape", [(3, 4), (1, 5), (4, 1)])
def test_bilinear_upsampling_matches_numpy(shape):
    """Value and gradient, with pixel centres at half a pixel and border pixels repeated."""
    height, width = shape
    rng = np.random.default_rng(2)
    x, dout = rng.standard_normal((2, 3, height, width)), rng.standard_normal((2, 3, 2 * height, 2 * width))

    def weights(length):
        places = np.clip((np.arange(2 * length) + 0.5) / 2 - 0.5, 0, length - 1)
        return np.maximum(1 - np.abs(places[:, None] - np.arange(length)), 0)      # (2 length, length)

    down, across = weights(height), weights(width)

    def loss(x, dout):
        out = upsample_bilinear(x)
        return (out * dout).sum(), out

    (_, out), dx = ms.value_and_grad(loss, 0, has_aux=True)(Tensor(x, ms.float32), Tensor(dout, ms.float32))
    np.testing.assert_allclose(out.asnumpy(), down @ x @ across.T, atol=1e-5)
    np.testing.assert_allclose(dx.asnumpy(), down.T @ dout @ across, atol=1e-5)


@pytest.mark.parametrize("small, big, fast", [((3, 4), (6, 8), False), ((3, 4), (6, 8), True), ((3, 4), (5, 7), False),
                                              ((2, 2), (3, 4), False), ((1, 1), (2, 1), False)])
def test_gradient_of_upsampling_sums_the_copies(small, big, fast):
    rng, twice = np.random.default_rng(1), UpsampleTwice()
    x, dout = rng.standard_normal((2, 3, *small)).astype(np.float32), rng.standard_normal((2, 3, *big)).astype(np.float32)

    def loss(x, dout):
        out = twice(x) if fast else upsample_nearest(x, big)
        return (out * dout).sum(), out

    (_, out), dx = ms.jit(ms.value_and_grad(loss, 0, has_aux=True))(Tensor(x), Tensor(dout))
    np.testing.assert_array_equal(out.asnumpy(), repeated(x, *big))
    expected = np.zeros(x.shape)
    for i, j in np.ndindex(*big):
        expected[:, :, i * small[0] // big[0], j * small[1] // big[1]] += dout[:, :, i, j]
    np.testing.assert_allclose(dx.asnumpy(), expected, atol=1e-5)
