# Same as faster_rcnn/src/FasterRcnn/anchor_generator.py
"""Anchors of all cells of a feature pyramid, in numpy, once per input size.

Shapes: L levels, level l has H_l x W_l cells with A anchors each. Rows are in the order (level, y, x, anchor), the
order in which the RPN's maps are flattened. Boxes are (x1, y1, x2, y2) in input-image pixels, width = x2 - x1 +
offset.
"""

from collections.abc import Sequence

import numpy as np


class AnchorGenerator:
    """Anchors of `scales` x `ratios` around each cell.

    Args:
        scales: sides of a square anchor, in strides of its level (8 with strides 4..64 makes 32..512 pixels).
        ratios: height / width. An anchor of side s has width sqrt(s * s / ratio) and height ratio * width.
            Anchors of a cell are in the order (ratio, scale).
        strides: pixels per cell of each level; they set the sizes of the anchors.
        round_base: round the corners of the anchor around the origin to whole pixels, half to even, as torchvision
            does.
        center_offset: the centre of a cell's anchors, in strides from the cell's own corner.
        offset: 1 for the old zoo's boxes, whose last pixel counts.
    """

    def __init__(self, scales: Sequence[float], ratios: Sequence[float], strides: Sequence[int],
                 round_base: bool = False, center_offset: float = 0.0, offset: int = 0):
        self.strides = tuple(strides)
        self.num_anchors = len(scales) * len(ratios)
        self.base = [self._base(np.outer(np.ones(len(ratios)), scales).ravel() * stride, np.repeat(ratios, len(scales)),
                                center_offset * (stride - offset), round_base, offset) for stride in strides]

    @staticmethod
    def _base(sides, ratios, centre, round_base, offset):
        """Anchors of the cell at the origin: float32 (A, 4)."""
        width = np.sqrt(sides * sides / ratios)
        half = 0.5 * (np.stack([width, ratios * width], 1) - offset)
        base = np.concatenate([centre - half, centre + half], 1).astype(np.float32)
        return np.round(base) if round_base else base

    def corners(self, feature_shapes: Sequence, strides: Sequence = None) -> list:
        """The upper left corner (x, y) of each anchor's own cell: float32 (H_l*W_l*A, 2) per level."""
        corners = []
        for (height, width), stride in zip(feature_shapes, strides or self.strides):
            stride_y, stride_x = (stride, stride) if np.isscalar(stride) else stride
            y, x = np.meshgrid(np.arange(height) * stride_y, np.arange(width) * stride_x, indexing="ij")
            cells = np.stack([x.ravel(), y.ravel()], 1).astype(np.float32)
            corners.append(np.repeat(cells, self.num_anchors, 0))
        return corners

    def levels(self, feature_shapes: Sequence, strides: Sequence = None) -> list:
        """Anchors per level, float32 (H_l*W_l*A, 4).

        Args:
            feature_shapes: (H_l, W_l) per level.
            strides: pixels between cells, a number or (y, x) per level, where they differ from those that set the
                sizes: torchvision's are the padded picture's size // feature size.
        """
        corners = self.corners(feature_shapes, strides)
        return [np.tile(base, (len(corner) // len(base), 1)) + np.tile(corner, 2)
                for base, corner in zip(self.base, corners)]

    def grid(self, feature_shapes: Sequence, strides: Sequence = None) -> np.ndarray:
        """The same of all levels, one after the other: float32 (A_total, 4)."""
        return np.concatenate(self.levels(feature_shapes, strides))
