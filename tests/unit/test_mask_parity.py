"""Mask targets against detectron2, mmdet and mindspore-lab, but not torchvision, whose targets are soft and come from bitmaps."""
import numpy as np
import pytest
from mindspore import Tensor

from mask_rcnn.src.MaskRcnn.target_rules import MaskTargets
from tests.parity_models import ParityModel, fixture_folders, label

pytestmark = pytest.mark.usefixtures("eager")


@pytest.mark.parametrize("folder", [folder for folder in fixture_folders(masks=True) if not folder.name.startswith("torchvision")],
                         ids=label)
def test_mask_targets_parity(folder):
    """Every pixel of all sampled RoIs. From bitmaps, corners midway between two fifths of a pixel may round differently."""
    model = ParityModel(folder)
    for i in range(model.count):
        chosen = model.labels(model.arrays[f"train/roi_classes{i}"]) > 0
        boxes, gt = (model.arrays[f"train/roi_{name}{i}"][chosen] for name in ("boxes", "gt"))
        polygons = model.arrays[f"train/gt_polygons{i}"].reshape(len(model.arrays[f"train/gt_boxes{i}"]), -1, 2)
        edges = np.concatenate([polygons, np.roll(polygons, -1, 1), np.zeros((*polygons.shape[:2], 1))], -1)
        matched = np.abs(gt[:, None] - model.arrays[f"train/gt_boxes{i}"]).max(-1).argmin(1)
        inputs = edges.astype(np.float32), matched.astype(np.int32), boxes
        rule = MaskTargets("bitmap" if model.framework == "mslab" else "outline", 4, True)
        got = rule(*(Tensor(x[None]) for x in inputs), 28, model.shapes).asnumpy()[0]
        assert (got != model.mask_targets(i)).sum() <= (2 if model.framework == "mslab" else 0)
