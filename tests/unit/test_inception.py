"""Inception-ResNet-v2 against numpy, forward and backward; its number of parameters, what trains, calibration of its norms."""
import mindspore as ms
import numpy as np
import onnxruntime
import pytest
from mindspore import Tensor

from faster_rcnn.src.FasterRcnn.inception_layout import stage_channels
from faster_rcnn.src.FasterRcnn.inceptionresnetv2 import InceptionResNetV2
from faster_rcnn.src.FasterRcnn.resnet import calibrate_norms, zero_init_residuals
from faster_rcnn.src.model_utils.layers.convolution import Convolution
from tests.numpy_layers import batch_norm, convolve, max_pool

pytestmark = pytest.mark.usefixtures("eager")

BLOCKS, WIDTH = (2, 1, 1), 1 / 16
STAGES = (("conv2d_1a", "conv2d_2a", "conv2d_2b"), ("conv2d_3b", "conv2d_4a"), ("mixed_5b", "repeat"), ("mixed_6a", "repeat_1"),
          ("mixed_7a", "repeat_2", "block8", "conv2d_7b"))
STATISTICS = ("moving_mean", "moving_variance")


def small(seed=0, **options):
    """Return a narrow network with random parameters."""
    ms.set_seed(seed)
    net = InceptionResNetV2(BLOCKS, WIDTH, **options)
    rng = np.random.default_rng(seed)
    ranges = {"gamma": (0.5, 1.5), "beta": (-0.1, 0.7), "bias": (-0.3, 0.3), "moving_mean": (-0.5, 0.5), "moving_variance": (1, 3)}
    for param in net.get_parameters():
        name = param.name.rpartition(".")[2]
        if name != "weight":
            param.set_data(Tensor(rng.uniform(*ranges[name], param.shape).astype(np.float32)))
    return net


def images(height=70, width=101, n=2):
    return np.random.default_rng(5).standard_normal((n, 3, height, width)).astype(np.float32)


def arrays_of(net):
    return {param.name: param.asnumpy() for param in net.get_parameters()}


def average_pool(x):
    """3x3, stride 1; divide by the number of pixels inside the image."""
    ones, out = np.ones((1, 1, 3, 3)), np.zeros(x.shape)
    for channel in range(x.shape[1]):
        out[:, channel:channel + 1] = convolve(x[:, channel:channel + 1], ones)
    return out / convolve(np.ones((1, 1, *x.shape[2:])), ones)


def naive(weights, x, blocks=BLOCKS, eps=1e-3):
    """C2..C5 in float64 from {name: array}, after figures 3 and 10 to 13 of the paper, with padding everywhere."""
    def conv(x, name, stride=1):
        norm = [weights[f"{name}.{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")]
        return np.maximum(batch_norm(convolve(x, weights[f"{name}.weight"], stride), *norm, eps), 0)

    def chain(x, name, count, stride=1, first=0):
        for index in range(first, count):
            x = conv(x, f"{name}.{index}", stride if index == count - 1 else 1)
        return x

    def block(x, name, counts, scale):
        parts = [conv(x, f"{name}.branch0"), *(chain(x, f"{name}.branch{i}", count) for i, count in enumerate(counts, 1))]
        added = convolve(np.concatenate(parts, 1), weights[f"{name}.conv2d.weight"])
        return x + scale * (added + weights[f"{name}.conv2d.bias"].reshape(1, -1, 1, 1))

    def repeat(x, name, number, counts, scale):
        for index in range(number):
            x = np.maximum(block(x, f"{name}.{index}", counts, scale), 0)
        return x

    x = max_pool(conv(conv(conv(x, "conv2d_1a", 2), "conv2d_2a"), "conv2d_2b"))
    c2 = conv(conv(x, "conv2d_3b"), "conv2d_4a")
    x = max_pool(c2)
    x = np.concatenate([conv(x, "mixed_5b.branch0"), chain(x, "mixed_5b.branch1", 2), chain(x, "mixed_5b.branch2", 3),
                        conv(average_pool(x), "mixed_5b.branch3.1")], 1)
    c3 = repeat(x, "repeat", blocks[0], (2, 3), 0.17)
    x = np.concatenate([conv(c3, "mixed_6a.branch0", 2), chain(c3, "mixed_6a.branch1", 3, 2), max_pool(c3)], 1)
    c4 = repeat(x, "repeat_1", blocks[1], (3,), 0.1)
    x = np.concatenate([chain(c4, f"mixed_7a.branch{i}", count, 2) for i, count in enumerate((2, 2, 3))] + [max_pool(c4)], 1)
    x = repeat(x, "repeat_2", blocks[2], (3,), 0.2)
    return c2, c3, c4, conv(block(x, "block8", (3,), 1.0), "conv2d_7b")


