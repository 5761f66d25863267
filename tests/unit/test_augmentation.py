"""Colours that are shifted, and what is drawn for a picture: chances, ranges, limits."""
from dataclasses import replace

import cv2
import numpy as np
import pytest

from faster_rcnn.src.augmentation import Augmentation, Augmenter
from faster_rcnn.src.model_utils.data.transforms import shift_colours
from tests.unit.test_transforms import picture


def test_colours_shift_as_told():
    image = picture(20, 30)
    np.testing.assert_array_equal(shift_colours(image, 0, 1, 1, 0), image)
    np.testing.assert_array_equal(shift_colours(image, 10, 1.5, 1, 0), np.clip(np.round(image * 1.5 + 10), 0, 255))
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    np.testing.assert_array_equal(shift_colours(grey, 0, 1, 1.4, 9), grey)       # nothing to saturate or to turn
    red = np.array([[[0, 0, 255]]], np.uint8)
    assert shift_colours(red, 0, 1, 1, 60).tolist() == [[[0, 255, 0]]]           # 120 degrees on: green
    assert shift_colours(red, 0, 1, 1, -60).tolist() == [[[255, 0, 0]]]
    np.testing.assert_allclose(shift_colours(red, 0, 1, 0.5, 0), [[[127, 127, 255]]], atol=1)


def test_draws_keep_their_chances_and_ranges():
    augmenter = Augmenter(flip_ratio=0.3, expand_ratio=2.0, photo_ratio=0.25, multi_scale=(0.5, 1.0))
    draws = [augmenter.draw(np.random.default_rng([7, i])) for i in range(2000)]
    assert abs(np.mean([d.flip for d in draws]) - 0.3) < 0.04                    # 4 standard deviations
    assert abs(np.mean([bool(d.colours) for d in draws]) - 0.25) < 0.04
    assert abs(np.mean([d.factor == 0.5 for d in draws]) - 0.5) < 0.045 and {d.factor for d in draws} == {0.5, 1.0}
    expands = np.array([d.expand for d in draws])
    assert abs(np.mean(expands == 1) - 0.5) < 0.045 and expands.min() >= 1 and 1.95 < expands.max() <= 2
    colours = np.array([d.colours for d in draws if d.colours])
    np.testing.assert_allclose(colours.min(0), [-32, 0.5, 0.5, -9], atol=1.0)
    np.testing.assert_allclose(colours.max(0), [32, 1.5, 1.5, 9], atol=1.0)
    idle = [Augmenter().draw(np.random.default_rng(i)) for i in range(9)]
    assert {replace(what, corner=(0.0, 0.0)) for what in idle} == {Augmentation()}


def test_one_switch_leaves_the_other_draws_alone():
    both = Augmenter(flip_ratio=0.5, photo_ratio=1.0, expand_ratio=3.0, multi_scale=(0.7, 0.8, 0.9))
    alone = Augmenter(flip_ratio=0.5)
    flips = [[a.draw(np.random.default_rng([1, i])).flip for i in range(50)] for a in (both, alone)]
    assert flips[0] == flips[1] and 0 < sum(flips[0]) < 50


def test_factors_above_the_input_are_refused():
    with pytest.raises(ValueError, match="multi_scale.*1.2"):
        Augmenter(multi_scale=(1.0, 1.2))
