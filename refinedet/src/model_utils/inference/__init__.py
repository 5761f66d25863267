# Same as faster_rcnn/src/model_utils/inference/__init__.py
"""Networks out of files, and what is detected with them."""
