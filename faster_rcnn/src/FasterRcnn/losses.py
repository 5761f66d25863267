"""Element-wise losses that both stages share."""

from mindspore import ops


def smooth_l1(prediction, target, beta: float):
    """Return the smooth L1 loss per element (Girshick, "Fast R-CNN", 2015, eq. 3); `beta` is the transition point, 0 = L1."""
    distance = ops.abs(prediction - target)
    if beta == 0:
        return distance
    return ops.where(distance < beta, distance * distance * (0.5 / beta), distance - 0.5 * beta)


def binary_cross_entropy(logits, target):
    """Return the cross entropy of sigmoid(logits) against `target` in [0, 1] per element, without overflow."""
    size = ops.abs(logits)
    # 0.5 * (x + |x|) instead of relu(x): MindSpore's relu has gradient 0 at x = 0, which would make the whole gradient there
    # -target instead of 0.5 - target.
    return 0.5 * (logits + size) - logits * target + ops.log1p(ops.exp(-size))
