# Same as faster_rcnn/src/model_utils/inference/media.py
"""Pictures, folders and videos as a stream of frames, and drawn frames written as pictures or a video.

Frames are (height, width, 3) uint8, blue, green, red, turned as the file says.
"""
import contextlib
import errno
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np

from ..config import InputError
from ..data.decoding import SUFFIXES, decode_image, is_animation
from ..files import replacing, writing

WRITTEN = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
T = TypeVar("T")
R = TypeVar("R")
DRAWN = "drawn"     # folder of drawn pictures in the output folder: never overwrites what was read


@dataclass
class Frame:
    """A picture, or a frame of a video; `image` is None and `problem` says why where it cannot be read."""

    image_id: int
    file_name: str          # relative to the input folder
    image: np.ndarray | None = None
    problem: str = ""
    where: dict[str, Any] | None = None     # of a video: {"frame": from 0, "time": seconds}
    path: Path | None = None                # the file that it was read from


class Pictures:
    """The pictures of a list of files; upright: turned by their EXIF orientation."""

    def __init__(self, root: Path, files: list[Path], upright: bool = True):
        self.root, self.files, self.upright = root, files, upright
        self.total = len(files)
        stems = [file.stem for file in files]
        numbers = {int(stem) for stem in stems if stem.isascii() and stem.isdigit()}
        # 000000000139.jpg has the id 139 in COCO: kept, so that the results can be scored.
        self._ids = [int(stem) for stem in stems] if len(numbers) == len(files) else range(1, len(files) + 1)

    def skip_to(self, name: str) -> int:
        """Leave out the images before this one, and return how many these are; ValueError if it is none of the images."""
        place = [file.relative_to(self.root).as_posix() for file in self.files].index(name)
        self.files, self._ids = self.files[place:], self._ids[place:]
        self.total = len(self.files)
        return place

    def __iter__(self) -> Iterator[Frame]:
        for image_id, file in zip(self._ids, self.files):
            name = file.relative_to(self.root).as_posix()
            try:
                yield Frame(image_id, name, decode_image(file.read_bytes(), self.upright), path=file)
            except (OSError, ValueError) as error:
                yield Frame(image_id, name, problem=str(error), path=file)


class Video:
    """The frames of a video; `total` is what its header says, or None."""

    def __init__(self, file: Path):
        self.file = file
        capture = cv2.VideoCapture(str(file))
        if not capture.isOpened():
            raise InputError(f"input: {file}: neither a picture nor a video that OpenCV can decode")
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        rate = capture.get(cv2.CAP_PROP_FPS)
        capture.release()
        self.total = count if count > 0 else None
        self.rate = rate if 0 < rate < 1000 else 25.0

    def __iter__(self) -> Iterator[Frame]:
        capture = cv2.VideoCapture(str(self.file))
        try:
            index = 0
            while True:
                grabbed, image = capture.read()
                if not grabbed:
                    break
                where = {"frame": index, "time": round(index / self.rate, 4)}
                yield Frame(index, self.file.name, image, where=where, path=self.file)
                index += 1
        finally:
            capture.release()


def open_input(path: Path | str, output_path: Path | str | None = None, upright: bool = True) -> Pictures | Video:
    """Pictures or Video of a file or folder; what earlier runs have drawn into `output_path` is left out. upright: see Pictures."""
    if not path:
        raise InputError("input is needed: give --input=PICTURE, FOLDER or VIDEO")
    path = Path(path)
    if path.is_dir():
        drawn = None if output_path is None else (Path(output_path) / DRAWN).resolve()
        files = [file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file()
                 and drawn not in file.resolve().parents]
        if not files:
            raise InputError(f"input: no pictures in {path} (looked for {' '.join(SUFFIXES)})")
        return Pictures(path, sorted(files), upright)
    if not path.is_file():
        raise InputError(f"input: no such file or folder: {path}")
    if path.suffix.lower() in VIDEOS or is_animation(path):
        return Video(path)
    source = Pictures(path.parent, [path], upright)
    # Under another name it may be either.
    return source if path.suffix.lower() in SUFFIXES or next(iter(source)).image is not None else Video(path)


