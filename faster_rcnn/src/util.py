"""Detections -> COCO results: what evaluation, inference and evaluation during training share.

Shapes: N images, D detections per image (fixed; `valid` tells which are meant).
Boxes are (x1, y1, x2, y2) in pixels of the network input; label 0 is background. Results hold bbox (x, y, width,
height) in pixels of the original image. image_info rows: resized height and width, scale_y, scale_x (resized /
original), original height and width.
"""
import io
import itertools
import json
import sys
import time
from pathlib import Path

import numpy as np

__all__ = ["Predictions", "Progress", "ResultsWriter", "config_categories", "run_inference", "to_results", "write_metrics"]

# Digits written: far less than a pixel, and more than float32 tells apart in a score, so that no new ties appear.
BOX_DECIMALS, SCORE_DECIMALS = 4, 8
# Category ids of COCO's 80 classes in their order: 1 to 90, with gaps.
COCO_IDS = [number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]


def to_results(boxes, scores, labels, valid, image_info, image_ids, categories, masks=None, encode=None) -> list:
    """COCO results (a list of dicts that `json.dumps` takes) of a batch, in the order of images and detections.

    boxes (N, D, 4), scores, labels and valid (N, D), image_info (N, 6), image_ids (N,); categories: {"id", "name",
    "label"} of each class. masks and encode: see Predictions. Boxes that are empty after clipping are left out.
    """
    predictions = Predictions(categories, encode)
    predictions.add(boxes, scores, labels, valid, image_info, image_ids, masks)
    return list(predictions)


def config_categories(config) -> list:
    """{"id", "name", "label"} of each class, for results without a data set.

    The ids count from first_category_id on; for COCO's 80 classes they are COCO's own, so that the results can be scored.
    """
    first = config.get("first_category_id", 1)      # of some models alone
    names = config.coco_classes[1:] or [f"class {label}" for label in range(1, config.num_classes)]
    ids = COCO_IDS if (len(names), names[0], names[-1]) == (80, "person", "toothbrush") else range(first, first + len(names))
    return [{"id": number, "name": name, "label": label} for label, (number, name) in enumerate(zip(ids, names), 1)]


class Predictions:
    """Detections of a whole set, 56 bytes each and their masks' RLE; iterates over COCO results.

    encode(masks (K, ...), boxes (K, 4), height, width) -> K RLE: turns what the network gives as the masks of one image
    into RLE of the original image, whose pixels the boxes (x1, y1, x2, y2) are in. It is called for the detections alone
    that are kept.
    """

    def __init__(self, categories, encode=None):
        self._encode = encode
        self._category_of_label = np.full(1 + max(item["label"] for item in categories), -1, np.int64)
        for item in categories:
            self._category_of_label[item["label"]] = item["id"]
        self._chunks = []   # (image ids, category ids, boxes xywh, scores, masks or None) of each batch
        self._count = 0

    def __len__(self):
        return self._count

    def __iter__(self):
        for image_ids, category_ids, boxes, scores, masks in self._chunks:
            rows = zip(image_ids.tolist(), category_ids.tolist(), boxes.tolist(), scores.tolist())
            for i, (image_id, category_id, box, score) in enumerate(rows):
                result = {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score}
                if masks is not None:
                    size, counts = masks[i]
                    result["segmentation"] = {"size": list(size), "counts": counts}
                yield result

    def columns(self) -> tuple:
        """image ids (n,), category ids (n,), boxes xywh (n, 4), scores (n,), n of (size, counts) or None without masks."""
        if not self._chunks:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0), [] if self._encode else None
        *arrays, masks = zip(*self._chunks)
        return *map(np.concatenate, arrays), None if masks[0] is None else [rle for chunk in masks for rle in chunk]

    def pack(self) -> bytes:
        """All of them, for `unpack`."""
        *arrays, masks = self.columns()
        rles = np.frombuffer(json.dumps(masks).encode("ascii"), np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, np.array([len(chunk[0]) for chunk in self._chunks], np.int64), *arrays, rles)
        return buffer.getvalue()

    def unpack(self, packed: list) -> None:
        """Become those of all ranks, of which each packed its own: batch after batch in the order of the data set."""
        chunks = [chunk for row in itertools.zip_longest(*map(_unpack, packed)) for chunk in row if chunk is not None]
        self._chunks, self._count = chunks, sum(len(chunk[0]) for chunk in chunks)

    def add(self, boxes, scores, labels, valid, image_info, image_ids, masks=None) -> None:
        """Take a batch: see `to_results`. An image with an id below 0 is padding of the batch and left out.

        masks (N, D, ...): what `encode` takes.
        """
        info = np.asarray(image_info, np.float64)[:, :, None]       # (N, 6, 1)
        image_ids = np.asarray(image_ids, np.int64)
        boxes = np.asarray(boxes, np.float64)                       # (N, D, 4)
        left, right = (np.clip(boxes[..., i] / info[:, 3], 0, info[:, 5]) for i in (0, 2))  # (N, D)
        top, bottom = (np.clip(boxes[..., i] / info[:, 2], 0, info[:, 4]) for i in (1, 3))
        found = np.stack([left, top, right - left, bottom - top], -1).round(BOX_DECIMALS)   # (N, D, 4)
        # Written so that a NaN is left out too.
        keep = np.asarray(valid, bool) & (found[..., 2] > 0) & (found[..., 3] > 0) & (image_ids[:, None] >= 0)
        image, _ = np.nonzero(keep)
        labels = np.asarray(labels)[keep]
        known = len(self._category_of_label)
        bad = labels[(labels < 1) | (labels >= known) | (self._category_of_label[np.clip(labels, 0, known - 1)] < 0)]
        if bad.size:
            raise ValueError(f"the network gave label {bad[0]}; the data's classes have labels 1 to {known - 1}")
        rles = None
        if masks is not None:
            corners = np.stack([left, top, right, bottom], -1)      # (N, D, 4)
            rles = [rle for n in np.unique(image).tolist() for rle in self._encode_image(
                masks[n][keep[n]], corners[n][keep[n]], info[n, 4:, 0])]
        score = np.asarray(scores, np.float64)[keep].round(SCORE_DECIMALS)
        self._chunks.append((image_ids[image], self._category_of_label[labels], found[keep], score, rles))
        self._count += len(image)

    def _encode_image(self, masks, boxes, size) -> list:
        """((height, width), counts) of each mask of an image."""
        size = tuple(int(round(side)) for side in size.tolist())
        counts = [rle["counts"] for rle in self._encode(masks, boxes, *size)]
        return [(size, text.decode("ascii") if isinstance(text, bytes) else text) for text in counts]

    def save(self, path) -> None:
        """Write all as a JSON list, one result a line."""
        with ResultsWriter(path) as writer:
            writer.add(self)


