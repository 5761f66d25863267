"""Outlines of masks: filled by a plain reference, they cover the pixels of the masks."""
import math

import numpy as np
import pytest
from pycocotools import mask as mask_utils

from mask_rcnn.src.mask_edges import PARTS, loop_edges, mask_edges, outline, simplified
from mask_rcnn.src.model_utils.data.render import Placement


def still(height, width) -> Placement:
    """Return the placement of an unchanged image."""
    return whole((height, width), (height, width), (height, width), (0, 0))


def whole(original, size, inner, corner, flip=False) -> Placement:
    """Return the placement of an image that is not cropped."""
    window = (0, 0, original[1], original[0])
    return Placement(original, window, window, size, inner, corner, flip_x=flip)


def fill(edges, height, width) -> np.ndarray:
    """Return (height, width) bool: pixels from whose centre a ray to the left crosses an odd number of a part's edges."""
    mask = np.zeros((height, width), bool)
    rows = np.arange(height)[:, None] + 0.5
    for part in range(PARTS):
        x0, y0, x1, y1 = edges[edges[:, 4] == part, :4].T.astype(np.float64)
        row, edge = np.nonzero((y0 <= rows) != (y1 <= rows))
        x = x0[edge] + (row + 0.5 - y0[edge]) * (x1 - x0)[edge] / (y1 - y0)[edge]
        crossings = np.zeros((height, width + 1), int)
        np.add.at(crossings, (row, np.clip(np.floor(x + 0.5), 0, width).astype(int)), 1)
        mask |= crossings.cumsum(1)[:, :width] % 2 == 1
    return mask


def runs_of(dense) -> dict:
    runs = mask_utils.encode(np.asfortranarray(dense, np.uint8))
    return {"size": list(dense.shape), "counts": runs["counts"].decode()}


def overlap(first, second) -> float:
    return (first & second).sum() / (first | second).sum()


def circle(x, y, radius, count) -> list:
    angles = np.arange(count) * 2 * math.pi / count
    return np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], 1).ravel().tolist()


def rectangle(x0, y0, x1, y1) -> list:
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def painted(height, width, *rectangles) -> np.ndarray:
    dense = np.zeros((height, width), bool)
    for x0, y0, x1, y1 in rectangles:
        dense[y0:y1, x0:x1] = True
    return dense


# ------------------------------------------------------------------------------------------------------------ polygons


def test_edges_of_a_triangle():
    """Resized to twice the width and three times the height, placed at (5, 7) of a canvas 100 pixels wide, and mirrored."""
    placed = whole((20, 20), (90, 100), (60, 40), (5, 7), flip=True)
    edges = mask_edges([[1, 2, 3, 4, 5, 6.5]], placed, 4)
    assert edges.dtype == np.float32
    a, b, c = (91, 11), (87, 17), (83, 24.5)
    assert edges.tolist() == [[*a, *b, 0], [*b, *c, 0], [*c, *a, 0], [0] * 5]


def test_a_polygon_is_filled_as_pycocotools_fills_it():
    rng = np.random.default_rng(0)
    for _ in range(20):
        count = int(rng.integers(3, 30))
        angles = np.sort(rng.uniform(0, 2 * math.pi, count))
        radii = rng.uniform(5, 28, count)
        points = np.stack([32 + radii * np.cos(angles), 30 + radii * np.sin(angles)], 1)
        polygon = points.ravel().tolist()
        got = fill(mask_edges([polygon], still(60, 64), 32), 60, 64)
        want = mask_utils.decode(mask_utils.merge(mask_utils.frPyObjects([polygon], 60, 64))).astype(bool)
        differing = np.argwhere(got != want)[:, ::-1] + 0.5
        # pycocotools rounds pixels on the outline differently.
        for centre in differing:
            assert distance(centre, points) < 0.75
        assert len(differing) < 0.1 * want.sum() + 12


def distance(point, points) -> float:
    starts, ends = points, np.roll(points, -1, axis=0)
    along = ((point - starts) * (ends - starts)).sum(1) / ((ends - starts) ** 2).sum(1)
    nearest = starts + np.clip(along, 0, 1)[:, None] * (ends - starts)
    return float(np.sqrt(((nearest - point) ** 2).sum(1)).min())


def test_polygons_are_united_and_do_not_cancel():
    squares = [(2, 2, 12, 12), (6, 6, 18, 16), (20, 1, 24, 5)]
    edges = mask_edges([rectangle(*square) for square in squares], still(20, 30), 16)
    assert edges[:12, 4].tolist() == [0] * 4 + [1] * 4 + [2] * 4 and not edges[12:].any()
    np.testing.assert_array_equal(fill(edges, 20, 30), painted(20, 30, *squares))


def test_many_polygons_share_the_last_part():
    squares = [(4 * k, k, 4 * k + 3, k + 4) for k in range(7)]
    edges = mask_edges([rectangle(*square) for square in squares], still(20, 30), 28)
    assert edges[::4, 4].tolist() == [0, 1, 2, 3, 3, 3, 3]
    np.testing.assert_array_equal(fill(edges, 20, 30), painted(20, 30, *squares))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("make", [lambda dense, polygons: polygons, lambda dense, polygons: runs_of(dense)])
