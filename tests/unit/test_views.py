"""Detection in several views of an image: tiles, mirrored and scaled images, and how what they find is merged.

The network of most tests is a function that finds the rectangles of each colour in its input, to the pixel.
"""
import cv2
import numpy as np
import pytest

from faster_rcnn.src.model_utils.config import load_config
from faster_rcnn.src.model_utils.configuration.view_keys import Augmentation, Tile
from faster_rcnn.src.model_utils.data.transforms import InputSize, Preprocess
from faster_rcnn.src.model_utils.inference import views
from faster_rcnn.src.model_utils.inference.detector import FrameDetector
from faster_rcnn.src.model_utils.inference.media import Frame
from faster_rcnn.src.model_utils.inference.view_predictor import ViewNetwork, ViewPredictor, whole_image
from faster_rcnn.src.model_utils.inference.views import View, starts, to_image, to_view, views_of, windows_of
from mask_rcnn.src.model_utils.inference.view_predictor import ViewPredictor as MaskViewPredictor
from tests.unit.test_host_nms import iou

BRIGHT = 200        # of a rectangle; label 1 is blue, 2 green, 3 red


# Geometry

@pytest.mark.parametrize(("side", "tile", "overlap", "wanted"), [
    (100, 100, 0.5, [0]), (60, 100, 0.5, [0]), (101, 100, 0, [0, 1]), (200, 100, 0, [0, 100]), (200, 100, 0.25, [0, 50, 100]),
    (1000, 640, 0.25, [0, 360])])
def test_where_tiles_begin(side, tile, overlap, wanted):
    assert starts(side, tile, overlap) == wanted


def test_tiles_cover_the_image_and_overlap():
    rng = np.random.default_rng(0)
    for _ in range(200):
        side, tile, overlap = int(rng.integers(1, 900)), int(rng.integers(32, 300)), float(rng.uniform(0, 0.9))
        begin = np.array(starts(side, tile, overlap))
        assert begin[0] == 0 and (side <= tile or begin[-1] == side - tile), (side, tile, overlap)
        assert (np.diff(begin) >= 1).all() and (np.diff(begin) <= max(1, tile - round(overlap * tile))).all()
    assert windows_of(90, 100, Tile(90, 100), 0.5) == [(0, 0, 100, 90)]
    assert windows_of(90, 250, Tile(100, 100), 0.5) == [(0, 0, 250, 90), *((x, 0, x + 100, 90) for x in (0, 50, 100, 150))]
    assert views_of(9, 8, Augmentation(True, (1.0, 2.0)), None, 0) == [
        View((0, 0, 8, 9), flip, scale) for scale in (1.0, 2.0) for flip in (False, True)]


def test_boxes_of_a_mirrored_tile():
    """A tile of 40 x 20 at (100, 50), mirrored and twice as large."""
    view, info = View((100, 50, 140, 70), True, 1.0), np.array([40, 80, 2, 2, 20, 40], np.float32)
    found = np.array([[10, 4, 30, 24], [-5, 0, 80, 99]])
    assert to_image(found, info, view).tolist() == [[125, 52, 135, 62], [100, 50, 140, 70]]
    np.testing.assert_array_equal(to_view(to_image(found[:1], info, view), info, view), found[:1])
    # With a last pixel that belongs to the box, pixels 10 to 29 of 80 are 50 to 69 in the mirror.
    assert to_image(np.array([[10, 4, 29, 24]]), info, view, offset=1).tolist() == [[125, 52, 134.5, 62]]
    np.testing.assert_array_equal(to_view(np.array([[125, 52, 134.5, 62]]), info, view, offset=1), [[10, 4, 29, 24]])


# The network that sees colours

def paint(height: int, width: int, objects) -> np.ndarray:
    """objects: (label, x1, y1, x2, y2)."""
    image = np.zeros((height, width, 3), np.uint8)
    for label, x1, y1, x2, y2 in objects:
        image[y1:y2, x1:x2, label - 1] = BRIGHT
    return image


