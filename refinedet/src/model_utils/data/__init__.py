# Same as faster_rcnn/src/model_utils/data/__init__.py
"""From annotated images to batches."""
