"""Data pipeline of Mask R-CNN: from MindRecord to batches of one size, for training and evaluation.

Shapes: N images per batch, G = num_gts slots for objects, E = max_mask_edges slots for the edges of an object, H x W the
padded input.
Columns: image (N, 3, H, W) float32, normalised; image_info (N, 6) float32: resized height and width, scale_y, scale_x
(resized / original), original height and width; gt_boxes (N, G, 4) float32 in pixels of the input; gt_labels (N, G)
int32, 0 = padding; gt_valid (N, G) bool; gt_edges (N, G, E, 5) float32: x0, y0, x1, y1 of an edge of the outline in
pixels of the input, and the index of its part, 0 = padding (mask_edges.py defines what is inside); image_id (N,) int64.
Evaluation only has image, image_info and image_id.
"""
import json

import numpy as np

from .mask_edges import mask_edges
from .model_utils.data import source
from .model_utils.data.augmentation import Augmenter
from .model_utils.data.loading import TrainTransform, build_preprocess
from .model_utils.data.source import DataInfo

__all__ = ["MaskTransform", "build_train_transform", "prepare_data"]


class MaskTransform(TrainTransform):
    """Map a record to a row of a training batch, see TrainTransform, with the edges of the masks."""

    RECORD = [*TrainTransform.RECORD, "masks"]
    ROW = [*TrainTransform.ROW, "gt_edges"]

    def __init__(self, preprocess, augmenter, num_gts: int, seed: int, max_edges: int):
        super().__init__(preprocess, augmenter, num_gts, seed)
        self.max_edges = max_edges

    def __call__(self, epoch, *record) -> tuple:
        *record, masks = record
        columns, chosen, placed = self.load(epoch, *record)
        edges = np.zeros((self.num_gts, self.max_edges, 5), np.float32)
        masks = json.loads(masks.tobytes())
        for row, index in enumerate(chosen):
            edges[row] = mask_edges(masks[index], placed, self.max_edges)
        return *columns, edges


def build_train_transform(config) -> MaskTransform:
    """Return the preprocessing and augmentation that the configuration describes."""
    augmenter = Augmenter(config.augmentations, config)
    return MaskTransform(build_preprocess(config, train=True), augmenter, config.num_gts, config.seed, config.max_mask_edges)


def prepare_data(config, train: bool, in_training: bool = False) -> DataInfo:
    """Prepare data as source.prepare_data does, with masks for losses; scoring reads masks from the annotations."""
    return source.prepare_data(config, train, in_training, masks=train or (in_training and config.val_loss))
