# Same as faster_rcnn/src/model_utils/cloud/__init__.py
"""Input and output of a job in object storage."""
