"""Generate the anchors of all cells of a feature pyramid, in numpy, once per input size.

Shapes: L levels; level l has H_l x W_l cells with A anchors each. Rows are ordered (level, y, x, anchor), the order in
which the RPN's maps are flattened. Boxes are (x1, y1, x2, y2) in input-image pixels, width = x2 - x1 + offset.
"""

from collections.abc import Sequence

import numpy as np


class AnchorGenerator:
    """Anchors of every scale and aspect ratio around each cell of every level (Lin et al., 2017, section 4.1).

    Args:
        scales: sides of a square anchor, in strides of its level (8 with strides 4..64 gives 32..512 pixels).
        ratios: height / width. An anchor of side s has width sqrt(s * s / ratio) and height ratio * width.
            The anchors of a cell are ordered (ratio, scale).
        strides: pixels per cell of each level; they set the sizes of the anchors.
        round_base: round the corners of the anchors at the origin to whole pixels, half to even, as torchvision does.
        center_offset: distance of the anchors' centre from the upper left corner of their cell, in strides.
        offset: 1 for the old zoo's boxes, which include their last pixel; else 0.
    """

    def __init__(self, scales: Sequence[float], ratios: Sequence[float], strides: Sequence[int],
                 round_base: bool = False, center_offset: float = 0.0, offset: int = 0):
        self.strides = tuple(strides)
        self.num_anchors = len(scales) * len(ratios)
        self.base = [self._base(np.outer(np.ones(len(ratios)), scales).ravel() * stride, np.repeat(ratios, len(scales)),
                                center_offset * (stride - offset), round_base, offset) for stride in strides]

    @staticmethod
    def _base(sides, ratios, centre, round_base, offset):
        """Return the anchors of the cell at the origin: float32 (A, 4)."""
        width = np.sqrt(sides * sides / ratios)
        half = 0.5 * (np.stack([width, ratios * width], 1) - offset)
        base = np.concatenate([centre - half, centre + half], 1).astype(np.float32)
        return np.round(base) if round_base else base

    def corners(self, feature_shapes: Sequence, strides: Sequence = None) -> list:
        """Return the upper left corner (x, y) of each anchor's cell: float32 (H_l*W_l*A, 2) per level."""
        corners = []
        for (height, width), stride in zip(feature_shapes, strides or self.strides):
            stride_y, stride_x = (stride, stride) if np.isscalar(stride) else stride
            y, x = np.meshgrid(np.arange(height) * stride_y, np.arange(width) * stride_x, indexing="ij")
            cells = np.stack([x.ravel(), y.ravel()], 1).astype(np.float32)
            corners.append(np.repeat(cells, self.num_anchors, 0))
        return corners

    def levels(self, feature_shapes: Sequence, strides: Sequence = None) -> list:
        """Return the anchors per level: float32 (H_l*W_l*A, 4).

        Args:
            feature_shapes: (H_l, W_l) per level.
            strides: pixels between cells, one number or (y, x) per level, if they differ from the strides that set the
                sizes: torchvision takes padded image size // feature size.
        """
        corners = self.corners(feature_shapes, strides)
        return [np.tile(base, (len(corner) // len(base), 1)) + np.tile(corner, 2)
                for base, corner in zip(self.base, corners)]

    def grid(self, feature_shapes: Sequence, strides: Sequence = None) -> np.ndarray:
        """Return the anchors of all levels, concatenated: float32 (A_total, 4). Args: see `levels`."""
        return np.concatenate(self.levels(feature_shapes, strides))
