"""Mask targets against pycocotools, object by object, and against fixtures of other frameworks."""
import cv2
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from pycocotools import mask as coco_mask

from mask_rcnn.src.MaskRcnn.bitmap_targets import bitmap_targets
from mask_rcnn.src.MaskRcnn.mask_targets import mask_targets

SIZE, EDGES, OBJECTS = 28, 256, 16


def edges_of(polygons, count: int = EDGES):
    """[(part, (P, 2) corners), ...] -> (count, 5) float32, padded with 0."""
    out = np.zeros((count, 5), np.float32)
    rows = [np.concatenate([points, np.roll(points, -1, 0), np.full((len(points), 1), part)], 1) for part, points in polygons]
    if rows:
        rows = np.concatenate(rows)
        out[:len(rows)] = rows
    return out


def rasterise(polygons, box):
    """detectron2's rasterize_polygons_within_box, with corners rounded to float32."""
    box = np.asarray(box, np.float32)
    ratio = SIZE / np.maximum(box[2:] - box[:2], np.float32(0.1)).astype(np.float64)
    flat = [((np.asarray(points, np.float32).astype(np.float64) - box[:2]) * ratio).ravel().tolist() for _, points in polygons]
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(flat, SIZE, SIZE)))


@pytest.fixture(scope="module")
def targets():
    """targets(objects, boxes) -> (objects, S, S); objects: a list of polygons per object, boxes: one per object."""
    compiled = {precise: ms.jit(Targets(precise)) for precise in (True, False)}

    def run(objects, boxes, precise=True):
        assert len(objects) == len(boxes)
        out = []
        for start in range(0, len(objects), OBJECTS):              # one graph serves any count
            edges, part = np.zeros((1, OBJECTS, EDGES, 5), np.float32), objects[start:start + OBJECTS]
            edges[0, :len(part)] = [edges_of(polygons) for polygons in part]
            rois, order = np.zeros((1, OBJECTS, 4), np.float32), np.arange(OBJECTS)[::-1]
            rois[0, :len(part)] = boxes[start:start + OBJECTS]
            inputs = edges, order[None].astype(np.int32), rois[:, order].copy()
            out.append(compiled[precise](*map(Tensor, inputs)).asnumpy()[0, order][:len(part)])
        return np.concatenate(out)

    return run


class Targets(ms.nn.Cell):
    def __init__(self, precise):
        super().__init__()
        self.precise = precise

    def construct(self, edges, matched, boxes):
        return mask_targets(edges, matched, boxes, SIZE, self.precise)


def blob(rng, centre, size, corners):
    """Return a polygon, star-shaped or self-intersecting."""
    angle = rng.uniform(0, 2 * np.pi, corners)
    if rng.uniform() < 0.7:
        angle.sort()
    return centre + size * rng.uniform(0.3, 1, (corners, 1)) * np.stack([np.cos(angle), np.sin(angle)], 1)


def around(polygons, rng, jitter):
    """Return the bounding box of all corners, jittered."""
    points = np.concatenate([points for _, points in polygons])
    box = np.concatenate([points.min(0), points.max(0)])
    return box + rng.uniform(-jitter, jitter, 4) * np.tile(box[2:] - box[:2], 2)


