"""The training step against a loop in numpy; loss scale, averaged weights, and loading of checkpoints."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from faster_rcnn.src.model_utils.config import InputError
from faster_rcnn.src.model_utils.layers.convolution import ConvNorm
from faster_rcnn.src.model_utils.training.precision import LossScale, mixed_precision
from faster_rcnn.src.model_utils.training.step import NotFiniteError, TrainStep
from faster_rcnn.src.model_utils.weights.loading import load_checkpoint_into, load_pretrained
from faster_rcnn.src.network_define import InferenceNet
from tests.toy_network import LOSS_NAMES, LinearNet, ToyDetector, toy_batch

RATES = (0.1, 0.05, 0.2, 0.0, 0.01)


def values(net) -> dict:
    return {param.name: param.asnumpy().copy() for param in net.get_parameters()}


def linear_inputs(step: int) -> list:
    rng = np.random.default_rng([7, step])
    return [Tensor(rng.standard_normal(shape).astype(np.float32)) for shape in ((2, 3), (3,), (3,))]


def sgd_by_hand(weights, rates, momentum, decay, clip=0.0, ema=0.0, bias_factor=1.0, bias_decay=True):
    """PyTorch's SGD in float64, one step per rate; return (weights, averaged weights, gradient norms before clipping)."""
    weights = {name: value.astype(np.float64) for name, value in weights.items()}
    velocity, average, norms = {}, {name: value.copy() for name, value in weights.items()}, []
    for step, rate in enumerate(rates):
        a, b, c = (item.asnumpy().astype(np.float64) for item in linear_inputs(step))
        grads = {"fc.weight": a + weights["fc.weight"], "norm.gamma": b, "fc.bias": c}
        norms.append(np.sqrt(sum((grad ** 2).sum() for grad in grads.values())))
        for name, grad in grads.items():
            if clip:
                grad = grad * min(1.0, clip / (norms[-1] + 1e-6))
            if name == "fc.weight" or (name == "fc.bias" and bias_decay):
                grad = grad + decay * weights[name]
            velocity[name] = grad if name not in velocity else momentum * velocity[name] + grad
            weights[name] = weights[name] - rate * (bias_factor if name == "fc.bias" else 1) * velocity[name]
        pull = 1 - min(ema, (2 + step) / (11 + step))
        for name in grads:
            average[name] += (weights[name] - average[name]) * pull
    return weights, average, norms


@pytest.mark.parametrize("options", [
    {}, {"clip_grad_norm": 1.5}, {"loss_scale": LossScale(512.0)}, {"ema_decay": 0.15},
    {"clip_grad_norm": 2.0, "loss_scale": LossScale(dynamic=True), "ema_decay": 0.3},
    {"bias_lr_factor": 2.0}, {"bias_weight_decay": False}, {"bias_lr_factor": 3.0, "bias_weight_decay": False, "ema_decay": 0.3}],
    ids=["plain", "clip", "scale", "ema", "all", "rate of biases", "decay of biases", "Caffe's biases"])
def test_steps_match_sgd_by_hand(options):
    net = LinearNet()
    start = values(net)
    step = TrainStep(net, LOSS_NAMES, momentum=0.9, weight_decay=0.05, **options)
    results = [step(linear_inputs(i), rate) for i, rate in enumerate(RATES)]
    clip, ema = options.get("clip_grad_norm", 0), options.get("ema_decay", 0)
    biases = options.get("bias_lr_factor", 1), options.get("bias_weight_decay", True)
    weights, average, norms = sgd_by_hand(start, RATES, 0.9, 0.05, clip, ema, *biases)
    np.testing.assert_allclose([result.grad_norm for result in results], norms, rtol=1e-5)
    for name, value in values(net).items():
        np.testing.assert_allclose(value, weights[name], rtol=1e-5, atol=1e-6, err_msg=name)
        averaged = step.weights()[name].asnumpy()
        expected = average[name] if ema else weights[name]
        np.testing.assert_allclose(averaged, expected, rtol=1e-5, atol=1e-6, err_msg=name)
    assert np.array_equal(values(net)["norm.moving_mean"], start["norm.moving_mean"])


