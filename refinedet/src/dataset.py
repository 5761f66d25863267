# Same as faster_rcnn/src/dataset.py with Faster R-CNN -> RefineDet
"""The data of RefineDet: MindRecord -> batches of one size, for training and evaluation.

Shapes: N images of a batch, G = num_gts slots for objects, H x W the padded input.
Columns: image (N, 3, H, W) float32, normalised; image_info (N, 6) float32: resized height and width, scale_y, scale_x
(resized / original), original height and width; gt_boxes (N, G, 4) float32 in pixels of the input; gt_labels (N, G)
int32, 0 = padding; gt_valid (N, G) bool; image_id (N,) int64. Evaluation has image, image_info and image_id.
"""
from .augmentation import build_augmenter
from .data_source import DataInfo, find_source, prepare_data
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

__all__ = ["DataInfo", "EvalBatch", "EvalBatches", "TrainTransform", "build_preprocess", "build_train_transform",
           "create_dataset", "epoch_indices", "epoch_pictures", "find_source", "iterate", "prepare_data", "steps_per_epoch"]


class TrainTransform(RecordTransform):
    """One record -> one row of a training batch."""

    def __call__(self, epoch, *record) -> tuple:
        return self.load(epoch, *record)[0]


def build_train_transform(config) -> TrainTransform:
    """Preprocessing and augmentation that the configuration asks for."""
    return TrainTransform(build_preprocess(config, train=True), build_augmenter(config), config.num_gts, config.seed)
