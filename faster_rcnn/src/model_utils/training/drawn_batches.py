"""Draw training batches with boxes and outlines as the network receives them, for check.py --draw."""
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ... import dataset
from ..config import Config, load_config
from ..data.loading import TrainBatches
from ..data.source import name_classes
from ..files import replacing
from ..inference.draw import colour_of, draw_detections

EDGES = "gt_edges"      # column of mask outlines: x0, y0, x1, y1, part in input pixels; 0 = padding


def draw(config_path: Path, keys: Mapping[str, Any], folder: Path, count: int, scratch: Path) -> int:
    """Draw the first images of the first epochs into `folder` as EPOCH_NUMBER_IDENTIFIER.jpg; return their number.

    keys: override the configuration; scratch: folder for the conversion.
    """
    config = load_config(config_path, {**keys, "output_path": str(scratch), "mindrecord_dir": ""}, classes_of_data=True)
    transform = dataset.build_train_transform(config)
    data = dataset.prepare_data(config, train=True)
    config = name_classes(config, data)
    batches = TrainBatches(data, transform, config)
    folder.mkdir(parents=True, exist_ok=True)
    done = 0
    epochs = -(-count // (batches.steps_per_epoch * config.batch_size))
    for epoch in range(epochs):
        for batch in batches(epoch, 0):
            columns = dict(zip(transform.ROW, (column.asnumpy() for column in batch)))
            for row, image_id in enumerate(batch[-1].asnumpy().tolist()):
                if done == count:
                    return done
                path = folder / f"{epoch}_{done:04d}_{image_id}.jpg"
                drawn = draw_row({name: column[row] for name, column in columns.items()}, config, data.class_names)
                with replacing(path, durable=False) as partial:
                    partial.write_bytes(cv2.imencode(".jpg", drawn)[1].tobytes())
                done += 1
    return done


def draw_row(row: Mapping[str, np.ndarray], config: Config, class_names: Sequence[str]) -> np.ndarray:
    """Return the drawing (H, W, 3) uint8 of one image of a batch. row: columns by name, see dataset.py."""
    image = row["image"].transpose(1, 2, 0) * np.array(config.image_std) + np.array(config.image_mean)
    image = np.clip(image, 0, 255).round().astype(np.uint8)
    image = image[..., ::-1] if config.to_rgb else image
    valid = row["gt_valid"]
    drawn = draw_detections(image, row["gt_boxes"][valid], row["gt_labels"][valid], None, class_names)
    for number, edges in enumerate(row[EDGES][valid] if EDGES in row else ()):
        edges = edges[edges.any(1)]
        for x0, y0, x1, y1 in np.round(edges[:, :4] - 0.5).astype(int).tolist():
            cv2.line(drawn, (x0, y0), (x1, y1), colour_of(number), 1, cv2.LINE_AA)
    return drawn