def test_losses_are_those_of_the_network():
    net = ToyDetector()
    expected = [float(loss) for loss in net(*toy_batch())]
    result = TrainStep(net, LOSS_NAMES, momentum=0.9, weight_decay=0.0)(toy_batch(), 0.1)
    assert tuple(result.losses) == LOSS_NAMES
    np.testing.assert_allclose(list(result.losses.values()), expected, rtol=1e-6)
    assert result.losses == result.local_losses
    assert result.applied
    assert not result.stop


def test_stop_is_returned():
    step = TrainStep(ToyDetector(), LOSS_NAMES, momentum=0.9, weight_decay=0.0)
    assert [step(toy_batch(), 0.1, stop=stop).stop for stop in (False, True, False)] == [False, True, False]


def test_runs_are_bitwise_equal():
    runs = []
    for _ in range(2):
        net = ToyDetector()
        step = TrainStep(net, LOSS_NAMES, momentum=0.9, weight_decay=1e-3, clip_grad_norm=1.0, ema_decay=0.9)
        losses = [step(toy_batch(i), 0.05).losses for i in range(4)]
        runs.append((losses, values(net)))
    assert runs[0][0] == runs[1][0]
    assert all(np.array_equal(runs[0][1][name], runs[1][1][name]) for name in runs[0][1])


def test_losses_fall():
    step = TrainStep(ToyDetector(), LOSS_NAMES, momentum=0.9, weight_decay=0.0)
    totals = [sum(step(toy_batch(), 0.02).losses.values()) for _ in range(30)]
    assert totals[-1] < 0.5 * totals[0]


# ---- non-finite values

def poisoned(value=np.nan, seed=0) -> tuple:
    image, *rest = toy_batch(seed)
    array = image.asnumpy().copy()
    array[1, 0, 0, 0] = value
    return Tensor(array), *rest


def test_a_non_finite_step_raises_and_changes_nothing():
    net = ToyDetector()
    step = TrainStep(net, LOSS_NAMES, momentum=0.9, weight_decay=0.1, ema_decay=0.5)
    step(toy_batch(), 0.1)
    before = {name: tensor.asnumpy().copy() for name, tensor in step.state()[0].items()}
    with pytest.raises(NotFiniteError, match="rpn_cls_loss: nan, rpn_reg_loss: nan, .*grad_norm: nan"):
        step(poisoned(), 0.1)
    after = step.state()[0]
    assert all(np.array_equal(before[name], after[name].asnumpy()) for name in before)


def test_dynamic_scale_skips_and_counts():
    scale = LossScale(8.0, dynamic=True)
    net = ToyDetector()
    step = TrainStep(net, LOSS_NAMES, momentum=0.9, weight_decay=0.1, loss_scale=scale)
    before = values(net)
    assert not step(poisoned(), 0.1).applied
    assert all(np.array_equal(before[name], value) for name, value in values(net).items())
    assert scale.state() == {"value": 4.0, "dynamic": True, "good_steps": 0, "skipped": 1, "in_a_row": 1}
    assert step(toy_batch(), 0.1).applied
    assert not step(poisoned(), 0.1).applied
    assert not step(poisoned(), 0.1).applied
    with pytest.raises(NotFiniteError):  # at scale 1, the values themselves are at fault
        step(poisoned(), 0.1)
    assert scale.skipped == 3


def test_gradient_overflow_is_detected_with_finite_losses():
    """The losses are finite, but the scaled gradients are not."""
    scale = LossScale(2.0 ** 20, dynamic=True)
    step = TrainStep(LinearNet(), LOSS_NAMES, momentum=0.9, weight_decay=0.0, loss_scale=scale)
    big = [Tensor(np.full(shape, 1e33, np.float32)) for shape in ((2, 3), (3,), (3,))]
    result = step(big, 0.1)
    assert not result.applied
    assert np.isfinite(list(result.losses.values())).all()


def test_dynamic_scale_grows_after_its_window(monkeypatch):
    monkeypatch.setattr("faster_rcnn.src.model_utils.training.precision.DYNAMIC_WINDOW", 3)
    monkeypatch.setattr("faster_rcnn.src.model_utils.training.precision.DYNAMIC_LIMIT", 16.0)
    scale = LossScale(4.0, dynamic=True)
    factors = []
    for finite in (True, True, True, True, False, True, True, True, True, True, True, True, True, True):
        assert scale.update(finite)
        factors.append(scale.value)
    assert factors == [4, 4, 8, 8, 4, 4, 4, 8, 8, 8, 16, 16, 16, 16]


