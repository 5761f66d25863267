"""MindRecord -> batches of one size, for training and evaluation.

Shapes: N images of a batch, G = num_gts slots for objects, H x W the padded input.
Columns: image (N, 3, H, W) float32, normalised; image_info (N, 6) float32: resized height and width, scale_y, scale_x
(resized / original), original height and width; gt_boxes (N, G, 4) float32 in pixels of the input; gt_labels (N, G)
int32, 0 = padding; gt_valid (N, G) bool; image_id (N,) int64. Evaluation has image, image_info and image_id.

Which pictures a step sees, and how they are augmented, follows from seed, epoch and the place of a record in its set
alone: not from the number of workers, and not from where a run was stopped.
"""
import functools
import json
import logging
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import mindspore.dataset as ds
import numpy as np

from .model_utils.config import InputError
from .transforms import Augmenter, InputSize, Preprocess, augment, decode_image

__all__ = ["DataInfo", "EvalBatch", "EvalBatches", "TrainTransform", "build_preprocess", "build_train_transform",
           "create_dataset", "epoch_indices", "find_source", "iterate", "prepare_data", "steps_per_epoch"]

TRAIN_COLUMNS = ["image", "image_info", "gt_boxes", "gt_labels", "gt_valid", "image_id"]
EVAL_COLUMNS = ["image", "image_info", "image_id"]
# Batches that wait between two stages; one of 2 at 768x1280 takes 24 MB, and the default of 16 would hold 750 MB.
PREFETCH = 2
log = logging.getLogger(__name__)


def build_preprocess(config, train: bool = False) -> Preprocess:
    """The preprocessing that the configuration asks for."""
    if train and config.pad_to == "divisor":
        raise InputError("pad_to: divisor is for evaluation and inference; training takes inputs of one size: fixed "
                         "or HEIGHTxWIDTH")
    size = InputSize(config.img_height, config.img_width, config.keep_ratio, config.pad_to)
    return Preprocess(size, config.image_mean, config.image_std, config.to_rgb)


def build_train_transform(config) -> "TrainTransform":
    """Preprocessing and augmentation that the configuration asks for."""
    try:
        augmenter = Augmenter(config.flip_ratio, config.expand_ratio, config.photo_ratio, tuple(config.multi_scale))
    except ValueError as error:
        raise InputError(str(error)) from error
    return TrainTransform(build_preprocess(config, train=True), augmenter, config.num_gts, config.seed)


class TrainTransform:
    """One record -> one row of a training batch."""

    def __init__(self, preprocess: Preprocess, augmenter: Augmenter, num_gts: int, seed: int):
        self.preprocess, self.augmenter, self.num_gts, self.seed = preprocess, augmenter, num_gts, seed
        self._lock, self._told = threading.Lock(), False

    def __call__(self, epoch, data, file_name, index, boxes, labels, crowds, count) -> tuple:
        """(image, image_info, gt_boxes, gt_labels, gt_valid). Crowds and what is empty once clipped are left out."""
        rng = np.random.default_rng([self.seed, int(epoch), int(index)])
        keep = (np.arange(len(labels)) < int(count)) & (crowds == 0)    # a record without objects holds a row of zeros
        image = _decode(data, file_name)
        image, info, boxes = augment(image, boxes[keep], self.preprocess, self.augmenter.draw(rng))
        solid = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        boxes, labels = boxes[solid], labels[keep][solid]
        if len(boxes) > self.num_gts:
            self._tell(len(boxes), file_name)
            chosen = rng.permutation(len(boxes))[:self.num_gts]
            boxes, labels = boxes[chosen], labels[chosen]
        return image, info, *pad_objects(boxes, labels, self.num_gts)

    def _tell(self, count: int, file_name) -> None:
        with self._lock:
            told, self._told = self._told, True
        if not told:
            log.warning("%s has %d objects, num_gts is %d: %d of them, others in each epoch, are left out; further "
                        "pictures like it are not told", file_name, count, self.num_gts, count - self.num_gts)


def pad_objects(boxes: np.ndarray, labels: np.ndarray, capacity: int) -> tuple:
    """(n, 4), (n,) -> (G, 4) float32, (G,) int32 and (G,) bool."""
    missing = capacity - len(boxes)
    return (np.pad(boxes.astype(np.float32), ((0, missing), (0, 0))), np.pad(labels.astype(np.int32), (0, missing)),
            np.arange(capacity) < len(boxes))


def _decode(data, file_name) -> np.ndarray:
    try:
        return decode_image(data)
    except ValueError as error:
        raise InputError(f"{file_name}: {error}") from error


def steps_per_epoch(count: int, batch_size: int, rank_size: int = 1, drop_remainder: bool = False) -> int:
    total = batch_size * rank_size
    return count // total if drop_remainder else -(-count // total)


