"""Detections -> COCO results: coordinates, masks, files, and the loop over batches."""
import io
import json
import re

import numpy as np
import pytest

from faster_rcnn.src.model_utils.evaluation.coco_scores import coco_ap
from faster_rcnn.src.model_utils.evaluation.detections import (
    Collector,
    collect,
    to_results,
)
from faster_rcnn.src.model_utils.evaluation.results_writer import ResultsWriter, read_kept
from faster_rcnn.src.util import Progress, counted, format_seconds
from utils.mindrecord import errors

CATEGORIES = [{"id": 7, "name": "cat", "label": 1}, {"id": 3, "name": "dog", "label": 2}]
# A 200 x 100 (w x h) image that was resized to 400 x 300: factors 2 and 3.
INFO = np.array([[300, 400, 3, 2, 100, 200]], np.float32)


@pytest.mark.parametrize("function", [counted, errors.counted])
def test_counts_agree_with_their_nouns(function):
    assert [function(n, noun) for noun in ("image", "class", "box", "batch") for n in (0, 1, 2)] == [
        "0 images", "1 image", "2 images", "0 classes", "1 class", "2 classes", "0 boxes", "1 box", "2 boxes",
        "0 batches", "1 batch", "2 batches"]


def test_names_of_any_bytes_can_be_written(tmp_path):
    """A name that is not UTF-8, as Python reads it from the file system."""
    with ResultsWriter(tmp_path / "results.json") as writer:
        writer.add([{"file_name": "lat\udce9 猫.jpg"}])
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8")) == [{"file_name": "lat\udce9 猫.jpg"}]


# Detections -> results

def test_to_results_scales_each_axis_clips_and_maps_ids():
    boxes = np.array([[[20, 30, 120, 150], [-50, 30, 500, 290], [0, 0, 2, 3]]], np.float32)
    got = to_results(boxes, np.array([[0.75, 0.5, 0.25]], np.float32), np.array([[2, 1, 1]]),
                     np.array([[1, 1, 0]], bool), INFO, [42], CATEGORIES)
    assert got == [{"image_id": 42, "category_id": 3, "bbox": [10, 10, 50, 40], "score": 0.75},
                   {"image_id": 42, "category_id": 7, "bbox": [0, 10, 200, 86.6667], "score": 0.5}]
    assert json.loads(json.dumps(got)) == got


def test_to_results_matches_a_loop():
    rng = np.random.default_rng(0)
    n, d = 3, 20
    boxes = rng.uniform(-40, 420, (n, d, 4)).astype(np.float32)     # about half of them inside out, thus empty
    scores, labels = rng.random((n, d), np.float32), rng.integers(1, 3, (n, d))
    valid, ids = rng.random((n, d)) < 0.7, [5, 900000000001, 2]
    info = np.stack([[300, 400, 300 / h, 400 / w, h, w] for h, w in ((100, 200), (480, 333), (77, 91))])
    want = []
    for i in range(n):
        for j in range(d):
            height, width = info[i, 4:]
            x1, x2 = (min(max(boxes[i, j, k] / info[i, 3], 0), width) for k in (0, 2))
            y1, y2 = (min(max(boxes[i, j, k] / info[i, 2], 0), height) for k in (1, 3))
            if valid[i, j] and x2 > x1 and y2 > y1:
                want.append((ids[i], {1: 7, 2: 3}[labels[i, j]], scores[i, j], x1, y1, x2 - x1, y2 - y1))
    got = [(r["image_id"], r["category_id"], r["score"], *r["bbox"])
           for r in to_results(boxes, scores, labels, valid, info, ids, CATEGORIES)]
    assert 10 < len(want) < n * d
    np.testing.assert_allclose(got, want, rtol=0, atol=6e-5)


def test_scores_that_differ_stay_different():
    scores = np.float32([[0.99999994, 0.9999999, 0.9999998]])
    boxes = np.tile(np.float32([20, 30, 120, 150]), (1, 3, 1))
    got = to_results(boxes, scores, np.ones((1, 3), int), np.ones((1, 3), bool), INFO, [1], CATEGORIES)
    assert np.array_equal(np.float32([r["score"] for r in got]), scores[0])


def test_padding_images_and_broken_boxes_are_left_out():
    boxes = np.float32([[[20, 30, 120, 150]], [[20, 30, 120, 150]], [[np.nan, 30, 120, 150]], [[-9, 30, -1, 150]]])
    ones = np.ones((4, 1))
    got = to_results(boxes, ones, ones.astype(int), ones.astype(bool), np.repeat(INFO, 4, 0), [1, -1, 3, 4], CATEGORIES)
    assert [r["image_id"] for r in got] == [1]