def test_initial_dynamic_scale():
    assert (LossScale(1.0, True).value, LossScale(256.0, True).value, LossScale(1.0).value) == (65536.0, 256.0, 1.0)


# ---- averaged weights, precision, inference

def test_averaged_weights_are_swapped_in_and_out():
    net = ToyDetector()
    step = TrainStep(net, LOSS_NAMES, momentum=0.9, weight_decay=0.0, ema_decay=0.9)
    predict = InferenceNet(net)
    image, info = toy_batch()[:2]
    for i in range(3):
        step(toy_batch(i), 0.1)
    raw, raw_scores = values(net), predict(image, info)[1].asnumpy()
    with step.averaged():
        lent, lent_scores = values(net), predict(image, info)[1].asnumpy()
    assert np.array_equal(lent["backbone.weight"], step.weights()["backbone.weight"].asnumpy())
    assert not np.array_equal(lent["backbone.weight"], raw["backbone.weight"])
    assert not np.array_equal(raw_scores, lent_scores)
    assert all(np.array_equal(raw[name], value) for name, value in values(net).items())
    assert np.array_equal(predict(image, info)[1].asnumpy(), raw_scores)
    # Training continues from the raw weights.
    other = TrainStep(ToyDetector(), LOSS_NAMES, momentum=0.9, weight_decay=0.0, ema_decay=0.9)
    for i in range(3):
        other(toy_batch(i), 0.1)
    assert step(toy_batch(3), 0.1) == other(toy_batch(3), 0.1)


def test_inference_net_keeps_names_and_calls_predict():
    net = ToyDetector()
    names = [param.name for param in net.get_parameters()]
    predict = InferenceNet(net)
    assert [param.name for param in predict.get_parameters()] == names
    image, info = toy_batch()[:2]
    boxes, scores, labels, valid = predict(image, info)
    assert (boxes.shape, scores.shape, labels.shape, valid.shape) == ((2, 4, 4), (2, 4), (2, 4), (2, 4))
    np.testing.assert_allclose(boxes[0, 3].asnumpy(), [24, 16, 48, 32])


def test_precision_follows_level_and_device():
    net = ToyDetector()
    assert mixed_precision(net, "O0", "Ascend") is net
    assert mixed_precision(net, "auto", "CPU") is net
    with pytest.raises(InputError, match="amp_level"):
        mixed_precision(net, "O2", "CPU")


def test_o2_rounds_matrix_products_and_keeps_float32_around_them():
    class Products(nn.Cell):
        def construct(self, x, y):
            return ops.matmul(x, y), x + y

    net = mixed_precision(Products(), "O2", "GPU")  # the casts do not depend on the device
    x = np.array([[2049.0]], np.float32)            # not in float16, which has 2048 and 2050
    product, total = ms.jit(net)(Tensor(x), Tensor(x))
    assert float(product.asnumpy().item()) in (2048.0 ** 2, 2050.0 ** 2, np.inf)
    assert total.asnumpy().item() == 4098.0
    assert total.dtype == ms.float32


# ---- checkpoints

@pytest.fixture
def saved(tmp_path):
    """saved(net, name, **extra) -> path of a checkpoint, in a folder with a space in its name."""
    folder = tmp_path / "with space"
    folder.mkdir()

    def save(net, name="net.ckpt", **extra):
        path = folder / name
        items = [{"name": param.name, "data": param} for param in net.get_parameters()]
        items += [{"name": name, "data": Tensor(value)} for name, value in extra.items()]
        ms.save_checkpoint(items, str(path))
        return path

    return save