def epoch_indices(count: int, seed: int, epoch: int, batch_size: int, rank: int = 0, rank_size: int = 1,
                  drop_remainder: bool = False) -> np.ndarray:
    """(steps, batch_size) records of this rank in this epoch.

    Each step takes the next batch_size * rank_size of one shuffled order, so over all ranks every record comes once;
    the last step is filled from the start of the order, or left out with `drop_remainder`.
    """
    steps = steps_per_epoch(count, batch_size, rank_size, drop_remainder)
    if not 0 <= rank < rank_size:
        raise ValueError(f"rank: expected 0 to {rank_size - 1}, got {rank}")
    if steps == 0:
        raise InputError(f"the training set has {count} pictures, and a step takes {batch_size * rank_size}")
    order = np.random.default_rng([seed, epoch]).permutation(count)
    return np.resize(order, (steps, rank_size, batch_size))[:, rank]


def create_dataset(files, count: int, transform: TrainTransform, batch_size: int, *, epoch: int, start_batch: int = 0,
                   rank: int = 0, rank_size: int = 1, workers: int = 2, drop_remainder: bool = False) -> ds.Dataset:
    """The batches of one epoch of training, from batch `start_batch` on (0 = the first); see `iterate`.

    files: MindRecord files in the order of their records, as the manifest lists them; count: records in all.
    """
    indices = epoch_indices(count, transform.seed, epoch, batch_size, rank, rank_size, drop_remainder)
    if not 0 <= start_batch < len(indices):
        raise ValueError(f"start_batch: expected 0 to {len(indices) - 1}, got {start_batch}")
    columns = ["image", "file_name", "index", "boxes", "labels", "crowds", "count"]
    data = _read(files, count, [*columns, "image_id"], indices[start_batch:].ravel().tolist())
    data = data.map(functools.partial(transform, epoch), columns, TRAIN_COLUMNS[:-1], _workers(workers))
    return data.project(TRAIN_COLUMNS).batch(batch_size)


def _read(files, count: int, columns: list, indices: list) -> ds.Dataset:
    """Rows by position, in the order of `indices`."""
    ds.config.set_prefetch_size(PREFETCH)
    cv2.setNumThreads(1)    # pictures are what is done in parallel
    # SubsetSampler keeps the order, but takes no more positions than there are rows; an order that wraps around has.
    parts = [ds.MindDataset([str(file) for file in files], columns, 1, sampler=ds.SubsetSampler(part))
             for part in (indices[start:start + count] for start in range(0, len(indices), count))]
    return functools.reduce(ds.Dataset.concat, parts)


def _workers(wanted: int) -> int:
    """More workers than the machine has cores are refused by MindSpore."""
    return max(1, min(wanted, os.cpu_count() or 1))


def iterate(dataset: ds.Dataset, output_numpy: bool = False):
    """One pass: yields lists of Tensors or arrays. A picture that does not decode is an InputError that names it."""
    try:
        yield from dataset.create_tuple_iterator(num_epochs=1, output_numpy=output_numpy)
    except RuntimeError as error:
        told = re.findall(r"InputError: (.+)", str(error))     # MindSpore hands on the text alone
        raise (InputError(told[-1]) if told else error) from error


class EvalBatch(NamedTuple):
    """Arrays of a batch; rows after the first `real` repeat the last picture to fill it, with image_id -1."""

    image: np.ndarray
    image_info: np.ndarray
    image_id: np.ndarray

    @property
    def real(self) -> int:
        return int((self.image_id >= 0).sum())


class EvalBatches:
    """Every record of this rank once, in batches of one size; iterate as often as you like.

    `count`: pictures of this rank. With pad_to=divisor those of equal padded size share a batch, and the network is
    compiled once for each of these sizes.
    """

    def __init__(self, files, count: int, preprocess: Preprocess, batch_size: int = 1, *, rank: int = 0,
                 rank_size: int = 1, workers: int = 2):
        self._files, self._total, self._preprocess = files, count, preprocess
        self._batch_size, self._workers = batch_size, workers
        self._indices = list(range(rank, count, rank_size))
        self.count = len(self._indices)

    def __iter__(self):
        waiting = {}    # shape of the input -> rows
        for row in self._rows():
            rows = waiting.setdefault(row[0].shape, [])
            rows.append(row)
            if len(rows) == self._batch_size:
                yield self._batch(waiting.pop(row[0].shape))
        for rows in waiting.values():
            yield self._batch(rows)

    def _rows(self):
        if not self.count:
            return
        data = _read(self._files, self._total, ["image", "file_name", "image_id"], self._indices)
        data = data.map(self._load, ["image", "file_name"], ["image", "image_info"], _workers(self._workers))
        yield from iterate(data.project(EVAL_COLUMNS), output_numpy=True)

    def _load(self, data, file_name) -> tuple:
        return self._preprocess(_decode(data, file_name))

    def _batch(self, rows: list) -> EvalBatch:
        batch = EvalBatch(*map(np.stack, zip(*rows, *rows[-1:] * (self._batch_size - len(rows)))))
        batch.image_id[len(rows):] = -1
        return batch