def test_boxes_without_width_or_height_are_kept_with_keep_empty():
    """Boxes beyond the image are kept at its border; boxes with NaN are left out."""
    boxes = np.float32([[[-9, 30, -1, 150], [20, 900, 120, 950], [np.nan, 30, 120, 150]]])
    ones = np.ones((1, 3))
    arguments = boxes, ones, ones.astype(int), ones.astype(bool), INFO, [1], CATEGORIES
    height, width = INFO[0, 4:]
    kept = [row["bbox"] for row in to_results(*arguments, keep_empty=True)]
    assert to_results(*arguments) == [] and len(kept) == 2
    assert kept[0][0] == kept[0][2] == 0 < kept[0][3] and kept[1][1] == height and kept[1][3] == 0 < kept[1][2] < width


def test_label_outside_of_the_classes_is_an_error():
    for label in (0, 3, -1):
        with pytest.raises(ValueError, match=f"label {label}"):
            to_results(np.float32([[[0, 0, 9, 9]]]), [[0.5]], [[label]], [[True]], INFO, [1], CATEGORIES)


def test_masks_are_encoded_for_kept_detections():
    """Three images: one detection of the first is empty, one of the second is padding, the third only fills the batch."""
    calls = []

    def encode(masks, boxes, height, width):
        calls.append((masks.tolist(), boxes.tolist(), height, width))
        return [{"size": np.array([height, width]), "counts": f"mask {mask:g}".encode()} for mask in masks]

    boxes = np.float32([[[0, 0, 0, 9], [20, 30, 500, 150]], [[20, 30, 120, 150], [0, 0, 9, 9]], [[0, 0, 9, 9]] * 2])
    info = np.concatenate([INFO, INFO * [1, 1, 1, 1, 2, 1], INFO])
    got = to_results(boxes, np.full((3, 2), 0.9), np.ones((3, 2), int), [[True, True], [True, False], [True, True]], info,
                     [1, 2, -1], CATEGORIES, masks=np.float32([[10, 11], [12, 13], [14, 15]]), encode=encode)
    # Corners are in pixels of the original, clipped at its border.
    assert calls == [([11], [[10, 10, 200, 50]], 100, 200), ([12], [[10, 10, 60, 50]], 200, 200)]
    assert [r["segmentation"] for r in got] == [{"size": [100, 200], "counts": "mask 11"},
                                                {"size": [200, 200], "counts": "mask 12"}]
    assert [r["image_id"] for r in got] == [1, 2]
    json.dumps(got)


def test_predictions_collect_batches_and_save(tmp_path):
    collector = Collector(CATEGORIES)
    for image_id in (4, 5):
        collector.add(np.float32([[[20, 30, 120, 150]]]), [[0.5]], [[1]], [[True]], INFO, [image_id])
    predictions = collector.detections()
    predictions.save(tmp_path / "d.json")
    assert len(predictions) == 2
    assert json.loads((tmp_path / "d.json").read_text()) == list(predictions) == list(predictions)
    assert [r["image_id"] for r in predictions] == [4, 5]


@pytest.mark.parametrize("masks", [False, True])
def test_predictions_of_ranks_are_merged(masks):
    """Two ranks alternate over five batches; a third rank finds nothing."""
    def encode(inside, corners, height, width):
        return [{"counts": f"{int(mask.sum())}/{box[0]:.3f}".encode()} for mask, box in zip(inside, corners)]

    rng = np.random.default_rng(0)
    whole, *ranks = (Collector(CATEGORIES, encode if masks else None) for _ in range(4))
    for number in range(5):
        box = rng.uniform(0, 100, (2, 3, 4)) + [0, 0, 100, 100]
        batch = [box, rng.random((2, 3)), rng.integers(1, 3, (2, 3)), rng.random((2, 3)) < 0.7, np.tile(INFO, (2, 1)),
                 [2 * number, 2 * number + 1], *([rng.random((2, 3, 2, 2)) < 0.5] if masks else [])]
        for taker in (whole, ranks[number % 2]):
            taker.add(*batch)
    packed = [rank.pack() for rank in ranks]
    for rank in ranks:
        rank.unpack(packed)
        assert list(rank.detections()) == list(whole.detections()) and len(rank) == len(whole) > 10