@pytest.mark.parametrize("fast", [False, True])
def test_stages_match_numpy(monkeypatch, fast):
    """No stride divides the sides. With `fast`, Winograd runs on all widths and rounds ten times as much."""
    monkeypatch.setattr(Convolution, "WINOGRAD_CHANNELS", 1)
    net, x = small(fast=fast), images()
    got = [stage.asnumpy() for stage in (ms.jit(net) if fast else net)(Tensor(x))]
    assert [stage.shape for stage in got] == [(2, 12, 18, 26), (2, 20, 9, 13), (2, 68, 5, 7), (2, 96, 3, 4)]
    for stage, expected in zip(got, naive(arrays_of(net), x)):
        np.testing.assert_allclose(stage, expected, atol=(2e-4 if fast else 2e-5) * expected.std())


def test_onnx_matches_numpy(tmp_path, monkeypatch):
    """Non-square kernels and average pooling without padded pixels give wrong values if their padding is exported wrongly."""
    monkeypatch.chdir(tmp_path)
    net, x = small(), images(64, 96, 1)
    ms.onnx.export(net.set_train(False), Tensor(x), file_name="net.onnx", input_names=["image"])
    got = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"]).run(None, {"image": x})
    for stage, expected in zip(got, naive(arrays_of(net), x), strict=True):
        np.testing.assert_allclose(stage, expected, atol=2e-5 * expected.std())


def test_gradients_match_numpy_and_stop_at_frozen_stages():
    """Along a random direction of the trainable parameters, the gradient equals a central difference of numpy's loss."""
    net, x = small(frozen_stages=2, train_norm=True), images(64, 96, 1)
    params = net.trainable_params()

    def loss(x):
        return sum((stage * stage).mean() for stage in net(x))

    to_image, grads = ms.jit(ms.grad(loss, 0, ms.ParameterTuple(params)))(Tensor(x))
    assert np.abs(to_image.asnumpy()).max() == 0
    reached = {param.name.split(".")[0] for param, grad in zip(params, grads) if np.abs(grad.asnumpy()).max() > 0}
    assert reached == {name for names in STAGES[2:] for name in names}
    rng, weights, step = np.random.default_rng(3), arrays_of(net), 1e-6
    direction = {param.name: rng.standard_normal(param.shape) * np.abs(weights[param.name]).mean() for param in params}
    moved = ({name: value + sign * step * direction.get(name, 0) for name, value in weights.items()} for sign in (1, -1))
    up, down = (sum((stage * stage).mean() for stage in naive(arrays, x)) for arrays in moved)
    expected = (up - down) / (2 * step)
    got = sum((grad.asnumpy() * direction[param.name]).sum() for param, grad in zip(params, grads))
    assert got == pytest.approx(expected, rel=1e-3)


def test_number_of_parameters():
    """timm's 55.84M without the classifier (1536 * 1000 + 1000) and running statistics."""
    net = InceptionResNetV2()
    counted = {param.name: param.size for param in net.get_parameters() if not param.name.endswith(STATISTICS)}
    assert sum(counted.values()) == 55_843_464 - 1_537_000
    assert len(counted) == 3 * 204 + 2 * 40         # convolutions with a norm; the last ones of blocks, with a bias


