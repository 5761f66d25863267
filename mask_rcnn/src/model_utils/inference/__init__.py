# Same as faster_rcnn/src/model_utils/inference/__init__.py
"""Load networks from files and detect objects with them."""
