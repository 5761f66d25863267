"""Read images, folders and videos as a stream of frames, and write drawn frames as images or a video.

Frames are (H, W, 3) uint8, BGR, with the file's EXIF orientation applied unless stated otherwise.
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
DRAWN = "drawn"     # a subfolder of the output folder, so that drawings cannot overwrite the input


@dataclass
class Frame:
    """An image, or a frame of a video. If it cannot be decoded, `image` is None and `problem` holds the reason."""

    image_id: int
    file_name: str          # relative to the input folder
    image: np.ndarray | None = None         # (H, W, 3) uint8, BGR
    problem: str = ""
    where: dict[str, Any] | None = None     # for a video: {"frame": index from 0, "time": seconds}
    path: Path | None = None                # the input file


class Images:
    """Frames from a list of image files.

    Args:
        root: the folder that file names are relative to.
        files: the images, below root.
        upright: apply the EXIF orientation.
    """

    def __init__(self, root: Path, files: list[Path], upright: bool = True):
        self.root, self.files, self.upright = root, files, upright
        self.total = len(files)
        stems = [file.stem for file in files]
        numbers = {int(stem) for stem in stems if stem.isascii() and stem.isdigit()}
        # In COCO, 000000000139.jpg has the id 139. Keep such ids, so that the results can be evaluated.
        self._ids = [int(stem) for stem in stems] if len(numbers) == len(files) else range(1, len(files) + 1)

    def skip_to(self, name: str) -> int:
        """Skip the images before `name` and return their number.

        Raises:
            ValueError: no image has this name.
        """
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
    """Frames of a video file.

    Attributes:
        total: the number of frames according to the header, or None. Damaged videos may hold fewer.
        rate: frames per second; 25 if the header has no usable value.

    Raises:
        InputError: in the constructor, if OpenCV cannot decode the file.
    """

    def __init__(self, file: Path):
        self.file = file
        capture = cv2.VideoCapture(str(file))
        if not capture.isOpened():
            raise InputError(f"input: {file}: neither an image nor a video that OpenCV can decode")
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


def open_input(path: Path | str, output_path: Path | str | None = None, upright: bool = True) -> Images | Video:
    """Open an image, a folder with its subfolders, or a video.

    Args:
        path: the file or folder.
        output_path: drawings of earlier runs in this folder are skipped.
        upright: apply the EXIF orientation of images.

    Raises:
        InputError: the path does not exist, holds no images, or cannot be decoded as an image or a video.
    """
    if not path:
        raise InputError("input is required: pass --input=IMAGE, FOLDER or VIDEO")
    path = Path(path)
    if path.is_dir():
        drawn = None if output_path is None else (Path(output_path) / DRAWN).resolve()
        files = [file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file()
                 and drawn not in file.resolve().parents]
        if not files:
            raise InputError(f"input: no images in {path}; expected files ending in {' '.join(SUFFIXES)}")
        return Images(path, sorted(files), upright)
    if not path.is_file():
        raise InputError(f"input: no such file or folder: {path}")
    if path.suffix.lower() in VIDEOS or is_animation(path):
        return Video(path)
    source = Images(path.parent, [path], upright)
    # The suffix does not tell, so try to decode an image first.
    return source if path.suffix.lower() in SUFFIXES or next(iter(source)).image is not None else Video(path)


def read_ahead(items: Iterable[T], function: Callable[[T], R], depth: int) -> Generator[R]:
    """Yield function(item) for each item, computed in a thread up to `depth` items ahead of the consumer.

    Exceptions of `function` and of the iterator are raised in the consumer.
    """
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
        except BaseException as error:  # re-raised in the consumer
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


def write_image(path: Path, image: np.ndarray) -> Path:
    """Write an image atomically and return its path. If the suffix is not in WRITTEN, .jpg is appended.

    Args:
        path: the file to write.
        image: (H, W, 3) uint8, BGR.

    Raises:
        OSError: OpenCV cannot encode the image, or the file cannot be written.
    """
    if path.suffix.lower() not in WRITTEN:
        path = path.with_name(path.name + ".jpg")
    # cv2.imwrite only prints a warning if it cannot write a path, so encode first and write the bytes here.
    encoded, data = cv2.imencode(path.suffix, image, [cv2.IMWRITE_JPEG_QUALITY, 92])
    if not encoded:
        raise OSError(f"{path}: OpenCV cannot encode an image of {image.shape} {image.dtype} as {path.suffix}")
    with replacing(path, durable=False) as partial:
        partial.write_bytes(data.tobytes())
    return path


class ImageWriter:
    """Writes drawn images to OUTPUT/drawn under their input file names."""

    def __init__(self, output_path: Path | str):
        self.folder = Path(output_path) / DRAWN

    def write(self, frame: Frame, image: np.ndarray) -> None:
        write_image(self.folder / frame.file_name, image)

    def finish(self) -> None:
        """Do nothing: `write` has completed each image."""

    def close(self) -> None:
        """Do nothing: no file is open."""


class _UnfinishedError(Exception):
    """Raised in `close` to make `replacing` discard an unfinished video."""


class VideoWriter:
    """Writes drawn frames to OUTPUT/drawn/NAME.mp4, which appears when `finish` returns."""

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
                self._partial.touch()       # raises the reason if the file cannot be written, which OpenCV does not report
            size = image.shape[1], image.shape[0]
            self._writer = cv2.VideoWriter(str(self._partial), cv2.VideoWriter.fourcc(*"mp4v"), self.rate, size)
            if not self._writer.isOpened():
                raise InputError(f"{self.path}: this OpenCV build cannot write mp4 videos; pass --draw=False")
        self._writer.write(image)

    def finish(self) -> None:
        """Complete the video and move it to its final path.

        Raises:
            OSError: the written video cannot be opened, for example because the disk is full.
        """
        if self._writer is not None:
            self._writer.release()
            with self._written:
                capture = cv2.VideoCapture(str(self._partial))
                if not capture.isOpened():      # OpenCV does not report that a disk is full
                    raise OSError(errno.EIO, "the written video cannot be opened; is the disk full?")
                capture.release()

    def close(self) -> None:
        """Discard the video unless `finish` has completed it."""
        if self._writer is not None:
            self._writer.release()
            with contextlib.suppress(_UnfinishedError), self._written:
                raise _UnfinishedError


def writer_of(source: Images | Video, output_path: Path | str) -> ImageWriter | VideoWriter:
    return VideoWriter(output_path, source) if isinstance(source, Video) else ImageWriter(output_path)
