"""Mask R-CNN at an eighth of its widths: losses and masks. Tests of Faster R-CNN cover the shared parts."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops
from pycocotools import mask as coco_mask

from mask_rcnn.src.MaskRcnn.mask_rcnn import LOSS_NAMES
from mask_rcnn.src.model_utils.inference.predictors import predictor_of
from mask_rcnn.src.model_utils.layers.named_losses import weighted
from mask_rcnn.src.network_define import InferenceNet
from tests.narrow_network import (
    narrow_mask_config,
    narrow_network,
    noise,
    objects,
    outlines,
    pictures,
    polygons,
    predictions,
    spread_heads,
)
from tests.unit.test_rcnn_mask import head_by_hand

pytestmark = pytest.mark.slow

MANY = [(1, 20, 20, 90, 80), (2, 100, 30, 150, 60), (3, 60, 70, 120, 110)]


@pytest.fixture(scope="module")
def config():
    return narrow_mask_config(rcnn_loss_mask_fb_weight=2.0)


@pytest.fixture(scope="module")
def net(config):
    """Network for inference."""
    net = narrow_network(config, seed=4)
    spread_heads(net)
    net.rcnn_mask.logits.weight.set_data(net.rcnn_mask.logits.weight * 500)         # masks with foreground and background
    return net


@pytest.fixture(scope="module")
def learner(config):
    """Network for training, with the CPU's fast convolutions and exact targets."""
    return narrow_network(config, seed=2, fast=True)


@pytest.fixture(scope="module")
def train(learner):
    """train(*inputs) -> ({name: loss}, {name: gradient}, [rois, labels, positive, matched, mask logits])."""
    params = ms.ParameterTuple(learner.trainable_params())

    def forward(*inputs):
        losses, cells, samples = learner.train_boxes(*inputs[:5], *inputs[6:])
        slots = learner.slots_for_objects(samples)
        losses["rcnn_mask_loss"] = learner.mask_loss(cells, slots, inputs[5])
        losses = ops.stack(weighted(losses, learner.loss_names, learner.loss_weights))
        return losses.sum(), losses, *slots, ops.stop_gradient(learner.mask_logits(cells, *slots[:2]))

    value_and_grad = ms.value_and_grad(forward, None, params, has_aux=True)

    @ms.jit
    def compiled(*inputs):
        outputs, grads = value_and_grad(*inputs)
        return outputs[1:], grads

    def run(*inputs):
        (losses, *parts), grads = compiled(*inputs)
        return (dict(zip(LOSS_NAMES, losses.asnumpy().tolist())),
                {param.name: grad.asnumpy() for param, grad in zip(params, grads)}, [part.asnumpy() for part in parts])

    return run


@pytest.fixture(scope="module")
def predict(net):
    return predictions(InferenceNet(net))


def batch(config, net, objects_of_images):
    return (*pictures(config, 2), *objects(config, objects_of_images), outlines(config, objects_of_images), *noise(net, 2))


@pytest.mark.parametrize("objects_of_images", [[[], []], [MANY, MANY[:1]]])
def test_losses_and_gradients(config, learner, train, objects_of_images):
    """With objects, every trainable parameter has a gradient. Without objects, the mask head has none."""
    losses, grads, _ = train(*batch(config, learner, objects_of_images))
    assert tuple(losses) == ("rpn_cls_loss", "rpn_reg_loss", "rcnn_cls_loss", "rcnn_reg_loss", "rcnn_mask_loss")
    assert np.isfinite(list(losses.values())).all()
    learns = any(objects_of_images)
    # Initial logits are near 0, so the loss of each pixel is log 2, times the weight.
    np.testing.assert_allclose(losses["rcnn_mask_loss"], 2 * np.log(2) * learns, rtol=0.25)
    size = {name: np.abs(grad).max() for name, grad in grads.items()}
    assert np.isfinite(list(size.values())).all()
    assert len([name for name in size if name.startswith("rcnn_mask.")]) == 12
    assert all((value > 0) == learns for name, value in size.items() if name.startswith("rcnn_mask."))
    if learns:    # in such small images, the coarsest levels may have no anchors or boxes
        assert {name for name, value in size.items() if value == 0} <= {"neck.outputs.3.weight", "neck.outputs.3.bias"}


