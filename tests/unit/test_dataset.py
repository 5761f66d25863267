"""MindRecord -> batches: their contents and order, which only seed, epoch and record decide."""
import logging

import mindspore.dataset as ds
import numpy as np
import pytest

from faster_rcnn.src import dataset as module
from faster_rcnn.src.model_utils.data.augmentation import Augmenter
from faster_rcnn.src.model_utils.data.loading import (
    EvalBatches,
    TrainTransform,
    create_dataset,
    epoch_indices,
    iterate,
    steps_per_epoch,
)
from faster_rcnn.src.model_utils.data.transforms import InputSize, Preprocess, decode_image
from tests.example_records import COUNT, EVERYTHING, PLAIN, assert_equal, batches, make_row, write_records

# ---------------------------------------------------------------------------------------------------- order of records


@pytest.mark.parametrize("count, batch_size, rank_size", [(11, 2, 1), (12, 2, 3), (11, 2, 3), (3, 4, 2), (1, 1, 1)])
def test_every_record_comes_once_and_the_start_fills_the_end(count, batch_size, rank_size):
    ranks = [epoch_indices(count, 5, 2, batch_size, rank, rank_size) for rank in range(rank_size)]
    steps = steps_per_epoch(count, batch_size, rank_size)
    assert {indices.shape for indices in ranks} == {(steps, batch_size)}
    order = np.stack(ranks, 1).ravel()      # step by step, over all ranks
    assert sorted(order[:count]) == list(range(count))
    assert order[count:].tolist() == [order[i % count] for i in range(count, len(order))]
    assert len(order) - count < batch_size * rank_size


def test_dropping_the_remainder_repeats_nothing(message):
    order = np.stack([epoch_indices(11, 5, 2, 2, rank, 2, drop_remainder=True) for rank in range(2)], 1).ravel()
    assert len(order) == 8 == len(set(order))
    filled = np.stack([epoch_indices(11, 5, 2, 2, rank, 2) for rank in range(2)], 1).ravel()
    assert order.tolist() == filled[:8].tolist()
    assert "3 images" in message(epoch_indices, 3, 5, 2, 4, drop_remainder=True)


def test_order_depends_only_on_seed_and_epoch():
    first = epoch_indices(50, 1, 1, 5)
    assert first.tolist() == epoch_indices(50, 1, 1, 5).tolist()
    for other in (epoch_indices(50, 1, 2, 5), epoch_indices(50, 2, 1, 5)):
        assert first.tolist() != other.tolist()


def test_batches_come_in_that_order(files, rows):
    transform = TrainTransform(PLAIN, Augmenter(), num_gts=4, seed=3)
    got = np.concatenate([batch[-1] for batch in batches(files, transform, epoch=7)])
    assert got.tolist() == [rows[i]["image_id"] for i in epoch_indices(COUNT, 3, 7, 2).ravel()]


def test_a_batch_larger_than_the_set_wraps_around(tmp_path):
    small = write_records(tmp_path, [make_row(i) for i in range(3)])
    transform = TrainTransform(PLAIN, EVERYTHING, num_gts=4, seed=3)
    (batch,) = batches(small, transform, batch_size=8, count=3)
    order = [i - 1000 for i in batch[-1]]
    assert sorted(order[:3]) == [0, 3, 6] and order[3:] == (order[:3] * 2)[:5]
    np.testing.assert_array_equal(batch[0][:3], batch[0][3:6])


# ---------------------------------------------------------------------------------------------------- the same batches


@pytest.mark.parametrize("rank, rank_size, start", [(0, 1, 1), (0, 1, 5), (0, 2, 2), (1, 2, 1)])
def test_a_resumed_run_sees_what_an_unbroken_one_would(files, rank, rank_size, start):
    transform = TrainTransform(PLAIN, EVERYTHING, num_gts=2, seed=3)
    whole = batches(files, transform, epoch=4, rank=rank, rank_size=rank_size)
    assert len(whole) == steps_per_epoch(COUNT, 2, rank_size)
    fresh = TrainTransform(PLAIN, EVERYTHING, num_gts=2, seed=3)
    assert_equal(batches(files, fresh, epoch=4, rank=rank, rank_size=rank_size, start_batch=start), whole[start:])
    with pytest.raises(ValueError, match="start_batch"):
        create_dataset(files, COUNT, transform, 2, epoch=4, rank=rank, rank_size=rank_size, start_batch=len(whole))


