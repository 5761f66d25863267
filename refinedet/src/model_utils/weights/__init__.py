# Same as faster_rcnn/src/model_utils/weights/__init__.py
"""Readers and writers of weights."""