def see(image: np.ndarray, info: np.ndarray) -> tuple[np.ndarray, ...]:
    """Boxes of the rectangles, and some slots of padding. The score falls with the label, and is better the larger a box is."""
    n, slots = len(image), 12
    boxes, scores = np.zeros((n, slots, 4), np.float32), np.zeros((n, slots), np.float32)
    labels, valid = np.ones((n, slots), np.int32), np.zeros((n, slots), bool)
    for i in range(n):
        found = []
        for label in (1, 2, 3):
            _, _, stats, _ = cv2.connectedComponentsWithStats((image[i, label - 1] > BRIGHT / 2).astype(np.uint8))
            found += [(label, x, y, x + w, y + h) for x, y, w, h, _ in stats[1:].tolist()]
        for j, (label, *box) in enumerate(found):
            area = (box[2] - box[0]) * (box[3] - box[1]) / image[i, 0].size
            boxes[i, j], scores[i, j], labels[i, j], valid[i, j] = box, 1 - label / 10 + area / 100, label, True
    return boxes, scores, labels, valid


def plain(height: int, width: int, **more) -> Preprocess:
    """Bytes as they are, blue first."""
    return Preprocess(InputSize(height, width, **more), [0, 0, 0], [1, 1, 1], to_rgb=False)


def predictor(find_views, size=(64, 96), predict=see, scales=(1.0,), kind=ViewPredictor, masks=None, keep_ratio=True, **more):
    networks = {}
    for scale in scales:
        make = plain(*(int(side * max(scale, 1)) for side in size), keep_ratio=keep_ratio)
        networks[scale] = ViewNetwork(predict, lambda image, make=make, scale=scale: make(image, min(scale, 1)), masks)
    return kind(find_views, networks, **{"iou_thr": 0.5, "most": 20, **more})


def found_by(predict, image: np.ndarray) -> list:
    """[(label, x1, y1, x2, y2)], sorted."""
    network_input = whole_image(image)
    boxes, scores, labels, valid, *_ = predict(network_input.image[None], network_input.info[None])
    assert valid.all() and (np.diff(scores[0]) <= 0).all()
    return sorted((int(label), *box.tolist()) for label, box in zip(labels[0], boxes[0]))


OBJECTS = [(1, 8, 4, 20, 16), (2, 8, 4, 24, 20), (2, 60, 40, 80, 60), (3, 80, 0, 96, 8)]


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("stretched", [False, True])
def test_boxes_of_each_view_come_back_to_the_pixel(batch_size, stretched):
    """Of every view by itself; a view of scale 2 is 128 x 192, of 0.5 it is 32 x 48 of 64 x 96."""
    image = paint(64, 96, OBJECTS)
    for flip in (False, True):
        for scale in (0.5, 1.0, 2.0):
            view = [View((0, 0, 96, 64), flip, scale)]
            one = predictor(lambda *_, view=view: view, scales=(scale,), batch_size=batch_size, keep_ratio=not stretched)
            assert found_by(one, image) == OBJECTS, (flip, scale)
    everything = predictor(lambda h, w: views_of(h, w, Augmentation(True, (0.5, 1.0, 2.0)), None, 0), scales=(0.5, 1.0, 2.0),
                           batch_size=batch_size)
    assert found_by(everything, image) == OBJECTS


ON_BORDERS = [(1, 2, 2, 14, 14), (1, 58, 20, 70, 32), (2, 90, 50, 102, 62), (3, 0, 100, 300, 160), (1, 280, 180, 300, 200)]


def tiled(height: int, width: int) -> list[View]:
    """Tiles of 64 x 96 that share 16 x 24 or more."""
    return views_of(height, width, Augmentation(False, (1.0,)), Tile(64, 96), 0.25)


def test_an_object_on_the_border_of_tiles_is_found_once(monkeypatch):
    """The whole image of 200 x 300 is seen at 1 / 3; what the tiles see is exact, but for the object wider than any of them."""
    image = paint(200, 300, ON_BORDERS)
    predict = predictor(tiled, batch_size=2)
    found = found_by(predict, image)
    assert [label for label, *_ in found] == [1, 1, 1, 2, 3]
    for got, wanted in zip(found, sorted(ON_BORDERS)):
        np.testing.assert_allclose(got, wanted, atol=4)
    exact = predictor(lambda h, w: tiled(h, w)[1:])
    assert found_by(exact, image) == sorted(item for item in ON_BORDERS if item[0] != 3)
    # The rule is what does it: with it off, parts are found too.
    monkeypatch.setattr(views, "CUT", -1.0)
    assert len(found_by(exact, image)) > 10


