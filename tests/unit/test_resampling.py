"""How often an image of a rare class is repeated."""
import numpy as np

from faster_rcnn.src.model_utils.data.resampling import occurrences, repeat_factors, resample


def test_factors_match_the_paper():
    """Classes occur in 8, 4, 1 and 0 of 16 images; at threshold 0.25 their factors are 1, 1, 2 and none."""
    present = np.zeros((16, 4), bool)
    present[:8, 0] = present[6:10, 1] = present[9, 2] = True
    expected = np.ones(16)
    expected[9] = 2
    np.testing.assert_allclose(repeat_factors(present, 0.25), expected)
    expected[:8], expected[6:10], expected[9] = 2 ** 0.5, 2, 4      # the largest factor of an image's classes
    np.testing.assert_allclose(repeat_factors(present, 1.0), expected)
    np.testing.assert_array_equal(repeat_factors(present[:, :0], 1.0), np.ones(16))


def test_images_repeat_as_often_as_their_factors_say():
    rng = np.random.default_rng(0)
    factors = 1 + rng.random(40) * rng.integers(0, 4, 40)
    factors *= round(factors.sum()) / factors.sum()     # a whole sum, which needs no rounding
    counts = [np.bincount(resample(factors, offset), minlength=40) for offset in np.arange(1000) / 1000]
    assert {count.sum() for count in counts} == {round(factors.sum())}
    assert (np.floor(factors) <= np.min(counts, 0)).all() and (np.max(counts, 0) <= np.ceil(factors)).all()
    np.testing.assert_allclose(np.mean(counts, 0), factors, atol=2e-3)
    assert occurrences(np.array([0, 0, 1, 3, 3, 3])).tolist() == [0, 1, 0, 0, 1, 2]
