# Same as faster_rcnn/src/model_utils/inference/infer.py
"""Detect objects in images or a video, write the results as they are found, and draw them."""
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from ...util import Progress, counted
from ..config import Config, InputError
from ..evaluation.detections import config_categories
from ..evaluation.results_writer import Kept, ResultsWriter
from ..files import printable, tell, writing
from ..locks import RESULTS, writing_alone
from ..signals import last_words
from ..weights.class_names import with_class_names
from .detector import FrameDetector
from .found import Found
from .media import Frame, Images, Video, open_input, writer_of
from .predictors import find_model
from .resuming import PARTIAL, RUN, keep_settings, resume_after
from .view_predictor import open_detection


def infer(config: Config) -> None:
    """Detect objects in `input` and write detections.json to output_path; with `draw`, write drawn images or a video too.

    Args:
        config: input, output_path and exactly one of checkpoint_path, mindir_path and onnx_path must be set.

    Raises:
        InputError: a key, the network's file or the input is not usable, or no image could be decoded.
    """
    key, model = find_model(config)
    if key == "checkpoint_path":
        config = with_class_names(config, model)
    source = open_input(config.input, config.output_path, config.exif_orientation != "ignore")
    with writing_alone(config.output_path, RESULTS):
        _infer(config, source)


def _infer(config: Config, source: Images | Video) -> None:
    kept = resume_after(config, source)
    predict = open_detection(config)
    output = Path(config.output_path)
    output.mkdir(parents=True, exist_ok=True)
    if kept is None:
        keep_settings(config)
    categories = config_categories(config)
    detector, done = FrameDetector(predict, config), Done.after(kept, categories)
    unit = "frame" if isinstance(source, Video) else "img"
    with growing_results(output, source, done, kept) as results, Progress(source.total, "infer", unit) as progress:
        writer = writer_of(source, output) if config.draw else None
        try:
            for frame, found in detector.run(source, config.score_thr):
                if found is None:
                    done.unreadable += 1
                    progress.note(printable(f"{frame.file_name}: {frame.problem}"))
                else:
                    results.add(results_of(frame, found, categories))
                    if writer is not None:
                        writer.write(frame, found.draw().image)
                    done.add(frame, found)
                progress.update()
            if writer is not None:
                writer.finish()
        finally:
            if writer is not None:
                writer.close()
    summary(done, source, config)


@dataclass
class Done:
    """Progress of a run."""

    read: int = 0           # frames with results
    unreadable: int = 0     # frames that could not be decoded
    last: str = ""          # name of the latest frame with results
    counts: Counter[str] = field(default_factory=Counter)       # detections per class name

    @classmethod
    def after(cls, kept: Kept | None, categories: list[dict]) -> Self:
        """Start from the detections per class that a stopped run has written; from zero if there are none."""
        names = {item["id"]: item["name"] for item in categories}
        return cls(counts=Counter({names.get(number, str(number)): count for number, count in kept.counts.items()} if kept else ()))

    def add(self, frame: Frame, found: Found) -> None:
        self.read += 1
        self.last = frame.file_name
        self.counts.update(found.names)


def results_of(frame: Frame, found: Found, categories: list[dict]) -> Iterator[dict[str, Any]]:
    """Yield the COCO results of a frame, with file_name and, for a video, frame and time.

    Args:
        frame: the frame.
        found: its detections.
        categories: {"id", "name", "label"} of each class.
    """
    ids = {item["label"]: item["id"] for item in categories}
    for result in found.results():
        label = result.pop("label")
        yield {"image_id": frame.image_id, "file_name": frame.file_name, **(frame.where or {}), "category_id": ids[label], **result}


@contextmanager
def growing_results(output: Path, source: Images | Video, done: Done, kept: Kept | None = None) -> Iterator[ResultsWriter]:
    """Write detections.partial.json and rename it to detections.json at the end. If the run stops early, report its progress.

    Args:
        output: the output folder.
        source: the frames of the run.
        done: the progress, which the caller updates.
        kept: the results of a stopped run to append to.
    """
    partial, final = output / PARTIAL, output / "detections.json"

    def missing() -> str:
        if not done.read:
            if not kept:
                partial.unlink(missing_ok=True)
                (output / RUN).unlink(missing_ok=True)
            return ""
        total = "" if source.total is None else f" of {source.total}"
        how = "" if isinstance(source, Video) else "; pass --resume=auto to continue"
        return printable(f"{final}: not written: {done.read + done.unreadable}{total} {kind_of(source)} are done, the last is "
                         f"{done.last}; {partial} holds their results{how}")

    last_words.append(missing)      # a signal during MindSpore's native code raises no exception here
    try:
        with ResultsWriter(partial, kept) as results:
            yield results
        with writing(final):
            partial.replace(final)
        (output / RUN).unlink(missing_ok=True)
    except BaseException:
        if message := missing():
            tell(message)
        raise
    finally:
        last_words.remove(missing)


def kind_of(source: Images | Video) -> str:
    return "frames" if isinstance(source, Video) else "images"


def summary(done: Done, source: Images | Video, config: Config) -> None:
    """Print the number of images and of detections per class.

    Raises:
        InputError: no image could be decoded.
    """
    kind = kind_of(source)
    if not done.read:
        raise InputError(f"input: none of the {kind} in {config.input} could be decoded; check that they are not damaged")
    classes = ", ".join(f"{count} {printable(name)}" for name, count in done.counts.most_common(10)) or "none"
    missing = f", {done.unreadable} not readable" if done.unreadable else ""
    if isinstance(source, Video) and source.total and done.read < source.total:
        missing = f" of the {source.total} in the header"
    read = counted(done.read, kind.removesuffix("s"))
    print(f"{read}{missing}; detections with a score of {config.score_thr:g} or more: {classes}")
    print(f"detections.json{' and drawn/ are' if config.draw else ' is'} in {config.output_path}")