def test_mask_loss_of_positives_matches_numpy(config, learner, train):
    """Targets from pycocotools, cross entropy in numpy, times the weight."""
    shown = [MANY[:2], MANY]
    losses, _, (rois, labels, positive, matched, logits) = train(*batch(config, learner, shown))
    terms = []
    for i, j in np.argwhere(positive):
        assert labels[i, j] == shown[i][matched[i, j]][0]
        x1, y1, x2, y2 = rois[i, j].astype(float)
        flat = [((points - [x1, y1]) * 28 / [x2 - x1, y2 - y1]).ravel().tolist() for points in polygons(shown)[i][matched[i, j]]]
        target = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(flat, 28, 28)))
        z = logits[i, j].astype(float)
        terms.append((np.log1p(np.exp(-np.abs(z))) + np.maximum(z, 0) - z * target).mean())
    assert len(terms) >= 5 and positive.sum() < positive.size
    np.testing.assert_allclose(losses["rcnn_mask_loss"], 2 * np.mean(terms), rtol=1e-4)


def test_padding_of_objects_and_order_of_images_change_nothing(config, learner, train):
    """Outlines in invalid slots are ignored. Swapped images give the same losses."""
    inputs = batch(config, learner, [MANY, MANY[:1]])
    losses, grads, _ = train(*inputs)
    valid, edges = inputs[4].asnumpy(), inputs[5].asnumpy()
    filled = np.where(valid[..., None, None], edges, np.array([10, 10, 100, 100, 1])).astype(np.float32)
    same, same_grads, _ = train(*inputs[:5], Tensor(filled), *inputs[6:])
    assert same == losses
    assert all(np.array_equal(grad, same_grads[name]) for name, grad in grads.items())
    swapped, _, _ = train(*(Tensor(x.asnumpy()[::-1].copy()) for x in inputs))
    np.testing.assert_allclose(list(swapped.values()), list(losses.values()), rtol=1e-5)


def test_steps_lower_the_losses(config, learner, train):
    """30 steps of gradient descent with momentum on two images. Rounding makes later steps erratic. Restores the weights."""
    inputs = batch(config, learner, [[(1, 20, 20, 90, 80), (2, 110, 60, 180, 120)], MANY[:1]])
    params = {param.name: param for param in learner.trainable_params()}
    kept = {name: param.asnumpy().copy() for name, param in params.items()}
    moving, totals, masks = dict.fromkeys(params, 0), [], []
    for _ in range(30):
        losses, grads, _ = train(*inputs)
        totals.append(sum(losses.values()))
        masks.append(losses["rcnn_mask_loss"])
        rate = 0.02 * min(1, 2 / np.sqrt(sum((grad ** 2).sum() for grad in grads.values())))
        for name, param in params.items():
            moving[name] = 0.9 * moving[name] + grads[name]
            ops.assign(param, Tensor(param.asnumpy() - rate * moving[name]))
    for name, array in kept.items():
        ops.assign(params[name], Tensor(array))
    assert np.isfinite(totals).all()
    assert np.median(masks[-10:]) < 0.8 * masks[0], masks
    assert totals[-1] < 0.6 * totals[0], totals


class DetectionFeatures(nn.Cell):
    """Pools features of boxes."""

    def __init__(self, net):
        super().__init__(auto_prefix=False)
        self.net = net

    def construct(self, image, boxes):
        features = self.net.neck(self.net.backbone(image))
        return self.net.mask_align(features[:4], boxes)


def test_masks_of_detections_match_numpy(config, net, predict):
    """The numpy head on pooled features of the detected boxes, the channel of each label, sigmoid."""
    image, info = pictures(config, 2)
    boxes, _, labels, valid, masks = predict(image, info)
    assert masks.shape == (2, config.test_max_per_img, 28, 28) and valid.sum() > 10
    feats = DetectionFeatures(net)(image, Tensor(boxes)).asnumpy()
    weights = {param.name[len("rcnn_mask."):]: param.asnumpy() for param in net.rcnn_mask.get_parameters()}
    logits = head_by_hand(weights, feats[valid.ravel()], labels[valid])
    assert logits.std() > 0.3 and len(set(labels[valid])) > 1
    np.testing.assert_allclose(masks[valid], 1 / (1 + np.exp(-logits)), atol=2e-4)


def test_masks_of_given_boxes_equal_those_of_detections(config, net, predict):
    image, info = pictures(config, 2, seed=3)
    boxes, _, labels, valid, masks = predict(image, info)
    given = predictor_of(net).masks(image.asnumpy(), boxes[:, ::-1].copy(), labels[:, ::-1].copy())
    assert valid.any()
    np.testing.assert_allclose(given[:, ::-1], masks, atol=1e-5)


def test_prediction_is_repeatable_and_independent_of_the_batch(config, predict):
    image, info = pictures(config, 2)
    together = predict(image, info)
    for again, part in zip(predict(image, info), together):
        np.testing.assert_array_equal(again, part)
    for i in range(2):
        alone = predict(image[i:i + 1], info[i:i + 1])
        for part, single, tolerance in zip(together, alone, (0.01, 1e-4, 0, 0, 1e-3)):
            np.testing.assert_allclose(part[i], single[0], rtol=0, atol=tolerance)
