"""RefineDet (Zhang et al., "Single-Shot Refinement Neural Network for Object Detection", 2018), assembled from its parts.

Shapes: N images of H x W pixels, G ground-truth slots, A anchors, K foreground classes, D detections per image. Boxes are
(x1, y1, x2, y2) in input-image pixels, width = x2 - x1; label 0 is background.
"""

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import Normal

from .anchor_generator import AnchorGenerator
from .backbones import build_backbone
from .box_utils import deltas_stds, overlaps
from .model_utils.layers.boxes import decode, spread, take_rows
from .model_utils.layers.named_losses import weighted, weights_of
from .model_utils.layers.nms import ClassNms
from .multibox import MultiBox
from .refinedet_loss_cell import Matcher, multibox_losses
from .resnet101_for_refinedet import FRESH_STD, head_blocks
from .tcb import TransferConnections

# The losses, in the order of the log: name -> configuration key of its weight.
LOSSES = {name: f"{name}_weight" for name in ("arm_loc_loss", "arm_conf_loss", "odm_loc_loss", "odm_conf_loss")}
LOSS_NAMES = tuple(LOSSES)
# Limit of the scaled dw and dh: far beyond any object, but exp stays finite. The authors' code has no limit.
MAX_LOG_RATIO = 10.0
# Boxes may extend this many image sides around the image before boxes of different classes could meet in NMS.
REACH = 4


class RefineDet(nn.Cell):
    """Single-stage detector: `construct` returns the training losses, `predict` the detections, `decode` all boxes and scores.

    The anchor refinement module (ARM) separates anchors from background and refines them; the object detection module (ODM)
    starts from the refined anchors.

    Args:
        backbone, tcb, arm, odm: the parts that compute features and predictions.
        anchors: (A, 4). scaling: scale of the deltas, (centre, size).
        detector: the last step of inference.
        pos_iou_thr: IoU from which an anchor is matched to an object; neg_pos_ratio: mined negatives per matched anchor.
        objectness_thre: anchors with less objectness are background in inference, and no candidates for the ODM's mining.
        loss_weights: {name: weight} of the losses; None: all 1.
    """

    def __init__(self, backbone, tcb, arm, odm, anchors: np.ndarray, scaling, detector, pos_iou_thr: float = 0.5,
                 neg_pos_ratio: int = 3, objectness_thre: float = 0.01, loss_weights: dict | None = None):
        super().__init__()
        self.backbone, self.tcb, self.arm, self.odm = backbone, tcb, arm, odm
        self.anchors = Tensor(anchors[None])
        self.scaling, self.stds = tuple(scaling), deltas_stds(scaling)
        self.detector, self.matcher = detector, Matcher(pos_iou_thr)
        self.neg_pos_ratio, self.objectness_thre = neg_pos_ratio, objectness_thre
        loss_weights = loss_weights or dict.fromkeys(LOSSES, 1.0)
        self.loss_names, self.loss_weights = tuple(loss_weights), tuple(loss_weights.values())

    def construct(self, image, image_info, gt_boxes, gt_labels, gt_valid):
        """Return the weighted losses, in the order of LOSSES.

        Args:
            image: (N, 3, H, W); image_info: not used, since images fill the input.
            gt_boxes: (N, G, 4); gt_labels: int32 (N, G); gt_valid: bool (N, G).
        """
        arm_deltas, arm_logits, odm_deltas, odm_logits = self.heads(image)
        anchors = self.anchors_of(image)
        refined = self.move(anchors, ops.stop_gradient(arm_deltas))
        # Match both stages at once, in as many rounds as one of them takes.
        iou = ops.cat((overlaps(anchors, gt_boxes, gt_valid), overlaps(refined, gt_boxes, gt_valid)))
        arm_matched, odm_matched = ops.chunk(self.matcher(iou), 2)             # (N, A) each

        is_object = (arm_matched >= 0).astype(mstype.int32)
        arm_losses = multibox_losses(arm_deltas, arm_logits, anchors, gt_boxes, is_object, arm_matched, arm_matched < 0,
                                     self.neg_pos_ratio, self.scaling)
        is_object = (odm_matched >= 0).astype(mstype.int32)
        labels = ops.gather_elements(gt_labels, 1, ops.maximum(odm_matched, 0)) * is_object
        # Positives stay regardless of their objectness: the filter is only meant for easy negatives.
        seen = self.objectness(ops.stop_gradient(arm_logits)) >= self.objectness_thre
        odm_losses = multibox_losses(odm_deltas, odm_logits, refined, gt_boxes, labels, odm_matched,
                                     ops.logical_and(odm_matched < 0, seen), self.neg_pos_ratio, self.scaling)
        losses = {"arm_loc_loss": arm_losses[0], "arm_conf_loss": arm_losses[1], "odm_loc_loss": odm_losses[0],
                  "odm_conf_loss": odm_losses[1]}
        return weighted(losses, self.loss_names, self.loss_weights)

    def predict(self, image, image_info):
        """Return the detections in descending order of score.

        Returns:
            boxes (N, D, 4), scores (N, D), labels int32 (N, D) in 1..K, valid bool (N, D).
        """
        boxes, scores = self.decode(image)
        return self.detector(boxes, scores)

    def decode(self, image):
        """Return boxes (N, A, 4) and scores (N, A, K) of all anchors; scores are 0 if the objectness is below its threshold."""
        arm_deltas, arm_logits, odm_deltas, odm_logits = self.heads(image)
        boxes = self.move(self.move(self.anchors_of(image), arm_deltas), odm_deltas)
        scores = ops.softmax(odm_logits, -1)[..., 1:]                          # (N, A, K)
        seen = (self.objectness(arm_logits) >= self.objectness_thre).astype(scores.dtype)
        return boxes, scores * spread(seen.expand_dims(-1), scores.shape)

    def heads(self, image):
        """Return ARM deltas (N, A, 4) and logits (N, A, 2), ODM deltas (N, A, 4) and logits (N, A, K + 1)."""
        sources = self.backbone(image)
        return (*self.arm(sources), *self.odm(self.tcb(sources)))

    def dense(self, image):
        return self.heads(image)

    def objectness(self, arm_logits):
        return ops.softmax(arm_logits, -1)[..., 1]                             # (N, A)

    def move(self, anchors, deltas):
        return decode(anchors, deltas, self.stds, max_log_ratio=MAX_LOG_RATIO)

    def anchors_of(self, image):
        return ops.tile(self.anchors, (image.shape[0], 1, 1))                  # (N, A, 4)

    def noise_shapes(self, batch_size: int) -> dict:
        """Return the shapes of the noise inputs of `construct`: there are none."""
        return {}