@dataclass(frozen=True)
class DataInfo:
    """A set in MindRecord."""

    files: tuple            # in the order of the records
    count: int              # pictures
    categories: list        # {"id", "name", "label"} of each class; the id is the source's
    source: dict            # arguments of utils.mindrecord.ensure, but for the folder it writes to

    @property
    def class_names(self) -> list:
        """The name of each label, background first."""
        return ["background", *(item["name"] for item in sorted(self.categories, key=lambda item: item["label"]))]

    def ground_truth(self) -> dict:
        """COCO ground truth as the source has it; a picture that cannot be read counts, its objects as missed.

        Read anew each time: a training run is not to hold it between two evaluations.
        """
        if self.source["source"] != "coco":
            keys = ("source", "image_dir", "anno_path", "classes", "image_set")
            tools = _mindrecord_tools()
            records, categories, _ = tools.read_annotations(**{key: self.source[key] for key in keys})
            return tools.records_to_coco(records, categories)
        content = json.loads(Path(self.source["anno_path"]).read_text(encoding="utf-8"))
        wanted = {item["id"] for item in self.categories}
        others = {item["id"] for item in content["categories"]} - wanted
        if not others:
            return content
        return {**content, "categories": [item for item in content["categories"] if item["id"] in wanted],
                "annotations": [item for item in content["annotations"] if item.get("category_id") not in others]}


def prepare_data(config, train: bool, in_training: bool = False) -> DataInfo:
    """The training or the evaluation set of the configuration, converted to MindRecord where that is not done yet.

    in_training: the evaluation set of a training run, in which image_dir and anno_path are the training set's.
    """
    tools = _mindrecord_tools()
    source = find_source(config, train, in_training)
    folder = _conversion_folder(config, source, "train" if train else "eval")
    _require_source(config, source, "val_" if in_training and not train else "", train and _has_manifest(folder))
    manifest = tools.ensure(output_dir=folder, **source)
    files = tuple(folder / name for name in manifest["files"])
    info = DataInfo(files, manifest["count"], manifest["categories"], source)
    if len(info.class_names) != config.num_classes:
        raise InputError(f"num_classes: {config.num_classes}, but {source['anno_path']} has {len(info.class_names)}, "
                         "the background counted; coco_classes can name those to take")
    return info


def find_source(config, train: bool, in_training: bool = False) -> dict:
    """The arguments of utils.mindrecord.ensure that the configuration's keys stand for."""
    # A model that takes COCO alone has no image_set.
    values = {name: config.get(name, "") for name in ("image_dir", "anno_path", "image_set")}
    if not train:
        own = {name: config.get(f"val_{name}", "") for name in values}
        if any(own.values()):   # what is not given is common to both sets, as the folders of VOC are
            values = {name: own[name] or value for name, value in values.items()}
        elif in_training:       # those of the training set, which says nothing about what was learnt
            values = dict.fromkeys(values, "")
    if config.coco_root and config.dataset == "coco":
        root, data_type = Path(config.coco_root), config.train_data_type if train else config.val_data_type
        values["image_dir"] = values["image_dir"] or str(root / data_type)
        values["anno_path"] = values["anno_path"] or str(root / config.instance_set.format(data_type))
    return {"source": config.dataset, **values, "image_set": values["image_set"] or None,
            "classes": list(config.coco_classes) or None,
            # An evaluation counts what is found where nothing is.
            "keep_empty": config.keep_empty if train else True}


def _require_source(config, source: dict, prefix: str, converted: bool) -> None:
    """InputError that names the key where the source is not given or not there; to train, a conversion will do."""
    if converted:
        return
    if config.dataset == "coco" and config.coco_root and not Path(config.coco_root).is_dir():
        raise InputError(f"coco_root: no such folder: {config.coco_root}")
    for name in ("image_dir", "anno_path"):
        if not source[name]:
            choice = f"--coco_root or --{prefix}{name}" if config.dataset == "coco" else f"--{prefix}{name}"
            raise InputError(f"{prefix}{name} is needed{' for run_eval' if prefix else ''}: give {choice}")


def _conversion_folder(config, source: dict, name: str) -> Path:
    """Where a set's MindRecord lies: under mindrecord_dir, or just there where it holds a conversion of this set."""
    from utils.mindrecord.manifest import read_manifest
    from utils.mindrecord.readers import source_digest
    root = Path(config.mindrecord_dir or Path(config.output_path) / "mindrecord")
    manifest, _ = read_manifest(root)
    if manifest is None:
        return root / name
    if not (source["anno_path"] and Path(source["anno_path"]).exists()):
        return root if name == "train" else root / name
    same = source_digest(config.dataset, source["anno_path"], source["image_set"])
    return root if manifest["fingerprint"]["annotations"] == same else root / name


def _has_manifest(folder: Path) -> bool:
    return (folder / "manifest.json").is_file()


def _mindrecord_tools():
    try:
        from utils import mindrecord
    except ImportError as error:
        if error.name not in ("utils", "utils.mindrecord"):
            raise
        raise InputError("utils/mindrecord is not there: it stands beside the model's folder; copy both") from error
    return mindrecord
