"""The backbone: values against numpy, parameter counts of the literature, frozen stages, and calibration of norms."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops

from faster_rcnn.src.FasterRcnn.resnet import ResNet, calibrate_norms, stem_pool, zero_init_residuals
from faster_rcnn.src.FasterRcnn.resnet50v1 import ResNet50V1
from faster_rcnn.src.model_utils.layers.convolution import ConvNorm, Convolution
from tests.numpy_layers import batch_norm, convolve, max_pool

BLOCKS, ENTER, LEAVE = (2, 1, 1, 2), (4, 16, 32, 64), (16, 32, 64, 128)
STATISTICS = ("moving_mean", "moving_variance")


def small(seed=0, blocks=BLOCKS, kind=ResNet, **options):
    """A small network with random parameters."""
    ms.set_seed(seed)
    net = kind(blocks, ENTER, LEAVE, **options)
    rng = np.random.default_rng(seed)
    for param in net.get_parameters():
        name = param.name.rpartition(".")[2]
        if name != "weight":
            low, high = {"gamma": (0.5, 1.5), "beta": (-0.3, 0.3), "moving_mean": (-0.5, 0.5), "moving_variance": (1, 3)}[name]
            param.set_data(Tensor(rng.uniform(low, high, param.shape).astype(np.float32)))
    return net


def images(height=70, width=101, n=2):
    return np.random.default_rng(5).standard_normal((n, 3, height, width)).astype(np.float32)


def naive(weights, x, blocks=BLOCKS, eps=1e-5, stride_in_1x1=False):
    """C2..C5 in float64 from {name: array}."""
    def layer(x, name, stride=1):
        norm = [weights[f"{name}.{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")]
        return batch_norm(convolve(x, weights[f"{name}.weight"], stride), *norm, eps)

    x, out = max_pool(np.maximum(layer(x, "conv1", 2), 0)), []
    for stage, count in enumerate(blocks, 1):
        for block in range(count):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            first, second = (stride, 1) if stride_in_1x1 else (1, stride)  # v1.5: the stride is in the 3x3
            y = np.maximum(layer(x, f"{name}.conv1", first), 0)
            y = np.maximum(layer(y, f"{name}.conv2", second), 0)
            y = layer(y, f"{name}.conv3")
            x = np.maximum(y + (layer(x, f"{name}.downsample", stride) if block == 0 else x), 0)
        out.append(x)
    return out


@pytest.mark.parametrize("fast", [False, True])
def test_stages_match_numpy(monkeypatch, fast):
    """No stride divides the image's sides. Winograd, forced for all widths, rounds ten times as much."""
    monkeypatch.setattr(Convolution, "WINOGRAD_CHANNELS", 1)
    net, x = small(fast=fast, eps=1e-3), images()
    got = [stage.asnumpy() for stage in ms.jit(net)(Tensor(x))]
    assert [stage.shape for stage in got] == [(2, 16, 18, 26), (2, 32, 9, 13), (2, 64, 5, 7), (2, 128, 3, 4)]
    weights = {param.name: param.asnumpy() for param in net.get_parameters()}
    for stage, expected in zip(got, naive(weights, x, eps=1e-3)):
        np.testing.assert_allclose(stage, expected, atol=(1e-4 if fast else 1e-5) * expected.std())


@pytest.mark.parametrize("height, width", [(8, 12), (9, 12), (8, 13), (9, 13)])
def test_paddings_of_the_stem_pool(height, width):
    """`same` pads even sides only at the end; both paddings pad odd sides at both ends."""
    x = np.maximum(images(height, width), 0)
    both, same = (stem_pool(Tensor(x), padding).asnumpy() for padding in ("both", "same"))
    np.testing.assert_array_equal(both, max_pool(x))
    np.testing.assert_array_equal(same, max_pool(x, same=True))
    np.testing.assert_array_equal(same, ops.MaxPool(3, 2, pad_mode="same")(Tensor(x)).asnumpy())
    assert (both != same).any() == (height % 2 == 0 or width % 2 == 0)


def test_stem_pools_differ_for_even_sides():
    """For random pixels seven tenths of the outputs differ: windows of the two paddings share only 4 of 9 pixels."""
    x = np.maximum(images(96, 128), 0)
    both, same = (stem_pool(Tensor(x), padding).asnumpy() for padding in ("both", "same"))
    assert 0.65 < (both != same).mean() < 0.75


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "blocks", "stride_in_1x1"), [
    (ResNet50V1, (1, 2, 1, 1), True), (ResNet, (3, 4, 23, 3), False), (ResNet, (3, 8, 36, 3), False)])
def test_other_resnets_match_numpy(kind, blocks, stride_in_1x1):
    """The published ResNet-50, and the depths 101 and 152, whose many blocks accumulate rounding. Not compiled."""
    net, x = small(blocks=blocks, kind=kind), images(33, 50, 1)
    got = [stage.asnumpy() for stage in net(Tensor(x))]
    assert [stage.shape[2:] for stage in got] == [(9, 13), (5, 7), (3, 4), (2, 2)]
    weights = {param.name: param.asnumpy() for param in net.get_parameters()}
    expected = naive(weights, x, blocks, stride_in_1x1=stride_in_1x1)
    other = naive(weights, x, blocks, stride_in_1x1=not stride_in_1x1)
    for level, (stage, right, wrong) in enumerate(zip(got, expected, other)):
        np.testing.assert_allclose(stage, right, atol=5e-5 * right.std())
        assert level == 0 or np.abs(stage - wrong).max() > 0.1 * right.std()        # the place of the stride matters


