# Same as faster_rcnn/src/model_utils/evaluation/__init__.py
"""Detections of a data set, and the scores that they get."""
