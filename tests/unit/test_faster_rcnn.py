"""The whole network at an eighth of its widths: padding, repetition, batches, and laws that hold for any weights."""
import numpy as np
import pytest
from mindspore import Tensor, ops

from faster_rcnn.src.FasterRcnn.faster_rcnn import LOSS_NAMES, build_network, level_shapes, shapes_of
from faster_rcnn.src.model_utils.layers.convolution import Convolution
from faster_rcnn.src.network_define import InferenceNet
from tests.narrow_network import (
    losses_and_gradients,
    narrow_config,
    narrow_network,
    noise,
    objects,
    pictures,
    predictions,
    spread_heads,
)

pytestmark = pytest.mark.slow

MANY = [(1, 20, 20, 90, 80), (2, 100, 30, 150, 60), (3, 60, 70, 120, 110)]


@pytest.fixture(scope="module")
def config():
    return narrow_config()


@pytest.fixture(scope="module")
def net(config):
    net = narrow_network(config)
    spread_heads(net)
    return net


@pytest.fixture(scope="module")
def train(net, eager):
    """Function: arguments of the network -> losses by name, gradients by name."""
    params = net.trainable_params()
    compiled = losses_and_gradients(net, params)

    def run(*inputs):
        losses, grads = compiled(*inputs)
        return (dict(zip(LOSS_NAMES, losses.asnumpy().tolist())),
                {param.name: grad.asnumpy() for param, grad in zip(params, grads)})

    return run


@pytest.fixture(scope="module")
def predict(net):
    return predictions(InferenceNet(net))


@pytest.mark.parametrize("objects_of_images", [[[], []], [[], MANY], [MANY, MANY[:1]]])
def test_losses_and_gradients_are_finite(config, net, train, objects_of_images):
    """Images without objects give no box losses, but their background gives classification losses."""
    losses, grads = train(*pictures(config, 2), *objects(config, objects_of_images), *noise(net, 2))
    assert np.isfinite(list(losses.values())).all()
    assert all(np.isfinite(grad).all() for grad in grads.values())
    assert losses["rpn_cls_loss"] > 0 and losses["rcnn_cls_loss"] > 0
    learns = any(objects_of_images)
    assert (losses["rpn_reg_loss"] > 0, losses["rcnn_reg_loss"] > 0) == (learns, learns)
    for name in ("rpn.reg.weight", "rcnn.bbox_pred.weight"):
        assert (np.abs(grads[name]).max() > 0) == learns, name
    for name in ("backbone.conv1.weight", "neck.outputs.0.weight", "rpn.conv.weight", "rcnn.fcs.0.weight"):
        assert np.abs(grads[name]).max() > 0, name


def test_padding_of_objects_and_order_of_images_change_nothing(config, net, train):
    """Invalid slots are ignored. Exchanged images have the same losses."""
    image, info = pictures(config, 2)
    boxes, labels, valid = objects(config, [MANY, MANY[:1]])
    rpn_noise, roi_noise = noise(net, 2)
    losses, grads = train(image, info, boxes, labels, valid, rpn_noise, roi_noise)
    filled = np.where(valid.asnumpy()[..., None], boxes.asnumpy(), [10, 10, 100, 100]).astype(np.float32)
    others = np.where(valid.asnumpy(), labels.asnumpy(), 3).astype(np.int32)
    same, same_grads = train(image, info, Tensor(filled), Tensor(others), valid, rpn_noise, roi_noise)
    assert same == losses
    assert all(np.array_equal(grad, same_grads[name]) for name, grad in grads.items())

    swapped, _ = train(*(Tensor(x.asnumpy()[::-1].copy()) for x in (image, info, boxes, labels, valid, rpn_noise, roi_noise)))
    np.testing.assert_allclose(list(swapped.values()), list(losses.values()), rtol=1e-5)


def test_repeated_step_is_equal_to_itself(config, net, train):
    inputs = *pictures(config, 2), *objects(config, [MANY, MANY[:2]]), *noise(net, 2)
    losses, grads = train(*inputs)
    for _ in range(3):
        again, again_grads = train(*inputs)
        assert again == losses
        assert all(np.array_equal(grad, again_grads[name]) for name, grad in grads.items())
    other, _ = train(*inputs[:5], *noise(net, 2, seed=1))
    assert other != losses                                              # the noise decides what is sampled


def test_repeated_prediction_is_equal_to_itself(config, predict):
    first = predict(*pictures(config, 2))
    assert first[3].sum() > 10
    for again, part in zip(predict(*pictures(config, 2)), first):
        np.testing.assert_array_equal(again, part)


def test_detections_are_ordered_and_inside_their_image(config, predict):
    image, info = pictures(config, 2)
    boxes, scores, labels, valid = predict(image, info)
    sizes = info.asnumpy()[:, None, 1::-1]                              # (N, 1, 2), width and height without padding
    assert boxes.shape == (2, config.test_max_per_img, 4)
    assert (boxes >= 0).all() and (boxes <= np.tile(sizes, 2)).all()
    assert (boxes[valid][:, 2:] > boxes[valid][:, :2]).all()
    assert (np.diff(scores, axis=1) <= 0).all()
    assert (scores[valid] > config.test_score_thr).all() and (scores[~valid] == 0).all()
    assert len(set(labels[valid]) & {1, 2, 3}) == len(set(labels[valid])) > 1


