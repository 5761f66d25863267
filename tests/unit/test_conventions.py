"""The presets of `convention`: the keys they set, what overrides what, and that the network follows each key."""
import numpy as np
import pytest
from mindspore import Tensor
from pycocotools import mask as coco_mask

from faster_rcnn.src.FasterRcnn.faster_rcnn import build_network
from faster_rcnn.src.FasterRcnn.key_rules import PRESETS
from faster_rcnn.src.model_utils.config import InputError, load_config, parse_config, save_config
from faster_rcnn.src.model_utils.data.loading import build_preprocess
from faster_rcnn.src.model_utils.evaluation.detections import config_categories
from mask_rcnn.src.model import mask_encoder
from mask_rcnn.src.model_utils.config import load_config as load_mask_config
from tests.narrow_network import narrow_config, narrow_mask_config

CONVENTIONS = PRESETS["convention"]
NAMES = list(CONVENTIONS)


def test_presets_set_the_same_keys():
    """Only the old zoo and mindspore-lab set further keys."""
    first = set(CONVENTIONS["torchvision"])
    more = {name: set(preset) - first for name, preset in CONVENTIONS.items() if set(preset) != first}
    assert all(first <= set(preset) for preset in CONVENTIONS.values())
    assert more["zoo"] == {"stem_pool_padding"} and more["mslab"] > more["zoo"] and set(more) == {"zoo", "mslab"}
    every = first | more["mslab"]
    assert every - set(load_config()) == {"mask_paste", "mask_from_proposal", "mask_target", "low_quality_stage2"}
    assert every <= set(load_mask_config())
    default = load_mask_config()
    assert not [key for key in more["mslab"] - {"test_max_per_img"} if default[key] == CONVENTIONS["mslab"][key]]


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_sets_its_keys(name):
    config = load_mask_config(overrides={"convention": name})
    for key, value in CONVENTIONS[name].items():
        if isinstance(value, dict):
            assert {part: config[key][part] for part in value} == value and config[key]["out_size"] == 7
        else:
            assert config[key] == (tuple(value) if isinstance(value, list) else value), key


def test_presets_differ_where_the_frameworks_do():
    """Any two frameworks differ in at least 8 keys."""
    differing = {(a, b): sum(CONVENTIONS[a][key] != CONVENTIONS[b][key] for key in CONVENTIONS["torchvision"])
                 for a in NAMES for b in NAMES if a < b}
    assert min(differing.values()) >= 8, differing


def test_a_run_keeps_what_it_had_before_a_key_existed(tmp_path):
    """Without stem_pool_padding, the config.yaml of an older run keeps both, and that of converted weights takes the preset's."""
    for name, left_out, padding in (("run", ("resume", "stem_pool_padding"), "both"), ("converted", (), "same")):
        file = tmp_path / f"{name}.yaml"
        save_config(load_config(overrides={"convention": "zoo", "stem_pool_padding": "same"}), file, left_out)
        lines = [line for line in file.read_text().splitlines(True) if not line.startswith("stem_pool_padding")]
        file.write_text("".join(lines))
        assert load_config(file).stem_pool_padding == padding
        assert load_config(file, {"stem_pool_padding": "same"}).stem_pool_padding == "same"


