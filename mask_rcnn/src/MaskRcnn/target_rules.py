"""Which mask targets training takes: see mask_targets.py and bitmap_targets.py."""
from mindspore import nn, ops

from .bitmap_targets import bitmap_targets
from .mask_targets import mask_targets


class MaskTargets(nn.Cell):
    """Mask targets by a rule: `outline` draws the polygons in the box, `bitmap` cuts them out of a bitmap of the input.

    Args:
        stride: pixels of the input per cell of the finest level.
        precise: see mask_targets.
    """

    def __init__(self, rule: str, stride: int, precise: bool = False):
        super().__init__()
        self.rule, self.stride, self.precise = rule, stride, precise

    def construct(self, edges, matched, boxes, size, shapes):
        """Arguments and result as of `mask_targets`; shapes: (H_l, W_l) of each level."""
        if self.rule == "bitmap":
            height, width = input_side(shapes, self.stride, 0), input_side(shapes, self.stride, 1)
            return bitmap_targets(edges, matched, boxes, size, self.precise, height, width)
        return mask_targets(edges, matched, boxes, size, self.precise)


@ops.constexpr
def input_side(shapes, stride: int, axis: int) -> int:
    """Height or width of the input of which the first level has shapes[0] cells; a pair of numbers has no gradient in a graph."""
    return shapes[0][axis] * stride
