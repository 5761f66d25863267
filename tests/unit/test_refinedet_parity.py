"""RefineDet against the parity fixture: maps, heads, boxes, detections, matches, mined negatives, losses and gradients.

The fixture's reference follows the authors' Caffe code. Its README suggests the tolerances, except those of gradients: the
fixture's gradients are float64, and our ReLUs and poolings take the same sides. Measured: norms 5e-6, whole 9e-6.
The plain network is compiled; with Winograd convolutions or other limits it runs operator by operator.
"""
import json
import re

import cv2
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from faster_rcnn.src.model_utils.weights.reader import read_checkpoint
from refinedet.src.anchor_generator import AnchorGenerator
from refinedet.src.box_utils import overlaps
from refinedet.src.model_utils.layers.convolution import Convolution
from refinedet.src.multibox import MultiBox
from refinedet.src.refinedet import LOSS_NAMES, Detector, RefineDet
from refinedet.src.refinedet_loss_cell import hard_negatives
from refinedet.src.tcb import TransferConnections
from refinedet.src.vgg16_for_refinedet import STRIDES, Vgg16
from tests.isolated import isolated
from tests.relu_sides import Settler, settle_refinedet

SIDE, ANCHORS, MEAN_RGB = 320, 6375, (123, 117, 104)
# Index in the port's list of layers -> our name.
TRUNK = dict(zip((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28, 31, 33), (
    "conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3", "conv4_1", "conv4_2", "conv4_3", "conv5_1",
    "conv5_2", "conv5_3", "fc6", "fc7")))
MAPS = ("source_conv4_3_norm", "source_conv5_3_norm", "source_fc7", "source_conv6_2", "odm_P3", "odm_P4", "odm_P5", "odm_P6")


def our_name(theirs: str) -> str:
    """Our name of the port's parameter."""
    part, _, leaf = theirs.rpartition(".")
    match = re.fullmatch(r"vgg\.(\d+)", part)
    if match:
        return f"backbone.{TRUNK[int(match[1])]}.{leaf}"
    if part.endswith("_L2Norm"):
        return f"backbone.{part.replace('_L2Norm', '_norm')}.scale"
    kind, number = part.split(".")
    number = int(number)
    if kind == "extras":
        return f"backbone.conv6_{number + 1}.{leaf}"
    if kind == "tcb0":
        return f"tcb.{('first', None, 'second')[number % 3]}.{number // 3}.{leaf}"
    if kind in ("tcb1", "tcb2"):
        return f"tcb.up.{number}.{leaf}" if kind == "tcb1" else f"tcb.last.{number // 3}.{leaf}"
    return f"{kind.replace('_', '.')}.{number}.{leaf}"


def build(per_class=400, most=200, fast=False) -> RefineDet:
    """The fixture's network, with all widths divided by eight."""
    backbone = Vgg16((8, 16, 32, 64, 64), 128, (32, 64), fast=fast)
    channels = backbone.out_channels
    generator = AnchorGenerator([4.0], [1.0, 0.5, 2.0], STRIDES, center_offset=0.5)
    detector = Detector(12, 0.01, 0.45, per_class, 12 * per_class, most, SIDE)
    return RefineDet(backbone, TransferConnections(channels, 32, fast=fast), MultiBox(channels, 3, 2, fast),
                     MultiBox([32] * 4, 3, 13, fast), generator.grid([(SIDE // s, SIDE // s) for s in STRIDES]), (0.1, 0.2),
                     detector)


def load(net, folder) -> None:
    arrays = {our_name(name): value for name, value in
              read_checkpoint(folder / "refinedet320_vgg16_narrow.pth").arrays.items()}
    params = {param.name: param for param in net.get_parameters()}
    assert set(params) == set(arrays) and len(arrays) == 98
    for name, param in params.items():
        assert param.shape == arrays[name].shape, name
        param.set_data(Tensor(np.array(arrays[name])))


class Stages(nn.Cell):
    """All inference outputs that the fixture holds."""

    def __init__(self, net):
        super().__init__(auto_prefix=False)
        self.net = net

    def construct(self, image, image_info):
        net = self.net
        sources = net.backbone(image)
        maps = net.tcb(sources)
        arm_deltas, arm_logits = net.arm(sources)
        odm_deltas, odm_logits = net.odm(maps)
        refined = net.move(net.anchors_of(image), arm_deltas)
        return (*sources, *maps, arm_deltas, arm_logits, odm_deltas, odm_logits, refined, net.move(refined, odm_deltas),
                net.objectness(arm_logits), *net.predict(image, image_info))


class Fixture:
    def __init__(self, folder):
        self.folder, self.arrays = folder, dict(np.load(folder / "expected.npz"))
        images = [cv2.imread(str(folder / f"image_{i}.png"))[..., ::-1].astype(np.float32) - MEAN_RGB for i in (1, 2, 3)]
        self.image = np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2), np.float32)
        self.info = np.tile(np.float32([SIDE, SIDE, 1, 1, SIDE, SIDE]), (3, 1))

    def targets(self, slots=8) -> tuple:
        """gt_boxes (3, G, 4) in pixels, gt_labels (3, G), gt_valid (3, G)."""
        boxes, labels = np.zeros((3, slots, 4), np.float32), np.zeros((3, slots), np.int32)
        for i in range(3):
            mine = self.arrays["gt_image"] == i + 1
            boxes[i, :mine.sum()] = self.arrays["gt_boxes"][mine] * SIDE
            labels[i, :mine.sum()] = self.arrays["gt_labels"][mine]
        return boxes, labels, labels > 0

    def network(self, **how):
        with pytest.MonkeyPatch.context() as patch:
            if how.get("fast"):
                patch.setattr(Convolution, "WINOGRAD_CHANNELS", 1)
            net = build(**how)
        load(net, self.folder)
        return net

    def run(self, **how) -> list:
        return isolated(compute_stages, self.folder, how, eager=any(how.values()))


def compute_stages(folder, how: dict) -> list:
    fixture = Fixture(folder)
    return [x.asnumpy() for x in ms.jit(Stages(fixture.network(**how)))(Tensor(fixture.image), Tensor(fixture.info))]


@pytest.fixture(scope="module")
def fixture(parity_file):
    return Fixture(parity_file("refinedet320_vgg16"))


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "fast"])
def answers(request, fixture):
    return fixture.run(fast=request.param)


