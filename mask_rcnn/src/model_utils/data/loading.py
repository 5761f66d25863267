# Same as faster_rcnn/src/model_utils/data/loading.py
"""Load batches of one size from MindRecord: the parts that all models share; dataset.py adds the model's own.

The images of a step and their augmentation depend on the seed, the epoch and the index of a record only, neither on the number of
workers nor on where a run was stopped.
"""
import functools
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import mindspore.dataset as ds
import numpy as np
from mindspore import Tensor

from ...util import counted
from ..config import Config, InputError
from .augmentation import Augmenter, random_stream
from .broken_images import BrokenImageError, BrokenImages, Replacing
from .preprocess import build_preprocess
from .render import Placement
from .resampling import occurrences, resample, resampled_count
from .source import DataInfo
from .transforms import NetworkInput, Preprocess, decode_image

EVAL_COLUMNS = ["image", "image_info", "image_id"]
# Batches that wait between two stages. A batch of 2 at 768x1280 takes 24 MB; the default of 16 would hold 750 MB.
PREFETCH = 2
log = logging.getLogger(__name__)


class TrainRow(NamedTuple):
    """Result of loading a record."""

    columns: tuple[np.ndarray, ...]     # columns TrainTransform.ROW
    chosen: np.ndarray                  # indices of the n objects in these columns
    placed: Placement                   # position of the image in the network input


class TrainTransform:
    """Map a record to a row of a training batch: takes the epoch and the columns RECORD, and returns those of ROW.

    If there are more than num_gts objects, those to keep are drawn from a separate random stream, as for an augmentation.
    """

    RECORD = ["image", "file_name", "index", "boxes", "labels", "crowds", "count"]
    ROW = ["image", "image_info", "gt_boxes", "gt_labels", "gt_valid"]

    def __init__(self, preprocess: Preprocess, augmenter: Augmenter, num_gts: int, seed: int):
        self.preprocess, self.augmenter, self.num_gts, self.seed = preprocess, augmenter, num_gts, seed
        self._lock, self._warned = threading.Lock(), False
        self.broken = BrokenImages()

    def __call__(self, epoch: int, *record: np.ndarray) -> tuple[np.ndarray, ...]:
        return self.load(epoch, *record).columns

    def load(self, epoch: int, data: np.ndarray, file_name: Any, index: Any, boxes: np.ndarray, labels: np.ndarray,
             crowds: np.ndarray, count: Any) -> TrainRow:
        """Return the row of a record, without crowds and without objects that are empty after clipping."""
        stream = functools.partial(random_stream, self.seed, int(epoch), int(index))
        # The columns of a record without objects hold one row of zeros.
        chosen = np.flatnonzero((np.arange(len(labels)) < int(count)) & (crowds == 0))
        image, info, placed = self.augmenter(_decode(data, file_name), boxes[chosen], self.preprocess, stream)
        boxes = placed.boxes(boxes[chosen])
        solid = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        boxes, chosen = boxes[solid], chosen[solid]
        if len(boxes) > self.num_gts:
            self._warn(len(boxes), file_name)
            some = stream("num_gts").permutation(len(boxes))[:self.num_gts]
            boxes, chosen = boxes[some], chosen[some]
        return TrainRow((image, info, *pad_objects(boxes, labels[chosen], self.num_gts)), chosen, placed)

    def _warn(self, count: int, file_name: Any) -> None:
        with self._lock:
            warned, self._warned = self._warned, True
        if not warned:
            log.warning("%s has %s, but num_gts is %d: each epoch leaves out a random %d of them; further images like it are not "
                        "reported", file_name, counted(count, "object"), self.num_gts, count - self.num_gts)


def build_train_transform(config: Config) -> TrainTransform:
    """Return the preprocessing and augmentation that the configuration describes."""
    augmenter = Augmenter(config.augmentations, config)
    return TrainTransform(build_preprocess(config, train=True), augmenter, config.num_gts, config.seed)


