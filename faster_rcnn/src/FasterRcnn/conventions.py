"""Presets of the key `convention`: the details in which frameworks differ and on which their trained weights depend.

Read from the sources of torchvision 0.28, detectron2 0.6, mmdet 3.3, MindSpore's model zoo up to 1.9, and mindspore-lab's models of
February 2026 (official/cv/RCNN). Keys that a preset does not name keep their defaults. convert_checkpoint.py writes a configuration
beside weights that differ from their framework's default (another width, other thresholds).
"""

_RGB = {"to_rgb": True, "image_mean": [123.675, 116.28, 103.53], "image_std": [58.395, 57.12, 57.375]}
_BGR = {"to_rgb": False, "image_mean": [103.53, 116.28, 123.675], "image_std": [1.0, 1.0, 1.0]}

CONVENTIONS = {
    "torchvision": {
        # torchvision resizes floats before it normalises; normalising first gives the same.
        **_RGB, "resize_mode": "float", "size_rounding": "floor",
        "stride_in_1x1": False, "norm_eps": 1e-5, "frozen_stages": 2, "train_norm": False,
        "anchor_strides_from_size": True, "anchor_rounding": True, "anchor_center_offset": 0.0, "anchors_in_padding": True,
        "box_offset": 0, "clamp_both_sides": False,
        "min_pos_iou": 0.0, "low_quality_takes_gt": False, "low_quality_stage2": False,
        "rpn_proposal_min_bbox_size": 1e-3, "rpn_min_bbox_min_size": 1e-3, "rpn_proposal_max_num": 2000,
        "roi_layer": {"sample_num": 2, "aligned": False}, "roi_level_rule": "torchvision",
        "rpn_smooth_l1_beta": 1 / 9, "rcnn_smooth_l1_beta": 1 / 9,
        "test_min_bbox_size": 1e-2, "mask_paste": "truncated", "first_category_id": 1,
    },
    "detectron2": {
        **_BGR, "resize_mode": "pillow", "size_rounding": "nearest",
        "stride_in_1x1": True, "norm_eps": 1e-5, "frozen_stages": 2, "train_norm": False,
        "anchor_strides_from_size": False, "anchor_rounding": False, "anchor_center_offset": 0.0, "anchors_in_padding": True,
        "box_offset": 0, "clamp_both_sides": False,
        "min_pos_iou": 0.0, "low_quality_takes_gt": False, "low_quality_stage2": False,
        "rpn_proposal_min_bbox_size": 0.0, "rpn_min_bbox_min_size": 0.0, "rpn_proposal_max_num": 1000,
        "roi_layer": {"sample_num": 0, "aligned": True}, "roi_level_rule": "detectron2",
        "rpn_smooth_l1_beta": 0.0, "rcnn_smooth_l1_beta": 0.0,
        "test_min_bbox_size": 0.0, "mask_paste": "grid", "first_category_id": 0,
    },
    "mmdet": {
        **_RGB, "resize_mode": "opencv", "size_rounding": "nearest",
        "stride_in_1x1": False, "norm_eps": 1e-5, "frozen_stages": 2, "train_norm": True,
        "anchor_strides_from_size": False, "anchor_rounding": False, "anchor_center_offset": 0.0, "anchors_in_padding": False,
        "box_offset": 0, "clamp_both_sides": True,
        "min_pos_iou": 0.3, "low_quality_takes_gt": True, "low_quality_stage2": True,
        "rpn_proposal_min_bbox_size": 0.0, "rpn_min_bbox_min_size": 0.0, "rpn_proposal_max_num": 1000,
        "roi_layer": {"sample_num": 0, "aligned": True}, "roi_level_rule": "mmdet",
        "rpn_smooth_l1_beta": 0.0, "rcnn_smooth_l1_beta": 0.0,
        "test_min_bbox_size": 0.0, "mask_paste": "grid", "first_category_id": 0,
    },
    "zoo": {
        **_RGB, "resize_mode": "opencv", "size_rounding": "nearest",
        "stride_in_1x1": False, "norm_eps": 1e-5, "frozen_stages": 2, "train_norm": False,
        # Boxes include their last pixel.
        "anchor_strides_from_size": False, "anchor_rounding": True, "anchor_center_offset": 0.5, "anchors_in_padding": True,
        "box_offset": 1, "clamp_both_sides": True,
        "min_pos_iou": 0.3, "low_quality_takes_gt": True, "low_quality_stage2": True,
        "rpn_proposal_min_bbox_size": 0.0, "rpn_min_bbox_min_size": 0.0, "rpn_proposal_max_num": 2000,
        "roi_layer": {"sample_num": 2, "aligned": False}, "roi_level_rule": "zoo",
        "rpn_smooth_l1_beta": 1 / 9, "rcnn_smooth_l1_beta": 1.0,
        "test_min_bbox_size": 0.0, "mask_paste": "grid", "first_category_id": 1,
        "stem_pool_padding": "same",
    },
    "mslab": {
        **_RGB, "resize_mode": "area", "size_rounding": "even", "scale_rule": "factor", "pad_black": True,
        "stride_in_1x1": False, "norm_eps": 1e-5, "frozen_stages": 2, "train_norm": True, "norm_statistics": "batch",
        "stem_pool_padding": "same", "fpn_upsample": "bilinear",
        "anchor_strides_from_size": False, "anchor_rounding": False, "anchor_center_offset": 0.0, "anchors_in_padding": True,
        # The last pixel counts in the IoU, but not in the box coder.
        "box_offset": 0, "iou_offset": 1, "clamp_both_sides": False, "box_max_log_ratio": 4.0,
        "min_pos_iou": 0.0, "low_quality_takes_gt": False, "low_quality_stage2": False,
        "max_negative_anchors": 128, "num_expected_neg_stage2": 384,
        # "Larger than 1 pixel"; training's filter also holds in inference.
        "rpn_proposal_min_bbox_size": 1.0000001, "rpn_min_bbox_min_size": 1.0000001, "rpn_filter_first": True, "rpn_clip": "input",
        "rpn_proposal_nms_across_levels": True, "rpn_nms_across_levels": True, "nms_across_levels_last": True,
        "rpn_proposal_max_num": 1000, "rpn_nms_pre": 2000, "rpn_nms_post": 2000,
        "roi_layer": {"sample_num": 2, "aligned": False}, "roi_level_rule": "mslab",
        "rpn_smooth_l1_beta": 1.0, "rcnn_smooth_l1_beta": 1.0, "loss_divisor_eps": 1e-4,
        # mindspore-lab has no limit; this network needs a fixed number of slots.
        "test_min_bbox_size": 0.0, "test_max_per_img": 300, "clip_after_nms": True, "keep_empty_boxes": True,
        "mask_target": "bitmap", "mask_paste": "rounded", "mask_from_proposal": True, "first_category_id": 1,
    },
}
