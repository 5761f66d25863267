"""RoIAlign against a loop in numpy (values and gradient), other frameworks, and its ONNX export."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from faster_rcnn.src.FasterRcnn import roi_align, roi_pool
from faster_rcnn.src.FasterRcnn.roi_align import RoiAlign
from tests.parity_models import ParityModel, fixture_folders, label

pytestmark = pytest.mark.usefixtures("eager")

STRIDES = (4, 8, 16)
SHAPES = [(20, 26), (10, 13), (5, 7)]


def pyramid(rng, channels=3, images=2):
    return [rng.standard_normal((images, channels, h, w)).astype(np.float32) for h, w in SHAPES]


def odd_rois():
    """RoIs (12, 4): inside, across the border, outside, empty, smaller than a cell, long and thin, the whole image."""
    rois = [[10, 12, 40, 50], [-15, -9, 30, 22], [90, 60, 130, 99], [300, 300, 340, 350], [0, 0, 0, 0],
            [50, 20, 50, 60], [33.3, 21.7, 33.9, 22.1], [2, 30, 102, 36], [40, 0, 46, 80], [0, 0, 104, 80],
            [8, 8, 48, 48], [-200, -100, 300, 200]]
    return np.array(rois, np.float32)


def level_of(roi, finest=20.0):
    side = np.sqrt(np.maximum(roi[2] - roi[0], 0) * np.maximum(roi[3] - roi[1], 0))
    return int(np.clip(np.floor(np.log2(side / finest + 1e-6)), 0, len(STRIDES) - 1))


def taps(start, size, length, bins, samples):
    """Per bin, the (cell, weight) pairs of its samples on the map, along one axis."""
    count = samples or int(np.ceil(size / bins))
    out = []
    for b in range(bins):
        cells = []
        for s in range(count):
            point = start + size / bins * (b + (s + 0.5) / count)
            if -1 <= point <= length:
                point = min(max(point, 0), length - 1)
                low = int(point)
                cells += [(low, (1 - point + low) / count), (min(low + 1, length - 1), (point - low) / count)]
        out.append(cells)
    return out


def naive(features, rois, out_size, samples, aligned, gradient=None):
    """float64 (N*R, C, S, S); given an upstream gradient of that shape, the gradients of the features."""
    n, r, _ = rois.shape
    out = np.zeros((n * r, features[0].shape[1], out_size, out_size))
    grads = [np.zeros(level.shape) for level in features]
    for m in range(n * r):
        roi = rois.reshape(-1, 4)[m].astype(np.float64)
        level = level_of(roi)
        corner = roi / STRIDES[level] - (0.5 if aligned else 0)
        size = np.maximum(corner[2:] - corner[:2], 0 if aligned else 1)
        height, width = SHAPES[level]
        ys, xs = (taps(corner[k], size[k], length, out_size, samples) for k, length in ((1, height), (0, width)))
        for i, j in np.ndindex(out_size, out_size):
            for y, wy in ys[i]:
                for x, wx in xs[j]:
                    out[m, :, i, j] += wy * wx * features[level][m // r, :, y, x]
                    if gradient is not None:
                        grads[level][m // r, :, y, x] += wy * wx * gradient[m, :, i, j]
    return out if gradient is None else grads


def value_and_gradient(net, features, rois, upstream):
    """Output, and gradient of sum(output * upstream) with respect to each level."""
    def loss(rois, upstream, *levels):
        out = net(levels, rois)
        return (out * upstream).sum(), out

    compiled = ms.jit(ms.value_and_grad(loss, tuple(range(2, 2 + len(features))), has_aux=True))
    (_, out), grads = compiled(Tensor(rois), Tensor(upstream), *map(Tensor, features))
    return out.asnumpy(), [grad.asnumpy() for grad in (grads if isinstance(grads, tuple) else (grads,))]


@pytest.mark.parametrize("out_size, samples, aligned, parts", [
    (3, 2, True, 1),        # 12 x 12 cells: gathers sampling points
    (3, 2, False, 5),       # the same in several parts
    (14, 2, True, 1),       # 56 x 56 exceeds a level's cells: gathers windows
    (3, 0, True, 5),
    (3, 0, False, 1),
])
@pytest.mark.parametrize("fast", [False, True])
def test_matches_loop(monkeypatch, out_size, samples, aligned, parts, fast):
    rng = np.random.default_rng(0)
    features, rois = pyramid(rng), odd_rois()
    rois = np.stack([rois, rois[::-1] + np.float32(0.37)])
    if parts > 1:
        monkeypatch.setattr(roi_pool, "BYTES_AT_ONCE", 4 * 3 * 144 * 24 // parts)
    upstream = rng.standard_normal((24, 3, out_size, out_size)).astype(np.float32)
    net = RoiAlign(out_size, samples, STRIDES, finest_scale=20, aligned=aligned, fast=fast)
    out, grads = value_and_gradient(net, features, rois, upstream)
    np.testing.assert_allclose(out, naive(features, rois, out_size, samples, aligned), atol=2e-5)
    for got, expected in zip(grads, naive(features, rois, out_size, samples, aligned, upstream)):
        np.testing.assert_allclose(got, expected, atol=1e-4)


def test_any_shape_fits_into_the_window():
    """RoIs of all shapes with an area just below their level's limit; a window with too few cells would lose samples."""
    rng = np.random.default_rng(1)
    features, rois = pyramid(rng, images=1), []
    for area in (39.9 ** 2, 79.9 ** 2, 19.0 ** 2):
        for width in np.linspace(area / 80, 104, 40):
            corner = rng.uniform(0, 1, 2) * [104 - width, max(80 - area / width, 0)]
            rois.append([*corner, *(corner + [width, area / width])])
    rois = np.array(rois, np.float32)[None]
    net = RoiAlign(7, 0, STRIDES, finest_scale=20)
    out = ms.jit(net)(tuple(map(Tensor, features)), Tensor(rois)).asnumpy()
    np.testing.assert_allclose(out, naive(features, rois, 7, 0, True), atol=2e-5)


