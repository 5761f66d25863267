"""What the network gives, and what of it is scored.

Not a copy of another model's file: others give more.
"""

# In the order in which `predict` gives them. Shapes: N images, D detections an image, best first; `valid` tells which are
# meant, the others are padding. boxes (N, D, 4) float32: x1, y1, x2, y2 in pixels of the network input; scores (N, D)
# float32; labels (N, D) int32, from 1 on; valid (N, D) bool.
OUTPUTS = ("boxes", "scores", "labels", "valid")
# Kinds of COCO AP; the last decides which checkpoint is the best.
IOU_TYPES = ("bbox",)


def mask_encoder(config):
    """None: there are no masks to encode."""
