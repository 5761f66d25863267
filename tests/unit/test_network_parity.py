"""The whole network, stage by stage, against detectron2, torchvision and mmdet, as a user gets it: by convert_checkpoint.

Every fixture in $PARITY_DIR is taken, whatever its sizes and classes. Tolerances are those that the fixtures recommend for each
model (tolerances.json), ten times the noise between float32 and float64; ours was measured at a tenth to a third of them. With
`fast` the CPU's Winograd convolutions are forced on all widths: they round up to twice as much. The gradients' tolerances are ours:
see test_losses_and_gradients_parity.
"""
import os

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from faster_rcnn.src.FasterRcnn.rcnn import box_head_losses
from faster_rcnn.src.FasterRcnn.rpn import rpn_losses
from mask_rcnn.src.MaskRcnn.rcnn_mask import mask_head_loss
from tests.numpy_layers import LEVELS_OF_ROIS
from tests.parity_models import LEVELS, PARITY_DEFAULT, ParityModel, fixture_folders, rows_of_pictures
from tests.relu_sides import Settler, settle_two_stage

FOLDERS = fixture_folders(os.environ.get("PARITY_DIR") or PARITY_DEFAULT)
FAST = [folder for folder in FOLDERS if folder.name.startswith("torchvision")]
CASES = [*((folder, False) for folder in FOLDERS), *((folder, True) for folder in FAST)]
STAGES = ("c/res2", "c/res3", "c/res4", "c/res5", *(f"{stage}{level}" for stage in ("fpn/", "rpn/logits_", "rpn/deltas_")
                                                    for level in LEVELS), "fix/box_feat", "fix/cls_logits", "fix/deltas")
# Relative errors of the norms of gradients, the worst and the median; the fixtures' own where these are stricter. Measured: 6e-5 (a
# bias whose gradient is a small difference of sums) and 2.5e-6; with the rounding of 101 layers raised by half 6e-5 and 3.4e-6.
NORM, MEDIAN_NORM = 5e-4, 2e-5
MOVED = 1e-3      # of all activations: those within rounding of a border. Measured: 4e-5
STEPS = {"c/res2": 4, "c/res3": 2, "c/res4": 2, "fpn/p2": 4, "fpn/p3": 2}     # every so many pixels are stored


def label(case):
    return case[0].name + ("-fast" if case[1] else "")


class Stages(nn.Cell):
    """Everything that inference computes, and the box head on given RoIs (N, R, 4)."""

    def __init__(self, net):
        super().__init__(auto_prefix=False)
        self.net = net

    def construct(self, image, image_info, rois):
        net = self.net
        stages = net.backbone(image)
        features = net.neck(stages)
        logits, deltas = net.rpn(features)
        pooled = net.roi_align(features[:4], rois)
        return stages, features, logits, deltas, pooled, *net.rcnn(pooled), *net.predict(image, image_info)[:4]


def answers_of(model, net) -> tuple:
    """({stage: array}, detections of each picture as (boxes, scores, labels))."""
    rois = model.arrays["fix/rois"]
    boxes, valid = rows_of_pictures([rois[rois[:, 0] == i, 1:] for i in range(model.count)])
    inputs = model.arrays["input/images"], model.image_info, boxes
    stages, features, logits, deltas, *head, boxes, scores, labels, found = ms.jit(Stages(net))(*map(Tensor, inputs))
    got = {**{f"c/res{i}": x for i, x in enumerate(stages, 2)}, **{f"fpn/{k}": x for k, x in zip(LEVELS, features)},
           **{f"rpn/logits_{k}": x for k, x in zip(LEVELS, logits)}, **{f"rpn/deltas_{k}": x for k, x in zip(LEVELS, deltas)}}
    got = {name: x.asnumpy() for name, x in got.items()}
    got.update({f"fix/{k}": x.asnumpy()[valid.ravel()] for k, x in zip(("box_feat", "cls_logits", "deltas"), head)})
    boxes, scores, labels, found = (x.asnumpy() for x in (boxes, scores, labels, found))
    return got, [tuple(x[i][found[i]] for x in (boxes, scores, labels)) for i in range(model.count)]


@pytest.fixture(scope="module", params=CASES, ids=label)
def case(request, tmp_path_factory):
    """(model, arrays that our network computes, its detections)."""
    folder, fast = request.param
    model = ParityModel(folder, tmp_path_factory.mktemp("converted"))
    return model, *answers_of(model, model.network(fast))


