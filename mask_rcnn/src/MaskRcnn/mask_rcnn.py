"""Mask R-CNN (He et al., 2017): Faster R-CNN with a head that predicts a mask for each box.

Shapes: N images of H x W pixels, G ground-truth slots, E edges of an object's outline, Q sampled RoIs per image that may be
positive, D detections per image, s side of the mask head's pooled features. Boxes are (x1, y1, x2, y2) in input-image pixels,
width = x2 - x1; label 0 is background.
"""

import os

from mindspore import ops

from ..model_utils.layers.named_losses import weighted, weights_of
from ..model_utils.training.ranks import shared_count
from .faster_rcnn import LOSSES as BOX_LOSSES
from .faster_rcnn import FasterRcnn, build_parts, build_roi_align
from .mask_loss import MaskLossSum, positive_slots
from .rcnn_mask import MaskHead, mask_head_loss
from .roi_align import RoiAlign
from .target_rules import MaskTargets

# The losses, in the order of the log: name -> configuration key of its weight.
LOSSES = {**BOX_LOSSES, "rcnn_mask_loss": "rcnn_loss_mask_fb_weight"}
LOSS_NAMES = tuple(LOSSES)


class MaskRcnn(FasterRcnn):
    """Two-stage detector with masks: `construct` returns the training losses, `predict` the detections with masks.

    Args:
        mask_align: pools the features of masks, from the same levels as roi_align.
        rcnn_mask: the mask head.
        targets: computes the mask targets.
        positives_only: in training, compute the masks of positive slots only, in chunks (see mask_loss.py). False: of all slots at
            once, in a graph without a loop. The losses are the same.
        from_proposals: pool a detection's mask from the proposal that it came from instead of from its box (mindspore-lab).
        parts: arguments of FasterRcnn.
    """

    def __init__(self, mask_align: RoiAlign, rcnn_mask: MaskHead, targets: MaskTargets, positives_only: bool = False,
                 from_proposals: bool = False, **parts):
        super().__init__(**parts)
        self.mask_align, self.rcnn_mask, self.from_proposals = mask_align, rcnn_mask, from_proposals
        self.targets = targets
        self.loss_sum = MaskLossSum(mask_align, rcnn_mask, targets) if positives_only else None

    def construct(self, image, image_info, gt_boxes, gt_labels, gt_valid, gt_edges, rpn_noise, roi_noise):
        """Return the weighted losses, in the order of LOSSES.

        Args:
            gt_edges: (N, G, E, 5), the objects' outlines, see mask_targets.
            others: see FasterRcnn.
        """
        losses, cells, samples = self.train_boxes(image, image_info, gt_boxes, gt_labels, gt_valid, rpn_noise, roi_noise)
        losses["rcnn_mask_loss"] = self.mask_loss(cells, self.slots_for_objects(samples), gt_edges)
        return weighted(losses, self.loss_names, self.loss_weights)

    def slots_for_objects(self, samples):
        """Return the slots from `sample_rois` that may be positive: rois (N, Q, 4), labels, positive, matched (N, Q) each."""
        rois, labels, _, positive, _, matched = samples
        q = min(self.roi_pos, labels.shape[1])
        return rois[:, :q], labels[:, :q], positive[:, :q], matched[:, :q]

    def mask_loss(self, cells, slots, gt_edges):
        """Return the mask loss. cells: the pooled levels; slots: see `slots_for_objects`."""
        rois, labels, positive, matched = slots
        if self.loss_sum is None:
            logits = self.mask_logits(cells, rois, labels)                     # (N, Q, 2s, 2s)
            targets = self.targets(gt_edges, matched, rois, logits.shape[-1], cells[1])
            return mask_head_loss(logits, targets, positive, self.losses_added)
        table, shapes = cells
        listed, count = positive_slots(rois, labels, positive, matched, gt_edges.shape[1])
        total, _, _ = self.loss_sum(table, self.rcnn_mask.weights(), gt_edges, listed, count, shapes)
        return total / (shared_count(count.astype(total.dtype), self.losses_added) * (2 * self.mask_align.out_size) ** 2)

    def mask_logits(self, cells, boxes, labels):
        """Return the logits (N, B, 2s, 2s) of the boxes' classes. cells: pooled levels; boxes: (N, B, 4); labels: int32 (N, B)."""
        n, count = labels.shape
        logits = self.rcnn_mask(self.mask_align.from_table(*cells, boxes), labels.reshape(n * count))
        return logits.reshape(n, count, *logits.shape[1:])

    def predict(self, image, image_info):
        """Return the detections in descending order of score.

        Returns:
            boxes (N, D, 4), scores (N, D), labels int32 (N, D) in 1..K, valid bool (N, D), masks (N, D, 2s, 2s): the probability of
            the detection's class in the cells of a regular grid over its box.
        """
        (boxes, scores, labels, valid), proposals, cells = self.find_boxes(image, image_info)
        pooled = proposals if self.from_proposals else boxes
        return boxes, scores, labels, valid, ops.sigmoid(self.mask_logits(cells, pooled, labels))

    def masks_of(self, image, boxes, labels):
        """Return masks (N, B, 2s, 2s) like `predict`. image: (N, 3, H, W); boxes: (N, B, 4); labels: int32 (N, B) in 1..K."""
        features = self.neck(self.backbone(image))
        cells = self.roi_align.table_of(features[:self.pooled_levels])
        return ops.sigmoid(self.mask_logits(cells, boxes, labels))


def build_network(config, fast: bool = False) -> MaskRcnn:
    """Return the network that the configuration describes.

    Args:
        config: see default_config.yaml.
        fast: use the CPU's fast convolutions, mask targets in float64 and, with mask_slots auto, only positive slots; False for
            other devices and for export.
    """
    mask_align = build_roi_align(config, config.roi_layer["mask_out_size"], fast)
    rcnn_mask = MaskHead(config.roi_align_out_channels, config.rcnn_mask_out_channels, config.num_classes - 1, fast=fast)
    compiled = os.environ.get("MS_JIT") != "0"      # MaskLossSum's gradients do not work in PyNative mode
    # In MaskLossSum, which has a loop and a `bprop`, bitmap targets do not compile.
    looped = compiled and config.mask_target == "outline"
    positives_only = looped and (config.mask_slots == "positive" or (config.mask_slots == "auto" and fast))
    parts = {**build_parts(config, fast), "loss_weights": weights_of(LOSSES, config)}
    targets = MaskTargets(config.mask_target, config.anchor_strides[0], fast)
    return MaskRcnn(mask_align, rcnn_mask, targets, positives_only, config.mask_from_proposal, **parts)
