# Same as faster_rcnn/src/model_utils/inference/detector.py
"""Detect objects in images and videos in batches, for infer.py and the Python interface."""
import contextlib
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ...model import OUTPUTS, mask_encoder
from ..config import Config, InputError, load_config
from ..data.transforms import NetworkInput
from ..evaluation.detections import config_categories
from ..python_words import input_errors
from ..weights.class_names import with_class_names
from ..weights.named import weights_file
from ..weights.own_config import find_config, key_of, own_model
from .found import Found, found_in
from .media import Frame, Images, Video, open_input, read_ahead
from .predictors import Predict
from .view_predictor import feed_of, open_detection

# A file, a folder, a video or an image (H, W, 3) uint8, BGR.
Input: TypeAlias = str | os.PathLike | np.ndarray
log = logging.getLogger(__name__)


class Loaded(NamedTuple):
    """A frame and the network's input, which is None if the frame cannot be decoded."""

    frame: Frame
    inputs: NetworkInput | None


class FrameDetector:
    """Runs frames through the network in batches.

    Args:
        predict: the result of `open_detection` for the same configuration.
        config: the configuration.
    """

    def __init__(self, predict: Predict, config: Config):
        self.predict = predict
        self.preprocess, self.batch_size = feed_of(config)
        self.encode = mask_encoder(config)
        self.keep_empty = config.get("keep_empty_boxes", False)     # not every model has the key
        self.classes = ["background", *(item["name"] for item in config_categories(config))]

    def run(self, frames: Iterable[Frame], score_thr: float) -> Iterator[tuple[Frame, Found | None]]:
        """Yield each frame with its detections of at least score_thr.

        Decoded frames keep their order. A frame that cannot be decoded is yielded with None, ahead of the batch being filled.
        """
        waiting: list[tuple[Frame, NetworkInput]] = []
        with contextlib.closing(read_ahead(frames, self._load, 2 * self.batch_size)) as loaded:
            for frame, inputs in loaded:
                if inputs is None:
                    yield frame, None
                    continue
                # A batch has one shape, so with pad_to=divisor an image of another input size closes the batch early.
                if waiting and waiting[0][1].image.shape != inputs.image.shape:
                    yield from self._detect(waiting, score_thr)
                    waiting = []
                waiting.append((frame, inputs))
                if len(waiting) == self.batch_size:
                    yield from self._detect(waiting, score_thr)
                    waiting = []
        if waiting:
            yield from self._detect(waiting, score_thr)

    def _load(self, frame: Frame) -> Loaded:
        return Loaded(frame, None if frame.image is None else self.preprocess(frame.image))

    def _detect(self, waiting: list[tuple[Frame, NetworkInput]], score_thr: float) -> Iterator[tuple[Frame, Found]]:
        padding = [waiting[-1][1]] * (self.batch_size - len(waiting))     # the network has a fixed batch size
        image, info = map(np.stack, zip(*(inputs for _, inputs in waiting), *padding))
        outputs = self.predict(image, info)
        for i, (frame, _) in enumerate(waiting):
            of_frame = {name: output[i] for name, output in zip(OUTPUTS, outputs)}
            yield frame, found_in(frame, info[i], of_frame, score_thr, self.classes, self.encode, self.keep_empty)


class Arrays:
    """An image in memory as a stream of one frame, named image_NUMBER.png.

    Raises:
        InputError: the image is not (H, W, 3) uint8, or is empty.
    """

    def __init__(self, image: np.ndarray, number: int):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise InputError(f"image {number}: expected an array (H, W, 3) of uint8 in BGR order, got {image.shape} of "
                             f"{image.dtype}")
        self.image, self.number, self.total = image, number, 1

    def __iter__(self) -> Iterator[Frame]:
        yield Frame(self.number, f"image_{self.number}.png", self.image)


Source: TypeAlias = Images | Video | Arrays


