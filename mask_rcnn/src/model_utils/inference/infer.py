# Same as faster_rcnn/src/model_utils/inference/infer.py
"""What infer.py does: detect objects in images or a video, write the results as they come, and draw them."""
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...model import mask_encoder
from ...util import Progress
from ..config import Config, InputError
from ..data.preprocess import build_preprocess
from ..data.transforms import NetworkInput, Preprocess
from ..evaluation.detections import ResultsWriter, config_categories, to_results
from ..files import printable, tell, writing
from ..weights.class_names import with_class_names
from .backend import open_predictor
from .draw import draw_detections
from .media import Frame, Pictures, PictureWriter, Video, VideoWriter, open_input, read_ahead, writer_of
from .predictors import Predictor, find_model

PARTIAL = "detections.partial.json"     # the results of the frames so far


def infer(config: Config) -> None:
    """Detect in the configuration's `input`; write detections.json and, with `draw`, pictures or a video to output_path."""
    key, model = find_model(config)
    if key == "checkpoint_path":
        config = with_class_names(config, model)
    source = open_input(config.input, config.output_path, config.exif_orientation != "ignore")
    predict = open_predictor(config)
    output = Path(config.output_path)
    output.mkdir(parents=True, exist_ok=True)
    detector = FrameDetector(predict, build_preprocess(config), config)
    unit = "frame" if isinstance(source, Video) else "img"
    with growing_results(output, source, detector) as results, Progress(source.total, "infer", unit) as progress:
        writer = writer_of(source, output) if config.draw else None
        try:
            detector.run(source, results, writer, progress)
            if writer is not None:
                writer.finish()
        finally:
            if writer is not None:
                writer.close()
    summary(detector, source, config)


@contextmanager
def growing_results(output: Path, source: Pictures | Video, detector: "FrameDetector") -> Iterator[ResultsWriter]:
    """Write detections.partial.json, which becomes detections.json at the end; if the run stops before, say what is missing."""
    partial, final = output / PARTIAL, output / "detections.json"
    if partial.exists():
        tell(f"{partial}: of a run that did not end: replaced, as this run starts with the first of the {kind_of(source)}")
    try:
        with ResultsWriter(partial) as results:
            yield results
        with writing(final):
            partial.replace(final)
    except BaseException:
        if detector.read:
            total = "" if source.total is None else f" of {source.total}"
            tell(f"{final}: not written: {detector.read + detector.unreadable}{total} {kind_of(source)} are done, the last is "
                 f"{detector.last}; {partial} has their results. Another run starts with the first one again.")
        else:
            partial.unlink(missing_ok=True)
        raise


def kind_of(source: Pictures | Video) -> str:
    return "frames" if isinstance(source, Video) else "pictures"


class Loaded(NamedTuple):
    """A frame with the network's input; None where the frame cannot be read."""

    frame: Frame
    inputs: NetworkInput | None


class FrameDetector:
    """Runs frames through the network in batches and hands on what it finds."""

    def __init__(self, predict: Predictor, preprocess: Preprocess, config: Config):
        self.predict, self.preprocess = predict, preprocess
        self.encode = mask_encoder(config)
        self.keep_empty = config.get("keep_empty_boxes", False)     # not every model has it
        self.batch_size, self.score_thr = config.test_batch_size, config.score_thr
        self.categories = config_categories(config)
        self.names = ["background", *(item["name"] for item in self.categories)]
        self.read = self.unreadable = 0
        self.last = ""          # name of the newest frame with results
        self.counts: Counter[str] = Counter()

    def run(self, source: Pictures | Video, results: ResultsWriter, writer: PictureWriter | VideoWriter | None,
            progress: Progress) -> None:
        """Results are written as they come, in the order of the source."""
        waiting: list[tuple[Frame, NetworkInput]] = []
        for frame, inputs in read_ahead(source, self._load, 2 * self.batch_size):
            if inputs is None:
                self.unreadable += 1
                progress.note(printable(f"{frame.file_name}: {frame.problem}"))
                progress.update()
                continue
            # One shape a batch; with pad_to=divisor a picture of another size ends it early.
            if waiting and waiting[0][1].image.shape != inputs.image.shape:
                self._flush(waiting, results, writer, progress)
            waiting.append((frame, inputs))
            if len(waiting) == self.batch_size:
                self._flush(waiting, results, writer, progress)
        self._flush(waiting, results, writer, progress)

    def _load(self, frame: Frame) -> Loaded:
        return Loaded(frame, None if frame.image is None else self.preprocess(frame.image))

    def _flush(self, waiting: list[tuple[Frame, NetworkInput]], results: ResultsWriter, writer: PictureWriter | VideoWriter | None,
               progress: Progress) -> None:
        """Detect in the waiting frames, and empty the list."""
        if not waiting:
            return
        frames = [frame for frame, _ in waiting]
        padding = [waiting[-1][1]] * (self.batch_size - len(waiting))     # networks take batches of one size
        image, info = map(np.stack, zip(*(inputs for _, inputs in waiting), *padding))
        boxes, scores, labels, valid, *masks = self.predict(image, info)
        valid = valid & (scores >= self.score_thr)
        for i, frame in enumerate(frames):
            row = slice(i, i + 1)
            found = to_results(boxes[row], scores[row], labels[row], valid[row], info[row], [frame.image_id],
                               self.categories, masks[0][row] if masks else None, self.encode, self.keep_empty)
            results.add({"image_id": frame.image_id, "file_name": frame.file_name, **(frame.where or {}), **result}
                        for result in found)
            self._draw(frame, found, writer)
        self.read += len(frames)
        self.last = frames[-1].file_name
        progress.update(len(frames))
        waiting.clear()

    def _draw(self, frame: Frame, found: list[dict], writer: PictureWriter | VideoWriter | None) -> None:
        label_of = {item["id"]: item["label"] for item in self.categories}
        labels = [label_of[result["category_id"]] for result in found]
        self.counts.update(self.names[label] for label in labels)
        if writer is not None and frame.image is not None:
            boxes = [(x, y, x + w, y + h) for x, y, w, h in (result["bbox"] for result in found)]
            scores = [result["score"] for result in found]
            masks = [result["segmentation"] for result in found] if self.encode else None
            writer.write(frame, draw_detections(frame.image, boxes, labels, scores, self.names, masks))


def summary(detector: FrameDetector, source: Pictures | Video, config: Config) -> None:
    """What was found; InputError where nothing could be read."""
    kind = kind_of(source)
    if not detector.read:
        raise InputError(f"input: none of the {kind} in {config.input} could be read")
    classes = ", ".join(f"{count} {printable(name)}" for name, count in detector.counts.most_common(10)) or "none"
    missing = f", {detector.unreadable} not readable" if detector.unreadable else ""
    if isinstance(source, Video) and source.total and detector.read < source.total:
        missing = f" of the {source.total} that its header tells of"
    print(f"{detector.read} {kind}{missing}; detections from a score of {config.score_thr:g}: {classes}")
    print(f"detections.json{' and drawn/ are' if config.draw else ' is'} in {config.output_path}")
