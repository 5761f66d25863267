# Same as faster_rcnn/src/model_utils/evaluation/__init__.py
"""Evaluation: run a network over a data set, collect its detections and score them."""