def test_what_touches_the_border_of_the_image_stays():
    image = paint(100, 150, [(1, 0, 0, 20, 20), (2, 130, 80, 150, 100)])
    tiles_alone = predictor(lambda h, w: tiled(h, w)[1:])
    assert found_by(tiles_alone, image) == [(1, 0, 0, 20, 20), (2, 130, 80, 150, 100)]


def test_small_objects_are_found_in_tiles_only():
    """The network sees nothing below 5 pixels: no object of 6 in an image that is halved, but one in a tile that is not."""
    def short_sighted(image, info):
        boxes, scores, labels, valid = see(image, info)
        return boxes, scores, labels, valid & (boxes[..., 2] - boxes[..., 0] >= 5)

    image = paint(128, 192, [(1, 30, 30, 36, 36), (2, 60, 60, 120, 100)])
    whole = predictor(lambda h, w: tiled(h, w)[:1], predict=short_sighted)
    assert found_by(whole, image) == [(2, 60, 60, 120, 100)]
    assert found_by(predictor(tiled, predict=short_sighted), image) == [(1, 30, 30, 36, 36), (2, 60, 60, 120, 100)]


def test_images_without_objects_and_slots_that_are_not_valid():
    nothing = np.zeros((80, 100, 3), np.uint8)
    assert found_by(predictor(tiled), nothing) == []

    def broken(image, info):
        boxes, scores, labels, valid = see(image, info)
        boxes[:, 5], scores[:, 5], valid[:, 5] = np.nan, 0.9, True
        boxes[:, 6], scores[:, 6], valid[:, 6] = [3, 3, 3, 9], 0.9, True      # without width
        return boxes, scores, labels, valid

    assert found_by(predictor(tiled, predict=broken), paint(64, 96, OBJECTS)) == OBJECTS
    kept = predictor(tiled, predict=broken, keep_empty=True)
    assert found_by(kept, paint(64, 96, OBJECTS)) == sorted([*OBJECTS, (1, 3, 3, 3, 9)])
    with pytest.raises(ValueError, match="expected one image, got 2"):
        kept(np.zeros((2, 64, 96, 3), np.uint8), np.zeros((2, 6), np.float32))


# Merging

def merged_by_loops(found, iou_thr: float, most: int) -> list:
    """found: (score, label, box) in any order; as detectron2's one NMS of each class over the boxes of all views."""
    kept: list = []
    for item in sorted(found, key=lambda item: -item[0]):
        if all(item[1] != other[1] or iou(item[2], other[2]) <= iou_thr for other in kept):
            kept.append(item)
    return kept[:most]


@pytest.mark.parametrize(("iou_thr", "most"), [(0.5, 200), (0.3, 200), (0.5, 7)])
def test_merging_is_that_of_a_loop(iou_thr, most):
    """Random boxes in the views of an image: two tiles and the whole, each mirrored and not, at two scales."""
    rng = np.random.default_rng(1)
    told: list = []

    def predict(image, info):
        corners = rng.uniform(0, [60, 40], (len(image), 15, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(5, 35, corners.shape)], -1).astype(np.float32)
        shape = boxes.shape[:2]
        outputs = boxes, rng.random(shape, np.float32), rng.integers(1, 4, shape), rng.random(shape) < 0.8
        told.append((outputs, info))
        return outputs

    all_views = views_of(64, 150, Augmentation(True, (0.5, 1.0)), Tile(64, 96), 0.25)
    assert len(all_views) == 12
    image = np.zeros((1, 64, 150, 3), np.uint8)
    got = predictor(lambda h, w: all_views, predict=predict, scales=(0.5, 1.0), iou_thr=iou_thr, most=most)(image, None)
    found = []
    for view, ((boxes, scores, labels, valid), info) in zip(all_views, told):
        left, top, right, bottom = view.window
        scale_y, scale_x = info[0, 2:4].tolist()
        for box, score, label, good in zip(boxes[0].tolist(), scores[0], labels[0], valid[0]):
            x1, y1, x2, y2 = box[0] / scale_x, box[1] / scale_y, box[2] / scale_x, box[3] / scale_y
            if view.flip:
                x1, x2 = (right - left) - x2, (right - left) - x1
            x1, x2 = (min(max(x, 0), right - left) + left for x in (x1, x2))
            y1, y2 = (min(max(y, 0), bottom - top) + top for y in (y1, y2))
            margin = 0.01 * (right - left)
            cut = (left > 0 and x1 < left + margin) or (right < 150 and x2 > right - margin)
            if good and x2 > x1 and y2 > y1 and not cut:
                found.append((score, label, (x1, y1, x2, y2)))
    wanted = merged_by_loops(found, iou_thr, most)
    assert len(found) > len(wanted) >= 7
    np.testing.assert_array_equal(got[1][0], [score for score, _, _ in wanted])
    np.testing.assert_array_equal(got[2][0], [label for _, label, _ in wanted])
    np.testing.assert_allclose(got[0][0], [box for _, _, box in wanted], atol=1e-9)


