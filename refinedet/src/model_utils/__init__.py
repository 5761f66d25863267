# Same as faster_rcnn/src/model_utils/__init__.py
"""Configuration and the device that a run uses."""
