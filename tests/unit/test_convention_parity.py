"""A wrong value of each convention key is noticed: a stage of the network then differs from the framework's.

This covers every Faster R-CNN in $PARITY_DIR. A stage takes the framework's stored input where there is one, so a wrong convention
shows in the stage that it affects. The fixtures' README describes what each mistake does to the detections.
"""
from functools import cache

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from faster_rcnn.src.FasterRcnn.bbox_assign_sample import match_anchors
from faster_rcnn.src.model_utils.data.loading import build_preprocess
from faster_rcnn.src.model_utils.data.transforms import decode_image
from faster_rcnn.src.model_utils.evaluation.detections import config_categories
from tests.parity_models import LEVELS, ParityModel, fixture_folders, rows_of_pictures
from tests.parity_step import InjectedLosses, injected_samples
from tests.unit.test_network_parity import check_stage, detections_of_stored, expected_detections, unmatched

FOLDERS = fixture_folders(masks=False)


@pytest.fixture(scope="module")
def model_of(tmp_path_factory):
    """Return a cached function: folder -> ParityModel with `as_converted`, its network, and the `stages` and `features` of the
    images. pytest would set up a parametrised fixture again for each case."""
    @cache
    def build(folder):
        model = ParityModel(folder, tmp_path_factory.mktemp("converted"))
        model.as_converted = net = model.network()
        model.stages = net.backbone(Tensor(model.arrays["input/images"]))
        model.features = net.neck(model.stages)
        return model

    return build


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def model(request, model_of):
    return model_of(request.param)


# ------------------------------------------------------------------------------------------------ checks of stages

def check_input(model, overrides):
    """Compare the padded batch made from the image files."""
    preprocess = build_preprocess(model.config(**overrides))
    for i, path in enumerate(model.images):
        image, _ = preprocess(decode_image(path.read_bytes()))
        np.testing.assert_allclose(image, model.arrays["input/images"][i], atol=3e-5)


def check_backbone(model, overrides):
    check_stage(model, "c/res3", model.network(**overrides).backbone(Tensor(model.arrays["input/images"]))[1].asnumpy())


def check_pyramid(model, overrides):
    check_stage(model, "fpn/p3", model.network(**overrides).neck(model.stages)[1].asnumpy())


def check_anchors(model, overrides):
    anchors = model.without_features(**overrides).anchors(model.shapes, model.arrays["input/images"].shape[2:])
    for level, own in zip(LEVELS, anchors):
        for part, chosen in (("first50", own[:50]), ("last50", own[-50:])):
            np.testing.assert_allclose(chosen.asnumpy(), model.arrays[f"anchors/{level}_{part}"], atol=1e-4)


def check_features_of_boxes(model, overrides):
    roi_align, rois = model.without_features(**overrides).roi_align, model.arrays["fix/rois"]
    boxes, valid = rows_of_pictures([rois[rois[:, 0] == i, 1:] for i in range(model.count)])
    check_stage(model, "fix/box_feat", roi_align(model.features[:4], Tensor(boxes)).asnumpy()[valid.ravel()])


def check_proposals(model, overrides):
    net, arrays = model.without_features(**overrides), model.arrays
    anchors = net.anchors(model.shapes, arrays["input/images"].shape[2:])
    logits, deltas = ([Tensor(arrays[f"rpn/{name}_{level}"]) for level in LEVELS] for name in ("logits", "deltas"))
    limits = net.proposal_limits(Tensor(arrays["input/images"]), Tensor(model.image_info))
    boxes, _, valid = (part.asnumpy() for part in net.test_proposals(logits, deltas, limits, anchors))
    for i in range(model.count):
        distance = np.abs(boxes[i, valid[i]][:, None] - arrays[f"proposals/boxes{i}"]).max(-1)
        assert distance.shape[0] == distance.shape[1]
        assert distance.min(0).max() < 1e-3 and distance.min(1).max() < 1e-3


def check_detector(model, overrides):
    for i, got in enumerate(detections_of_stored(model, model.without_features(**overrides).detector)):
        assert unmatched(got, expected_detections(model, i), 1e-3, 1e-5) == 0


def check_matching(model, overrides):
    """Compare the labels of all anchors before sampling, and the objects matched to the sampled positive anchors."""
    net, arrays = model.without_features(**overrides), model.arrays
    gt, valid = rows_of_pictures([arrays[f"train/gt_boxes{i}"] for i in range(model.count)])
    image = np.zeros(arrays["input/images"].shape, np.float32)
    own = net.valid_anchors(model.shapes, image, Tensor(arrays["input/image_sizes"].astype(np.float32)))
    anchors = ms.ops.cat(net.anchors(model.shapes, image.shape[2:]))
    labels, matched = match_anchors(anchors, Tensor(gt), Tensor(valid), anchor_valid=own, **net.matching)
    ties = 1 if model.framework == "mslab" else 0       # equal best IoUs, which the order of operations decides
    for i in range(model.count):
        assert (labels.asnumpy()[i] != np.maximum(arrays[f"train/rpn_labels_presample{i}"], -1)).sum() <= ties
        index = arrays[f"train/rpn_pos_idx{i}"]
        np.testing.assert_array_equal(gt[i, matched.asnumpy()[i, index]], arrays[f"train/rpn_pos_gt{i}"])


