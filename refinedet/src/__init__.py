# Same as faster_rcnn/src/__init__.py
"""Data, training, evaluation and the network of this model."""
