"""Faster R-CNN with a feature pyramid (Ren et al., 2015; Lin et al., 2017), assembled from its parts.

Shapes: N images of H x W pixels; G ground-truth slots, P proposals, S sampled RoIs and D detections per image; K foreground
classes. Boxes are (x1, y1, x2, y2) in input-image pixels, width = x2 - x1; label 0 is background.
"""

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.ops import constexpr

from ..model_utils.data.transforms import InputSize
from ..model_utils.layers.boxes import take_rows
from ..model_utils.layers.named_losses import weighted, weights_of
from ..model_utils.layers.nms import ClassNms
from .anchor_generator import AnchorGenerator
from .backbones import build_backbone
from .batch_norm import use_batch_statistics
from .bbox_assign_sample import anchor_targets, anchors_in_padding, match_anchors, sample_anchors
from .bbox_assign_sample_stage2 import sample_rois
from .fpn_neck import FeaturePyramid
from .proposal_generator import ProposalGenerator
from .rcnn import BoxHead, Detector, box_head_losses
from .roi_align import RoiAlign
from .rpn import RpnHead, rpn_losses

# Images are padded to a multiple of this if each is padded to its own size (mmdet).
PADDING_DIVISOR = 32
# The losses, in the order of the log: name -> configuration key of its weight.
LOSSES = {"rpn_cls_loss": "rpn_loss_cls_weight", "rpn_reg_loss": "rpn_loss_reg_weight", "rcnn_cls_loss": "rcnn_loss_cls_weight",
          "rcnn_reg_loss": "rcnn_loss_reg_weight"}
LOSS_NAMES = tuple(LOSSES)


