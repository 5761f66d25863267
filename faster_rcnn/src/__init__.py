"""Faster R-CNN: network, data, training, evaluation, inference."""