class Detector(nn.Cell):
    """Scores of all anchors and classes -> detections: threshold, best of each class, NMS within a class, best of all classes.

    Args:
        per_class: best candidates of a class that enter NMS (top_k in the authors' code).
        total: best of these over all classes, to bound the work: NMS takes min(K * per_class, total) boxes. The boxes that this
            drops score less than all others, and only matter if fewer than max_per_img of the others survive.
        max_per_img: detections per image (keep_top_k).
        side: of the input, in pixels; boxes of different classes are kept apart up to REACH sides around it.
    """

    def __init__(self, num_classes: int, score_thr: float, iou_thr: float, per_class: int, total: int, max_per_img: int,
                 side: int):
        super().__init__()
        self.score_thr, self.per_class, self.total, self.max_per_img = score_thr, per_class, total, max_per_img
        self.reach = REACH * side
        self.nms = ClassNms(iou_thr, num_classes, (2 * REACH + 1) * side)

    def construct(self, boxes, scores):
        """Map boxes (N, A, 4), scores (N, A, K) to boxes (N, D, 4), scores (N, D), labels int32 (N, D) in 1..K, valid (N, D)."""
        n, a, k = scores.shape
        per_class = min(self.per_class, a)
        best, place = ops.topk(ops.transpose(scores, (0, 2, 1)), per_class)    # (N, K, per_class)
        best, rank = ops.topk(best.reshape(n, k * per_class), min(self.total, k * per_class))
        rank = rank.astype(mstype.int32)
        labels = rank // per_class
        place = ops.gather_elements(place.reshape(n, k * per_class).astype(mstype.int32), 1, rank)
        found = take_rows(boxes, place)                                        # (N, total, 4)
        apart = ops.clamp(found, -float(self.reach), float(self.reach))
        keep = self.nms(apart, best > self.score_thr, labels)
        best = ops.select(keep, best, ops.zeros_like(best))
        scores, rank = ops.topk(best, min(self.max_per_img, best.shape[1]))    # (N, D)
        rank = rank.astype(mstype.int32)
        return take_rows(found, rank), scores, ops.gather_elements(labels, 1, rank) + 1, scores > 0


def build_network(config, fast: bool = False) -> RefineDet:
    """Return the network that the configuration describes.

    Args:
        config: see default_config.yaml.
        fast: use the CPU's fast convolutions; False for other devices and for export.
    """
    backbone = build_backbone(config, fast)
    channels, residual = backbone.out_channels, backbone.residual
    per_cell = len(config.anchor_scales) * len(config.anchor_ratios)
    generator = AnchorGenerator(config.anchor_scales, config.anchor_ratios, config.anchor_strides, center_offset=0.5)
    shapes = [(config.img_height // stride, config.img_width // stride) for stride in config.anchor_strides]
    detector = Detector(config.num_classes - 1, config.test_score_thr, config.test_iou_thr, config.test_nms_pre,
                        config.test_nms_total, config.test_max_per_img, max(config.img_height, config.img_width))

    def heads(entering, logits: int) -> MultiBox:
        if not residual:
            return MultiBox(entering, per_cell, logits, fast)
        width = config.resnet_head_channels
        return MultiBox([width] * len(entering), per_cell, logits, fast, head_blocks(entering, width, fast))

    return RefineDet(
        backbone=backbone,
        tcb=TransferConnections(channels, config.tcb_channels, residual or config.batch_norm, fast, norm_up=residual,
                                weight_init=Normal(FRESH_STD) if residual else None),
        arm=heads(channels, 2),
        odm=heads([config.tcb_channels] * len(channels), config.num_classes),
        anchors=generator.grid(shapes),
        scaling=config.prior_scaling,
        detector=detector,
        pos_iou_thr=config.pos_iou_thr,
        neg_pos_ratio=config.neg_pos_ratio,
        objectness_thre=config.objectness_thre,
        loss_weights=weights_of(LOSSES, config))