class FasterRcnn(nn.Cell):
    """Two-stage detector: `construct` returns the training losses, `predict` the detections.

    Args:
        backbone, neck, rpn, roi_align, rcnn: the parts that compute features and predictions.
        anchors: generator of the anchors per level for the shapes of the features.
        train_proposals, test_proposals: proposal generators of training and of inference.
        detector: post-processing of the box head's outputs.
        matching: arguments of `match_anchors`; anchor_sampling: of `sample_anchors`; roi_sampling: of `sample_rois`.
        loss_weights: {name: weight} of the losses.
        betas: transition points of the smooth L1 loss, (RPN, box head).
        noise_sizes: random numbers that sampling takes per training image, (anchors, P + G).
        strides_from_size: take padded input size // feature size as the anchors' strides, as torchvision does.
        own_divisor: in training, ignore anchors of cells beyond the image size rounded up to a multiple of this (mmdet);
            0 = use all anchors.
        losses_added: constant added to the losses' divisors, see shared_count.
        clip_to_input: clip proposals to the last pixel of the padded input instead of to the image size.
        scaled_limits: clip detections to the original size times the scale, which need not be whole pixels.
    """

    def __init__(self, backbone, neck, rpn, roi_align, rcnn, anchors: AnchorGenerator, train_proposals, test_proposals,
                 detector, matching: dict, anchor_sampling: dict, roi_sampling: dict, loss_weights: dict,
                 betas=(1 / 9, 1.0), noise_sizes=(0, 0), strides_from_size: bool = False, own_divisor: int = 0,
                 losses_added: float = 0.0, clip_to_input: bool = False, scaled_limits: bool = False):
        super().__init__()
        self.backbone, self.neck, self.rpn, self.roi_align, self.rcnn = backbone, neck, rpn, roi_align, rcnn
        self.anchors, self.corners = constant_anchors(anchors, strides_from_size)
        self.strides, self.own_divisor, self.losses_added = anchors.strides, own_divisor, losses_added
        self.clip_to_input, self.scaled_limits = clip_to_input, scaled_limits
        self.train_proposals, self.test_proposals, self.detector = train_proposals, test_proposals, detector
        self.matching, self.anchor_sampling, self.roi_sampling = matching, anchor_sampling, roi_sampling
        self.roi_pos, self.pooled_levels = roi_sampling["num_pos"], len(roi_align.strides)
        self.loss_names, self.loss_weights = tuple(loss_weights), tuple(loss_weights.values())
        self.betas, self.noise_sizes = tuple(betas), tuple(noise_sizes)
        self.rpn_coding = train_proposals.stds, train_proposals.means, train_proposals.offset

    def construct(self, image, image_info, gt_boxes, gt_labels, gt_valid, rpn_noise, roi_noise):
        """Return the weighted losses, in the order of LOSSES.

        Args:
            image: (N, 3, H, W); image_info: (N, 6), begins with height and width without padding.
            gt_boxes: (N, G, 4); gt_labels: int32 (N, G); gt_valid: bool (N, G).
            rpn_noise: (N, anchors), roi_noise: (N, P + G): uniform in [0, 1); they decide which anchors and RoIs are sampled.
        """
        losses, _, _ = self.train_boxes(image, image_info, gt_boxes, gt_labels, gt_valid, rpn_noise, roi_noise)
        return weighted(losses, self.loss_names, self.loss_weights)

    def train_boxes(self, image, image_info, gt_boxes, gt_labels, gt_valid, rpn_noise, roi_noise):
        """Return what further heads need: {name: loss}, the pooled levels (see RoiAlign.table_of), the result of `sample_rois`."""
        image_sizes = image_info[:, :2]
        shapes = constant_shapes(image.shape[2:], self.strides)
        anchors = self.anchors(shapes, image.shape[2:])
        own = self.valid_anchors(shapes, image, image_sizes)
        labels, matched = match_anchors(ops.cat(anchors), gt_boxes, gt_valid, anchor_valid=own, **self.matching)
        # Match first: the loop in match_anchors splits the compiled graph in two, and the results of operators before the loop
        # would stay in memory to the end of the step.
        image = ops.depend(image, labels)

        features = self.neck(self.backbone(image))
        still = [ops.stop_gradient(feature) for feature in features]
        logits, deltas = self.rpn(still)
        proposals, _, proposal_valid = self.train_proposals(logits, deltas, self.proposal_limits(image, image_info), anchors)
        rpn_cls, rpn_reg = self.rpn_loss(features, ops.cat(anchors), labels, matched, gt_boxes, rpn_noise)
        samples = sample_rois(proposals, proposal_valid, gt_boxes, gt_labels, gt_valid, roi_noise, **self.roi_sampling)
        cells = self.roi_align.table_of(features[:self.pooled_levels])
        rcnn_cls, rcnn_reg = self.rcnn_loss(cells, samples)
        losses = {"rpn_cls_loss": rpn_cls, "rpn_reg_loss": rpn_reg, "rcnn_cls_loss": rcnn_cls, "rcnn_reg_loss": rcnn_reg}
        return losses, cells, samples

    def rpn_loss(self, features, anchors, labels, matched, gt_boxes, noise):
        """Return the RPN's two losses. labels, matched: see `match_anchors`."""
        index, positive, negative = sample_anchors(labels, noise, **self.anchor_sampling)
        targets = anchor_targets(anchors, gt_boxes, matched, index, *self.rpn_coding)
        logits, deltas = self.rpn.at_anchors(features, index.astype(mstype.int32))
        return rpn_losses(logits, deltas, targets, positive, negative, self.betas[0], self.losses_added)

    def rcnn_loss(self, cells, samples):
        rois, labels, targets, positive, valid, _ = samples
        n, s = labels.shape
        logits, deltas = self.rcnn(self.roi_align.from_table(*cells, rois))
        q = min(self.roi_pos, s)                                               # positive RoIs fill the first slots
        return box_head_losses(logits.reshape(n, s, -1), deltas.reshape(n, s, -1)[:, :q], labels, targets[:, :q],
                               positive[:, :q], valid, self.betas[1], self.losses_added)

    def predict(self, image, image_info):
        """Return the detections in descending order of score.

        Args: see `construct`.

        Returns:
            boxes (N, D, 4), scores (N, D), labels int32 (N, D) in 1..K, valid bool (N, D).
        """
        detections, _, _ = self.find_boxes(image, image_info)
        return detections

    def find_boxes(self, image, image_info):
        """Return what further heads need: the detections, the proposals (N, D, 4) that they came from, and the pooled levels (see
        RoiAlign.table_of)."""
        features = self.neck(self.backbone(image))
        logits, deltas = self.rpn(features)
        limits = self.proposal_limits(image, image_info)
        proposals, _, valid = self.test_proposals(logits, deltas, limits, self.anchors_of(features, image))
        n, p = valid.shape
        cells = self.roi_align.table_of(features[:self.pooled_levels])
        logits, deltas = self.rcnn(self.roi_align.from_table(*cells, proposals))
        found, roi = self.detector.with_proposals(logits.reshape(n, p, -1), deltas.reshape(n, p, -1), proposals, valid,
                                                  self.detection_limits(image_info))
        return found, take_rows(proposals, roi), cells

    def proposal_limits(self, image, image_info):
        """Return height and width (N, 2) that proposals are clipped to."""
        if not self.clip_to_input:
            return image_info[:, :2]
        _, _, height, width = image.shape
        return ops.zeros_like(image_info[:, :2]) + Tensor([[height - 1, width - 1]], image_info.dtype)

    def detection_limits(self, image_info):
        """Return height and width (N, 2) that detections are clipped to."""
        return image_info[:, 4:6] * image_info[:, 2:4] if self.scaled_limits else image_info[:, :2]

    def dense(self, image):
        """Return the RPN's logits and deltas per level: the convolutional part of the network."""
        return self.rpn(self.neck(self.backbone(image)))

    def anchors_of(self, features, image):
        """Return the anchors (A_l, 4) per level."""
        return self.anchors(shapes_of(features), image.shape[2:])

    def valid_anchors(self, shapes, image, image_sizes):
        """Return which anchors take part in training: bool (N, A), or None for all."""
        if self.own_divisor == 0:
            return None
        padded = ops.ceil(image_sizes / self.own_divisor) * self.own_divisor
        return anchors_in_padding(self.corners(shapes, image.shape[2:]), padded)

    def noise_shapes(self, batch_size: int) -> dict:
        """Return the shapes of the two noise inputs of `construct`."""
        return {"rpn_noise": (batch_size, self.noise_sizes[0]), "roi_noise": (batch_size, self.noise_sizes[1])}