def message(call, *arguments) -> str:
    with pytest.raises(InputError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def shifted(**options) -> ToyDetector:
    net = ToyDetector(**options)
    for param in net.get_parameters():
        param.set_data(param + 1)
    return net


def test_strict_load_round_trip(saved):
    source, net = shifted(), ToyDetector()
    optimiser = {"learning_rate": np.float32(1), "moments.backbone.weight": np.zeros(3, np.float32)}
    load_checkpoint_into(net, saved(source, **optimiser))
    assert all(np.array_equal(value, values(source)[name]) for name, value in values(net).items())


def test_strict_load_names_what_differs(saved):
    path = saved(ToyDetector(classes=81))
    assert message(load_checkpoint_into, ToyDetector(classes=4), path) == (
        f"rcnn.cls_score.weight is (81, 5) in {path}, the config's num_classes asks for (4, 5)")
    wide = saved(ToyDetector(width=6))
    assert message(load_checkpoint_into, ToyDetector(), wide) == (
        f"backbone.weight is (6, 3) in {wide}, the config asks for (5, 3)")
    lacking = saved(ToyDetector().backbone, "lacking.ckpt")
    assert "lacks rcnn.cls_score.weight, rcnn.cls_score.bias" in message(load_checkpoint_into, ToyDetector(), lacking)
    more = saved(ToyDetector(), "more.ckpt", **{"backbone.layer9.weight": np.zeros(2, np.float32)})
    assert "holds backbone.layer9.weight, which" in message(load_checkpoint_into, ToyDetector(), more)


@pytest.mark.parametrize("kind, content", [("empty", b""), ("text", b"not one"), ("binary", bytes(range(256)))])
def test_not_a_checkpoint(tmp_path, kind, content):
    path = tmp_path / f"{kind}.ckpt"
    path.write_bytes(content)
    for load in (load_checkpoint_into, load_pretrained):
        assert str(path) in message(load, ToyDetector(), path)


def test_missing_and_foreign_files(tmp_path):
    missing = tmp_path / "no.ckpt"
    assert message(load_checkpoint_into, ToyDetector(), missing) == f"{missing}: no such checkpoint"
    foreign = tmp_path / "resnet.pth"
    foreign.write_bytes(b"PK")
    assert "src.convert_checkpoint" in message(load_pretrained, ToyDetector(), foreign)


def test_pretrained_backbone(saved):
    source, net = shifted(), ToyDetector()
    before = values(net)
    missing = load_pretrained(net, saved(source.backbone))
    assert missing == ["rcnn.cls_score.weight", "rcnn.cls_score.bias"]
    for name, value in values(net).items():
        assert np.array_equal(value, before[name] if name in missing else values(source)[name])


def test_pretrained_detector_with_other_classes_is_reported(saved, caplog):
    source, net = shifted(classes=81), ToyDetector(classes=4)
    caplog.set_level("INFO")
    path = saved(source, extra=np.zeros(2, np.float32))
    assert load_pretrained(net, path) == ["rcnn.cls_score.weight", "rcnn.cls_score.bias"]
    assert f"rcnn.cls_score.weight is (81, 5) in {path}, expected (4, 5): reinitialised" in caplog.text
    assert "not used, the network has no such parameters: extra" in caplog.text
    assert np.array_equal(values(net)["backbone.weight"], values(source)["backbone.weight"])


def test_pretrained_of_another_backbone_is_refused(saved):
    path = saved(ToyDetector(width=6))
    before = ToyDetector()
    assert message(load_pretrained, before, path) == f"backbone.weight is (6, 3) in {path}, the config asks for (5, 3)"
    unrelated = saved(LinearNet(), "unrelated.ckpt")
    assert "holds none of the network's parameters (4 others" in message(load_pretrained, before, unrelated)
    assert all(np.array_equal(value, values(ToyDetector())[name]) for name, value in values(before).items())


def test_pretrained_convolutions_without_their_norms_are_refused(tmp_path):
    net = nn.SequentialCell(ConvNorm(3, 4, 1))
    before = net[0].weight.asnumpy().copy()
    path = tmp_path / "zoo.ckpt"
    ms.save_checkpoint([{"name": "0.weight", "data": Tensor(np.ones((4, 3, 1, 1), np.float32))},
                        {"name": "bn1.moving_variance", "data": Tensor(np.ones(4, np.float32))}], str(path))
    with pytest.raises(InputError, match="0.moving_variance; convert it with python -m src.convert_checkpoint"):
        load_pretrained(net, path)
    np.testing.assert_array_equal(net[0].weight.asnumpy(), before)
