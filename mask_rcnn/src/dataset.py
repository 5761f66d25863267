"""The data of Mask R-CNN: MindRecord -> batches of one size, for training and evaluation.

Shapes: N images of a batch, G = num_gts slots for objects, E = max_mask_edges slots for the edges of an object, H x W the
padded input.
Columns: image (N, 3, H, W) float32, normalised; image_info (N, 6) float32: resized height and width, scale_y, scale_x
(resized / original), original height and width; gt_boxes (N, G, 4) float32 in pixels of the input; gt_labels (N, G)
int32, 0 = padding; gt_valid (N, G) bool; gt_edges (N, G, E, 5) float32: x0, y0, x1, y1 of an edge of the outline in
pixels of the input and the number of its part, 0 = padding (mask_edges.py tells what is inside); image_id (N,) int64.
Evaluation has image, image_info and image_id.

Not a copy of another model's file: the masks.
"""
import json

import numpy as np

from . import data_source
from .augmentation import build_augmenter
from .data_source import DataInfo, find_source
from .loading import (
    EvalBatch,
    EvalBatches,
    RecordTransform,
    build_preprocess,
    create_dataset,
    epoch_indices,
    epoch_pictures,
    iterate,
    steps_per_epoch,
)
from .mask_edges import mask_edges

__all__ = ["DataInfo", "EvalBatch", "EvalBatches", "TrainTransform", "build_preprocess", "build_train_transform",
           "create_dataset", "epoch_indices", "epoch_pictures", "find_source", "iterate", "prepare_data", "steps_per_epoch"]


class TrainTransform(RecordTransform):
    """One record -> one row of a training batch."""

    RECORD = [*RecordTransform.RECORD, "masks"]
    ROW = [*RecordTransform.ROW, "gt_edges"]

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


def build_train_transform(config) -> TrainTransform:
    """Preprocessing and augmentation that the configuration asks for."""
    return TrainTransform(build_preprocess(config, train=True), build_augmenter(config), config.num_gts, config.seed,
                          config.max_mask_edges)


def prepare_data(config, train: bool, in_training: bool = False) -> DataInfo:
    """As data_source.prepare_data, to train with masks; an evaluation takes them from the annotations."""
    return data_source.prepare_data(config, train, in_training, masks=train)