class Detector:
    """A trained detector: `detector(images)` yields the detections in each image.

    The configuration is found beside the weights: NAME.yaml from a conversion, NAME.onnx.yaml or NAME.mindir.yaml from export.py,
    or config.yaml from the training run.

    Args:
        weights: a .ckpt, .mindir or .onnx file, or the name of published weights, which are downloaded and converted on first use.
        config_path: the configuration file, if it is elsewhere. A relative path may also be relative to the model's folder.
        keys: keys of the configuration, such as device_target="CPU" or test_batch_size=4; they override the file.

    Attributes:
        config: the resolved configuration.
        classes: the name of each label, background first.

    Raises:
        InputError: a file or key is missing or invalid; the message is one line.
    """

    @input_errors()
    def __init__(self, weights: str | os.PathLike, config_path: str | os.PathLike | None = None, **keys: Any):
        path = weights_file(weights, "weights", whole=True)
        place = find_config(path, config_path)
        own = {"checkpoint_path": "", "mindir_path": "", "onnx_path": "", "distribute": False, key_of(path): str(path)}
        with own_model(path):
            config = load_config(place, {**keys, **own})
        self.config = with_class_names(config, path) if config.checkpoint_path else config
        self._detector = FrameDetector(open_detection(self.config), self.config)
        self.classes = self._detector.classes

    @input_errors()
    def __call__(self, images: Input | Sequence[Input], score_thr: float | None = None) -> Iterator[Found]:
        """Yield the detections of each image or video frame, in order.

        An image that cannot be decoded is skipped with a warning in the log.

        Args:
            images: an image file, a folder with its subfolders, a video, an array (H, W, 3) uint8 in BGR order, or a list of these.
            score_thr: detections with a lower score are dropped, 0 to 1; defaults to the configuration's score_thr. The network
                itself drops detections below test_score_thr.

        Raises:
            InputError: immediately, if a file is missing or an argument is invalid; after the last image, if none could be decoded.
        """
        threshold = self.config.score_thr if score_thr is None else score_thr
        if not isinstance(threshold, (int, float, np.floating)) or not 0 <= threshold <= 1:
            raise InputError(f"score_thr: expected 0 to 1, got {threshold!r}")
        sources = open_sources(images, self.config.exif_orientation != "ignore")
        return self._run(sources, float(threshold))

    def _run(self, sources: list[Source], score_thr: float) -> Iterator[Found]:
        frames = (frame for source in sources for frame in source)
        read, unreadable = False, ""
        with input_errors():
            for frame, found in self._detector.run(frames, score_thr):
                if found is None:
                    unreadable = f"{frame.path or frame.file_name}: {frame.problem}"
                    log.warning("%s", unreadable)
                    continue
                read = True
                yield found
        if unreadable and not read:
            raise InputError(f"none of the images can be read; the last: {unreadable}")


def open_sources(images: Input | Sequence[Input], upright: bool = True) -> list[Source]:
    """Open each item as a source of frames.

    Args:
        images: a path or an array (H, W, 3) uint8 in BGR order, or a list of these.
        upright: apply the EXIF orientation of image files.

    Raises:
        InputError: an item has another type, does not exist or cannot be decoded.
    """
    items = list(images) if isinstance(images, (list, tuple)) else [images]
    sources: list[Source] = []
    for number, item in enumerate(items, 1):
        if isinstance(item, np.ndarray):
            sources.append(Arrays(item, number))
        elif isinstance(item, (str, os.PathLike)):
            sources.append(open_input(Path(item).expanduser(), upright=upright))
        else:
            raise InputError(f"image {number}: expected a path or an array (H, W, 3), got {type(item).__name__}")
    return _with_different_names(sources)


def _with_different_names(sources: list[Source]) -> list[Source]:
    """If images share a name, prefix all names with their folders, so that drawings do not overwrite each other."""
    of_files = [source for source in sources if isinstance(source, Images)]
    names = Counter(file.relative_to(source.root) for source in of_files for file in source.files)
    if any(count > 1 for count in names.values()):
        root = Path(os.path.commonpath([source.root.absolute() for source in of_files]))
        for source in of_files:
            source.root, source.files = root, [file.absolute() for file in source.files]
    return sources