@pytest.mark.parametrize("ranks", [1, 2])
def test_batches_of_a_step_hold_what_one_large_batch_would(files, ranks):
    transform = TrainTransform(PLAIN, EVERYTHING, num_gts=2, seed=3)
    large = batches(files, transform, batch_size=4 * ranks, epoch=4)
    parts = [batches(files, transform, batch_size=2, epoch=4, rank=rank, rank_size=ranks, accumulate=2) for rank in range(ranks)]
    for step, expected in enumerate(large):
        rows = [batch for part in parts for batch in part[2 * step:2 * step + 2]]
        assert_equal([[np.concatenate(columns) for columns in zip(*rows)]], [expected])
    assert len(parts[0]) == 2 * len(large)
    resumed = batches(files, transform, batch_size=2, epoch=4, rank_size=ranks, accumulate=2, start_batch=1)
    assert_equal(resumed, parts[0][2:])


def test_workers_do_not_change_batches(files):
    transform = TrainTransform(PLAIN, EVERYTHING, num_gts=2, seed=3)
    one = batches(files, transform, workers=1)
    assert_equal(batches(files, transform, workers=64), one)     # more than there are cores


def test_a_rank_sees_its_part_of_what_one_process_sees(files):
    """A step of 2 ranks with batches of 2 holds the same augmented images as a batch of 4."""
    transform = TrainTransform(PLAIN, EVERYTHING, num_gts=2, seed=3)
    whole = batches(files, transform, batch_size=4)
    for rank in range(2):
        part = [[column[2 * rank:2 * rank + 2] for column in batch] for batch in whole]
        assert_equal(batches(files, transform, batch_size=2, rank=rank, rank_size=2), part)


def test_epochs_are_augmented_differently(files):
    transform = TrainTransform(PLAIN, EVERYTHING, num_gts=4, seed=3)
    first, second = ({int(i): image for batch in batches(files, transform, epoch=epoch)
                      for image, i in zip(batch[0], batch[-1])} for epoch in (1, 2))
    assert first.keys() == second.keys()
    assert sum(np.array_equal(first[i], second[i]) for i in first) < COUNT / 2


# -------------------------------------------------------------------------------------------------- what is in a batch


