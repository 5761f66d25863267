"""Epochs that repeat some images."""
import numpy as np
import pytest

from faster_rcnn.src.model_utils.data.loading import TrainTransform, epoch_images, epoch_indices
from faster_rcnn.src.model_utils.data.resampling import read_presence
from tests.example_records import COUNT, EVERYTHING, PLAIN, assert_equal, batches

REPEATS = np.linspace(1, 3.5, COUNT)


def test_an_epoch_has_every_image_and_repeats_some():
    ranks = [epoch_indices(COUNT, 1, 4, 3, rank, 2, repeats=REPEATS) for rank in range(2)]
    total = epoch_images(COUNT, REPEATS)
    assert total == 25      # rounded from 24.75
    order = np.stack(ranks, 1).ravel()[:total]
    assert len(set(order.tolist())) == total
    counts = np.bincount(order % COUNT)
    # The factors are scaled to the rounded sum, so a count is at most 1 off its factor.
    assert (np.abs(counts - REPEATS) <= 1).all() and counts[-1] >= 3
    assert (order // COUNT < counts[order % COUNT]).all()


@pytest.mark.parametrize("rank, rank_size", [(0, 1), (1, 2)])
def test_repeats_are_augmented_differently_and_a_resumed_run_sees_the_same(files, rows, rank, rank_size):
    options = {"epoch": 2, "rank": rank, "rank_size": rank_size, "repeats": REPEATS}
    transform = TrainTransform(PLAIN, EVERYTHING, num_gts=4, seed=3)
    whole = batches(files, transform, **options)
    numbers = epoch_indices(COUNT, 3, 2, 2, rank, rank_size, repeats=REPEATS)
    assert [batch[-1].tolist() for batch in whole] == [[rows[i % COUNT]["image_id"] for i in step] for step in numbers]
    assert_equal(batches(files, transform, start_batch=2, **options), whole[2:])
    seen = {}
    for number, image in zip(numbers.ravel().tolist(), (image for batch in whole for image in batch[0])):
        seen.setdefault(number % COUNT, {})[number] = image.tobytes()
    several = [list(images.values()) for images in seen.values() if len(images) > 1]
    assert several and sum(len(set(images)) == len(images) for images in several) > len(several) / 2


def test_without_repeats_nothing_changes(files):
    transform = TrainTransform(PLAIN, EVERYTHING, num_gts=4, seed=3)
    ones = {batch[-1][0]: batch for batch in batches(files, transform, batch_size=1, repeats=np.ones(COUNT))}
    once = {batch[-1][0]: batch for batch in batches(files, transform, batch_size=1)}
    assert list(ones) != list(once)     # another order of the same examples
    assert_equal([ones[key] for key in sorted(ones)], [once[key] for key in sorted(once)])


def test_presence_is_read_from_the_records(files, rows):
    """Crowds and the placeholder rows of empty images are not counted."""
    expected = np.zeros((COUNT, 5), bool)
    for index, row in enumerate(rows):
        for label, crowd in list(zip(row["labels"], row["crowds"]))[:row["count"]]:
            expected[index, label - 1] |= not crowd
    assert not expected.any(axis=1).all() and rows[6]["crowds"].any()
    np.testing.assert_array_equal(read_presence(files, COUNT, 5), expected)
