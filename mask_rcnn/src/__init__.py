"""Mask R-CNN: network, data, training, evaluation, inference."""
