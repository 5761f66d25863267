"""The mask branch against detectron2, torchvision and mmdet; what comes before it, and its loss: test_network_parity.py.

Every fixture in $PARITY_DIR is taken. Tolerances are those that the fixtures recommend for each model (tolerances.json and their
README). With `fast` the CPU's Winograd convolutions are forced on all widths.
"""
import os

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn
from pycocotools import mask as coco_mask

from mask_rcnn.src.MaskRcnn.mask_targets import mask_targets
from mask_rcnn.src.model import mask_encoder
from tests.parity_models import PARITY_DEFAULT, ParityModel, fixture_folders, rows_of_pictures
from tests.unit.test_network_parity import mask_targets_of

FOLDERS = fixture_folders(os.environ.get("PARITY_DIR") or PARITY_DEFAULT, masks=True)


class Masks(nn.Cell):
    """Pooled features of given RoIs (N, R, 4), their mask logits, and all detections."""

    def __init__(self, net):
        super().__init__(auto_prefix=False)
        self.net = net

    def construct(self, image, image_info, rois, labels):
        net = self.net
        cells = net.roi_align.table_of(net.neck(net.backbone(image))[:4])
        return net.mask_align.from_table(*cells, rois), net.mask_logits(cells, rois, labels), net.predict(image, image_info)


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: folder.name)
def model(request, tmp_path_factory):
    return ParityModel(request.param, tmp_path_factory.mktemp("converted"))


@pytest.fixture(scope="module")
def answers(model):
    """Mask features and logits of the RoIs that have a class, which RoIs these are, and the detections."""
    arrays = model.arrays
    labels = arrays["fix/mask_channel"] + (1 if model.background_last else 0)          # torchvision: 0 is background
    rois = arrays["fix/rois"]
    (boxes, valid), (own, _) = (rows_of_pictures([x[rois[:, 0] == i] for i in range(model.count)]) for x in (rois[:, 1:], labels))
    inputs = arrays["input/images"], model.image_info, boxes, own.astype(np.int32)
    net = model.network(fast=model.framework == "torchvision")
    features, logits, detections = ms.jit(Masks(net))(*map(Tensor, inputs))
    chosen = valid.ravel()
    logits = logits.asnumpy().reshape(-1, 28, 28)[chosen]
    return features.asnumpy()[chosen], logits, labels > 0, [part.asnumpy() for part in detections]


def test_mask_features_and_logits_parity(model, answers):
    features, logits, known, _ = answers
    arrays, tolerance = model.arrays, model.tolerances["stages"]
    np.testing.assert_allclose(features[::12], arrays["fix/mask_feat"], atol=tolerance["fix/mask_feat"]["atol"])
    total, magnitude = arrays["fix/mask_feat_checksum"][:2]
    assert abs(features.astype(np.float64).sum() - total) < 1e-4 * magnitude
    assert known.sum() > 40
    np.testing.assert_allclose(logits[known], arrays["fix/mask_logits"][known], atol=tolerance["fix/mask_logits"]["atol"])


def test_masks_of_detections_parity(model, answers):
    """Probabilities of the best detections; pasted, those of all, as the configuration of the conversion says."""
    *_, (boxes, scores, labels, valid, masks) = answers
    arrays, compared, many = model.arrays, 0, 0
    paste = mask_encoder(model.config())
    for i, (height, width) in enumerate(arrays["input/image_sizes"]):
        wanted = model.labels(arrays[f"det/labels{i}"])
        pasted = paste(masks[i], boxes[i], height, width)
        rows = [row for row in model.json if row["image_id"] == model.image_ids[i]]
        for k, box in enumerate(arrays[f"det/boxes{i}"]):
            near = np.abs(boxes[i] - box).max(-1) + 100 * (labels[i] != wanted[k]) + 100 * ~valid[i]
            own = near.argmin()
            if near[own] > model.tolerances["detections"]["box_px"]:
                continue
            compared += 1
            if k < 12:
                np.testing.assert_allclose(masks[i, own], arrays[f"det/mask_prob{i}"][k], atol=2e-3)
            differing = (coco_mask.decode(pasted[own]) != coco_mask.decode(rows[k]["segmentation"])).sum()
            many += differing > model.tolerances["detections"]["mask_pixels_one_object"]
    assert compared >= len(model.json) - model.count
    # torchvision cuts corners to whole pixels: one within rounding of one may move.
    assert many <= (model.count if model.framework == "torchvision" else 0)


@pytest.mark.parametrize("model", [folder for folder in FOLDERS if not folder.name.startswith("torchvision")], indirect=True,
                         ids=lambda folder: folder.name)
def test_mask_targets_parity(model):
    """Of all sampled RoIs, pixel by pixel; torchvision has soft ones, from bitmaps."""
    for i in range(model.count):
        chosen = model.labels(model.arrays[f"train/roi_classes{i}"]) > 0
        boxes, gt = (model.arrays[f"train/roi_{name}{i}"][chosen] for name in ("boxes", "gt"))
        polygons = model.arrays[f"train/gt_polygons{i}"].reshape(len(model.arrays[f"train/gt_boxes{i}"]), -1, 2)
        edges = np.concatenate([polygons, np.roll(polygons, -1, 1), np.zeros((*polygons.shape[:2], 1))], -1)
        matched = np.abs(gt[:, None] - model.arrays[f"train/gt_boxes{i}"]).max(-1).argmin(1)
        inputs = edges.astype(np.float32), matched.astype(np.int32), boxes
        got = ms.jit(mask_targets)(*(Tensor(x[None]) for x in inputs), 28, True).asnumpy()[0]
        np.testing.assert_array_equal(got, mask_targets_of(model, i))
