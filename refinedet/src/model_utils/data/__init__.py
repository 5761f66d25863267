# Same as faster_rcnn/src/model_utils/data/__init__.py
"""Data pipeline: from annotated images to batches."""
