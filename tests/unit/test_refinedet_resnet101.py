"""RefineDet's ResNet-101: sizes, the network against numpy and another ResNet, and norms with folded statistics."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from faster_rcnn.src.FasterRcnn.resnet import ResNet
from refinedet.src import init_params
from refinedet.src.model_utils.config import DEFAULT_CONFIG, load_config
from refinedet.src.model_utils.layers.convolution import Convolution
from refinedet.src.model_utils.weights.resnet_names import BLOCKS, PARAMETERS, cell_shapes
from refinedet.src.refinedet import build_network
from refinedet.src.resnet101_for_refinedet import Bottleneck, stem_pool
from tests.narrow_refinedet import NARROW, NARROW_RESNET, narrow_config
from tests.numpy_layers import batch_norm, convolve

TORCHVISION = {"stride_in_1x1": False, "stem_pool": "padded"}


# ---------------------------------------------------------------------------------------------------- sizes

@pytest.fixture(scope="module")
def full():
    return build_network(load_config(DEFAULT_CONFIG.parent / "default_config_resnet101.yaml"))


def test_parameter_counts_match_the_literature(full):
    """Only trainable parameters count, as in other frameworks; kept statistics do not."""
    def count(*beginnings):
        return sum(param.size for param in full.trainable_params() if param.name.startswith(beginnings))

    assert count("") == 82_451_588
    assert count("backbone.res6.") == 1_526_272 and count("backbone.conv1.", "backbone.layer") == 42_500_160
    assert count("tcb.") == 14_949_888
    assert count("arm.blocks.") == 8_671_232 and count("odm.blocks.") == 4_739_072
    assert count("arm.loc.", "arm.conf.") == 4 * (1024 * 9 + 1) * 3 * 6
    assert count("odm.loc.", "odm.conf.") == 4 * (1024 * 9 + 1) * 3 * 85


def test_the_trunk_has_the_names_and_shapes_of_converted_weights(full):
    shapes = {param.name: param.shape for param in full.get_parameters() if param.name.startswith("backbone.")}
    trunk = {f"backbone.{cell}.{name}": shape if name == "weight" else shape[:1]
             for cell, shape in cell_shapes(BLOCKS["resnet_v1_101"]).items() for name in PARAMETERS}
    assert {name: shape for name, shape in shapes.items() if ".res6." not in name} == trunk


def test_new_convolutions_have_the_authors_deviation(full):
    """The standard deviation ignores the fan-in, in the heads too."""
    for param in full.trainable_params():
        if param.name.endswith(".weight") and not param.name.startswith(("backbone.conv1", "backbone.layer")):
            assert param.asnumpy().std() == pytest.approx(0.01, rel=0.05), param.name


SHIPPED = [("default_config.yaml", 320), ("default_config_512.yaml", 512), ("default_config_resnet101.yaml", 320),
           ("default_config_resnet101_512.yaml", 512)]


@pytest.mark.parametrize(("name", "side"), SHIPPED)
def test_maps_and_anchors(name, side):
    """Shapes with the shipped configurations, made narrow."""
    sizes = {"img_height", "img_width", "image_std"}
    widths = {key: value for key, value in {**NARROW, **NARROW_RESNET}.items() if key not in sizes | {"backbone"}}
    net = build_network(load_config(DEFAULT_CONFIG.parent / name, widths))
    sources = net.backbone(ms.ops.ones((1, 3, side, side)))
    channels = (16, 24, 32, 16) if "resnet101" in name else (16, 16, 32, 16)
    assert [x.shape for x in sources] == [(1, c, side // s, side // s) for c, s in zip(channels, (8, 16, 32, 64))]
    maps = net.tcb(sources)
    assert [x.shape for x in maps] == [(1, 16, side // stride, side // stride) for stride in (8, 16, 32, 64)]
    anchors = {320: 6375, 512: 16320}[side]
    assert [x.shape[1:] for x in (*net.arm(sources), *net.odm(maps))] == [(anchors, k) for k in (4, 2, 4, 4)]
    assert net.anchors.shape == (1, anchors, 4)


def test_shipped_schedules_match_the_authors():
    """400k steps of 32 images that decay after 280k and 360k; ResNet-101 at 512: 540k steps of 20, after 400k and 480k."""
    for name, _ in SHIPPED:
        config = load_config(DEFAULT_CONFIG.parent / name)
        batch, *steps = (20, 400, 480, 540) if name.endswith("101_512.yaml") else (32, 280, 360, 400)
        assert (config.batch_size, config.lr_reference_batch, config.base_lr) == (batch, batch, 1e-3)
        got = [epoch * (117266 // batch) for epoch in (*config.sgd_step, config.epoch_size)]
        np.testing.assert_allclose(got, np.array(steps) * 1000, atol=117266 / batch / 2)
        bgr = config.backbone == "resnet101"
        assert config.to_rgb is not bgr and config.image_mean == ((104, 117, 123) if bgr else (123, 117, 104))
        assert config.image_std == (1, 1, 1)


# --------------------------------------------------------------------------------- the network against numpy

class ByHand:
    """The whole network in float64, from parameters by name. With `train`, norms use the statistics of their input."""

    def __init__(self, net, config, train: bool):
        self.params = {param.name: param.asnumpy().astype(np.float64) for param in net.get_parameters()}
        self.config, self.train = config, train

    def norm(self, y, name):
        mean, variance = self.params[f"{name}.moving_mean"], self.params[f"{name}.moving_variance"]
        if self.train:
            mean, variance = y.mean((0, 2, 3)), y.var((0, 2, 3))
        return batch_norm(y, self.params[f"{name}.gamma"], self.params[f"{name}.beta"], mean, variance)

    def conv(self, x, name, stride=1):
        return self.norm(convolve(x, self.params[f"{name}.weight"], stride), name)

    def bottleneck(self, x, name, stride=1, first=True, in_1x1=True):
        y = relu(self.conv(x, f"{name}.conv1", stride if in_1x1 else 1))
        y = relu(self.conv(y, f"{name}.conv2", 1 if in_1x1 else stride))
        identity = self.conv(x, f"{name}.downsample", stride) if first else x
        return relu(self.conv(y, f"{name}.conv3") + identity)

    def sources(self, image):
        config, maps = self.config, []
        x = pool_by_hand(relu(self.conv(image, "backbone.conv1", 2)), config.stem_pool)
        for stage, count in enumerate(config.resnet_block, 1):
            for block in range(count):
                stride = 2 if stage > 1 and block == 0 else 1
                x = self.bottleneck(x, f"backbone.layer{stage}.{block}", stride, block == 0, config.stride_in_1x1)
            maps.append(x)
        return [*maps[1:], self.bottleneck(x, "backbone.res6", 2)]

    def up(self, x, name):
        """Each pixel becomes 2x2: out[o, 2y+i, 2x+j] = sum over c of x[c, y, x] * w[o, c, i, j]."""
        weight = self.params[f"{name}.weight"]
        out = np.zeros((x.shape[0], weight.shape[0], 2 * x.shape[2], 2 * x.shape[3]))
        for i, j in np.ndindex(2, 2):
            out[:, :, i::2, j::2] = np.einsum("nchw,oc->nohw", x, weight[:, :, i, j])
        return self.norm(out, name)

    def maps(self, sources):
        maps = [None] * 4
        for level in (3, 2, 1, 0):
            x = self.conv(relu(self.conv(sources[level], f"tcb.first.{level}")), f"tcb.second.{level}")
            if level < 3:
                x = x + self.up(maps[level + 1], f"tcb.up.{level}")
            maps[level] = relu(self.conv(relu(x), f"tcb.last.{level}"))
        return maps

    def heads(self, maps, name, logits):
        rows = [[], []]
        for level, x in enumerate(maps):
            x = self.bottleneck(x, f"{name}.blocks.{level}")
            for kind, width, into in (("loc", 4, rows[0]), ("conf", logits, rows[1])):
                y = convolve(x, self.params[f"{name}.{kind}.{level}.weight"])
                y += self.params[f"{name}.{kind}.{level}.bias"][:, None, None]
                into.append(np.stack([y[:, a * width + k, row, column] for row in range(y.shape[2]) for column in range(y.shape[3])
                                      for a in range(3) for k in range(width)], 1).reshape(len(y), -1, width))
        return [np.concatenate(kind, 1) for kind in rows]


def relu(x):
    return np.maximum(x, 0)


def pool_by_hand(x, how: str):
    """ceil (Caffe): windows start at pixel 0, and pixels beyond the end do not count; padded: windows start at pixel -1."""
    out, begin = np.zeros((*x.shape[:2], x.shape[2] // 2, x.shape[3] // 2)), 0 if how == "ceil" else -1
    for row, column in np.ndindex(out.shape[2:]):
        top, left = 2 * row + begin, 2 * column + begin
        out[:, :, row, column] = x[:, :, max(top, 0):top + 3, max(left, 0):left + 3].max((2, 3))
    return out


def random_resnet(seed=0, **overrides):
    """(network with random values in all norms, its configuration)."""
    config = narrow_config(**{**NARROW_RESNET, **overrides})
    net, rng = build_network(config), np.random.default_rng(seed)
    for param in net.get_parameters():
        if param.name.endswith(".weight"):
            value = rng.normal(0, np.sqrt(2 / np.prod(param.shape[1:])), param.shape)
        elif param.name.endswith((".gamma", ".moving_variance")):
            value = rng.uniform(0.6, 1.5, param.shape)
        else:
            value = rng.normal(0, 0.3, param.shape)
        param.set_data(Tensor(value.astype(np.float32)))
    return net, config


def random_images(n=2, height=128, width=64, seed=1):
    return np.random.default_rng(seed).normal(0, 1, (n, 3, height, width)).astype(np.float32)


@pytest.mark.parametrize(("train", "fast", "like"), [
    (False, False, {}), (False, True, TORCHVISION), (True, False, TORCHVISION), (True, True, {})],
    ids=["inference-plain-MSRA", "inference-fast-torchvision", "training-plain-torchvision", "training-fast-MSRA"])
def test_maps_and_predictions_match_numpy(train, fast, like, monkeypatch):
    monkeypatch.setattr(Convolution, "WINOGRAD_CHANNELS", 1)
    net, config = random_resnet(**like)
    kept, net = net, build_network(config, fast=fast)
    ms.load_param_into_net(net, kept.parameters_dict())
    by_hand, image = ByHand(net, config, train), random_images()
    net.set_train(train)
    sources = net.backbone(Tensor(image))
    maps = net.tcb(sources)
    got = [*sources, *maps, *net.arm(sources), *net.odm(maps)]
    want_sources = by_hand.sources(image)
    want_maps = by_hand.maps(want_sources)
    want = [*want_sources, *want_maps, *by_hand.heads(want_sources, "arm", 2), *by_hand.heads(want_maps, "odm", 4)]
    for index, (mine, theirs) in enumerate(zip(got, want, strict=True)):
        assert theirs.std() > 0.1
        np.testing.assert_allclose(mine.asnumpy(), theirs, atol=1e-3 * np.abs(theirs).max(), err_msg=str(index))


def test_a_block_projects_even_if_channels_stay():
    net = build_network(narrow_config(**{**NARROW_RESNET, "resnet_head_channels": 16}))
    assert all(isinstance(block, Bottleneck) and block.downsample is not None for block in (*net.arm.blocks, *net.odm.blocks))


@pytest.mark.parametrize("ceil", [True, False])
def test_pool_of_the_stem(ceil):
    x = np.maximum(np.random.default_rng(2).normal(size=(2, 3, 6, 8)), 0).astype(np.float32)
    np.testing.assert_array_equal(stem_pool(Tensor(x), ceil).asnumpy(), pool_by_hand(x, "ceil" if ceil else "padded"))


@pytest.mark.parametrize("stride_in_1x1", [True, False])
def test_the_trunk_matches_faster_rcnns_resnet(stride_in_1x1):
    """Faster R-CNN's tests compare that ResNet with torchvision and detectron2; the stem's pool pads as there."""
    net, config = random_resnet(stride_in_1x1=stride_in_1x1, stem_pool="padded")
    other = ResNet(config.resnet_block, config.resnet_in_channels, config.resnet_out_channels, stride_in_1x1=stride_in_1x1)
    mine = {param.name.removeprefix("backbone."): param for param in net.backbone.get_parameters()}
    for param in other.get_parameters():
        param.set_data(mine[param.name].value())
    image = Tensor(random_images(1))
    for got, want in zip(net.backbone(image)[:3], other(image)[1:], strict=True):
        np.testing.assert_allclose(got.asnumpy(), want.asnumpy(), rtol=1e-4, atol=1e-4)


def test_keys_of_the_other_trunk_change_nothing():
    def shapes(**overrides):
        return {param.name: param.shape for param in build_network(narrow_config(**overrides)).get_parameters()}

    of_vgg = {"vgg_channels": [4, 4, 4, 4, 4], "fc_channels": 8, "extra_channels": [4, 4], "batch_norm": True}
    of_resnet = {key: value for key, value in NARROW_RESNET.items() if key != "backbone"}
    assert shapes(**of_resnet, **TORCHVISION) == shapes()
    assert shapes(**NARROW_RESNET, **of_vgg) == shapes(**NARROW_RESNET)
    assert shapes(**NARROW_RESNET) != shapes()


# ------------------------------------------------------------------------------------------- folded statistics

def folded_backbone(eps=1e-5):
    """(network whose trunk has mean 0 and variance 1 - eps, as from Caffe2's files; names of the parameters outside it)."""
    net, config = random_resnet()
    fresh = [param.name for param in net.get_parameters() if not param.name.startswith(("backbone.conv1.", "backbone.layer"))]
    for param in net.get_parameters():
        if param.name in fresh:
            continue
        if param.name.endswith(".moving_mean"):
            param.set_data(ms.ops.zeros_like(param))
        elif param.name.endswith(".moving_variance"):
            param.set_data(ms.ops.full_like(param, 1 - eps))
    return net, fresh


def test_folded_norms_get_statistics_and_infer_as_before(monkeypatch):
    net, fresh = folded_backbone()
    monkeypatch.setattr(init_params, "load_pretrained", lambda net, path, classes: fresh)
    monkeypatch.setattr(init_params, "pretrained_file", lambda config: config.pre_trained)
    images = random_images(8)
    before = [x.asnumpy() for x in net.backbone(Tensor(images))]
    kept = {param.name: param.asnumpy().copy() for param in net.get_parameters()}
    config = load_config(overrides={"pre_trained": "some.ckpt"})
    init_params.set_first_weights(net, config, lambda epoch, start: iter([(Tensor(images[:4]),), (Tensor(images[4:]),)]))
    after = [x.asnumpy() for x in net.backbone(Tensor(images))]
    for x, y in zip(before, after):
        np.testing.assert_allclose(y, x, atol=1e-3 * np.abs(x).max())
    first = convolve(images, kept["backbone.conv1.weight"], stride=2)
    np.testing.assert_allclose(net.backbone.conv1.moving_mean.asnumpy(), first.mean((0, 2, 3)), atol=1e-4)
    np.testing.assert_allclose(net.backbone.conv1.moving_variance.asnumpy(), first.var((0, 2, 3)), rtol=1e-4)
    for param in net.get_parameters():
        if param.name in fresh or param.name.endswith(".weight"):
            np.testing.assert_array_equal(param.asnumpy(), kept[param.name])
    net.set_train()         # on these images, training also starts from what the file computes
    np.testing.assert_allclose(net.backbone(Tensor(images))[2].asnumpy(), before[2], atol=2e-3 * np.abs(before[2]).max())


def test_other_norms_keep_their_statistics(monkeypatch):
    """Norms of torchvision's files, new norms, and all norms with calibrate_init: never. No image is read."""
    whole, folded = random_resnet()[0], folded_backbone()
    fresh = build_network(narrow_config(**NARROW_RESNET))
    names = [param.name for param in fresh.get_parameters()]
    for net, missing, how in ((whole, folded[1], "auto"), (fresh, names, "auto"), (folded[0], folded[1], "never")):
        before = {param.name: param.asnumpy().copy() for param in net.get_parameters()}
        monkeypatch.setattr(init_params, "load_pretrained", lambda net, path, classes, missing=missing: missing)
        monkeypatch.setattr(init_params, "pretrained_file", lambda config: config.pre_trained)
        init_params.set_first_weights(net, load_config(overrides={"pre_trained": "some.ckpt", "calibrate_init": how}), None)
        for param in net.get_parameters():
            np.testing.assert_array_equal(param.asnumpy(), before[param.name])
