# Same as faster_rcnn/src/FasterRcnn/conversion/__init__.py
"""Conversion of whole detectors between this network and other frameworks: names, weights, configuration."""