def test_results_file_is_whole_after_every_step(tmp_path):
    path, want = tmp_path / "a b.json", []
    with ResultsWriter(path) as writer:
        assert json.loads(path.read_bytes()) == []
        for batch in ([], [{"file_name": "ü.jpg"}], [], [{"b": 1}, {"c": [2.5]}]):
            writer.add(batch)
            want += batch
            assert json.loads(path.read_bytes()) == want
    assert writer.count == 3


# The loop

class FakeTensor:
    """An array behind `asnumpy`, as a network returns it."""

    def __init__(self, array):
        self.array = np.asarray(array)

    def asnumpy(self):
        return self.array


def perfect_network(image, image_info):
    """Per image, one cat at (10, 10), 50 x 40 pixels of the original, and an invalid detection."""
    scale_y, scale_x = image_info[:, 2], image_info[:, 3]
    boxes = np.stack([10 * scale_x, 10 * scale_y, 60 * scale_x, 50 * scale_y], -1)[:, None].repeat(2, 1)
    n = len(image)
    return tuple(map(FakeTensor, (boxes, np.full((n, 2), 0.9), np.ones((n, 2), np.int32), [[True, False]] * n)))


def test_the_network_runs_over_batches():
    image = np.zeros((2, 3, 8, 8), np.float32)
    info = np.array([[300, 400, 3, 2, 100, 200], [80, 100, 0.8, 0.5, 100, 200]], np.float32)
    # The second batch is padded with an image of id -1, and also has the training columns.
    batches = [(image, info, np.array([1, 2])), (image, info, None, None, None, np.array([3, -1]))]
    ground_truth = {"images": [{"id": i, "width": 200, "height": 100} for i in (1, 2, 3)], "categories": CATEGORIES,
             "annotations": [{"id": i, "image_id": i, "category_id": 7, "bbox": [10, 10, 50, 40], "area": 2000}
                             for i in (1, 2, 3)]}
    predictions = collect(perfect_network, batches, CATEGORIES, total=3)
    assert [r["image_id"] for r in predictions] == [1, 2, 3]
    assert coco_ap(ground_truth, predictions)["AP"] == pytest.approx(1)


def test_no_batches_give_no_predictions():
    assert len(collect(perfect_network, [], CATEGORIES)) == 0


def test_progress_prints_plain_lines_away_from_a_terminal():
    stream = io.StringIO()
    with Progress(4, "evaluate", every_s=0, stream=stream) as progress:
        progress.update(1)
        progress.note("a.jpg: not a picture")
        progress.update(3)
    lines = stream.getvalue().splitlines()
    assert re.fullmatch(r"evaluate: 1/4 img, [\d.]+ img/s, [\d:]+ left", lines[0])
    assert lines[1] == "a.jpg: not a picture"
    assert re.fullmatch(r"evaluate: 4/4 img, [\d.]+ img/s", lines[2]) and len(lines) == 3


def test_progress_of_unknown_length():
    stream = io.StringIO()
    with Progress(None, "infer", stream=stream) as progress:
        progress.update(2)
    assert stream.getvalue().startswith("infer: 2 img, ")


def test_format_seconds():
    assert [format_seconds(s) for s in (0, 59.6, 3725)] == ["0:00", "1:00", "1:02:05"]


def test_a_stopped_run_keeps_all_but_its_last_image(tmp_path):
    """The file may end anywhere."""
    rows = [{"file_name": name, "category_id": number} for name, number in (("a", 7), ("a", 3), ("b", 7), ("c", 3), ("c", 3))]
    path = tmp_path / "partial.json"
    with ResultsWriter(path) as writer:
        for row in rows:
            writer.add([row])
    data = path.read_bytes()
    ends = [data.index(json.dumps(row).encode(), data.index(b'"c"') - 20 if i == 3 else 0) for i, row in enumerate(rows[:4])]
    for size in range(len(data) + 1):
        path.write_bytes(data[:size])
        kept = read_kept(path)
        whole = [row for row, end in zip(rows, [*(end + len(json.dumps(row)) for row, end in zip(rows, ends)), len(data) - 3])
                 if size >= end]
        if not whole:
            assert kept is None, size
            continue
        last = whole[-1]["file_name"]
        assert kept.last == last and kept.counts.total() == len([row for row in whole if row["file_name"] != last]), size
        with ResultsWriter(path, kept) as writer:
            writer.add(row for row in rows if row["file_name"] >= last)
        assert path.read_bytes() == data, size
