# Same as faster_rcnn/src/FasterRcnn/conversion/__init__.py
"""Whole detectors of other frameworks: their names of the weights, their configuration, and the way back."""