def check_losses(model, overrides):
    net = model.as_converted
    other = model.without_features(**overrides)
    net.betas, net.losses_added = other.betas, other.losses_added
    losses = InjectedLosses(net, False).of_features(model.features, *injected_samples(model))
    expected = dict(zip(model.arrays["train/loss_names"], model.arrays["train/losses"]))
    np.testing.assert_allclose([float(loss) for loss in losses], [expected[name] for name in model.loss_names], rtol=1e-5)


def check_categories(model, overrides):
    ids = {item["id"] for item in config_categories(model.config(**overrides))}
    assert {row["category_id"] for row in model.json} <= ids and len(ids) == model.classes


CHECKS = {check.__name__.removeprefix("check_"): check for check in (
    check_input, check_backbone, check_pyramid, check_anchors, check_features_of_boxes, check_proposals, check_detector,
    check_matching, check_losses, check_categories)}


@pytest.mark.parametrize("check", CHECKS)
def test_as_converted_every_check_passes_parity(model, check):
    CHECKS[check](model, {})


# --------------------------------------------------------------------------------------------- one wrong key each

def other(value: bool):
    return lambda config: not config[value]


# Key, a wrong value (or a function: configuration -> wrong value), the check that notices.
WRONG = [
    ("to_rgb", other("to_rgb"), "input"),
    ("image_mean", [120.0, 120.0, 120.0], "input"),
    ("image_std", [57.0, 57.0, 57.0], "input"),
    ("stride_in_1x1", other("stride_in_1x1"), "backbone"),
    ("norm_eps", 0.0, "backbone"),
    ("norm_eps", 1e-4, "backbone"),
    ("anchor_rounding", other("anchor_rounding"), "anchors"),
    ("anchor_strides_from_size", other("anchor_strides_from_size"), "anchors"),
    ("anchor_center_offset", 0.5, "anchors"),
    ("box_offset", 1, "proposals"),
    ("rpn_nms_thr", 0.6, "proposals"),
    ("rpn_max_num", 200, "proposals"),
    ("roi_layer", lambda config: {"aligned": not config.roi_layer.aligned}, "features_of_boxes"),
    ("roi_layer", lambda config: {"sample_num": 2 - config.roi_layer.sample_num}, "features_of_boxes"),
    ("roi_align_finest_scale", 50, "features_of_boxes"),
    ("rcnn_target_stds", [1.0, 1.0, 1.0, 1.0], "detector"),
    ("test_score_thr", 0.1, "detector"),
    ("test_iou_thr", 0.6, "detector"),
    ("box_offset", 1, "detector"),
    ("pos_iou_thr", 0.6, "matching"),
    ("neg_iou_thr", 0.2, "matching"),
    ("rpn_smooth_l1_beta", lambda config: 1 / 9 - config.rpn_smooth_l1_beta, "losses"),
    ("rcnn_smooth_l1_beta", lambda config: 1 / 9 - config.rcnn_smooth_l1_beta, "losses"),
    ("first_category_id", lambda config: 1 - config.first_category_id, "categories"),
]
# The cases of mindspore-lab's models instead of the above: keys that only they need.
WRONG_OF_MSLAB = [
    ("pad_black", False, "input"),
    ("stem_pool_padding", "both", "backbone"),
    ("fpn_upsample", "nearest", "pyramid"),
    ("rpn_clip", "image", "proposals"),
    ("rpn_min_bbox_min_size", 0.0, "proposals"),
    ("nms_across_levels_last", False, "proposals"),
    ("rpn_nms_across_levels", False, "proposals"),
    ("clip_after_nms", False, "detector"),
    ("iou_offset", 0, "matching"),
    ("rcnn_smooth_l1_beta", 0.5, "losses"),
    ("rpn_smooth_l1_beta", 0.5, "losses"),
    ("loss_divisor_eps", 0.1, "losses"),
]


CASES = [pytest.param(folder, *case, id=f"{folder.name}-{case[0]}-{case[2]}") for folder in FOLDERS
         for case in (WRONG_OF_MSLAB if folder.name.startswith("mslab") else WRONG)]


@pytest.mark.parametrize("model, key, value, check", CASES, indirect=["model"])
def test_a_wrong_key_is_noticed_parity(model, key, value, check):
    config = model.config()
    overrides = {key: value(config) if callable(value) else value}
    if key == "stride_in_1x1":      # this backbone accepts both values; the widths stay narrow
        kept = ("resnet_block", "resnet_in_channels", "resnet_out_channels", "fpn_in_channels")
        overrides.update({"backbone": "resnet_v1_101", **{name: config[name] for name in kept}})
    with pytest.raises(AssertionError):
        CHECKS[check](model, overrides)


@pytest.mark.parametrize("model", [folder for folder in FOLDERS if folder.name.startswith("mmdet")], indirect=True,
                         ids=lambda folder: folder.name)
def test_anchors_in_padding_are_noticed_parity(model):
    with pytest.raises(AssertionError):
        check_matching(model, {"anchors_in_padding": True})
