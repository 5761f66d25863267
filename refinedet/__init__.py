# Same as faster_rcnn/__init__.py with Faster R-CNN -> RefineDet
"""RefineDet on MindSpore."""
