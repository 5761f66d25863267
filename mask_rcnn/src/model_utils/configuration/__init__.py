# Same as faster_rcnn/src/model_utils/configuration/__init__.py
"""The keys of a configuration."""