def read_ahead(items: Iterable[T], function: Callable[[T], R], depth: int) -> Generator[R]:
    """`function` of each item, computed in a thread up to `depth` items ahead of the one who asks."""
    results: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(depth)
    stop = threading.Event()

    def put(result: tuple[R | None, BaseException | None]) -> bool:
        while not stop.is_set():
            try:
                results.put(result, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((function(item), None)):
                    return
            put((None, StopIteration()))
        except BaseException as error:  # handed to the one who asks
            put((None, error))

    thread = threading.Thread(target=work, name="read_ahead", daemon=True)
    thread.start()
    try:
        while True:
            result, error = results.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield result
    finally:
        stop.set()
        thread.join()


def write_picture(path: Path, image: np.ndarray) -> Path:
    """Write an image and return its path: .jpg is added to a name of another format than WRITTEN."""
    if path.suffix.lower() not in WRITTEN:
        path = path.with_name(path.name + ".jpg")
    # Encoded first: imwrite prints a warning and returns where a path does not suit it.
    encoded, data = cv2.imencode(path.suffix, image, [cv2.IMWRITE_JPEG_QUALITY, 92])
    if not encoded:
        raise OSError(f"{path}: OpenCV cannot encode it")
    with replacing(path, durable=False) as partial:
        partial.write_bytes(data.tobytes())
    return path


class PictureWriter:
    """Writes drawn pictures under OUTPUT/drawn, by the names that they were read by."""

    def __init__(self, output_path: Path | str):
        self.folder = Path(output_path) / DRAWN

    def write(self, frame: Frame, image: np.ndarray) -> None:
        write_picture(self.folder / frame.file_name, image)

    def finish(self) -> None:
        """Each image is whole already."""

    def close(self) -> None:
        """Nothing is open."""


class _UnfinishedError(Exception):
    """What a video is not put in its place after."""


class VideoWriter:
    """Writes drawn frames to OUTPUT/drawn/NAME.mp4, which is there when `finish` has returned."""

    def __init__(self, output_path: Path | str, source: Video):
        self.path = Path(output_path) / DRAWN / f"{source.file.stem}.mp4"
        self.rate = source.rate
        self._writer: cv2.VideoWriter | None = None
        self._written = contextlib.ExitStack()
        self._partial = self.path

    def write(self, frame: Frame, image: np.ndarray) -> None:
        if self._writer is None:
            self._partial = self._written.enter_context(replacing(self.path))
            with writing(self.path):
                self._partial.touch()       # OpenCV does not say why it cannot
            size = image.shape[1], image.shape[0]
            self._writer = cv2.VideoWriter(str(self._partial), cv2.VideoWriter.fourcc(*"mp4v"), self.rate, size)
            if not self._writer.isOpened():
                raise InputError(f"{self.path}: this OpenCV cannot write mp4 videos: use --draw=False")
        self._writer.write(image)

    def finish(self) -> None:
        """Put the video in its place."""
        if self._writer is not None:
            self._writer.release()
            with self._written:
                capture = cv2.VideoCapture(str(self._partial))
                if not capture.isOpened():      # OpenCV does not report that a disk is full
                    raise OSError(errno.EIO, "the video does not read back; is the disk full?")
                capture.release()

    def close(self) -> None:
        """Remove what was not finished."""
        if self._writer is not None:
            self._writer.release()
            with contextlib.suppress(_UnfinishedError), self._written:
                raise _UnfinishedError


def writer_of(source: Pictures | Video, output_path: Path | str) -> PictureWriter | VideoWriter:
    return VideoWriter(output_path, source) if isinstance(source, Video) else PictureWriter(output_path)
