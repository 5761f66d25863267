# Same as faster_rcnn/src/model_utils/__init__.py
"""What all models share: configuration, data, training, evaluation, inference, weights, jobs."""
