# Same as faster_rcnn/src/model_utils/layers/__init__.py
"""Layers and operators that the networks share."""
