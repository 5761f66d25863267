# Same as faster_rcnn/__init__.py with Faster R-CNN -> Mask R-CNN
"""Mask R-CNN on MindSpore."""