def check_stage(model, name, array):
    """Stored pixels, and sums over the whole array."""
    expected, step = model.arrays[name], STEPS.get(name, 1)
    tolerance = model.tolerances["stages"][name.split("_p")[0]]["atol"]
    if f"{name}_checksum" in model.arrays:
        total, magnitude, squares, *extremes, count = model.arrays[f"{name}_checksum"]
        wide = array.astype(np.float64)
        assert array.size == count, name
        assert abs(wide.sum() - total) < 1e-4 * magnitude, name
        assert abs((wide ** 2).sum() / squares - 1) < 1e-4, name
        np.testing.assert_allclose([wide.min(), wide.max()], extremes, atol=tolerance, err_msg=name)
    if name == "fix/box_feat":
        array = array[::3]
    elif name == "fix/cls_logits":
        expected = model.class_rows(expected.T).T
    elif name == "fix/deltas":
        expected = model.box_rows(expected.T).T
    elif array.ndim == 4:
        array = array[:, :, ::step, ::step]
    np.testing.assert_allclose(array, expected, rtol=0, atol=tolerance, err_msg=name)


def test_stages_parity(case):
    """Features, RPN, pooled features and box head."""
    model, got, _ = case
    for name in STAGES:
        check_stage(model, name, got[name])


def unmatched(got, expected, box_px, score):
    """Detections of one picture, (boxes, scores, labels) each, without a partner; counted from both sides."""
    near = np.abs(got[0][:, None] - expected[0]).max(-1) < box_px
    near &= np.abs(got[1][:, None] - expected[1]) < score
    near &= got[2][:, None] == expected[2]
    return (~near.any(0)).sum() + (~near.any(1)).sum()


def expected_detections(model, i):
    boxes, scores, labels = (model.arrays[f"det/{name}{i}"] for name in ("boxes", "scores", "labels"))
    return boxes, scores, model.labels(labels)


def test_detections_end_to_end_parity(case):
    model, _, detections = case
    tolerance = model.tolerances["detections"]
    for i, got in enumerate(detections):
        assert unmatched(got, expected_detections(model, i), tolerance["box_px"], tolerance["score"]) <= 1
    assert sum(len(got[0]) for got in detections) >= len(model.json) - model.count > 0


def detections_of_stored(model, detector) -> list:
    """Of each picture (boxes, scores, labels), from the framework's proposals and box head output."""
    arrays = model.arrays
    pictures = [arrays[f"proposals/boxes{i}"] for i in range(model.count)]
    places = np.cumsum([len(boxes) for boxes in pictures])[:-1]
    proposals, valid = rows_of_pictures(pictures)
    logits, _ = rows_of_pictures(np.split(model.class_rows(arrays["prop/cls_logits"].T).T, places))
    deltas, _ = rows_of_pictures(np.split(model.box_rows(arrays["prop/deltas"].T).T, places))
    inputs = logits, deltas, proposals, valid, arrays["input/image_sizes"].astype(np.float32)
    boxes, scores, labels, found = (x.asnumpy() for x in detector(*map(Tensor, inputs)))
    return [tuple(x[i][found[i]] for x in (boxes, scores, labels)) for i in range(model.count)]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_detector_parity(folder, tmp_path):
    """Post-processing alone, none without a partner."""
    model = ParityModel(folder, tmp_path)
    for i, got in enumerate(detections_of_stored(model, ms.jit(model.network().detector))):
        assert len(got[0]) == len(model.arrays[f"det/boxes{i}"])
        assert unmatched(got, expected_detections(model, i), 1e-3, 1e-5) == 0


class InjectedLosses(nn.Cell):
    """The losses on given samples, computed as the network's `construct` does it."""

    def __init__(self, net, masks):
        super().__init__(auto_prefix=False)
        self.net, self.masks = net, masks

    def construct(self, image, rpn, roi, mask=None):
        net = self.net
        index, rpn_targets, rpn_positive, rpn_negative = rpn
        rois, labels, targets, positive, valid = roi
        features = net.neck(net.backbone(image))
        logits, deltas = net.rpn.at_anchors(features, index)
        losses = rpn_losses(logits, deltas, rpn_targets, rpn_positive, rpn_negative, net.betas[0])
        cells = net.roi_align.table_of(features[:4])
        logits, deltas = net.rcnn(net.roi_align.from_table(*cells, rois))
        n, s = labels.shape
        q = positive.shape[1]
        deltas = deltas.reshape(n, s, -1)[:, :q]
        losses += box_head_losses(logits.reshape(n, s, -1), deltas, labels, targets, positive, valid, net.betas[1])
        if self.masks:
            rois, labels, targets, positive = mask
            losses += (mask_head_loss(net.mask_logits(cells, rois, labels), targets, positive),)
        return losses


def injected_samples(model) -> list:
    """Inputs of InjectedLosses: the framework's samples."""
    return tensors_of(injected_arrays(model))


def tensors_of(samples) -> list:
    return [tuple(map(Tensor, part)) for part in samples]