def pad_objects(boxes: np.ndarray, labels: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pad boxes (n, 4) and labels (n,) to G slots: (G, 4) float32, (G,) int32, valid (G,) bool."""
    missing = capacity - len(boxes)
    return (np.pad(boxes.astype(np.float32), ((0, missing), (0, 0))), np.pad(labels.astype(np.int32), (0, missing)),
            np.arange(capacity) < len(boxes))


def _decode(data: np.ndarray, file_name: Any) -> np.ndarray:
    try:
        return decode_image(data)
    except (ValueError, MemoryError) as error:
        raise BrokenImageError(str(file_name), str(error) or "too large for the free memory") from error


def epoch_images(count: int, repeats: np.ndarray | None = None) -> int:
    """Return the number of images in an epoch, including repeated ones."""
    return count if repeats is None else resampled_count(repeats)


def steps_per_epoch(count: int, batch_size: int, rank_size: int = 1, drop_remainder: bool = False) -> int:
    total = batch_size * rank_size
    return count // total if drop_remainder else -(-count // total)


def epoch_indices(count: int, seed: int, epoch: int, batch_size: int, rank: int = 0, rank_size: int = 1,
                  drop_remainder: bool = False, repeats: np.ndarray | None = None) -> np.ndarray:
    """Return the records of this rank in this epoch: (steps, batch_size).

    Each step takes the next batch_size * rank_size records of one shuffled order, so that over all ranks every record occurs once.
    The last step is filled from the start of the order, or left out with `drop_remainder`. repeats: (count,), how often each record
    occurs on average; record i has number i the first time, i + count the second time, and so on.
    """
    steps = steps_per_epoch(epoch_images(count, repeats), batch_size, rank_size, drop_remainder)
    if not 0 <= rank < rank_size:
        raise ValueError(f"rank: expected 0 to {rank_size - 1}, got {rank}")
    if steps == 0:
        raise InputError(f"the training set has {counted(count, 'image')}, but a step takes {batch_size * rank_size}; "
                         "reduce batch_size")
    rng = np.random.default_rng([seed, epoch])
    numbers = np.arange(count)
    if repeats is not None:
        chosen = resample(repeats, rng.random())
        numbers = chosen + count * occurrences(chosen)
    return np.resize(rng.permutation(numbers), (steps, rank_size, batch_size))[:, rank]


def create_dataset(files: Sequence[Path], count: int, transform: TrainTransform, batch_size: int, *, epoch: int,
                   start_batch: int = 0, rank: int = 0, rank_size: int = 1, workers: int = 2, drop_remainder: bool = False,
                   accumulate: int = 1, repeats: np.ndarray | None = None) -> ds.Dataset:
    """Return the batches of one training epoch, from step `start_batch` on (0 = the first); see `iterate`.

    The columns are those of transform.ROW, then image_id.

    Args:
        files: MindRecord files in the order of their records, as the manifest lists them; count: their total number of records.
        transform: the model's TrainTransform.
        accumulate: number of consecutive batches per step. Over all ranks, a step has the images of one batch that is this many
            times as large.
        repeats: see `epoch_indices`.
    """
    indices = epoch_indices(count, transform.seed, epoch, batch_size * accumulate, rank, rank_size, drop_remainder, repeats)
    if not 0 <= start_batch < len(indices):
        raise ValueError(f"start_batch: expected 0 to {len(indices) - 1}, got {start_batch}")
    numbers = indices[start_batch:].ravel()
    data = _read(files, count, [*transform.RECORD, "image_id"], (numbers % count).tolist())
    if repeats is not None:     # so that repetitions are augmented differently
        data = ds.zip((data, ds.NumpySlicesDataset(numbers, ["number"], shuffle=False)))
        data = data.map(lambda _, number: number, ["index", "number"], ["index"])
    load = Replacing(functools.partial(transform, epoch), transform.RECORD, files, count, transform.broken)
    data = data.map(load, transform.RECORD, transform.ROW, _workers(workers))
    return data.project([*transform.ROW, "image_id"]).batch(batch_size)


class TrainBatches:
    """Batches of a training run: `batches(epoch, start)` iterates over those of an epoch from step `start` on.

    Each batch is a list of Tensors: the columns of dataset.py, then image_id. A step takes accumulate_steps batches.

    Args:
        data: the training set (a DataInfo).
        transform: the model's TrainTransform.
        config: batch_size, accumulate_steps, num_parallel_workers.
        rank, ranks: index of this process, and number of processes that train together.
    """

    def __init__(self, data: DataInfo, transform: "TrainTransform", config: Config, rank: int = 0, ranks: int = 1):
        self.data, self.transform, self.rank, self.ranks = data, transform, rank, ranks
        self.batch_size, self.accumulate = config.batch_size, config.accumulate_steps
        self.workers = config.num_parallel_workers

    @property
    def steps_per_epoch(self) -> int:
        images = epoch_images(self.data.count, self.data.repeats)
        return steps_per_epoch(images, self.batch_size * self.ranks * self.accumulate)

    def __call__(self, epoch: int, start: int) -> Iterator[list[Tensor]]:
        return iterate(create_dataset(self.data.files, self.data.count, self.transform, self.batch_size, epoch=epoch,
                                      start_batch=start, rank=self.rank, rank_size=self.ranks, workers=self.workers,
                                      accumulate=self.accumulate, repeats=self.data.repeats))


def _read(files: Sequence[Path], count: int, columns: list[str], indices: list[int]) -> ds.Dataset:
    """Return the rows at `indices`, in this order."""
    ds.config.set_prefetch_size(PREFETCH)
    cv2.setNumThreads(1)    # the parallelism is over images
    # SubsetSampler keeps the order, but takes at most as many positions as there are rows; an order that wraps around has more.
    parts = [ds.MindDataset([str(file) for file in files], columns, 1, sampler=ds.SubsetSampler(part))
             for part in (indices[start:start + count] for start in range(0, len(indices), count))]
    return functools.reduce(ds.Dataset.concat, parts)


def _workers(wanted: int) -> int:
    """Limit the number of workers, since MindSpore refuses more than the machine has cores."""
    return max(1, min(wanted, os.cpu_count() or 1))


def iterate(dataset: ds.Dataset, output_numpy: bool = False) -> Iterator[list]:
    """Iterate over a dataset once, and yield lists of Tensors or arrays."""
    try:
        yield from dataset.create_tuple_iterator(num_epochs=1, output_numpy=output_numpy)
    except RuntimeError as error:
        found = re.findall(r"InputError: (.+)", str(error))     # MindSpore passes on the text of the exception only
        raise (InputError(found[-1]) if found else error) from error


class EvalBatch(NamedTuple):
    """Arrays of a batch. Rows after the first `real` ones repeat the last image to fill the batch, with image_id -1."""

    image: np.ndarray
    image_info: np.ndarray
    image_id: np.ndarray

    @property
    def real(self) -> int:
        return int((self.image_id >= 0).sum())


class EvalBatches:
    """Every record of this rank once, except images that cannot be decoded, in batches of one size; can be iterated repeatedly.

    The ranks take turns at the batches that a single process would make, so that the network sees exactly the same batches if all
    images have the same size. `count`: images of this rank. With pad_to=divisor, images of equal padded size share a batch, and the
    network is compiled once for each padded size.
    """

    def __init__(self, files: Sequence[Path], count: int, preprocess: Callable[[np.ndarray], NetworkInput], batch_size: int = 1, *,
                 rank: int = 0, rank_size: int = 1, workers: int = 2):
        self._files, self._total, self._preprocess = files, count, preprocess
        self._batch_size, self._workers = batch_size, workers
        self._broken = BrokenImages()
        self._indices = [index for index in range(count) if index // batch_size % rank_size == rank]
        self.count = len(self._indices)

    def __iter__(self) -> Iterator[EvalBatch]:
        waiting: dict[tuple[int, ...], list] = {}   # shape of the input -> rows
        row = None
        for row in self._rows():
            rows = waiting.setdefault(row[0].shape, [])
            rows.append(row)
            if len(rows) == self._batch_size:
                yield self._batch(waiting.pop(row[0].shape))
        for rows in waiting.values():
            yield self._batch(rows)
        if row is None and 0 < self.count == self._total:
            raise InputError(f"none of the {self.count} images of the evaluation set can be decoded")

    def _rows(self) -> Iterator[list[np.ndarray]]:
        if not self.count:
            return
        data = _read(self._files, self._total, ["image", "file_name", "image_id"], self._indices)
        data = data.map(self._load, ["image", "file_name"], ["image", "image_info"], _workers(self._workers))
        yield from (row for row in iterate(data.project(EVAL_COLUMNS), output_numpy=True) if row[1].any())

    def _load(self, data: np.ndarray, file_name: Any) -> NetworkInput:
        """Return the network's input; image_info is 0 if the image cannot be decoded."""
        try:
            return self._preprocess(_decode(data, file_name))
        except BrokenImageError as error:
            self._broken.warn(error, "it gets no detections")
            return NetworkInput(np.zeros((3, 1, 1), np.float32), np.zeros(6, np.float32))

    def _batch(self, rows: list[list[np.ndarray]]) -> EvalBatch:
        batch = EvalBatch(*map(np.stack, zip(*rows, *rows[-1:] * (self._batch_size - len(rows)))))
        batch.image_id[len(rows):] = -1
        return batch