def test_edges_follow_the_image(make, flip):
    """Three times as wide and twice as high, on a larger canvas, and optionally mirrored."""
    squares = [(2, 3, 9, 8), (5, 6, 14, 12)]
    dense = painted(16, 20, *squares)
    placed = whole((16, 20), (40, 70), (32, 60), (5, 3), flip)
    edges = mask_edges(make(dense, [rectangle(*square) for square in squares]), placed, 32)
    want = np.zeros((40, 70), bool)
    want[5:37, 3:63] = dense.repeat(2, 0).repeat(3, 1)
    got = fill(edges, 40, 70)
    assert overlap(got, want[:, ::-1] if flip else want) > 0.93     # outlines of run lengths are an eighth of a pixel inside
    assert (edges[:, :4].any(axis=1)).sum() <= 16


# --------------------------------------------------------------------------------------------------------- run lengths


def test_run_lengths_with_holes_islands_and_borders():
    """Every pixel is equal: the traced outline is less than half a pixel off."""
    dense = painted(40, 50, (0, 0, 30, 33), (44, 36, 50, 40), (35, 5, 36, 6), (38, 10, 39, 30))
    dense[5:25, 6:20] = False
    dense[10:15, 9:14] = True       # island in the hole
    dense[12, 11] = False           # hole of one pixel in the island
    edges = mask_edges(runs_of(dense), still(40, 50), 256)
    assert not edges[:, 4].any()
    np.testing.assert_array_equal(fill(edges, 40, 50), dense)


@pytest.mark.parametrize("density", [0.05, 0.5, 0.9])
def test_run_lengths_of_noise(density):
    """Single pixels, pixels that touch at a corner, holes of one pixel."""
    dense = np.random.default_rng(3).random((24, 31)) < density
    edges = loop_edges(outline(runs_of(dense)))
    np.testing.assert_array_equal(fill(edges, 24, 31), dense)


def test_run_lengths_of_a_large_object_are_not_enlarged():
    dense = np.zeros((1500, 1400), bool)
    dense[100:1400, 50:1300] = True
    ((part, points),) = outline(runs_of(dense))
    assert part == 0 and len(points) == 4
    np.testing.assert_allclose([points.min(0), points.max(0)], [[50, 100], [1300, 1400]], atol=0.5)
    line = np.zeros((1500, 1400), bool)
    np.fill_diagonal(line[:, :1400], True)      # tracing leaves nothing, so its box replaces it
    assert [points.tolist() for _, points in outline(runs_of(line))] == [[[0, 0], [1400, 0], [1400, 1400], [0, 1400]]]


# ---------------------------------------------------------------------------------------------------------- simplified


@pytest.mark.parametrize("count, capacity, least", [(2000, 256, 0.99), (2000, 64, 0.98), (2000, 16, 0.93), (65, 64, 0.98)])
def test_long_outlines_are_simplified(count, capacity, least):
    polygon = circle(50, 45, 40, count)
    exact = fill(loop_edges(outline([polygon])), 90, 100)
    edges = mask_edges([polygon], still(90, 100), capacity)
    used = edges[:, :4].any(axis=1)
    assert edges.shape == (capacity, 5) and 8 < used.sum() <= capacity
    assert not used[used.sum():].any()
    assert overlap(fill(edges, 90, 100), exact) > least


def test_outlines_that_fit_are_unchanged():
    polygon = circle(20, 20, 15, 64)
    edges = mask_edges([polygon], still(40, 40), 64)
    np.testing.assert_allclose(edges[:, :2], np.reshape(polygon, (-1, 2)), rtol=1e-6)
    np.testing.assert_array_equal(edges[:, 2:4], np.roll(edges[:, :2], -1, axis=0))


def test_small_loops_are_dropped_first():
    """Of a large loop and 30 specks, the large loop stays."""
    specks = [circle(5 + 6 * k, 95, 0.4, 8) for k in range(15)] + [circle(5 + 6 * k, 85, 0.4, 8) for k in range(15)]
    body = circle(50, 40, 30, 40)
    edges = mask_edges([body, *specks], still(100, 100), 48)
    exact = fill(loop_edges(outline([body])), 100, 100)
    assert overlap(fill(edges, 100, 100), exact) > 0.97


@pytest.mark.parametrize("capacity", [4, 5, 16])
def test_what_cannot_be_simplified_becomes_its_box(capacity):
    """All specks have the same size, so simplification drops them all at once."""
    specks = [circle(5 + 6 * k, 9, 0.3, 3) for k in range(20)]
    loops = outline(specks)
    ((part, points),) = simplified(loops, capacity)
    everything = np.concatenate([points for _, points in loops])
    low, high = everything.min(0), everything.max(0)
    assert part == 0 and points.tolist() == [[*low], [high[0], low[1]], [*high], [low[0], high[1]]]


def test_the_outline_of_a_comb_fits():
    """The teeth are thinner than the tolerance of the simplification."""
    teeth = [value for k in range(200) for value in (k / 4, 10 + k % 2)]
    polygon = [*teeth, 50.0, 12.0, 0.0, 12.0]
    edges = mask_edges([polygon], still(20, 60), 8)
    assert 3 <= edges[:, :4].any(axis=1).sum() <= 8 and fill(edges, 20, 60).sum() > 20
