# Same as faster_rcnn/src/FasterRcnn/rcnn.py
"""Second stage: the box head, its losses, and the final detections.

Shapes: N images, S sampled RoIs per image, of which only the first Q may be positive, R RoIs in the batch, K foreground classes,
D detections per image. Boxes are (x1, y1, x2, y2) in input-image pixels, width = x2 - x1; label 0 is background.
"""

from collections.abc import Sequence

from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import Normal, XavierUniform

from ..model_utils.layers.boxes import MAX_LOG_RATIO, clip_boxes, decode, take_rows
from ..model_utils.training.ranks import shared_count
from .losses import smooth_l1


class BoxHead(nn.Cell):
    """Shared fully connected layers, then class logits (background first) and per-class box deltas."""

    def __init__(self, in_channels: int, roi_size: int, fc_channels: int, num_classes: int, num_layers: int = 2):
        super().__init__()
        widths = [in_channels * roi_size * roi_size] + [fc_channels] * num_layers
        self.fcs = nn.CellList([nn.Dense(a, b, weight_init=XavierUniform(), bias_init="zeros")
                                for a, b in zip(widths, widths[1:])])
        self.cls_score = nn.Dense(fc_channels, num_classes + 1, weight_init=Normal(0.01), bias_init="zeros")
        self.bbox_pred = nn.Dense(fc_channels, num_classes * 4, weight_init=Normal(0.001), bias_init="zeros")

    def construct(self, roi_feats):
        x = roi_feats.reshape(roi_feats.shape[0], -1)                          # (R, C*S*S)
        for fc in self.fcs:
            x = ops.relu(fc(x))
        return self.cls_score(x), self.bbox_pred(x)                            # (R, K+1), (R, 4K)


def box_head_losses(logits, deltas, labels, targets, positive, valid, beta: float = 1.0, added: float = 0.0):
    """Return the classification and box losses of the sampled RoIs (Girshick, "Fast R-CNN", 2015, section 2.3).

    Args:
        logits: (N, S, K+1); labels: int32 (N, S); valid: bool (N, S), False for padding.
        deltas: (N, Q, 4K), targets: (N, Q, 4), positive: bool (N, Q): only the slots that may be positive.
        beta: transition point of the smooth L1 loss; added: see shared_count.

    Returns:
        Cross entropy, and smooth L1 of the deltas of each object's class. Both are summed and divided by the number of valid
        RoIs over all devices: see shared_count.
    """
    dtype = logits.dtype
    valid = valid.astype(dtype)
    count = shared_count(valid.sum(), added)
    log_probability = ops.log_softmax(logits, -1)
    own = ops.one_hot(labels, logits.shape[-1], Tensor(1, dtype), Tensor(0, dtype))
    cls_loss = -((log_probability * own).sum(-1) * valid).sum() / count
    n, q = positive.shape
    own = own[:, :q, 1:].expand_dims(-1)                                       # (N, Q, K, 1); background has no box
    own_deltas = (deltas.reshape(n, q, -1, 4) * own).sum(2)                    # (N, Q, 4)
    reg_loss = (smooth_l1(own_deltas, targets, beta).sum(-1) * positive.astype(dtype)).sum() / count
    return cls_loss, reg_loss


class Detector(nn.Cell):
    """Class scores and box deltas of the proposals -> the best `max_per_img` detections per image.

    Each class's box is decoded and clipped. Boxes that score above `score_thr` and are at least `min_size` pixels wide and high
    compete within their class (NMS), and the best of all classes remain. Only the best `nms_pre` enter the NMS; since only a
    better box can suppress a box, this changes nothing unless fewer than `max_per_img` of them survive. With `clip_last` boxes
    are clipped after the NMS, and may end up without width or height (mindspore-lab).
    """

    def __init__(self, nms: nn.Cell, stds: Sequence[float], means: Sequence[float], score_thr: float, max_per_img: int,
                 nms_pre: int, min_size: float = 0.0, clamp_both: bool = False, offset: int = 0,
                 max_log_ratio: float = MAX_LOG_RATIO, clip_last: bool = False):
        super().__init__()
        self.min_size, self.clamp_both, self.offset = min_size, clamp_both, offset
        self.max_log_ratio, self.clip_last = max_log_ratio, clip_last
        self.nms = nms
        self.stds, self.means = tuple(stds), tuple(means)
        self.score_thr, self.max_per_img, self.nms_pre = score_thr, max_per_img, nms_pre

    def construct(self, logits, deltas, proposals, valid, image_sizes):
        """Return the detections in descending order of score.

        Args:
            logits: (N, P, K+1); deltas: (N, P, 4K); proposals: (N, P, 4); valid: bool (N, P).
            image_sizes: (N, 2), height and width that boxes are clipped to.

        Returns:
            boxes (N, D, 4), scores (N, D), labels int32 (N, D) in 1..K, valid bool (N, D).
        """
        detections, _ = self.with_proposals(logits, deltas, proposals, valid, image_sizes)
        return detections

    def with_proposals(self, logits, deltas, proposals, valid, image_sizes):
        """Return the detections and the index (N, D) of the proposal that each of them came from. Args: see `construct`."""
        n, p = valid.shape
        scores = ops.softmax(logits, -1)[:, :, 1:]                             # (N, P, K)
        classes = scores.shape[-1]
        scores = ops.where(valid.expand_dims(-1), scores, ops.zeros_like(scores))
        candidates = min(self.nms_pre, p * classes)
        scores, index = ops.topk(scores.reshape(n, p * classes), candidates)   # (N, T)
        roi = index // classes
        label = index - roi * classes                                          # "%" does not export to ONNX
        boxes = decode(take_rows(proposals, roi), take_rows(deltas.reshape(n, p * classes, 4), index), self.stds, self.means,
                       self.max_log_ratio, self.clamp_both, self.offset)
        clipped = clip_boxes(boxes, image_sizes, self.offset)
        boxes = boxes if self.clip_last else clipped
        candidate = scores > self.score_thr
        if self.min_size > 0:
            large = boxes[..., 2:] - boxes[..., :2] + self.offset >= self.min_size
            candidate = ops.logical_and(candidate, ops.logical_and(large[..., 0], large[..., 1]))
        keep = self.nms(boxes, candidate, label)                               # (N, T) bool
        scores, order = ops.topk(ops.where(keep, scores, ops.zeros_like(scores)), min(self.max_per_img, candidates))
        label = ops.gather_d(label, 1, order).astype(mstype.int32) + 1
        return (take_rows(clipped, order), scores, label, scores > 0), ops.gather_d(roi, 1, order)

