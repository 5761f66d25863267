"""MindRecord files with noise images and all kinds of records, and their batches."""
import cv2
import numpy as np
from mindspore.mindrecord import FileWriter

from faster_rcnn.src.model_utils.data.augmentation import Augmenter
from faster_rcnn.src.model_utils.data.loading import create_dataset, iterate
from faster_rcnn.src.model_utils.data.transforms import InputSize, Preprocess

SCHEMA = {"image": {"type": "bytes"}, "image_id": {"type": "int64"}, "file_name": {"type": "string"},
          "index": {"type": "int64"}, "height": {"type": "int32"}, "width": {"type": "int32"},
          "boxes": {"type": "float32", "shape": [-1, 4]}, "labels": {"type": "int32", "shape": [-1]},
          "crowds": {"type": "int32", "shape": [-1]}, "count": {"type": "int32"}}
EVERYTHING = Augmenter(("photo", "expand", "multi_scale", "flip"),
                       {"flip_ratio": 0.5, "expand_ratio": 1.0, "expand_factor": 2.0, "photo_ratio": 0.5,
                        "multi_scale": (0.5, 0.75, 1.0)})
PLAIN = Preprocess(InputSize(48, 64), (10, 20, 30), (2, 3, 4))
COUNT = 11


def encoded(height, width, kind, seed):
    """Return an encoded noise image with three black rows at the top. A BMP stores them last, as zero bytes."""
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    image[:3] = 0
    return cv2.imencode(kind, image)[1].tobytes()


def make_row(index, objects=2, crowds=(), kind=".png"):
    """Return a record with `objects` boxes. Without objects it has one row of padding; `count` is 0."""
    height, width = 30 + index, 52 - index
    rng = np.random.default_rng(index)
    boxes = rng.uniform(0, 0.4, (max(objects, 1), 4))
    boxes[:, 2:] += 0.5
    boxes *= (width, height, width, height)
    flags = np.zeros(len(boxes), np.int32)
    flags[list(crowds)] = 1
    labels = np.arange(len(boxes), dtype=np.int32) % 5 + 1
    return {"image": encoded(height, width, kind, index), "image_id": 1000 + 3 * index, "file_name": f"p {index}{kind}",
            "index": index, "height": height, "width": width, "boxes": boxes.astype(np.float32), "labels": labels,
            "crowds": flags, "count": objects}


def write_records(folder, rows, shards=1):
    """Write the rows with MindSpore's own writer. Return the files."""
    path = folder / "set.mindrecord"
    writer = FileWriter(str(path), shard_num=shards)
    writer.add_schema(SCHEMA, "test")
    writer.write_raw_data(rows)
    writer.commit()
    return [path] if shards == 1 else [folder / f"set.mindrecord{i}" for i in range(shards)]


def make_rows():
    """Return COUNT records with 0 to 3 objects; one object is a crowd."""
    return [make_row(i, objects=(i + 1) % 4, crowds=[1] if i == 6 else (), kind=".bmp" if i % 3 else ".png")
            for i in range(COUNT)]


def batches(files, transform, batch_size=2, count=COUNT, **options):
    """Return all batches: [(image, image_info, gt_boxes, gt_labels, gt_valid, image_id), ...]."""
    options.setdefault("epoch", 1)
    return list(iterate(create_dataset(files, count, transform, batch_size, **options), output_numpy=True))


def assert_equal(got, expected):
    assert len(got) == len(expected)
    for batch, other in zip(got, expected):
        for column, other_column in zip(batch, other):
            np.testing.assert_array_equal(column, other_column)
