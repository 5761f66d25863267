# Same as faster_rcnn/src/model_utils/training/__init__.py
"""Steps, epochs, checkpoints and logs of a training run on one or several devices."""
