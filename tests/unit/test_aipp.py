"""The file for Ascend's preprocessing: it normalises pixels as the network's preprocessing does."""
import re

import numpy as np
import pytest

from faster_rcnn.src.model_utils.config import load_config
from faster_rcnn.src.model_utils.data.loading import build_preprocess
from faster_rcnn.src.model_utils.inference.aipp import aipp_text
from refinedet.src.model_utils.config import load_config as load_refinedet_config


def settings(config, height=64, width=96) -> dict:
    text = aipp_text(config, height, width)
    assert re.fullmatch(r"#.*\naipp_op \{\n( {4}\w+: \S+\n)+\}\n", text)
    return dict(re.findall(r"^ {4}(\w+): (\S+)$", text, re.M))


def test_literals_of_the_old_zoo():
    """The old zoo's Mask R-CNN has these values."""
    found = settings(load_config())
    assert [found[f"min_chn_{i}"] for i in range(3)] == ["123.675", "116.28", "103.53"]
    assert [float(found[f"var_reci_chn_{i}"]) for i in range(3)] == pytest.approx(
        [0.0171247538316637, 0.0175070028011204, 0.0174291938997821], rel=1e-8)
    assert (found["input_format"], found["rbuv_swap_switch"]) == ("RGB888_U8", "false")
    assert (found["src_image_size_w"], found["src_image_size_h"]) == ("96", "64")


@pytest.mark.parametrize("config", [
    load_config(), load_config(overrides={"convention": "detectron2"}), load_refinedet_config()], ids=["ours", "bgr", "refinedet"])
def test_pixels_equal_those_of_the_preprocessing(config):
    found = settings(config)
    rgb = np.array([10, 120, 250], np.float64)
    channels = rgb[::-1] if found["rbuv_swap_switch"] == "true" else rgb
    got = [(value - float(found[f"min_chn_{i}"])) * float(found[f"var_reci_chn_{i}"]) for i, value in enumerate(channels)]
    image, _ = build_preprocess(config)(np.full((32, 32, 3), rgb[::-1], np.uint8))      # takes blue, green, red
    np.testing.assert_allclose(got, image[:, 0, 0], atol=1e-4)