def test_keys_of_the_same_source_override_the_preset(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("norm_eps: 0.0\nconvention: torchvision\nroi_layer: {sample_num: 3}\n")
    config = load_config(file)
    assert (config.norm_eps, config.roi_layer.sample_num, config.roi_layer.aligned) == (0.0, 3, False)
    assert config.anchor_rounding and config.convention == "torchvision"


def test_a_preset_overrides_earlier_sources_and_yields_to_later_ones(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("convention: detectron2\nnorm_eps: 0.1\nimg_width: 640\n")
    config = parse_config(["--config_path", str(file), "--convention=mmdet", "--min_pos_iou=0.2"])
    assert (config.norm_eps, config.to_rgb, config.min_pos_iou, config.img_width) == (1e-5, True, 0.2, 640)
    derived = tmp_path / "derived.yaml"
    derived.write_text("__BASE__: own.yaml\nto_rgb: True\n")
    config = load_config(derived)
    assert config.to_rgb and config.stride_in_1x1 and config.norm_eps == 0.1


def test_default_resets_everything(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("convention: torchvision\n")
    config = parse_config(["--config_path", str(file), "--convention=default"])
    assert config == load_config()


def test_a_preset_keeps_keys_outside_it_and_the_previous_preset(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("stem_pool_padding: same\ntest_max_per_img: 50\n")
    config = parse_config(["--config_path", str(file), "--convention=torchvision"])
    assert (config.stem_pool_padding, config.test_max_per_img) == ("same", 50)
    file.write_text("convention: mslab\n")
    config = parse_config(["--config_path", str(file), "--convention=torchvision"])
    assert config == load_config(overrides={"convention": "torchvision"})


def test_unknown_convention_is_refused():
    expected = "default, torchvision, detectron2, mmdet, zoo, mslab"
    with pytest.raises(InputError, match=f"--convention: expected one of {expected}, got 'keras'"):
        parse_config(["--convention=keras"])


@pytest.mark.parametrize("name", NAMES)
def test_the_network_obeys(name):
    """The network holds the value of each key of the preset."""
    preset = CONVENTIONS[name]
    config = narrow_config(convention=name, **{key: preset[key] for key in ("train_norm", "frozen_stages")})
    net = build_network(config)
    block = net.backbone.layer2[0]
    assert block.conv1.conv.direct.stride[-1] == (2 if preset["stride_in_1x1"] else 1)
    assert block.conv2.conv.direct.stride[-1] == (1 if preset["stride_in_1x1"] else 2)
    assert block.conv1.eps == preset["norm_eps"] and block.conv1.gamma.requires_grad == preset["train_norm"]
    assert (net.roi_align.sample_num, net.roi_align.aligned) == tuple(preset["roi_layer"].values())
    assert net.roi_align.rule["offset"] == preset["box_offset"]
    assert net.betas == (preset["rpn_smooth_l1_beta"], preset["rcnn_smooth_l1_beta"])
    assert net.matching["low_quality_takes_gt"] == preset["low_quality_takes_gt"]
    for part in (net.train_proposals, net.test_proposals, net.detector):
        assert (part.clamp_both, part.offset) == (preset["clamp_both_sides"], preset["box_offset"])
    assert net.test_proposals.min_size == preset["rpn_min_bbox_min_size"]
    assert net.detector.min_size == preset["test_min_bbox_size"]
    assert net.own_divisor == (0 if preset["anchors_in_padding"] else 32)
    assert (net.backbone.pool_padding, net.neck.bilinear) == (config.stem_pool_padding, config.fpn_upsample == "bilinear")
    assert net.matching["offset"] == max(preset["box_offset"], config.iou_offset) == net.roi_sampling["iou_offset"]
    for part in (net.train_proposals, net.test_proposals):
        assert part.across_levels == part.cut_first == part.filter_first == (name == "mslab")
        assert part.max_log_ratio == net.detector.max_log_ratio == config.box_max_log_ratio
    mslab = name == "mslab"
    assert (net.clip_to_input, net.scaled_limits, net.detector.clip_last, net.detector.nms.clipped) == (mslab,) * 3 + (not mslab,)
    assert (net.losses_added, net.anchor_sampling["num_neg"]) == ((1e-4, 128) if mslab else (0.0, 0))
    preprocess = build_preprocess(config)
    assert preprocess.size.exact_scale == mslab and preprocess.blank((8, 8)).any() == mslab
    assert (preprocess.resize_mode, preprocess.size.rounding) == (preset["resize_mode"], preset["size_rounding"])


def test_anchors_follow_the_convention():
    """Anchors of a 32 x 32 map of stride 4 and a 3 x 3 map of stride 64 in an image of 128 x 128 pixels."""
    def anchors(**overrides):
        levels = build_network(narrow_config(**overrides)).anchors(((32, 32), (16, 16), (8, 8), (4, 4), (3, 3)), (128, 128))
        return [level.asnumpy() for level in levels]

    plain, torchvision, zoo = anchors(), anchors(convention="torchvision"), anchors(convention="zoo")
    np.testing.assert_allclose(plain[0][1], [-16, -16, 16, 16])
    np.testing.assert_allclose(plain[0][0], [-22.627417, -11.313708, 22.627417, 11.313708], rtol=1e-6)
    np.testing.assert_array_equal(torchvision[0][0], [-23, -11, 23, 11])
    np.testing.assert_array_equal(torchvision[4][3] - torchvision[4][0], [42, 0, 42, 0])      # 128 // 3, not 64
    np.testing.assert_array_equal(plain[4][3] - plain[4][0], [64, 0, 64, 0])
    np.testing.assert_array_equal(zoo[0][1], [-14, -14, 17, 17])    # 32 pixels around 1.5, both ends included


def test_anchors_outside_an_image_are_invalid():
    """The second image is 60 x 100, so its cells end at 64 x 128."""
    net = build_network(narrow_config(convention="mmdet"))
    shapes = ((32, 48), (16, 24), (8, 12), (4, 6), (2, 3))
    image = np.zeros((2, 3, 128, 192))
    sizes = Tensor(np.array([[128, 192], [60, 100]], np.float32))
    own = net.valid_anchors(shapes, image, sizes).asnumpy()
    assert own[0].all()
    cells = own[1].reshape(-1, 3)
    start = 0
    for (height, width), stride in zip(shapes, (4, 8, 16, 32, 64)):
        level = cells[start:start + height * width, 0].reshape(height, width)
        rows, columns = -(-64 // stride), -(-128 // stride)
        assert level[:rows, :columns].all() and level.sum() == rows * columns
        start += height * width
    assert build_network(narrow_config()).valid_anchors(shapes, image, sizes) is None


def test_masks_are_pasted_by_the_convention():
    masks, boxes = np.ones((1, 28, 28), np.float32), [[10.4, 10.4, 20.4, 20.4]]
    areas = {}
    for name in ("detectron2", "torchvision"):
        areas[name] = coco_mask.area(mask_encoder(narrow_mask_config(convention=name))(masks, boxes, 40, 40))[0]
    assert areas["detectron2"] == 100 and areas["torchvision"] != 100


@pytest.mark.parametrize("name, first", [("detectron2", 0), ("mmdet", 0), ("torchvision", 1), ("default", 1)])
def test_ids_of_classes_without_names(name, first):
    config = narrow_config(convention=name, coco_classes=[])
    assert [item["id"] for item in config_categories(config)] == list(range(first, first + 3))
    assert [item["id"] for item in config_categories(load_config(overrides={"convention": name}))][-1] == 90
