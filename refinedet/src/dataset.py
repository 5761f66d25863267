"""The data of RefineDet: MindRecord -> batches of one size, for training and evaluation.

Images are warped to the input, which they fill. The columns are those of model_utils/data/loading.py: image (N, 3, H, W),
image_info (N, 6), gt_boxes (N, G, 4), gt_labels (N, G), gt_valid (N, G) and image_id (N,); N images, G = num_gts slots for objects.
"""
from .model_utils.data.loading import build_train_transform
from .model_utils.data.source import prepare_data

__all__ = ["build_train_transform", "prepare_data"]