@pytest.mark.parametrize("shapes, limit, expected", [
    ([(20, 30)], np.inf, 600),                  # the last level: all cells
    ([(192, 320)], 28.0, 5 * 320),              # RoIs higher than 2 cells read 5 rows and may be 392 wide
    ([(8, 8)], 28.0, 64),
])
def test_window_cells(shapes, limit, expected):
    assert roi_align.window_cells(tuple(shapes), (limit,)) == expected


def test_shift_of_image_and_box():
    """Moving features and box by whole cells changes nothing."""
    rng = np.random.default_rng(2)
    feature = np.zeros((1, 4, 24, 24), np.float32)
    feature[:, :, 4:14, 4:14] = rng.standard_normal((1, 4, 10, 10))
    net = ms.jit(RoiAlign(7, 0, (8,)))
    rois = np.array([[[50.3, 47.1, 93.7, 88.2]]], np.float32)
    first = net((Tensor(feature),), Tensor(rois)).asnumpy()
    moved = rois + np.array([24, 40, 24, 40], np.float32)
    second = net((Tensor(np.roll(feature, (5, 3), (2, 3))),), Tensor(moved)).asnumpy()
    np.testing.assert_allclose(first, second, atol=1e-5)
    assert np.abs(first).max() > 0.1


def test_no_gradient_reaches_the_rois_and_the_result_repeats():
    rng = np.random.default_rng(3)
    feature, rois = rng.standard_normal((1, 2, 10, 13)).astype(np.float32), odd_rois()[None]
    net = RoiAlign(3, 2, (8,))

    def loss(rois, feature):
        out = net((feature,), rois)
        return out.sum(), out

    run = ms.jit(ms.value_and_grad(loss, 0, has_aux=True))
    results = [run(Tensor(rois), Tensor(feature)) for _ in range(3)]
    assert (results[0][1].asnumpy() == 0).all()
    outs = [out.asnumpy() for (_, out), _ in results]
    np.testing.assert_array_equal(outs[0], outs[1])
    np.testing.assert_array_equal(outs[0], outs[2])
    empty = np.broadcast_to(feature[0, :, :1, :1], (2, 3, 3))                      # of RoI (0, 0, 0, 0)
    np.testing.assert_array_equal(outs[0][4], empty)


@pytest.mark.slow
@pytest.mark.parametrize("samples", [0, 2])
def test_onnx_equals_mindspore(tmp_path, samples):
    import onnxruntime

    class TwoLevels(nn.Cell):
        """Takes tensors instead of a list, as an export requires."""

        def __init__(self):
            super().__init__()
            self.align = RoiAlign(7, samples, STRIDES[:2], finest_scale=20)

        def construct(self, first, second, rois):
            return self.align((first, second), rois)

    rng = np.random.default_rng(4)
    arrays = [*pyramid(rng)[:2], np.stack([odd_rois()] * 2)]
    net, tensors, path = TwoLevels(), [Tensor(array) for array in arrays], str(tmp_path / "align.onnx")
    expected = ms.jit(net)(*tensors).asnumpy()
    ms.export(net, *tensors, file_name=path, file_format="ONNX")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    got = session.run(None, {node.name: array for node, array in zip(session.get_inputs(), arrays)})[0]
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("aligned", [0, 1])
@pytest.mark.parametrize("samples", [0, 2])
@pytest.mark.parametrize("out_size", [7, 14])
def test_roi_align_parity(parity_file, aligned, samples, out_size):
    fixture = np.load(parity_file("op_fixtures.npz"))
    key = f"roi_align/aligned{aligned}_sr{samples}_o{out_size}"
    rois = fixture["roi_align/rois"]
    image_index, boxes = rois[:, 0].astype(int), np.stack([rois[:, 1:]] * 2)           # every RoI on both images ...
    rows = image_index * len(rois) + np.arange(len(rois))                              # ... but only the RoI's own image counts
    upstream = np.zeros((2 * len(rois), *fixture[f"{key}/gy"].shape[1:]), np.float32)
    upstream[rows] = fixture[f"{key}/gy"]
    net = RoiAlign(out_size, samples, (8,), aligned=bool(aligned))
    out, (grad,) = value_and_gradient(net, [fixture["roi_align/x"]], boxes, upstream)
    np.testing.assert_allclose(out[rows], fixture[f"{key}/y"], atol=1e-5)
    np.testing.assert_allclose(grad, fixture[f"{key}/gx"], atol=1e-4)


@pytest.mark.parametrize("folder", fixture_folders(masks=False), ids=label)
def test_levels_parity(folder):
    model = ParityModel(folder)
    net = RoiAlign(7, 2, (4, 8, 16, 32), level_rule=model.framework)
    got = ms.jit(net.levels)(Tensor(model.arrays["fix/rois"][:, 1:])).asnumpy()
    np.testing.assert_array_equal(got + 2, model.arrays["fix/levels"])


def test_levels_of_old_boxes():
    """In the old zoo, width is x2 - x1 + 1, so a RoI of 111 pixels counts as 112 and leaves the first level."""
    rois = np.array([[0, 0, 110.9, 110.9], [0, 0, 111, 111], [0, 0, 223, 223], [0, 0, 2000, 2000]], np.float32)
    net = RoiAlign(7, 2, (4, 8, 16, 32), level_rule="zoo")
    assert ms.jit(net.levels)(Tensor(rois)).asnumpy().tolist() == [0, 1, 2, 3]