@pytest.mark.parametrize("blocks, expected", [
    # torchvision's models without the classifier (2048 * 1000 + 1000); running statistics do not count.
    ((3, 4, 6, 3), 25_557_032 - 2_049_000),
    ((3, 4, 23, 3), 44_549_160 - 2_049_000),
    ((3, 8, 36, 3), 60_192_808 - 2_049_000),
])
@pytest.mark.slow
def test_number_of_parameters(blocks, expected):
    net = ResNet(blocks, (64, 256, 512, 1024), (256, 512, 1024, 2048))
    counted = {param.name: int(np.prod(param.shape)) for param in net.get_parameters()
               if not param.name.endswith(STATISTICS)}
    assert sum(counted.values()) == expected
    convolutions = 1 + 3 * sum(blocks) + 4
    assert len(counted) == 3 * convolutions


@pytest.mark.parametrize("frozen", range(6))
@pytest.mark.parametrize("train_norm", [False, True])
def test_what_trains(frozen, train_norm):
    net = ResNet((1, 1, 1, 1), ENTER, LEAVE, frozen, train_norm)
    stages = ["conv1", "layer1", "layer2", "layer3", "layer4"]
    expected = {param.name for param in net.get_parameters()
                if stages.index(param.name.split(".")[0]) >= frozen
                and param.name.rpartition(".")[2] in (("weight", "gamma", "beta") if train_norm else ("weight",))}
    assert {param.name for param in net.trainable_params()} == expected
    assert len(expected) == [17, 16, 12, 8, 4, 0][frozen] * (3 if train_norm else 1)


@pytest.mark.slow
def test_no_gradient_enters_frozen_stages():
    """With the stem and first stage frozen, every trainable parameter gets a gradient through C2..C5, and the image none."""
    x = Tensor(images(64, 64))

    def run(net):
        def loss(x):
            return sum((stage * stage).mean() for stage in net(x))

        params = ms.ParameterTuple(net.trainable_params())
        to_image, to_params = ms.jit(ms.grad(loss, 0, params))(x)
        return np.abs(to_image.asnumpy()).max(), {p.name: g.asnumpy() for p, g in zip(params, to_params)}

    image, frozen = run(small(blocks=(1, 1, 1, 1), frozen_stages=2, train_norm=True))
    assert image == 0
    assert all(np.abs(gradient).max() > 0 for gradient in frozen.values())
    image, free = run(small(blocks=(1, 1, 1, 1), frozen_stages=0, train_norm=True))
    assert image > 0
    assert all(np.abs(gradient).max() > 0 for gradient in free.values())
    for name, gradient in frozen.items():       # freezing does not change the other gradients
        np.testing.assert_allclose(gradient, free[name], rtol=1e-4, atol=1e-6 * np.abs(free[name]).max())


def outputs_of(net, x):
    """name -> output of each ConvNorm, as (C, pixels of all images)."""
    seen, hooks = {}, []
    for name, cell in net.cells_and_names():
        if isinstance(cell, ConvNorm):
            def keep(cell, inputs, output, name=name):
                array = output.asnumpy().astype(np.float64)
                seen[name] = array.transpose(1, 0, 2, 3).reshape(array.shape[1], -1)
            hooks.append(cell.register_forward_hook(keep))
    net(x)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("frozen_stages, expected", [(2, ["layer3.0", "layer3.1"]), (4, [])])
def test_new_bottlenecks_start_as_the_identity(frozen_stages, expected):
    net = small(blocks=(1, 1, 2, 1), frozen_stages=frozen_stages, train_norm=True)
    names = [param.name for param in net.get_parameters() if param.name.startswith(("layer1", "layer3"))]
    assert zero_init_residuals(net, names) == len(expected)
    zero = [param.name for param in net.get_parameters() if param.name.endswith("gamma") and not param.asnumpy().any()]
    assert zero == [f"{block}.conv3.gamma" for block in expected]
    x = Tensor(np.random.default_rng(1).random((2, 64, 8, 12), np.float32))
    if expected:
        beta = net.layer3[1].conv3.beta.asnumpy().reshape(1, -1, 1, 1)
        np.testing.assert_allclose(net.layer3[1](x).asnumpy(), np.maximum(x.asnumpy() + beta, 0), atol=1e-6)


@pytest.mark.parametrize("place", ["everywhere", "layer3", "one weight"])
def test_calibration(place):
    """On these images, chosen layers have mean 0 and variance 1 before gamma and beta; other layers are unchanged."""
    net, x = small(), Tensor(10 + 5 * images(64, 96))
    names = [param.name for param in net.get_parameters()]
    missing = {"everywhere": names, "layer3": [name for name in names if name.startswith("layer3")],
               "one weight": ["layer2.0.conv2.weight", "layer1.0.conv1.gamma"]}[place]
    before = {param.name: param.asnumpy().copy() for param in net.get_parameters()}
    expected = {"everywhere": 1 + 3 * sum(BLOCKS) + 4, "layer3": 4, "one weight": 1}[place]
    assert calibrate_norms(net, x, missing) == expected

    chosen, params = set(), {param.name: param.asnumpy() for param in net.get_parameters()}
    for name, output in outputs_of(net, x).items():
        if f"{name}.weight" not in missing:
            continue
        chosen.add(name)
        gamma, beta, variance = (params[f"{name}.{part}"][:, None] for part in ("gamma", "beta", "moving_variance"))
        plain = (output - beta) / gamma
        np.testing.assert_allclose(plain.mean(1), 0, atol=1e-4)
        np.testing.assert_allclose(plain.var(1), (variance / (variance + 1e-5))[:, 0], rtol=1e-4)
    assert len(chosen) == expected
    for name, value in params.items():
        changed = name.rpartition(".")[0] in chosen and name.endswith(STATISTICS)
        assert np.array_equal(value, before[name]) != changed, name
