"""Matching and sampling of both stages against the labels of other frameworks."""
import numpy as np
import pytest

from faster_rcnn.src.FasterRcnn import bbox_assign_sample as first
from faster_rcnn.src.FasterRcnn import bbox_assign_sample_stage2 as second
from tests.parity_models import ParityModel, fixture_folders, label, rows_of_pictures
from tests.unit.test_assign_sample import compile_with, match_usable

pytestmark = pytest.mark.usefixtures("eager")

FASTER = fixture_folders(masks=False)


def test_matcher_parity(parity_file):
    fixture = np.load(parity_file("op_fixtures.npz"))
    anchors, gt = fixture["coder/src"], fixture["match/gt"][None]
    valid = np.ones(gt.shape[:2], bool)
    labels, matched = compile_with(first.match_anchors)(anchors, gt, valid)
    np.testing.assert_array_equal(labels[0], fixture["match/rpn_label"])
    np.testing.assert_array_equal(matched[0], fixture["match/rpn_idx"])
    torchvision = fixture["match/tv_rpn"]
    np.testing.assert_array_equal(labels[0], np.where(torchvision >= 0, 1, np.where(torchvision == -1, 0, -1)))
    np.testing.assert_array_equal(matched[0][torchvision >= 0], torchvision[torchvision >= 0])
    iou, matched = compile_with(second.match_rois)(anchors[None], np.ones((1, len(anchors)), bool), gt, valid)
    np.testing.assert_array_equal(iou[0] >= 0.5, fixture["match/roi_label"] == 1)
    np.testing.assert_array_equal(matched[0], fixture["match/roi_idx"])
    np.testing.assert_array_equal(np.where(iou[0] >= 0.5, matched[0], -1), fixture["match/tv_roi"])


def ground_truth(model):
    """Return boxes (N, G, 4) and valid flags (N, G), with two slots more than objects."""
    own = [model.arrays[f"train/gt_boxes{i}"] for i in range(model.count)]
    boxes, valid = rows_of_pictures([np.pad(rows, ((0, 2), (0, 0))) for rows in own])
    return boxes, valid & (np.arange(valid.shape[1]) < np.array([[len(rows)] for rows in own]))


@pytest.mark.parametrize("folder", FASTER, ids=label)
def test_rpn_labels_parity(folder):
    model = ParityModel(folder)
    fixture, (generator, strides) = model.arrays, model.anchors()
    anchors, corners = generator.grid(model.shapes, strides), np.concatenate(generator.corners(model.shapes, strides))
    mmdet = model.framework == "mmdet"
    padded = fixture["input/pad_shapes"] if mmdet else np.array([fixture["input/images"].shape[2:]] * model.count)
    options = {"mmdet": {"min_pos_iou": 0.3, "low_quality_takes_gt": True}, "mslab": {"offset": 1}}.get(model.framework, {})
    ties = int(model.framework == "mslab")      # of the best IoU, decided by the order of operations
    gt, valid = ground_truth(model)
    usable = compile_with(first.anchors_in_padding)(corners, padded.astype(np.float32))
    labels, matched = compile_with(match_usable, **options)(anchors, gt, valid, usable)
    samples = [fixture[f"train/rpn_pos_idx{i}"] for i in range(model.count)]
    for i, index in enumerate(samples):
        assert (labels[i] != np.maximum(fixture[f"train/rpn_labels_presample{i}"], -1)).sum() <= ties
        np.testing.assert_array_equal(gt[i, matched[i, index]], fixture[f"train/rpn_pos_gt{i}"])
    index, sampled = rows_of_pictures(samples)
    targets = compile_with(first.anchor_targets)(anchors, gt, matched, index.astype(np.int32))
    for i in range(model.count):
        np.testing.assert_allclose(targets[i, sampled[i]], fixture[f"train/rpn_pos_targets{i}"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("folder", FASTER, ids=label)
def test_roi_matching_parity(folder):
    """Every RoI that the framework sampled has the class, the object and the target that our matching gives it."""
    model = ParityModel(folder)
    fixture, (gt, valid) = model.arrays, ground_truth(model)
    labels = np.zeros(valid.shape, np.int32)
    for i in range(model.count):
        labels[i, valid[i]] = model.labels(fixture[f"train/gt_classes{i}"])
    proposals, there = rows_of_pictures([fixture[f"train/proposals{i}"] for i in range(model.count)])
    size = proposals.shape[1] + gt.shape[1]
    noise = np.random.default_rng(5).uniform(size=(model.count, size)).astype(np.float32)
    own = {"iou_offset": 1} if model.framework == "mslab" else {}
    sample = compile_with(second.sample_rois, num_pos=size, num_total=size, **own)     # all, so theirs are among them
    rois, classes, targets, positive, chosen, matched = sample(proposals, there, gt, labels, valid, noise)
    for i in range(model.count):
        theirs = fixture[f"train/roi_boxes{i}"]
        equal = (theirs[:, None] == rois[i, chosen[i]]).all(-1)
        assert equal.any(1).all()
        row = equal.argmax(1)
        expected = model.labels(fixture[f"train/roi_classes{i}"])
        np.testing.assert_array_equal(classes[i, row], expected)
        objects = expected > 0
        np.testing.assert_array_equal(positive[i, row], objects)
        np.testing.assert_array_equal(gt[i, matched[i, row]][objects], fixture[f"train/roi_gt{i}"][objects])
        theirs = fixture[f"train/roi_targets{i}"][objects]
        np.testing.assert_allclose(targets[i, row][objects], theirs, rtol=1e-5, atol=2e-5)
