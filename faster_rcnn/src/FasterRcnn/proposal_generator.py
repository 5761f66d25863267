"""Select proposals: the best boxes of the region proposal network after non-maximum suppression.

Shapes: N images; level l has A_l = H_l * W_l * A anchors, in the order (y, x, anchor); K best of a level; P proposals
per image; T survivors of all levels. Boxes are (x1, y1, x2, y2) in input-image pixels, width = x2 - x1.
"""

from collections.abc import Sequence

import numpy as np
from mindspore import Tensor, nn, ops

from ..model_utils.layers.boxes import MAX_LOG_RATIO, UNIT_STDS, ZERO_MEANS, clip_boxes, decode, spread, take_rows
from ..model_utils.layers.nms import Nms

NOTHING = -1e30  # score of a slot without a proposal


class ProposalGenerator(nn.Cell):
    """Per level: take the best by score, decode, clip, drop empty boxes, NMS. Then take the best of all levels.

    No gradient passes, and only the best `nms_pre` of a level are decoded. `across_levels` adds an NMS over all levels, as
    mmdetection 1.x does: after NMS and `nms_post` per level, the survivors of all levels pass one more NMS with the same threshold,
    and then the cut to `max_num`. With `cut_first` that NMS follows the cut, and leaves fewer proposals (mindspore-lab).

    Args:
        anchors: float32 (A_l, 4) per level.
        nms_pre: candidates per level; a smaller level contributes all of its anchors.
        nms_post: survivors per level.
        max_num: proposals per image, over all levels.
        min_size: drop candidates with a smaller width or height, in pixels; those of width or height 0 are always dropped.
        stds, means, max_log_ratio, clamp_both, offset: see `decode`.
        across_levels: also suppress boxes that overlap a better one of another level. NMS then takes T boxes in one call, up to
            `nms_post` per level, or `max_num` with `cut_first`; Ascend's operator takes 2864 at most.
        filter_first: decode all boxes of a level, and drop those that are too small before the best are chosen.
    """

    def __init__(self, anchors: Sequence, nms_pre: int, nms_post: int, max_num: int, nms_thr: float,
                 min_size: float = 0.0, stds=UNIT_STDS, means=ZERO_MEANS, max_log_ratio: float = MAX_LOG_RATIO,
                 clamp_both: bool = False, offset: int = 0, across_levels: bool = False, cut_first: bool = False,
                 filter_first: bool = False):
        super().__init__()
        self.anchors = tuple(Tensor(np.asarray(level, np.float32)) for level in anchors)
        self.nms_pre, self.nms_post, self.max_num, self.min_size = nms_pre, nms_post, max_num, min_size
        self.stds, self.means = tuple(stds), tuple(means)
        self.max_log_ratio, self.clamp_both, self.offset = max_log_ratio, clamp_both, offset
        self.across_levels, self.cut_first, self.filter_first = across_levels, cut_first, filter_first
        self.nms = Nms(nms_thr)

    def construct(self, logits: Sequence, deltas: Sequence, image_sizes, anchors: Sequence = None):
        """Return the proposals in descending order of score.

        Args:
            logits: (N, A, H_l, W_l) per level; deltas: (N, 4A, H_l, W_l), channel = anchor * 4 + coordinate.
            image_sizes: (N, 2), height and width that boxes are clipped to.
            anchors: (A_l, 4) per level; override the constructor's, for images of another size.

        Returns:
            boxes (N, P, 4), logits (N, P), valid bool (N, P). Slots that are not valid have box 0 and come last.
        """
        levels_boxes, levels_scores = [], []
        for level in zip(logits, deltas, self.anchors if anchors is None else anchors):
            boxes, scores = self.candidates(ops.stop_gradient(level[0]), ops.stop_gradient(level[1]), level[2],
                                            image_sizes)
            levels_boxes.append(boxes)
            levels_scores.append(scores)
        boxes, scores = ops.cat(levels_boxes, 1), ops.cat(levels_scores, 1)    # (N, T, 4), (N, T)
        if self.across_levels and self.cut_first:
            scores, index = ops.topk(scores, min(self.max_num, scores.shape[1]))
            boxes = take_rows(boxes, index)
        if self.across_levels:
            boxes, scores = self.suppressed(boxes, scores)
        missing = self.max_num - scores.shape[1]
        if missing > 0:
            boxes = ops.cat((boxes, ops.zeros((boxes.shape[0], missing, 4), boxes.dtype)), 1)
            scores = ops.cat((scores, ops.zeros((boxes.shape[0], missing), scores.dtype) + NOTHING), 1)
        scores, index = ops.topk(scores, self.max_num)                         # (N, P)
        valid = scores > 0.5 * NOTHING
        return self.or_zero(take_rows(boxes, index), valid), scores, valid

    def candidates(self, logits, deltas, anchors, image_sizes):
        """Return the candidates of one level: boxes (N, K, 4), scores (N, K), NOTHING for dropped ones."""
        n = logits.shape[0]
        logits = logits.transpose(0, 2, 3, 1).reshape(n, -1)                   # (N, A_l)
        deltas = deltas.transpose(0, 2, 3, 1).reshape(n, -1, 4)                # (N, A_l, 4)
        if self.filter_first:
            boxes = self.decoded(ops.tile(anchors.expand_dims(0), (n, 1, 1)), deltas, image_sizes)
            logits = ops.select(self.large_enough(boxes), logits, ops.zeros_like(logits) + NOTHING)
        scores, index = ops.topk(logits, min(self.nms_pre, logits.shape[1]))   # (N, K)
        if self.filter_first:
            boxes, valid = take_rows(boxes, index), scores > 0.5 * NOTHING
        else:
            boxes = self.decoded(ops.gather(anchors, index, 0), take_rows(deltas, index), image_sizes)
            valid = self.large_enough(boxes)
        keep = self.nms(boxes, valid)
        scores = ops.select(keep, scores, ops.zeros_like(scores) + NOTHING)
        if self.nms_post < scores.shape[1]:
            scores, index = ops.topk(scores, self.nms_post)
            boxes = take_rows(boxes, index)
        return boxes, scores

    def decoded(self, anchors, deltas, image_sizes):
        """Decode and clip: anchors and deltas (N, K, 4) -> boxes (N, K, 4)."""
        boxes = decode(anchors, deltas, self.stds, self.means, self.max_log_ratio, self.clamp_both, self.offset)
        return clip_boxes(boxes, image_sizes, self.offset)

    def large_enough(self, boxes):
        """Return which boxes (N, K, 4) are at least min_size wide and high: bool (N, K), False for NaN."""
        size = boxes[..., 2:] - boxes[..., :2] + self.offset
        large = ops.logical_and(size > 0, size >= self.min_size)
        return ops.logical_and(large[..., 0], large[..., 1])

    def suppressed(self, boxes, scores):
        """Suppress across levels: boxes (N, T, 4), scores (N, T) -> the same, sorted, NOTHING where a better box overlaps."""
        scores, index = ops.topk(scores, scores.shape[1])
        boxes = take_rows(boxes, index)
        keep = self.nms(boxes, scores > 0.5 * NOTHING)
        return boxes, ops.select(keep, scores, ops.zeros_like(scores) + NOTHING)

    @staticmethod
    def or_zero(boxes, valid):
        """Zero what is not valid. A product would not do: nan * 0 is nan."""
        return ops.select(spread(valid.expand_dims(-1), boxes.shape), boxes, ops.zeros_like(boxes))
