"""Parity of gradients: activations within rounding of a border move to their float64 side, whatever the rounding."""
import numpy as np
import pytest
from mindspore import nn

from tests.numpy_layers import roi_align
from tests.relu_sides import CLEAR, Settler, windows

ROUNDING = 1e-6


class Layer(nn.Cell):
    """A layer with a convolution, as the Settler expects."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Cell()


def maps(seed):
    """(float32 map with rounding noise, exact float64 map), with values near 0 and near ties."""
    exact = np.random.default_rng(0).standard_normal((2, 3, 8, 8))
    exact[0, 0, :2, :4] = [[1e-7, 3e-7, 2.0, 2 + 2e-7], [-1e-7, -3e-7, 2 - 2e-7, 0]]
    noise = ROUNDING * np.random.default_rng(seed).standard_normal(exact.shape)
    return (exact + noise).astype(np.float32), exact


@pytest.mark.parametrize("seed", range(1, 6))
def test_sides_and_largest_are_those_of_float64(seed):
    settler, (mine, exact) = Settler(), maps(seed)
    settled, rectified = settler.relu(Layer(), mine, exact)
    np.testing.assert_array_equal(settled > 0, exact > 0)
    assert settled[settled > 0].min() > (CLEAR - 2) * ROUNDING
    assert 4 <= settler.moved < 10
    pooled, _ = settler.pool(Layer(), settled, rectified)
    some = windows(exact).max(-1) > 0
    np.testing.assert_array_equal(windows(pooled).argmax(-1)[some], windows(exact).argmax(-1)[some])
    np.testing.assert_allclose(pooled, rectified, atol=3 * CLEAR * ROUNDING)


def test_a_wrong_layer_is_not_taken_for_rounding():
    mine, exact = maps(1)
    with pytest.raises(AssertionError, match="layer 1"):
        Settler().relu(Layer(), mine * np.float32(1.001), exact)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("samples", [0, 2])
@pytest.mark.parametrize("bins", [7, 14])
def test_roi_align_in_float64(parity_file, aligned, samples, bins):
    """RoIAlign with stride 8 matches detectron2 and torchvision."""
    arrays = np.load(parity_file("op_fixtures.npz"))
    x, rois = arrays["roi_align/x"], arrays["roi_align/rois"]
    boxes = np.stack([rois[:, 1:] / 2] * len(x))
    got = roi_align([x], boxes, bins, aligned, samples, np.zeros_like).reshape(len(x), len(rois), -1, bins, bins)
    got = got[rois[:, 0].astype(int), np.arange(len(rois))]
    np.testing.assert_allclose(got, arrays[f"roi_align/aligned{int(aligned)}_sr{samples}_o{bins}/y"], atol=1e-5)
