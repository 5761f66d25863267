"""One training step of a parity fixture: our losses and gradients on the framework's samples, with all activations settled.

Shapes: N images. Samples are padded to the longest of the batch; label 0 is background.
"""
import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from faster_rcnn.src.FasterRcnn.rcnn import box_head_losses
from faster_rcnn.src.FasterRcnn.rpn import rpn_losses
from mask_rcnn.src.MaskRcnn.rcnn_mask import mask_head_loss
from tests.numpy_layers import LEVELS_OF_ROIS
from tests.parity_models import rows_of_pictures
from tests.relu_sides import Settler, settle_two_stage


class InjectedLosses(nn.Cell):
    """The losses on given samples, computed as in the network's `construct`."""

    def __init__(self, net, masks):
        super().__init__(auto_prefix=False)
        self.net, self.masks = net, masks

    def construct(self, image, rpn, roi, mask=None):
        return self.of_features(self.net.neck(self.net.backbone(image)), rpn, roi, mask)

    def of_features(self, features, rpn, roi, mask=None):
        net = self.net
        index, rpn_targets, rpn_positive, rpn_negative = rpn
        rois, labels, targets, positive, valid = roi
        logits, deltas = net.rpn.at_anchors(features, index)
        losses = rpn_losses(logits, deltas, rpn_targets, rpn_positive, rpn_negative, net.betas[0], net.losses_added)
        cells = net.roi_align.table_of(features[:4])
        logits, deltas = net.rcnn(net.roi_align.from_table(*cells, rois))
        n, s = labels.shape
        q = positive.shape[1]
        deltas = deltas.reshape(n, s, -1)[:, :q]
        losses += box_head_losses(logits.reshape(n, s, -1), deltas, labels, targets, positive, valid, net.betas[1],
                                   net.losses_added)
        if self.masks:
            rois, labels, targets, positive = mask
            losses += (mask_head_loss(net.mask_logits(cells, rois, labels), targets, positive, net.losses_added),)
        return losses


def injected_samples(model) -> list:
    """Return inputs of InjectedLosses: the framework's samples."""
    return tensors_of(injected_arrays(model))


def tensors_of(samples) -> list:
    return [tuple(map(Tensor, part)) for part in samples]


def injected_arrays(model) -> list:
    """Return the framework's samples in our order: objects, then background. Masks have only objects."""
    arrays, rpn, roi, mask = model.arrays, [], [], []
    for i in range(model.count):
        labels, pos = arrays[f"train/rpn_labels{i}"], arrays[f"train/rpn_pos_idx{i}"]
        assert sorted(pos) == np.flatnonzero(labels == 1).tolist()
        index = np.concatenate([pos, np.flatnonzero(labels == 0)])
        targets = np.zeros((len(index), 4), np.float32)
        targets[:len(pos)] = arrays[f"train/rpn_pos_targets{i}"]
        rpn.append((index.astype(np.int32), targets, labels[index] == 1, labels[index] == 0))
        labels = model.labels(arrays[f"train/roi_classes{i}"]).astype(np.int32)
        boxes = arrays[f"train/roi_boxes{i}"]
        if model.masks:
            mask.append((boxes[labels > 0], labels[labels > 0], model.mask_targets(i)))
        order = np.argsort(labels == 0, kind="stable")
        roi.append([x[order] for x in (boxes, labels, arrays[f"train/roi_targets{i}"], labels > 0)])
    rpn = [rows_of_pictures(column)[0] for column in zip(*rpn)]
    (boxes, valid), labels, targets, positive = (rows_of_pictures(column) for column in zip(*roi))
    q = positive[0].sum(1).max()
    samples = [rpn, (boxes, labels[0], targets[0][:, :q], positive[0][:, :q], valid)]
    if model.masks:
        (boxes, positive), labels, targets = (rows_of_pictures(column) for column in zip(*mask))
        samples.append((boxes, labels[0], targets[0], positive))
    return samples


def conventions_of(model) -> dict:
    """Return the fixture's conventions for settle_two_stage."""
    roi = model.settings["roi_align"]
    return {"stride_in_1x1": model.settings["stride_in_1x1"], "aligned": roi["aligned"], "samples": roi["sampling_ratio"],
            "level_of": LEVELS_OF_ROIS[model.framework]}


def settled_step(model, fast: bool = False) -> tuple:
    """Return the share of moved activations, the network, and `step`: step() -> the losses, {our parameter: gradient}."""
    detector, images, settler = model.network(fast), model.arrays["input/images"], Settler()
    samples = settle_two_stage(settler, detector, images, injected_arrays(model), conventions_of(model))
    return settler.moved / settler.seen, detector, step_of(model, detector, samples)


def plain_step(model) -> tuple:
    """Return the same without settling. Scale and shift of the norms do not train."""
    detector = model.network(train_norm=False)
    return 0.0, detector, step_of(model, detector, injected_arrays(model))


def step_of(model, detector, samples):
    """Return a function without arguments that returns (losses, {our parameter: gradient})."""
    net = InjectedLosses(detector, model.masks)
    params = ms.ParameterTuple(net.trainable_params())

    def forward(*inputs):
        losses = ms.ops.stack(net(*inputs))
        return losses.sum(), losses

    compiled = ms.jit(ms.value_and_grad(forward, None, params, has_aux=True))
    inputs = Tensor(model.arrays["input/images"]), *tensors_of(samples)

    def step():
        (_, losses), grads = compiled(*inputs)
        return losses.asnumpy(), {param.name: grad.asnumpy() for param, grad in zip(params, grads)}

    return step