def injected_arrays(model) -> list:
    """The framework's samples in our order: objects first, then background; of masks, only objects."""
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
            mask.append((boxes[labels > 0], labels[labels > 0], mask_targets_of(model, i)))
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


def mask_targets_of(model, i):
    """Of picture i: (foreground RoIs, 28, 28)."""
    if f"train/mask_targets{i}" in model.arrays:
        return model.arrays[f"train/mask_targets{i}"]
    shape = model.arrays[f"train/mask_targets{i}_shape"]
    return np.unpackbits(model.arrays[f"train/mask_targets{i}_packbits"])[:np.prod(shape)].reshape(shape).astype(np.float32)


def conventions_of(model) -> dict:
    """What settle_two_stage takes, as the fixture says it."""
    roi = model.settings["roi_align"]
    return {"stride_in_1x1": model.settings["stride_in_1x1"], "aligned": roi["aligned"], "samples": roi["sampling_ratio"],
            "level_of": LEVELS_OF_ROIS[model.framework]}


def gradient_errors(model, grads) -> tuple:
    """Relative errors of the norms of all gradients, and of those gradients that are stored whole."""
    arrays = model.arrays
    grads = {model.theirs(name): grad.asnumpy().astype(np.float64) for name, grad in grads.items()}
    names = arrays["train/grad_names"]
    assert grads.keys() == set(names)
    norms = [np.linalg.norm(grads[name]) / norm - 1 for name, norm in zip(names, arrays["train/grad_norms_float64"])]
    rows = {model.theirs(f"{layer}.{leaf}"): pick for leaf in ("weight", "bias") for layer, pick in (
        ("rcnn.cls_score", model.class_rows), ("rcnn.bbox_pred", model.box_rows), ("rcnn_mask.logits", model.mask_rows))}
    whole = []
    for key in arrays:
        if key.startswith("train/grad/"):
            name = key[len("train/grad/"):]
            expected = rows.get(name, np.asarray)(arrays[key])
            whole.append(np.linalg.norm(grads[name] - expected) / np.linalg.norm(expected))
    return np.abs(norms), np.array(whole)


@pytest.mark.parametrize("folder, fast", [*((folder, False) for folder in FOLDERS), *((folder, True) for folder in FAST[:1])],
                         ids=lambda value: getattr(value, "name", "fast" if value is True else ""))
def test_losses_and_gradients_parity(folder, fast, tmp_path):
    """One training step on the framework's samples: each loss, the norm of each gradient, some whole gradients.

    The norms are those of the framework's step in float64, and every ReLU here takes the side that it has in float64, so that no
    processor's order of additions decides. The whole gradients are stored from the framework's float32 step, with the sides of
    the processor that it ran on. Their error is therefore a constant of the fixture, up to a fifth of its tolerance.
    """
    model = ParityModel(folder, tmp_path)
    detector, images, settler = model.network(fast), model.arrays["input/images"], Settler()
    samples = settle_two_stage(settler, detector, images, injected_arrays(model), conventions_of(model))
    assert settler.moved < MOVED * settler.seen
    net = InjectedLosses(detector, model.masks)
    params = ms.ParameterTuple(net.trainable_params())

    def forward(*inputs):
        losses = ms.ops.stack(net(*inputs))
        return losses.sum(), losses

    compiled = ms.jit(ms.value_and_grad(forward, None, params, has_aux=True))
    inputs = Tensor(images), *tensors_of(samples)

    def errors():
        (_, losses), grads = compiled(*inputs)
        return losses.asnumpy(), *gradient_errors(model, {param.name: grad for param, grad in zip(params, grads)})

    losses, norms, whole = errors()
    names = [*model.loss_names, *(["loss_mask"] if model.masks else [])]
    expected = dict(zip(model.arrays["train/loss_names"], model.arrays["train/losses"]))
    np.testing.assert_allclose(losses, [expected[name] for name in names], rtol=1e-5)
    tolerance = model.tolerances["grad_norms"]
    assert norms.max() < min(NORM, tolerance["rtol_each"]) and np.median(norms) < min(MEDIAN_NORM, tolerance["rtol_median"])
    assert whole.max() < model.tolerances["small_grads"]["relative_l2"] and len(whole) > 10

    if not (model.masks or fast):       # of one model per framework, for the time that it takes
        # The same with an epsilon of 1e-4 in place of 1e-5 in all batch norms must fail. It needs no other graph.
        for param in detector.backbone.get_parameters():
            if param.name.endswith("moving_variance"):
                ms.ops.assign(param, param + 9e-5)
        _, norms, _ = errors()
        assert norms.max() > 10 * NORM and np.median(norms) > 10 * MEDIAN_NORM
