# Same as faster_rcnn/src/FasterRcnn/parts.py
"""The network exported in two parts, for programs that do NMS and RoIAlign between the parts themselves.

Shapes: level l has A_l anchors, in the order (y, x, anchor); P proposals, K foreground classes, C channels, S side of the pooled
features. Boxes are (x1, y1, x2, y2) in input-image pixels, width = x2 - x1; they are not clipped.
"""
from mindspore import nn, ops

from ..model_utils.config import InputError
from ..model_utils.layers.boxes import decode, spread


class DensePart(nn.Cell):
    """Backbone, neck and RPN for one image: (image, image_info) -> the levels that RoIs are pooled from (1, C, H_l, W_l), then the
    logits (1, A_l) of every level, then the decoded boxes (1, A_l, 4) of every level."""

    def __init__(self, net: nn.Cell):
        super().__init__(auto_prefix=False)  # the parameters keep their names
        self.net = net

    def construct(self, image, image_info):
        net, coding = self.net, self.net.test_proposals
        features = net.neck(net.backbone(image))
        levels_logits, levels_deltas = net.rpn(features)
        anchors = net.anchors_of(features, image)
        flat, boxes = (), ()
        for i in range(len(anchors)):
            flat += (levels_logits[i].transpose(0, 2, 3, 1).reshape(1, -1),)
            deltas = levels_deltas[i].transpose(0, 2, 3, 1).reshape(1, -1, 4)
            boxes += (decode(anchors[i].expand_dims(0), deltas, coding.stds, coding.means, coding.max_log_ratio, coding.clamp_both,
                             coding.offset),)
        return (*features[:net.pooled_levels], *flat, *boxes)


class HeadsPart(nn.Cell):
    """Box head: pooled features (P, C, S, S) and proposals (P, 4) -> boxes (P, K, 4), scores (P, K)."""

    def __init__(self, net: nn.Cell):
        super().__init__(auto_prefix=False)
        self.rcnn, self.coding = net.rcnn, net.detector

    def construct(self, roi_features, proposals):
        logits, deltas = self.rcnn(roi_features)
        scores = ops.softmax(logits, -1)[:, 1:]
        p, classes = scores.shape
        boxes = spread(proposals.expand_dims(1), (p, classes, 4))
        boxes = decode(boxes, deltas.reshape(p, classes, 4), self.coding.stds, self.coding.means,
                       self.coding.max_log_ratio, self.coding.clamp_both, self.coding.offset)
        return boxes, scores


def network_parts(net, config, inputs: dict) -> list:
    """Return the parts as `exported` of network_define.py does. inputs: {name: shape} of the whole network."""
    if inputs["image"][0] != 1:
        raise InputError(f"test_batch_size: --split=True exports for one image: expected 1, got {inputs['image'][0]}")
    levels, pooled = len(config.anchor_strides), len(config.roi_align_featmap_strides)
    names = [f"{name}_{i}" for name, count in (("feature", pooled), ("logits", levels), ("boxes", levels)) for i in range(count)]
    side = config.roi_layer["out_size"]
    heads = {"roi_features": (config.rpn_max_num, config.roi_align_out_channels, side, side), "proposals": (config.rpn_max_num, 4)}
    return [("_dense", DensePart(net), inputs, names), ("_heads", HeadsPart(net), heads, ("boxes", "scores"))]