def test_batch_of_two_equals_two_images(config, predict):
    """Images of a batch do not affect each other. Sums run in another order: scores to 1e-4, boxes to 0.01 pixels."""
    image, info = pictures(config, 2)
    together = predict(image, info)
    for i in range(2):
        alone = predict(image[i:i + 1], info[i:i + 1])
        for part, single, tolerance in zip(together, alone, (0.01, 1e-4, 0, 0)):
            np.testing.assert_allclose(part[i], single[0], rtol=0, atol=tolerance)


def test_exchanged_classes_exchange_labels(config, net, predict):
    """If the class rows of the last layers are permuted, the labels are permuted and the boxes stay."""
    first = predict(*pictures(config, 2))
    layers = net.rcnn.cls_score, net.rcnn.bbox_pred
    scores_of, boxes_of = kept = [layer.weight.asnumpy().copy() for layer in layers]
    order = np.array([3, 1, 2])                                         # new class 1 is the old 3, ...
    changed = scores_of[np.r_[0, order]], boxes_of.reshape(3, 4, -1)[order - 1].reshape(12, -1)
    try:
        for layer, weight in zip(layers, changed):
            ops.assign(layer.weight, Tensor(weight))                    # in place: a compiled graph does not see set_data
        boxes, scores, labels, valid = predict(*pictures(config, 2))
    finally:
        for layer, weight in zip(layers, kept):
            ops.assign(layer.weight, Tensor(weight))
    np.testing.assert_array_equal(valid, first[3])
    np.testing.assert_allclose(scores, first[1], atol=1e-6)
    np.testing.assert_allclose(boxes[valid], first[0][valid], atol=1e-3)
    np.testing.assert_array_equal(np.r_[0, order][labels[valid]], first[2][valid])


def test_fast_convolutions_and_loss_weights(monkeypatch, config, net, train):
    """With Winograd and loss weights 1, 2, 3 and 4, the losses are those multiples of the direct ones, to 1e-3."""
    monkeypatch.setattr(Convolution, "WINOGRAD_CHANNELS", 1)
    weighted = narrow_config(rpn_loss_cls_weight=1.0, rpn_loss_reg_weight=2.0, rcnn_loss_cls_weight=3.0, rcnn_loss_reg_weight=4.0)
    fast = build_network(weighted, fast=True)
    assert fast.backbone.layer1[0].conv2.conv.winograd and fast.neck.outputs[0].conv.winograd and fast.rpn.conv.conv.winograd
    for param, other in zip(fast.get_parameters(), net.get_parameters()):
        assert param.name == other.name
        param.set_data(Tensor(other.asnumpy()))
    inputs = *pictures(config, 2), *objects(config, [MANY, MANY[:2]]), *noise(net, 2)
    direct, _ = train(*inputs)
    got = np.array([float(loss) for loss in fast(*inputs)])             # operator by operator
    np.testing.assert_allclose(got, np.array([direct[name] for name in LOSS_NAMES]) * [1, 2, 3, 4], rtol=1e-3)


@pytest.mark.parametrize("height, width", [(96, 160), (70, 101)])
def test_levels_have_the_shapes_that_anchors_are_matched_on(net, height, width):
    """Training matches anchors before it computes features."""
    features = net.neck(net.backbone(Tensor(np.zeros((1, 3, height, width), np.float32))))
    assert tuple(shapes_of(features)) == level_shapes((height, width), net.strides)


def test_moved_object_moves_its_detections():
    """64 pixels are whole cells on all levels. Without biases in the network, black surroundings act like zero padding."""
    config = narrow_config(img_height=448, img_width=512, anchor_scales=[2.0], rpn_nms_pre=10, rpn_nms_post=10, rpn_max_num=50)
    net = narrow_network(config, seed=1)
    for param in net.get_parameters():
        if param.name.endswith(("moving_mean", "bias", "beta")):
            param.set_data(ops.zeros_like(param))
    spread_heads(net, 5.0)
    image = np.zeros((2, 3, 448, 512), np.float32)
    image[0, :, 176:200, 180:208] = np.random.default_rng(0).standard_normal((3, 24, 28))
    image[1] = np.roll(image[0], (64, 64), (1, 2))
    info = Tensor(np.array([[448, 512, 1, 1, 448, 512]] * 2, np.float32))
    boxes, scores, labels, valid = predictions(InferenceNet(net))(Tensor(image), info)
    assert valid[0].sum() > 5
    np.testing.assert_array_equal(valid[0], valid[1])
    np.testing.assert_array_equal(labels[0], labels[1])
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)
    np.testing.assert_allclose(boxes[0][valid[0]] + 64, boxes[1][valid[1]], atol=1e-2)
    assert boxes[0][valid[0]].min() > 0
