"""The mask head as a separate network, for programs that do NMS and RoIAlign themselves."""
from mindspore import dtype as mstype
from mindspore import nn, ops

from .parts import network_parts


class MasksPart(nn.Cell):
    """Mask features (D, C, s, s) and labels float32 (D,) of D detections -> probabilities of their classes (D, 2s, 2s)."""

    def __init__(self, net: nn.Cell):
        super().__init__(auto_prefix=False)  # the parameters keep their names
        self.rcnn_mask = net.rcnn_mask

    def construct(self, mask_features, labels):
        last = self.rcnn_mask.logits
        index = (labels - 1).astype(mstype.int32)
        weight = ops.gather(last.weight.reshape(last.weight.shape[:2]), index, 0)
        bias = ops.gather(last.bias, index, 0)
        return ops.sigmoid(self.rcnn_mask.of_classes(mask_features, weight, bias, self.rcnn_mask.weights()))


def mask_network_parts(net, config, inputs: dict) -> list:
    """Return the parts as `exported` of network_define.py does. inputs: {name: shape} of the whole network."""
    count, side = config.test_max_per_img, config.roi_layer["mask_out_size"]
    shapes = {"mask_features": (count, config.roi_align_out_channels, side, side), "labels": (count,)}
    return [*network_parts(net, config, inputs), ("_masks", MasksPart(net), shapes, ("masks",))]