def test_columns_hold_image_and_objects(files, rows):
    """Without augmentation, batches match the records. Crowds and the placeholder row of an empty image are left out."""
    transform = TrainTransform(PLAIN, Augmenter(), num_gts=3, seed=3)
    seen = set()
    for image, info, boxes, labels, valid, image_id in batches(files, transform):
        assert [column.dtype for column in (image, info, boxes, labels, valid, image_id)] == [
            np.float32, np.float32, np.float32, np.int32, np.bool_, np.int64]
        assert image.shape == (2, 3, 48, 64) and boxes.shape == (2, 3, 4) and labels.shape == valid.shape == (2, 3)
        for n in range(2):
            row = rows[(image_id[n] - 1000) // 3]
            seen.add(row["index"])
            expected_image, expected_info = PLAIN(decode_image(row["image"]))
            np.testing.assert_array_equal(image[n], expected_image)
            np.testing.assert_array_equal(info[n], expected_info)
            kept = [i for i in range(row["count"]) if not row["crowds"][i]]
            assert valid[n].tolist() == [i < len(kept) for i in range(3)]
            assert labels[n].tolist() == [int(row["labels"][i]) for i in kept] + [0] * (3 - len(kept))
            scaled = row["boxes"][kept] * expected_info[[3, 2, 3, 2]]
            np.testing.assert_allclose(boxes[n], np.pad(scaled, ((0, 3 - len(kept)), (0, 0))), rtol=1e-6)
    assert seen == set(range(COUNT))
    assert rows[6]["count"] == 3 and rows[3]["count"] == 0      # a crowd, and no object at all


def test_zero_bytes_at_the_end_of_an_image_survive(files, rows):
    """NumPy's byte strings would strip them."""
    assert any(row["image"].endswith(bytes(50)) for row in rows)
    data = ds.MindDataset([str(path) for path in files], ["image", "index"], shuffle=False)
    for image, index in data.create_tuple_iterator(num_epochs=1, output_numpy=True):
        assert image.tobytes() == rows[int(index)]["image"]


def test_objects_beyond_num_gts_are_sampled_and_reported_once(tmp_path, caplog):
    crowded = write_records(tmp_path, [make_row(i, objects=9) for i in range(4)])
    boxes = make_row(0, objects=9)["boxes"]
    chosen = []
    for epoch in (1, 2):
        transform = TrainTransform(Preprocess(InputSize(30, 52), (0,) * 3, (1,) * 3), Augmenter(), num_gts=6, seed=3)
        with caplog.at_level(logging.WARNING, module.__name__):
            caplog.clear()
            got = batches(crowded, transform, count=4, epoch=epoch)
        (warning,) = caplog.messages
        assert "9 objects" in warning and "num_gts is 6" in warning and ".png" in warning
        assert_equal(batches(crowded, transform, count=4, epoch=epoch), got)
        (row,) = [(batch[2][n], batch[4][n]) for batch in got for n in range(2) if batch[-1][n] == 1000]
        assert row[1].all()
        which = [int(np.abs(boxes - box).max(1).argmin()) for box in row[0]]
        np.testing.assert_allclose(row[0], boxes[which], rtol=1e-6)
        assert len(set(which)) == 6
        chosen.append(set(which))
    assert chosen[0] != chosen[1]


def test_objects_outside_or_without_area_are_left_out(tmp_path):
    """Boxes outside the image or without area are not ground truth."""
    row = make_row(0, objects=3)
    row["boxes"] = np.array([[60, 5, 80, 9], [5, 6, 5, 20], [10, 20, 500, 500]], np.float32)     # in 52 x 30 pixels
    transform = TrainTransform(Preprocess(InputSize(30, 52), (0,) * 3, (1,) * 3), Augmenter(), num_gts=2, seed=3)
    ((_, _, boxes, labels, valid, _),) = batches(write_records(tmp_path, [row]), transform, batch_size=1, count=1)
    assert boxes[0].tolist() == [[10, 20, 52, 30], [0] * 4]
    assert labels[0].tolist() == [3, 0] and valid[0].tolist() == [True, False]


def test_only_the_place_of_an_undecodable_image_changes(tmp_path, message, caplog):
    rows = [make_row(i) for i in range(5)]
    whole = batches(write_records(tmp_path, rows), TrainTransform(PLAIN, EVERYTHING, 4, 3), count=5)
    for index in (1, 2):
        rows[index]["image"] = b"no picture"
    (tmp_path / "broken").mkdir()
    files = write_records(tmp_path / "broken", rows)
    transform = TrainTransform(PLAIN, EVERYTHING, 4, 3)
    order = epoch_indices(5, 3, 1, 2).ravel()
    for epoch in (1, 1):        # the second pass reports nothing new
        got = batches(files, transform, count=5, epoch=epoch)
        for place, index in enumerate(order):
            taken = int(np.flatnonzero(order == {1: 3, 2: 3}.get(index, index))[0])     # the next that decodes
            for column, expected in zip(got[place // 2][:-1], whole[taken // 2]):
                np.testing.assert_array_equal(column[place % 2], expected[taken % 2])
    assert sorted(caplog.messages) == [f"p {index}.png: not an image of a known format, or damaged (10 bytes): another image takes "
                                       "its place in every batch" for index in (1, 2)]
    caplog.clear()
    evaluation = EvalBatches(files, 5, PLAIN, 2)
    for _ in range(2):
        assert sorted(id_ for batch in evaluation for id_ in batch.image_id[:batch.real].tolist()) == [1000, 1009, 1012]
    assert [text.endswith("it gets no detections") for text in caplog.messages] == [True] * 2
    for row in rows:
        row["image"] = b"no picture"
    (tmp_path / "none").mkdir()
    files = write_records(tmp_path / "none", rows)
    train = create_dataset(files, 5, transform, 2, epoch=1)
    assert "; the next 4 images cannot be decoded either" in message(lambda: list(iterate(train)))
    assert message(lambda: list(EvalBatches(files, 5, PLAIN))) == "none of the 5 images of the evaluation set can be decoded"


EPOCHS_OF_A_FOLDER = """
import sys
import psutil
from faster_rcnn.src.model_utils.data.loading import TrainTransform, create_dataset, iterate
from faster_rcnn.src.model_utils.data.transforms import InputSize, Preprocess
from tests.example_records import EVERYTHING

transform = TrainTransform(Preprocess(InputSize(512, 512), (0,) * 3, (1,) * 3), EVERYTHING, num_gts=2, seed=3)
for epoch in range(60):
    for batch in iterate(create_dataset(sys.argv[1:], 8, transform, 2, epoch=epoch)):
        if epoch % 2 and batch[-1].asnumpy()[0] % 2:
            break       # max_steps may end a pass early
    print(psutil.Process().memory_info().rss / 2 ** 20)
"""


def test_memory_does_not_grow_with_epochs(tmp_path, run_command):
    """An epoch makes 25 MB of images: leaking one in five would add 100 MB. A separate process excludes what other tests left."""
    files = write_records(tmp_path, [make_row(i) for i in range(8)])
    run = run_command(["python", "-c", EPOCHS_OF_A_FOLDER, *files], env={"MALLOC_ARENA_MAX": "2"})
    assert run.returncode == 0, run.stderr
    sizes = [float(line) for line in run.stdout.split()]
    assert len(sizes) == 60
    assert max(sizes[40:]) - max(sizes[20:40]) < 100


# ---------------------------------------------------------------------------------------------------------- evaluation


@pytest.mark.parametrize("batch_size, rank_size", [(1, 1), (4, 1), (3, 2), (2, 15)])
def test_evaluation_takes_every_image_once(files, rows, batch_size, rank_size):
    found = []
    for rank in range(rank_size):
        data = EvalBatches(files, COUNT, PLAIN, batch_size, rank=rank, rank_size=rank_size)
        ids = []
        for batch in data:
            assert batch.image.shape == (batch_size, 3, 48, 64) and batch.image_info.shape == (batch_size, 6)
            real = batch.real
            ids += batch.image_id[:real].tolist()
            assert batch.image_id[real:].tolist() == [-1] * (batch_size - real)
            np.testing.assert_array_equal(batch.image[real:], batch.image[real - 1:real].repeat(batch_size - real, 0))
            for image, info, image_id in zip(batch.image[:real], batch.image_info, batch.image_id):
                expected = PLAIN(decode_image(rows[(image_id - 1000) // 3]["image"]))
                np.testing.assert_array_equal(image, expected[0])
                np.testing.assert_array_equal(info, expected[1])
        assert data.count == len(ids) and ids == sorted(ids)
        assert ids == [id_ for batch in data for id_ in batch.image_id[:batch.real].tolist()]    # a second pass
        found += ids
    assert sorted(found) == [row["image_id"] for row in rows]


def test_images_of_one_padded_size_share_a_batch(files, rows):
    size = InputSize(40, 80, pad_to="divisor")
    data = EvalBatches(files, COUNT, Preprocess(size, (0,) * 3, (1,) * 3), 2)
    shapes, found = [], []
    for image, info, image_id in data:
        shapes.append(image.shape)
        for n, id_ in enumerate(image_id[image_id >= 0]):
            row = rows[(id_ - 1000) // 3]
            resized = size.resized(row["height"], row["width"])
            assert info[n, :2].tolist() == [*resized] and image.shape[2:] == size.padded(*resized)
            found.append(int(id_))
    assert sorted(found) == [row["image_id"] for row in rows]
    sizes = {size.padded(*size.resized(row["height"], row["width"])) for row in rows}
    assert {shape[2:] for shape in shapes} == sizes and len(sizes) > 1
    assert len(shapes) < COUNT / 2 + len(sizes) + 1