def _unpack(packed: bytes) -> list:
    """The chunks of Predictions.pack."""
    with np.load(io.BytesIO(packed)) as content:
        sizes, *columns, rles = (content[name] for name in content.files)
    masks = json.loads(rles.tobytes())
    ends = np.cumsum(sizes).tolist()
    return [(*(column[start:end] for column in columns), None if masks is None else masks[start:end])
            for start, end in zip([0, *ends], ends)]


class ResultsWriter:
    """A JSON list on disk that grows, and is whole after every `add`: a run that is stopped leaves a readable file."""

    CLOSING = b"\n]\n"

    def __init__(self, path):
        self._file = Path(path).open("wb")  # noqa: SIM115  (closed by `close`)
        self._file.write(b"[" + self.CLOSING)
        self._file.flush()
        self.count = 0

    def add(self, results) -> None:
        """Append dicts."""
        self._file.seek(-len(self.CLOSING), 2)
        for result in results:
            self._file.write(b",\n" if self.count else b"\n")
            self._file.write(json.dumps(result, ensure_ascii=False).encode("utf-8", "backslashreplace"))
            self.count += 1
        self._file.write(self.CLOSING)
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Progress:
    """Progress with the time left: a bar on a terminal, else a plain line now and then; `total` may be None."""

    def __init__(self, total, label: str, unit: str = "img", every_s: float = 10.0, stream=None):
        self.total, self.label, self.unit, self.every_s = total, label, unit, every_s
        self.done = 0
        self._stream = stream or sys.stderr
        self._start = self._last = time.monotonic()
        self._bar = None
        if self._stream.isatty():
            from tqdm import tqdm
            self._bar = tqdm(total=total, desc=label, unit=unit, file=self._stream, dynamic_ncols=True)

    def update(self, count: int = 1) -> None:
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
        elif time.monotonic() - self._last >= self.every_s and self.done != self.total:
            self._line()

    def note(self, text: str) -> None:
        """A line that does not tear the bar."""
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def close(self, finished: bool = True) -> None:
        if self._bar is not None:
            self._bar.close()
        elif finished:
            self._line()

    def _line(self) -> None:
        self._last = time.monotonic()
        spent = max(self._last - self._start, 1e-9)
        text = f"{self.label}: {self.done}{'' if self.total is None else f'/{self.total}'} {self.unit}"
        text += f", {self.done / spent:.2f} {self.unit}/s"
        if self.total and 0 < self.done < self.total:
            text += f", {format_seconds((self.total - self.done) * spent / self.done)} left"
        print(text, file=self._stream, flush=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.close(finished=kind is None)


def format_seconds(seconds: float) -> str:
    """3725 -> 1:02:05."""
    minutes, seconds = divmod(int(round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def run_inference(predict, batches, categories, total=None, label: str = "evaluate", encode=None, gather=None) -> Predictions:
    """Run `predict(image, image_info) -> (boxes, scores, labels, valid[, masks])` over batches; collect what it finds.

    batches: tuples in the order of the dataset's columns (image, image_info, ..., image_id last), NumPy arrays or
    Tensors. total: images, for the progress. encode: see Predictions; masks become RLE as the batches come.
    gather(bytes) -> those of all ranks, where several share the set: each then has the predictions of all.
    """
    predictions = Predictions(categories, encode)
    with Progress(total, label) as progress:
        for image, image_info, *_, image_id in batches:
            boxes, scores, labels, valid, *masks = (_to_numpy(output) for output in predict(image, image_info))
            image_id = _to_numpy(image_id)
            predictions.add(boxes, scores, labels, valid, _to_numpy(image_info), image_id, *masks)
            progress.update(int((image_id >= 0).sum()))
    if gather:
        predictions.unpack(gather(predictions.pack()))
    return predictions


def _to_numpy(value):
    return value.asnumpy() if hasattr(value, "asnumpy") else value


def write_metrics(path, scores: list, **more) -> dict:
    """Write metrics.json; return its content. scores: those of the boxes, then of the masks (`segm_AP` per class)."""
    content = scores[0].to_dict()
    for extra in scores[1:]:
        content[extra.iou_type] = dict(extra.figures)
        for name, row in extra.per_class.items():
            content["per_class"][name].update({f"{extra.iou_type}_{key}": row[key] for key in ("AP", "AP50")})
    content.update(more)
    Path(path).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return content
