"""Convolutions and folded norms against float64 loops.

Tolerances are in standard deviations of the expected array: the error of a long float32 sum is proportional to it. The
measured error of direct convolutions is 2e-6 and below. That of Winograd, whose transforms multiply by up to 8 * 8 and subtract,
is 3e-6 to 7e-6, and 3e-5 with 96 channels. A wrong tap or border pixel gives an error of about 1.
"""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from faster_rcnn.src.model_utils.layers.convolution import Conv2d, ConvNorm, Convolution, WinogradConv3x3, keep_filters
from tests.numpy_layers import batch_norm, convolve, convolve_gradients

DIRECT, WINOGRAD = 1e-5, 1e-4


def arrays(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def error(got, expected):
    """Return the largest difference in standard deviations of `expected`."""
    got = got.asnumpy()
    assert got.shape == expected.shape
    return np.abs(got - expected).max() / expected.std()


def with_gradients(net, *inputs, dout, weights=None):
    """Return the output and the gradients of sum(output * dout) for the inputs, then for `weights` (parameters) if given."""
    def loss(dout, *inputs):
        out = net(*inputs)
        return (out * dout).sum(), out

    places = tuple(range(1, 1 + len(inputs)))
    compiled = ms.jit(ms.value_and_grad(loss, places, weights, has_aux=True))
    (_, out), grads = compiled(Tensor(dout), *map(Tensor, inputs))
    grads, of_weights = grads if weights else (grads, ())
    return out, [*(grads if isinstance(grads, tuple) else (grads,)), *of_weights]


@pytest.mark.parametrize("n, channels, out_channels, height, width", [
    (1, 3, 2, 5, 7),        # neither side a multiple of 4
    (2, 4, 6, 9, 8),        # one of them
    (3, 2, 1, 12, 4),       # both
    (2, 1, 3, 1, 2),        # less than a tile
    (1, 96, 96, 11, 14),    # enough channels for the network to use it
])
def test_winograd_and_its_gradients_match_loop(n, channels, out_channels, height, width):
    x, weight, dout = arrays((n, channels, height, width), (out_channels, channels, 3, 3), (n, out_channels, height, width))
    out, (dx, dweight) = with_gradients(WinogradConv3x3(), x, weight, dout=dout)
    expected_dx, expected_dweight = convolve_gradients(x, weight, dout)
    assert error(out, convolve(x, weight)) < WINOGRAD
    assert error(dx, expected_dx) < WINOGRAD
    assert error(dweight, expected_dweight) < WINOGRAD


def test_winograd_matches_a_convolution_by_hand():
    """One bright pixel gives the kernel, turned by 180 degrees and cropped at the corner."""
    x = np.zeros((1, 1, 6, 6), np.float32)
    x[0, 0, 2, 3] = 1
    weight = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    net = ms.jit(WinogradConv3x3())
    out = net(Tensor(x), Tensor(weight)).asnumpy()[0, 0]
    expected = np.zeros((6, 6))
    expected[1:4, 2:5] = [[8, 7, 6], [5, 4, 3], [2, 1, 0]]
    np.testing.assert_allclose(out, expected, atol=1e-5)
    corner = net(Tensor(np.roll(x, (-2, 2), (2, 3))), Tensor(weight)).asnumpy()[0, 0]
    expected = np.zeros((6, 6))
    expected[:2, 4:] = [[5, 4], [2, 1]]
    np.testing.assert_allclose(corner, expected, atol=1e-5)


@pytest.mark.parametrize("arguments, winograd", [
    ((64, 64, 3, 1, True), True),
    ((256, 512, 3, 1, True), True),
    ((256, 256, 3, 1, False), False),   # Ascend, GPU, export
    ((63, 256, 3, 1, True), False),
    ((256, 63, 3, 1, True), False),
    ((256, 256, 3, 2, True), False),
    ((256, 256, 1, 1, True), False),
    ((256, 256, 7, 1, True), False),
    ((256, 256, (3, 1), 1, True), False),
])
def test_where_winograd_is_used(arguments, winograd):
    assert (Convolution(*arguments).winograd is not None) == winograd


@pytest.mark.parametrize("kernel", [(1, 7), (7, 1), (3, 5)])
def test_kernels_of_unequal_sides(kernel):
    x, weight = arrays((2, 3, 9, 11), (4, 3, *kernel))
    net = ConvNorm(3, 4, kernel, eps=0.0)
    net.weight.set_data(Tensor(weight))
    assert error(net(Tensor(x)), convolve(x, weight)) < DIRECT
    with pytest.raises(ValueError, match="needs stride 1, got 2"):
        ConvNorm(3, 4, kernel, 2)


def test_conv2d_fast_equals_direct(monkeypatch):
    """Both algorithms compute the same layer with its bias, in graph and in PyNative mode."""
    monkeypatch.setattr(Convolution, "WINOGRAD_CHANNELS", 1)
    x, weight, bias, dout = arrays((2, 5, 9, 6), (4, 5, 3, 3), (4,), (2, 4, 9, 6))
    expected = convolve(x, weight) + bias.reshape(-1, 1, 1)
    gradients = *convolve_gradients(x, weight, dout), dout.sum((0, 2, 3), dtype=np.float64)
    for fast, limit in ((False, DIRECT), (True, WINOGRAD)):
        net = Conv2d(5, 4, 3, fast=fast)
        assert (net.conv.winograd is not None) == fast
        net.weight.set_data(Tensor(weight))
        net.bias.set_data(Tensor(bias))
        parameters = ms.ParameterTuple(net.trainable_params())
        assert [p.name for p in parameters] == ["weight", "bias"]
        out, grads = with_gradients(net, x, dout=dout, weights=parameters)
        assert error(out, expected) < limit
        assert error(net(Tensor(x)), expected) < limit
        for got, wanted in zip(grads, gradients):
            assert error(got, wanted) < limit


def norm_arrays(channels, seed=1):
    """Return gamma, beta, mean and variance, each (channels,). eps = 1e-5 is a tenth of the first variance."""
    rng = np.random.default_rng(seed)
    variance = np.concatenate([[1e-4], rng.uniform(0.2, 3, channels - 1)])
    return [a.astype(np.float32) for a in (rng.uniform(0.5, 1.5, channels), *rng.standard_normal((2, channels)), variance)]


@pytest.mark.parametrize("kernel, stride, eps", [(1, 1, 1e-5), (3, 2, 1e-5), (7, 2, 1e-3), (1, 2, 0.0)])
def test_conv_norm_matches_norm_after_convolution(kernel, stride, eps):
    """The output matches, and so do the gradients of weight, gamma and beta through the folded weight."""
    x, weight = arrays((2, 3, 9, 11), (4, 3, kernel, kernel))
    gamma, beta, mean, variance = norm_arrays(4)
    net = ConvNorm(3, 4, kernel, stride, eps=eps)
    for name, value in zip(("weight", "gamma", "beta", "moving_mean", "moving_variance"),
                           (weight, gamma, beta, mean, variance)):
        getattr(net, name).set_data(Tensor(value))
    y = convolve(x, weight, stride)
    expected = batch_norm(y, gamma, beta, mean, variance, eps)
    dout, = arrays(y.shape, seed=2)
    out, grads = with_gradients(net, x, dout=dout, weights=ms.ParameterTuple([net.weight, net.gamma, net.beta]))
    scale = (gamma / np.sqrt(variance.astype(np.float64) + eps)).reshape(-1, 1, 1)
    expected_dx, expected_dweight = convolve_gradients(x, weight, dout * scale, stride)
    expected_dgamma = (dout * (y - mean.reshape(-1, 1, 1))).sum((0, 2, 3)) / np.sqrt(variance.astype(np.float64) + eps)
    assert error(out, expected) < DIRECT
    for got, wanted in zip(grads, (expected_dx, expected_dweight, expected_dgamma, dout.sum((0, 2, 3)))):
        assert error(got, wanted) < DIRECT


def test_conv_norm_calibrates_to_the_batch():
    """The statistics become those of the convolution's output, and the same call already uses them."""
    x, = arrays((4, 3, 8, 10))
    net = ConvNorm(3, 6, 3, fast=True)
    gamma, beta, *_ = norm_arrays(6)
    net.gamma.set_data(Tensor(gamma))
    net.beta.set_data(Tensor(beta))
    net.calibrating = True
    out = net(Tensor(5 + 3 * x)).asnumpy()
    net.calibrating = False
    y = convolve(5 + 3 * x, net.weight.asnumpy())
    np.testing.assert_allclose(net.moving_mean.asnumpy(), y.mean((0, 2, 3)), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(net.moving_variance.asnumpy(), y.var((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(out.mean((0, 2, 3)), beta, atol=1e-4)
    np.testing.assert_allclose(out.std((0, 2, 3)), gamma, rtol=1e-4)
    np.testing.assert_allclose(net(Tensor(5 + 3 * x)).asnumpy(), out, atol=1e-6)


@pytest.mark.parametrize("net, bound", [
    (lambda: Conv2d(32, 64, 3), np.sqrt(3 / (32 * 9))),     # uniform, variance 1 / fan_in
    (lambda: ConvNorm(32, 64, 3), None),                    # He et al.: variance 2 / fan_out
])
def test_initial_weights(net, bound):
    weight = net().weight.asnumpy()
    variance = 1 / (32 * 9) if bound else 2 / (64 * 9)
    assert abs(weight.var() / variance - 1) < 0.05
    assert abs(weight.mean()) < 3 * np.sqrt(variance / weight.size)
    assert bound is None or np.abs(weight).max() <= bound


def test_names_of_the_parameters():
    """Checkpoints use these names. The statistics are not trained."""
    net = nn.SequentialCell(ConvNorm(2, 3, 1))
    assert {p.name: p.requires_grad for p in net.get_parameters()} == {
        "0.weight": True, "0.gamma": True, "0.beta": True, "0.moving_mean": False, "0.moving_variance": False}


class Two(nn.Cell):
    """`dense` calls a layer of each kind, and not `other`."""

    def __init__(self, fast):
        super().__init__()
        self.first, self.second = Conv2d(64, 64, 3, fast=fast), ConvNorm(64, 64, 3, fast=fast)
        self.other = Conv2d(64, 64, 3, fast=fast)
        self.stem = Conv2d(3, 64, 3, fast=fast)

    def dense(self, image):
        return self.second(self.first(self.stem(image)))

    def construct(self, image):
        return self.other(self.dense(image))


def test_kept_filters_give_the_same_output_and_ignore_new_weights():
    image = Tensor(np.random.default_rng(0).standard_normal((2, 3, 20, 24)).astype(np.float32))
    net, mode = Two(True), ms.get_context("mode")
    before, names = net(image).asnumpy(), {param.name for param in net.get_parameters()}
    assert keep_filters(net) == 2 and net.other.conv.winograd.kept is None
    np.testing.assert_allclose(ms.jit(net)(image).asnumpy(), before, rtol=1e-5, atol=1e-5)
    assert len({param.name for param in net.get_parameters()} - names) == 2
    assert not any(param.requires_grad for param in net.get_parameters() if param.name not in names)
    net.first.weight.set_data(net.first.weight.value() * 0)
    np.testing.assert_allclose(net(image).asnumpy(), before, rtol=1e-5, atol=1e-5)
    assert keep_filters(Two(False)) == 0
    assert ms.get_context("mode") == mode