def level_shapes(size, strides):
    """Return (H_l, W_l) per level for an input of size (H, W)."""
    return tuple((-(-size[0] // stride), -(-size[1] // stride)) for stride in strides)


constant_shapes = constexpr(level_shapes)     # evaluated when the graph is compiled


def shapes_of(features):
    """Return (H_l, W_l) of each feature map (N, C, H_l, W_l)."""
    shapes = ()
    for feature in features:
        shapes += (feature.shape[2:],)
    return shapes


def constant_anchors(generator: AnchorGenerator, strides_from_size: bool):
    """Return two functions of (feature shapes, padded input size) whose results are constants of the graph: the anchors (A_l, 4)
    per level, and the corners (A, 2) of their cells."""

    def strides(shapes, padded):
        return [(padded[0] // height, padded[1] // width) for height, width in shapes] if strides_from_size else None

    @constexpr
    def anchors(shapes, padded):
        return tuple(Tensor(level) for level in generator.levels(shapes, strides(shapes, padded)))

    @constexpr
    def corners(shapes, padded):
        return Tensor(np.concatenate(generator.corners(shapes, strides(shapes, padded))))

    return anchors, corners


def build_network(config, fast: bool = False) -> FasterRcnn:
    """Return the network that the configuration describes; args: see `build_parts`."""
    return FasterRcnn(**build_parts(config, fast))


def build_parts(config, fast: bool = False) -> dict:
    """Return the arguments of FasterRcnn that the configuration describes.

    Args:
        config: see default_config.yaml.
        fast: use the CPU's fast convolutions; False for other devices and for export.
    """
    offset = config.box_offset
    anchors = AnchorGenerator(config.anchor_scales, config.anchor_ratios, config.anchor_strides, config.anchor_rounding,
                              config.anchor_center_offset, offset)
    per_cell = len(config.anchor_scales) * len(config.anchor_ratios)
    roi = config.roi_layer
    roi_align = build_roi_align(config, roi["out_size"], fast)
    classes = config.num_classes - 1
    train_proposals, test_proposals = build_proposals(config)
    iou_offset = max(offset, config.iou_offset)
    matching = {"pos_thr": config.pos_iou_thr, "neg_thr": config.neg_iou_thr, "min_pos_iou": config.min_pos_iou,
                "low_quality_takes_gt": config.low_quality_takes_gt, "offset": iou_offset}
    anchor_sampling = {"num_pos": config.num_expected_pos, "num_total": config.num_expected_neg,
                       "num_neg": config.max_negative_anchors}
    bounds = config.img_height, config.img_width
    height, width = InputSize(*bounds, pad_to=config.pad_to).box() or bounds      # of the training inputs
    shapes = level_shapes((height, width), config.anchor_strides)
    noise_sizes = (len(anchors.grid(shapes)), config.rpn_proposal_max_num + config.num_gts)
    backbone = build_backbone(config, fast)
    if config.norm_statistics == "batch":
        use_batch_statistics(backbone)
    return {
        "backbone": backbone,
        "neck": FeaturePyramid(config.fpn_in_channels, config.fpn_out_channels, config.fpn_num_outs, fast, config.fpn_upsample),
        "rpn": RpnHead(config.rpn_in_channels, config.rpn_feat_channels, per_cell, fast=fast),
        "roi_align": roi_align,
        "rcnn": BoxHead(config.rcnn_in_channels, roi["out_size"], config.rcnn_fc_out_channels, classes, config.rcnn_num_layers),
        "anchors": anchors,
        "train_proposals": train_proposals,
        "test_proposals": test_proposals,
        "detector": build_detector(config),
        "matching": matching,
        "anchor_sampling": anchor_sampling,
        "roi_sampling": roi_sampling(config, offset, iou_offset),
        "loss_weights": weights_of(LOSSES, config),
        "betas": (config.rpn_smooth_l1_beta, config.rcnn_smooth_l1_beta),
        "noise_sizes": noise_sizes,
        "strides_from_size": config.anchor_strides_from_size,
        "own_divisor": 0 if config.anchors_in_padding else PADDING_DIVISOR,
        "losses_added": config.loss_divisor_eps,
        "clip_to_input": config.rpn_clip == "input",
        "scaled_limits": config.scale_rule == "factor",
    }


def roi_sampling(config, offset: float, iou_offset: float) -> dict:
    """Return the arguments of `sample_rois`. offset, iou_offset: box offset of the coder and of the IoU (0 or 1)."""
    return {
        "num_pos": config.num_expected_pos_stage2,
        "num_total": config.num_expected_total_stage2,
        "num_neg": config.num_expected_neg_stage2,
        "pos_thr": config.pos_iou_thr_stage2,
        "neg_thr": config.neg_iou_thr_stage2,
        "stds": tuple(config.rcnn_target_stds),
        "means": tuple(config.rcnn_target_means),
        "offset": offset,
        "iou_offset": iou_offset,
        "low_quality": config.get("low_quality_stage2", False),     # a key of Mask R-CNN only
        "min_pos_iou": config.min_pos_iou_stage2,
    }


def build_detector(config) -> Detector:
    side = None if config.clip_after_nms else max(config.img_height, config.img_width)
    nms = ClassNms(config.test_iou_thr, config.num_classes - 1, side)
    return Detector(nms, config.rcnn_target_stds, config.rcnn_target_means, config.test_score_thr, config.test_max_per_img,
                    config.test_nms_pre, config.test_min_bbox_size, config.clamp_both_sides, config.box_offset,
                    config.box_max_log_ratio, config.clip_after_nms)


def build_proposals(config) -> tuple:
    """Return the proposal generators of training and of inference."""
    coding = {"stds": tuple(config.rpn_target_stds), "means": tuple(config.rpn_target_means),
              "clamp_both": config.clamp_both_sides, "offset": config.box_offset, "max_log_ratio": config.box_max_log_ratio,
              "cut_first": config.nms_across_levels_last, "filter_first": config.rpn_filter_first}
    train = ProposalGenerator((), config.rpn_proposal_nms_pre, config.rpn_proposal_nms_post, config.rpn_proposal_max_num,
                              config.rpn_proposal_nms_thr, config.rpn_proposal_min_bbox_size,
                              across_levels=config.rpn_proposal_nms_across_levels, **coding)
    test = ProposalGenerator((), config.rpn_nms_pre, config.rpn_nms_post, config.rpn_max_num, config.rpn_nms_thr,
                             config.rpn_min_bbox_min_size, across_levels=config.rpn_nms_across_levels, **coding)
    return train, test


def build_roi_align(config, out_size: int, fast: bool) -> RoiAlign:
    roi = config.roi_layer
    return RoiAlign(out_size, roi["sample_num"], config.roi_align_featmap_strides, config.roi_align_finest_scale, roi["aligned"],
                    config.roi_level_rule, fast)
