"""Select the mask targets for training: see mask_targets.py and bitmap_targets.py."""
from mindspore import nn, ops

from .bitmap_targets import bitmap_targets
from .mask_targets import mask_targets


class MaskTargets(nn.Cell):
    """Mask targets by rule: "outline" rasterises polygons inside the box, "bitmap" crops a bitmap of the input.

    Args:
        stride: pixels of the input per cell of the finest level.
        precise: see mask_targets.
    """

    def __init__(self, rule: str, stride: int, precise: bool = False):
        super().__init__()
        self.rule, self.stride, self.precise = rule, stride, precise

    def construct(self, edges, matched, boxes, size, shapes):
        """Return targets like `mask_targets`, with the same arguments. shapes: (H_l, W_l) per level."""
        if self.rule == "bitmap":
            height, width = input_side(shapes, self.stride, 0), input_side(shapes, self.stride, 1)
            return bitmap_targets(edges, matched, boxes, size, self.precise, height, width)
        return mask_targets(edges, matched, boxes, size, self.precise)


@ops.constexpr
def input_side(shapes, stride: int, axis: int) -> int:
    """Return height or width of the input whose first level has shapes[0] cells; a tuple of both has no gradient in a graph."""
    return shapes[0][axis] * stride