def test_preprocessing_matches_the_fixture(fixture):
    np.testing.assert_array_equal(fixture.image[0, :, :4, :4].ravel(), fixture.arrays["input_image1_corner"].ravel())
    np.testing.assert_allclose(fixture.image.mean((0, 2, 3), dtype=np.float64), fixture.arrays["input_mean_per_channel"], atol=1e-3)


def test_maps(fixture, answers):
    for name, got in zip(MAPS, answers):
        want = fixture.arrays[f"{name}_image1"]
        np.testing.assert_allclose(got[0], want, atol=2e-4 * max(1, np.abs(want).max()), err_msg=name)


def test_heads_boxes_and_objectness(fixture, answers):
    for name, got in zip(("arm_loc", "arm_conf", "odm_loc", "odm_conf"), answers[8:12]):
        np.testing.assert_allclose(got, fixture.arrays[name], atol=3e-4, err_msg=name)
    for name, got in zip(("refined_anchors", "decoded_boxes"), answers[12:14]):
        np.testing.assert_allclose(got / SIDE, fixture.arrays[name], atol=3e-5, err_msg=name)
    np.testing.assert_allclose(answers[14], fixture.arrays["arm_objectness"], atol=1e-4)


def test_anchors(fixture):
    anchors = build().anchors.asnumpy()[0] / SIDE
    priors = np.concatenate([(anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]], 1)
    assert len(priors) == ANCHORS
    np.testing.assert_allclose(priors[:50], fixture.arrays["priors_first50"], atol=1e-6)
    np.testing.assert_allclose(priors[-10:], fixture.arrays["priors_last10"], atol=1e-6)
    weights = np.arange(1, ANCHORS + 1)[:, None] / ANCHORS
    np.testing.assert_allclose(priors.sum(0, dtype=np.float64), fixture.arrays["priors_column_sum"].ravel(), rtol=1e-5)
    weighted = (priors.astype(np.float64) * weights).sum(0)
    np.testing.assert_allclose(weighted, fixture.arrays["priors_weighted_sum"].ravel(), rtol=1e-5)


@pytest.mark.parametrize(("settings", "limits"), [("paper", (400, 200)), ("caffe", (1000, 500))])
def test_detections(fixture, settings, limits):
    """Detections are compared as sets of (class, box), because nearly equal scores have no fixed order."""
    boxes, scores, labels, valid = fixture.run(per_class=limits[0], most=limits[1])[15:]
    for i in range(3):
        want = fixture.arrays[f"det_{settings}_{i + 1}"]
        keep = valid[i]
        assert keep.sum() == len(want) == limits[1]
        assert (np.diff(scores[i][keep]) <= 0).all()
        got = np.concatenate([labels[i][keep, None], scores[i][keep, None], boxes[i][keep] / SIDE], 1)
        nearest = np.abs(got[:, None, 2:] - want[None, :, 2:6]).max(-1) + 10 * (got[:, None, 0] != want[None, :, 0])
        place = nearest.argmin(1)
        assert sorted(place) == list(range(len(want))), "a detection without its counterpart"
        np.testing.assert_allclose(got[:, 2:], want[place, 2:6], atol=3e-5)
        np.testing.assert_allclose(got[:, 1], want[place, 1], atol=1e-4)


