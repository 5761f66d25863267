"""Anchors against a loop and other frameworks."""
import numpy as np
import pytest

from faster_rcnn.src.FasterRcnn.anchor_generator import AnchorGenerator
from tests.parity_models import LEVELS, ParityModel, fixture_folders, label

STRIDES = (4, 8, 16, 32, 64)


def test_grid_matches_loop():
    generator = AnchorGenerator(scales=[4, 8], ratios=[0.5, 1.0, 2.0], strides=[4, 8], center_offset=0.5)
    shapes = [(3, 5), (2, 3)]
    expected = []
    for (height, width), stride in zip(shapes, (4, 8)):
        for y in range(height):
            for x in range(width):
                for ratio in (0.5, 1.0, 2.0):
                    for scale in (4, 8):
                        w = np.sqrt((scale * stride) ** 2 / ratio)
                        cx, cy = (x + 0.5) * stride, (y + 0.5) * stride
                        expected.append([cx - w / 2, cy - w * ratio / 2, cx + w / 2, cy + w * ratio / 2])
    got = generator.grid(shapes)
    assert got.dtype == np.float32
    assert generator.num_anchors == 6
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_rounded_base():
    """torchvision's anchors of 32 pixels: half sizes 22.6 and 11.3 become 23 and 11."""
    got = AnchorGenerator([8], [0.5, 1.0, 2.0], [4], round_base=True).grid([(1, 1)])
    np.testing.assert_array_equal(got, [[-23, -11, 23, 11], [-16, -16, 16, 16], [-11, -23, 11, 23]])


def test_old_anchors_count_the_last_pixel():
    """Old zoo: a base of 4 pixels around (1.5, 1.5) at scale 8 gives 32 pixels, from -14 to 17."""
    got = AnchorGenerator([8], [1.0], [4], round_base=True, center_offset=0.5, offset=1).grid([(1, 2)])
    np.testing.assert_array_equal(got, [[-14, -14, 17, 17], [-10, -14, 21, 17]])


def test_other_strides_move_the_cells_and_keep_the_sizes():
    generator = AnchorGenerator([8], [1.0], [4])
    got = generator.grid([(2, 2)], strides=[(3, 5)])
    np.testing.assert_array_equal(got[:, :2] + 16, [[0, 0], [5, 0], [0, 3], [5, 3]])
    np.testing.assert_array_equal(got[:, 2:] - got[:, :2], np.full((4, 2), 32))


def test_corners_are_in_the_order_of_the_anchors():
    generator = AnchorGenerator([8], [0.5, 1.0, 2.0], STRIDES[:2])
    shapes = [(3, 4), (2, 2)]
    anchors, corners = generator.grid(shapes), np.concatenate(generator.corners(shapes))
    np.testing.assert_allclose((anchors[:, :2] + anchors[:, 2:]) / 2, corners, atol=1e-5)


@pytest.mark.parametrize("folder", fixture_folders(masks=False), ids=label)
def test_anchors_parity(folder):
    model = ParityModel(folder)
    fixture, (generator, strides) = model.arrays, model.anchors()
    for name, anchors in zip(LEVELS, generator.levels(model.shapes, strides)):
        np.testing.assert_allclose(anchors[:50], fixture[f"anchors/{name}_first50"], atol=1e-4)
        np.testing.assert_allclose(anchors[-50:], fixture[f"anchors/{name}_last50"], atol=1e-4)
        total, absolute, *_, count = fixture[f"anchors/{name}_checksum"]
        assert anchors.size == count
        assert anchors.sum(dtype=np.float64) == pytest.approx(total, abs=1e-4 * absolute)
