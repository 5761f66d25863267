# Same as faster_rcnn/src/FasterRcnn/__init__.py
"""The network: backbone, neck, region proposals, heads and their losses."""