@pytest.mark.parametrize(("width", "expected"), [
    (1.0, [192, 320, 1088, 1536]), (0.5, [96, 160, 544, 768]), (1 / 16, [12, 20, 68, 96]), (0.02, [4, 6, 22, 31])])
def test_channels_of_the_stages(width, expected):
    assert stage_channels(width) == expected
    if width < 0.1:
        net = InceptionResNetV2((1, 1, 1), width)
        assert [stage.shape for stage in net(Tensor(images(32, 64, 1)))] == [
            (1, channels, 32 // stride, 64 // stride) for channels, stride in zip(expected, (4, 8, 16, 32))]


@pytest.mark.parametrize("frozen", range(6))
@pytest.mark.parametrize("train_norm", [False, True])
def test_trainable_parameters(frozen, train_norm):
    net = InceptionResNetV2(BLOCKS, WIDTH, frozen, train_norm)
    stage_of = {name: number for number, names in enumerate(STAGES) for name in names}
    leaves = ("weight", "bias", "gamma", "beta") if train_norm else ("weight", "bias")
    expected = {param.name for param in net.get_parameters()
                if stage_of[param.name.split(".")[0]] >= frozen and param.name.rpartition(".")[2] in leaves}
    assert {param.name for param in net.trainable_params()} == expected
    assert {name.split(".")[0] for name in expected} == {name for names in STAGES[frozen:] for name in names}


@pytest.mark.parametrize(("frozen_stages", "expected"), [(0, ["repeat.0", "repeat_2.0"]), (3, ["repeat_2.0"]), (5, [])])
def test_new_blocks_start_as_the_identity(frozen_stages, expected):
    net = small(frozen_stages=frozen_stages)
    names = [param.name for param in net.get_parameters() if param.name.startswith(("repeat.0", "repeat_2.0", "mixed"))]
    for block in (net.repeat[0], net.repeat_2[0]):
        block.conv2d.bias.set_data(Tensor(np.zeros(block.conv2d.bias.shape, np.float32)))      # as in a new layer
    assert zero_init_residuals(net, names) == len(expected)
    zero = [param.name for param in net.get_parameters() if param.name.endswith("weight") and not param.asnumpy().any()]
    assert zero == [f"{block}.conv2d.weight" for block in expected]
    x = np.random.default_rng(1).random((2, net.repeat[0].conv2d.weight.shape[0], 5, 6)).astype(np.float32)
    assert np.array_equal(net.repeat[0](Tensor(x)).asnumpy(), x) == ("repeat.0" in expected)


def test_calibration():
    """Statistics are those of the convolutions' outputs: numpy checks the first layer; repeating changes none."""
    net, x = small(), 10 + 5 * images(64, 96)
    names = [param.name for param in net.get_parameters()]
    assert calibrate_norms(net, Tensor(x), names) == sum(name.endswith("moving_mean") for name in names)
    once = arrays_of(net)
    first = convolve(x, once["conv2d_1a.weight"], 2)
    np.testing.assert_allclose(once["conv2d_1a.moving_mean"], first.mean((0, 2, 3)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(once["conv2d_1a.moving_variance"], first.var((0, 2, 3)), rtol=1e-4)
    calibrate_norms(net, Tensor(x), names)
    for name, value in arrays_of(net).items():
        np.testing.assert_allclose(value, once[name], rtol=1e-4, atol=1e-5)
    some = [name for name in names if name.startswith("mixed_6a")]
    other, before = small(), arrays_of(small())
    assert calibrate_norms(other, Tensor(x), some) == 4
    changed = {name for name, value in arrays_of(other).items() if not np.array_equal(value, before[name])}
    assert changed == {name for name in some if name.endswith(STATISTICS)}
