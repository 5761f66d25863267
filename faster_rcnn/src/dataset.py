"""Data pipeline of Faster R-CNN: from MindRecord to batches of one size, for training and evaluation.

Shapes: N images per batch, G = num_gts slots for objects, H x W the padded input.
Columns: image (N, 3, H, W) float32, normalised; image_info (N, 6) float32: resized height and width, scale_y, scale_x
(resized / original), original height and width; gt_boxes (N, G, 4) float32 in pixels of the input; gt_labels (N, G)
int32, 0 = padding; gt_valid (N, G) bool; image_id (N,) int64. Evaluation only has image, image_info and image_id.
"""
from .model_utils.data.loading import build_train_transform
from .model_utils.data.source import prepare_data

__all__ = ["build_train_transform", "prepare_data"]