# Masks

SIDE = 8


def see_masks(image, boxes, labels) -> np.ndarray:
    """The red plane in the cells of each box: masks that no mirroring of the boxes gives by chance."""
    masks = np.zeros((*labels.shape, SIDE, SIDE), np.float32)
    for i, picture in enumerate(image):
        for j, (x1, y1, x2, y2) in enumerate(boxes[i].round().astype(int).tolist()):
            if x2 > x1 and y2 > y1:
                part = picture[2, y1:y2, x1:x2]
                masks[i, j] = cv2.resize(part, (SIDE, SIDE), interpolation=cv2.INTER_AREA) / BRIGHT
    return masks


def see_objects_with_masks(image, info):
    boxes, scores, labels, valid = see(image, info)
    return boxes, scores, labels, valid & (labels == 1), see_masks(image, boxes, labels)


def test_masks_are_turned_back_and_averaged():
    """The object's box is 16 x 16; its upper left quarter is the mask."""
    image = paint(64, 160, [(1, 80, 8, 96, 24), (3, 80, 8, 88, 16)])
    wanted = np.zeros((SIDE, SIDE))
    wanted[:SIDE // 2, :SIDE // 2] = 1

    def masks_of(windows, flips, masks=see_masks):
        chosen = [View(window, flip, 1.0) for window in windows for flip in flips]
        predict = predictor(lambda *_: chosen, size=(64, 160), predict=see_objects_with_masks, kind=MaskViewPredictor,
                            masks=masks)
        boxes, _, _, _, masks = predict(image[None], None)
        assert boxes.tolist() == [[[80, 8, 96, 24]]]
        return masks[0, 0]

    whole, tile, elsewhere, cutting = (0, 0, 160, 64), (60, 0, 160, 64), (0, 0, 70, 64), (0, 0, 90, 64)
    for flips in ((False,), (True,), (False, True)):
        for masks in (see_masks, None):     # averaged, and those that came with the boxes
            np.testing.assert_array_equal(masks_of([whole, tile], flips, masks), wanted)

    def halved_in_tiles(image, boxes, labels):      # in the whole image the box begins at 80
        return see_masks(image, boxes, labels) * (1 if boxes[0, 0, 0] == 80 else 0.5)

    # Of four windows one does not show the object, and one not all of it: the mean of 1 and 0.5.
    np.testing.assert_array_equal(masks_of([whole, tile, elsewhere, cutting], (False,), halved_in_tiles), 0.75 * wanted)


# Frames

def test_frames_are_seen_in_views():
    """As infer.py and Detector see them: of other sizes one after the other, and one that cannot be read."""
    config = load_config(overrides={"num_classes": 4, "coco_classes": ["background", "blue", "green", "red"], "tile": "64x96",
                                    "test_batch_size": 2})
    frames = [Frame(1, "a.png", paint(64, 96, OBJECTS)), Frame(2, "b.png", problem="damaged"),
              Frame(3, "c.png", paint(100, 150, [(1, 0, 0, 20, 20), (2, 130, 80, 150, 100)]))]
    first, second, third = FrameDetector(predictor(tiled), config).run(frames, 0.5)
    assert second == (frames[1], None)
    for (frame, found), objects in ((first, OBJECTS), (third, [(1, 0, 0, 20, 20), (2, 130, 80, 150, 100)])):
        assert found.image is frame.image
        assert sorted((label, *box) for label, box in zip(found.labels.tolist(), found.boxes.tolist())) == objects
