"""Data pipeline of RefineDet: from MindRecord to batches of one size, for training and evaluation.

Images are stretched to fill the input. The columns are those of model_utils/data/loading.py: image (N, 3, H, W), image_info (N, 6),
gt_boxes (N, G, 4), gt_labels (N, G), gt_valid (N, G) and image_id (N,) for N images and G = num_gts slots for objects.
"""
from .model_utils.data.loading import build_train_transform
from .model_utils.data.source import prepare_data

__all__ = ["build_train_transform", "prepare_data"]
