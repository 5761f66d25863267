# Same as faster_rcnn/src/FasterRcnn/losses.py
"""Element-wise losses that both stages share."""

from mindspore import ops


def smooth_l1(prediction, target, beta: float):
    """Smooth L1 per element (Girshick, "Fast R-CNN", 2015, eq. 3, with the corner at `beta`); beta 0 is plain L1."""
    distance = ops.abs(prediction - target)
    if beta == 0:
        return distance
    return ops.where(distance < beta, distance * distance * (0.5 / beta), distance - 0.5 * beta)


def binary_cross_entropy(logits, target):
    """Cross entropy of sigmoid(logits) against `target` in [0, 1], per element, without overflow."""
    size = ops.abs(logits)
    # Half of the sum, and not relu: the slope of that at 0 is 0, and the whole slope there would be -target, not 0.5 - target.
    return 0.5 * (logits + size) - logits * target + ops.log1p(ops.exp(-size))