def random_objects(rng, count, parts, whole=False):
    """Return polygons and boxes. `whole` coordinates make ties, which show how pycocotools rounds."""
    objects, boxes = [], []
    for _ in range(count):
        centre, size = rng.uniform(20, 300, 2), 10 ** rng.uniform(0.3, 2.2, 2)
        polygons = [(part, blob(rng, centre + rng.normal(0, 0.7, 2) * size, size, int(rng.integers(3, 16))))
                    for part in range(parts)]
        if whole:
            polygons = [(part, np.round(points)) for part, points in polygons]
        box = around(polygons, rng, 0.3)
        if whole:    # a target pixel is a multiple of half an image pixel
            box[:2] = np.round(box[:2])
            sides = np.array([14, 28, 56, 112, 140, 280])
            box[2:] = box[:2] + [sides[np.abs(sides - side).argmin()] for side in box[2:] - box[:2]]
        objects.append(polygons)
        boxes.append(box)
    return objects, np.array(boxes, np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("parts, whole", [(1, False), (3, False), (1, True), (4, True)])
def test_random_polygons_equal_pycocotools(targets, parts, whole):
    """In float32, ties may round differently, in less than one pixel of a thousand."""
    rng = np.random.default_rng([parts, whole])
    objects, boxes = random_objects(rng, 100, parts, whole)
    expected = np.array([rasterise(*pair) for pair in zip(objects, boxes)])
    assert 0.2 < expected.mean() < 0.8
    np.testing.assert_array_equal(targets(objects, boxes), expected)
    assert (targets(objects, boxes, precise=False) != expected).mean() < 1e-3


def test_edge_cases(targets):
    """Objects on each side of the RoI, around the RoI and degenerate; thin and empty RoIs; padding."""
    square = np.array([[0, 0], [30, 0], [30, 20], [0, 20]], float)
    line, point = np.array([[0, 0], [30, 20], [0, 0]], float), np.full((3, 2), 7.0)
    boxes = [(40, 2, 60, 18), (-30, 2, -5, 18), (5, 30, 25, 50), (5, -30, 25, -2), (3, 2, 27, 18), (-3, -2, 41, 27), (3, -4, 7, 40),
             (0, 0, 30, 20), (10, 10, 10, 10), (10, 10, 10.05, 30), (15.5, 10.5, 15.7, 10.9)]
    objects = [[(0, square)]] * len(boxes) + [[(0, line)], [(0, point)], [(0, line), (1, square)], [(0, np.tile(square, (2, 1)))]]
    boxes = [*boxes, *[(-1, -1, 31, 21)] * 4]
    got = targets(objects, boxes)
    np.testing.assert_array_equal(got, [rasterise(*pair) for pair in zip(objects, boxes)])
    assert got[:4].sum() == 0 and got[4].all() and got[13].any()
    assert targets([[]] * 3, [(0, 0, 0, 0), (5, 5, 25, 25), (-9, 0, 4, 2000)]).sum() == 0


def test_parts_are_united_and_within_a_part_holes_stay(targets):
    outer, inner = (np.array([[a, a], [28 - a, a], [28 - a, 28 - a], [a, 28 - a]], float) for a in (4, 10))
    box = [(0, 0, 28, 28)] * 3
    united, hole, many = targets([[(0, outer), (1, inner)], [(0, outer), (0, inner)], [(9, outer)]], box)
    assert united[4:24, 4:24].all() and united.sum() == 400
    assert hole.sum() == 400 - 64 and hole[10:18, 10:18].sum() == 0
    np.testing.assert_array_equal(many, united)                     # part numbers are clamped to the last part


def test_reversed_and_shifted_outlines_give_the_same_targets(targets):
    """Corners in reverse order; RoI and outline shifted by whole pixels."""
    rng = np.random.default_rng(5)
    objects, boxes = random_objects(rng, 16, 2, whole=True)
    first = targets(objects, boxes)
    np.testing.assert_array_equal(targets([[(part, points[::-1]) for part, points in o] for o in objects], boxes), first)
    moved = [[(part, points + [64, -32]) for part, points in polygons] for polygons in objects]
    np.testing.assert_array_equal(targets(moved, boxes + np.array([64, -32, 64, -32], np.float32)), first)


def test_no_gradient_reaches_outlines_and_boxes():
    rng = np.random.default_rng(6)
    objects, boxes = random_objects(rng, 1, 1)
    net, edges = Targets(False), edges_of(objects[0])[None, None]
    grads = ms.jit(ms.grad(net, (0, 2)))(Tensor(edges), Tensor([[0]], ms.int32), Tensor(boxes[None]))
    assert all((grad.asnumpy() == 0).all() for grad in grads)


def test_polygon_targets_parity(targets, parity_file):
    fixture = np.load(parity_file("op_fixtures.npz"))
    objects = [[(0, points.reshape(-1, 2))] for points in fixture["masktgt/polygons"]]
    np.testing.assert_array_equal(targets(objects, fixture["masktgt/boxes"]), fixture["masktgt/d2_polygon"])


def outlines(bitmap):
    """Return the outlines of a bitmap as polygons of one part, traced at four times the size to keep single pixels."""
    large = np.kron(bitmap, np.ones((4, 4), np.uint8))
    loops, _ = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return [(0, (cv2.approxPolyDP(loop, 1.0, True)[:, 0] + 0.5) / 4) for loop in loops]


def test_bitmap_targets_parity(targets, parity_file):
    """Outlines of bitmaps against detectron2's RoIAlign of the bitmaps. At most 2 of 100 pixels differ, on the outline."""
    fixture = np.load(parity_file("op_fixtures.npz"))
    objects = [outlines(bitmap) for bitmap in fixture["masktgt/bitmasks"]]
    differing = (targets(objects, fixture["masktgt/boxes"]) != fixture["masktgt/d2_bitmask"]).sum((1, 2))
    assert differing.max() <= 16, differing


def cut_out(bitmap, box):
    """MindSpore's CropAndResize ("bilinear_v2") in a loop: pixels int(x1)..int(x2), pixel centres at 0.5."""
    (left, top, right, bottom), (height, width) = map(int, box), bitmap.shape
    sides, out = (bottom - top + 1, right - left + 1), np.zeros((SIZE, SIZE))
    for i, j in np.ndindex(SIZE, SIZE):
        (y, x), value = (min(max((k + 0.5) * n / SIZE - 0.5, 0), n - 1) for k, n in zip((i, j), sides)), 0.0
        for row, part_y in ((np.floor(y), 1 - y % 1), (np.ceil(y), y % 1)):
            for column, part_x in ((np.floor(x), 1 - x % 1), (np.ceil(x), x % 1)):
                pixel = bitmap[min(int(row) + top, height - 1), min(int(column) + left, width - 1)]
                value += part_y * part_x * pixel
        out[i, j] = value
    return out


@pytest.mark.parametrize("precise", [True, False])
def test_targets_cut_out_of_a_bitmap(precise):
    """Boxes from below a pixel to the whole image, objects of several concave parts; exactly 0.5 is background."""
    rng, (height, width) = np.random.default_rng(7), (64, 96)
    boxes = np.float32([[10.3, 7.8, 50.2, 40.9], [0, 0, 95, 63], [0, 0, 96, 64], [20.2, 20.7, 20.9, 20.9], [3, 30.5, 90, 33.1],
                        [40.5, 2.2, 44.4, 60.6]])
    objects = [[(0, rng.uniform(0, 1, (9, 2)) * (95, 63)), (1, rng.uniform(0, 1, (5, 2)) * (95, 63))] for _ in boxes]
    edges = np.stack([edges_of(polygons, 24) for polygons in objects])[None]
    matched = np.arange(len(boxes), dtype=np.int32)[None]
    got = bitmap_targets(Tensor(edges), Tensor(matched), Tensor(boxes[None]), SIZE, precise, height, width).asnumpy()[0]
    for target, polygons, box in zip(got, objects, boxes):
        flat = [np.float32(points).astype(np.float64).ravel().tolist() for _, points in polygons]
        soft = cut_out(coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(flat, height, width))), box)
        clear = np.abs(soft - 0.5) > 1e-5
        assert (target[clear] != (soft > 0.5)[clear]).sum() <= (0 if precise else 2) and not target[~clear].any()
    assert 0.1 < got.mean() < 0.9
