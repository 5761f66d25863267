# Same as faster_rcnn/src/FasterRcnn/cpp_settings.py
"""Settings that the C++ program of ascend310_infer needs to run a two-stage detector."""


def program_settings(config) -> dict:
    """Return {name: value} of the settings that the program needs besides the size and normalisation of the images."""
    from .roi_align import LEVEL_RULES

    rule, roi = LEVEL_RULES[config.roi_level_rule], config.roi_layer
    levels = range(1, len(config.roi_align_featmap_strides))
    keys = ("test_score_thr", "test_iou_thr", "test_nms_pre", "test_min_bbox_size", "test_max_per_img", "rpn_nms_pre",
            "rpn_nms_post", "rpn_max_num", "rpn_nms_thr", "rpn_nms_across_levels", "rpn_min_bbox_min_size", "box_offset",
            "rpn_clip", "rpn_filter_first", "nms_across_levels_last", "clip_after_nms")
    masks = {key: config[key] for key in ("mask_thr_binary", "mask_paste", "mask_from_proposal") if key in config}
    if masks:
        masks["mask_out_size"] = roi["mask_out_size"]
    return {**{key: config[key] for key in keys}, **masks,
            "roi_out_size": roi["out_size"], "roi_sample_num": roi["sample_num"], "roi_aligned": roi["aligned"],
            "roi_strides": config.roi_align_featmap_strides, "roi_unit": config.roi_align_finest_scale * rule["size"],
            "roi_inside": rule["inside"], "roi_offset": rule["offset"],
            "roi_borders": tuple(2.0 ** (level - rule["first"] - rule["outside"]) for level in levels)}