def test_results_in_pixels(fixture, answers):
    """COCO results, clipped to the image."""
    from refinedet.src.model_utils.evaluation.detections import to_results

    outputs = answers[15:]
    categories = [{"id": label, "name": str(label), "label": label} for label in range(1, 13)]
    found = to_results(*outputs, fixture.info, [1, 2, 3], categories)
    wanted = json.loads((fixture.folder / "expected_detections.json").read_text())
    assert len(found) == len(wanted) > 500
    for ours in found:
        same = [item for item in wanted if (item["image_id"], item["category_id"]) == (ours["image_id"], ours["category_id"])]
        distance = min(np.abs(np.subtract(ours["bbox"], item["bbox"])).max() + abs(ours["score"] - item["score"]) for item in same)
        assert distance < 0.02


def compute_step(folder, fast) -> tuple:
    """(share of moved activations, losses, gradients by name)."""
    fixture, settler = Fixture(folder), Settler()
    net = fixture.network(fast=fast)
    settle_refinedet(settler, net, fixture.image)
    params = ms.ParameterTuple(net.trainable_params())

    def forward(*inputs):
        losses = ms.ops.stack(net(*inputs))
        return losses.sum(), losses

    boxes, labels, valid = (Tensor(x) for x in fixture.targets())
    inputs = Tensor(fixture.image), Tensor(fixture.info), boxes, labels, valid
    (_, losses), grads = ms.jit(ms.value_and_grad(forward, None, params, has_aux=True))(*inputs)
    return settler.moved / settler.seen, losses.asnumpy(), {param.name: grad.asnumpy() for param, grad in zip(params, grads)}


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "fast"])
def training(request, fixture):
    """(losses, gradients by name)."""
    moved, *found = isolated(compute_step, fixture.folder, request.param, eager=request.param)
    assert moved < 1e-3
    return found


def test_losses(fixture, training):
    for name, got in zip(LOSS_NAMES, training[0]):
        stage, kind, _ = name.split("_")
        np.testing.assert_allclose(got, fixture.arrays[f"loss_{stage}_{kind}"], rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(training[0].sum(), fixture.arrays["loss_total"], rtol=1e-4)


def test_gradients(fixture, training):
    _, grads = training
    names = [str(name) for name in fixture.arrays["grad_names"]]
    assert len(names) == len(grads) == 98
    for name, norm in zip(names, fixture.arrays["grad_norms"]):
        np.testing.assert_allclose(np.linalg.norm(grads[our_name(name)]), norm, rtol=5e-5, err_msg=name)
    for key in fixture.arrays:
        if key.startswith("grad/"):
            want = fixture.arrays[key]
            assert np.linalg.norm(grads[our_name(key[5:])] - want) <= 1e-4 * np.linalg.norm(want), key


@pytest.mark.parametrize("stage", ["arm", "odm"])
def test_matches_and_mined_negatives(fixture, stage):
    """Given the fixture's boxes and logits, both equal the fixture's exactly."""
    net = build()
    arrays, (boxes, _, valid) = fixture.arrays, fixture.targets()
    anchors = net.anchors_of(Tensor(fixture.image)) if stage == "arm" else Tensor(arrays["refined_anchors"] * SIDE)
    matched = ms.jit(net.matcher)(overlaps(anchors, Tensor(boxes), Tensor(valid))).asnumpy()
    np.testing.assert_array_equal(matched, arrays[f"{stage}_match"])

    logits = arrays[f"{stage}_conf"].astype(np.float64)
    background = np.log(np.exp(logits).sum(-1)) - logits[..., 0]
    candidates = matched < 0
    if stage == "odm":
        candidates &= arrays["arm_objectness"] >= 0.01
    got = hard_negatives(Tensor(background.astype(np.float32)), Tensor(candidates),
                         Tensor((matched >= 0).sum(1).astype(np.int32)), 3).asnumpy()
    np.testing.assert_array_equal(got, arrays[f"{stage}_negative"].astype(bool))
    assert not got[2].any() and got.sum() == arrays["num_negative"][int(stage == "odm")]
