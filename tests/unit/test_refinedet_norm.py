"""Convolutions with batch norm, against numpy and with training and inference alternating."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from refinedet.src.model_utils.training.step import TrainStep
from refinedet.src.network_define import InferenceNet
from refinedet.src.norm_conv import NormConv2d, PooledNormConv2d
from tests.narrow_refinedet import narrow_config, narrow_network
from tests.numpy_layers import batch_norm, convolve


def images(seed: int = 0, n: int = 3) -> Tensor:
    return Tensor(np.random.default_rng(seed).normal(1, 3, (n, 2, 6, 8)).astype(np.float32))


def layer(kind=NormConv2d, **more):
    """A layer whose norm has random values."""
    conv, rng = kind(2, 4, 3, **more), np.random.default_rng(1)
    for param in (conv.gamma, conv.beta, conv.moving_mean, conv.moving_variance):
        param.set_data(Tensor(rng.uniform(0.5, 2, param.shape).astype(np.float32)))
    return conv


def normed_by_hand(conv, x, mean=None, variance=None) -> tuple:
    """(output, mean, biased variance). The statistics default to those of the batch."""
    y = convolve(x.asnumpy(), conv.weight.asnumpy())
    mean = y.mean((0, 2, 3)) if mean is None else mean
    variance = y.var((0, 2, 3)) if variance is None else variance
    return batch_norm(y, conv.gamma.asnumpy(), conv.beta.asnumpy(), mean, variance), mean, variance


def test_training_uses_batch_statistics_and_updates_the_kept_ones():
    conv = layer().set_train()
    kept = conv.moving_mean.asnumpy().copy(), conv.moving_variance.asnumpy().copy()
    want, mean, variance = normed_by_hand(conv, images())
    np.testing.assert_allclose(conv(images()).asnumpy(), want, rtol=1e-4, atol=1e-4)
    count = 3 * 6 * 8
    np.testing.assert_allclose(conv.moving_mean.asnumpy(), 0.9 * kept[0] + 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(conv.moving_variance.asnumpy(), 0.9 * kept[1] + 0.1 * variance * count / (count - 1), rtol=1e-4)


def test_inference_uses_the_kept_statistics():
    conv = layer().set_train(False)
    kept = conv.moving_mean.asnumpy().copy(), conv.moving_variance.asnumpy().copy()
    want, *_ = normed_by_hand(conv, images(), *kept)
    np.testing.assert_allclose(conv(images()).asnumpy(), want, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(conv.moving_mean.asnumpy(), kept[0])


@pytest.mark.parametrize("train", [True, False])
def test_pooled_output_is_the_maximum_of_each_2x2_window(train):
    plain, pooled = layer().set_train(train), layer(PooledNormConv2d).set_train(train)
    pooled.weight.set_data(plain.weight.value())
    want = plain(images()).asnumpy().reshape(3, 4, 3, 2, 4, 2).max((3, 5))
    for run in (pooled, ms.jit(pooled)):        # a graph resolves `super()` differently
        np.testing.assert_allclose(run(images()).asnumpy(), want, rtol=1e-5, atol=1e-5)


class Small(nn.Cell):
    """One layer with the interface of a detector."""

    def __init__(self):
        super().__init__()
        self.conv = layer()

    def construct(self, image):
        return ((self.conv(image) ** 2).mean() * 0.1,)

    def predict(self, image, image_info):
        return self.conv(image)


def test_training_and_inference_alternate():
    """Each runs in its own mode, whichever is compiled first; inference between steps changes no step."""
    runs = []
    for turns in (False, True):
        net = Small()
        net.conv.weight.set_data(layer().weight.value() * 0 + Tensor(np.linspace(-1, 1, 72, dtype=np.float32).reshape(4, 2, 3, 3)))
        step, infer = TrainStep(net, ("loss",), momentum=0.9, weight_decay=0.0), InferenceNet(net)
        losses = []
        for i in range(3):
            if turns:
                infer.set_train(False)
                kept = net.conv.moving_mean.asnumpy().copy(), net.conv.moving_variance.asnumpy().copy()
                got = infer(images(9), Tensor(0.0)).asnumpy()
                np.testing.assert_allclose(got, normed_by_hand(net.conv, images(9), *kept)[0], rtol=1e-4, atol=1e-4)
            losses.append(step([images(i)], 0.05).losses["loss"])
        runs.append((losses, net.conv.weight.asnumpy().copy(), net.conv.moving_mean.asnumpy().copy()))
    for training_only, alternating in zip(*runs):
        np.testing.assert_array_equal(training_only, alternating)
    assert len(set(runs[0][0])) == 3


def test_every_convolution_outside_the_heads_has_a_norm():
    config = narrow_config(batch_norm=True)
    net = narrow_network(config)
    names = {param.name for param in net.get_parameters()}
    convolutions = {name.removesuffix(".weight") for name in names if name.endswith(".weight") and ".up." not in name}
    normed = {name.removesuffix(".gamma") for name in names if name.endswith(".gamma")}
    heads = {f"{head}.{kind}.{level}" for head in ("arm", "odm") for kind in ("loc", "conf") for level in range(4)}
    assert convolutions - normed == heads
    assert len(normed) == 17 + 12
    image = Tensor(np.random.default_rng(0).normal(0, 1, (2, 3, 192, 256)).astype(np.float32))
    net.set_train()
    for _ in range(60):         # until the kept statistics are those of the batch
        net.tcb(net.backbone(image))
    training = [x.asnumpy() for x in net.tcb(net.backbone(image))]
    net.set_train(False)
    for a, b in zip(training, net.tcb(net.backbone(image))):
        # The kept variance is unbiased, so it is larger where pixels are few.
        assert np.abs(a - b.asnumpy()).mean() < 0.2 * a.std()
