"""The interface of an annotation format, and file helpers that the readers share.

formats/ holds one module per format. Conversion, checks, commands and models use its `Format` entry and never compare names.
"""
import codecs
import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

from .errors import NO_FILE, DataError
from .records import Annotations


def read_bytes(path: Path) -> bytes:
    """Return the content of a regular file; DataError if it cannot be read. Opening a FIFO would block."""
    return read_head(path, -1)


def read_head(path: Path, size: int) -> bytes:
    """Return the first `size` bytes of a regular file; DataError as for `read_bytes`."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise DataError(f"{path}: {NO_FILE}")
        with path.open("rb") as stream:
            return stream.read(size)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def file_digest(path: Path, image_set: Optional[str] = None) -> str:
    """Return the digest of annotations that are one file."""
    return digest_of(read_bytes(path))


def decode_text(path: Path, data: bytes, errors: str = "strict") -> str:
    """Decode the content of a file, UTF-8 or UTF-16 with a byte order mark; DataError names the line that is neither.

    errors: handling of bytes that are not UTF-8, as for `bytes.decode`.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: starts as UTF-16, but byte {error.start} is not valid UTF-16") from error
    try:
        return data.decode("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        what = f"byte {error.start} of the file is {data[error.start]:#04x}"
        raise DataError(f"{path}:{line}: not UTF-8 text: {what}") from error


class Place(NamedTuple):
    """The paths of a data set, as a reader takes them."""

    image_dir: Path
    anno_path: Path
    image_set: Optional[str] = None


@dataclass(frozen=True)
class Layout:
    """The usual folders of a data set below one root, which a config key names."""

    key: str                        # config key of the root: "coco_root"
    # (configuration, train) -> (image_dir, anno_path), both relative to the root.
    paths: Callable[[Mapping[str, Any], bool], tuple[str, str]]
    # False: the folders hold all sets, and image_set is all that separates training from evaluation.
    separate_sets: bool = True


@dataclass(frozen=True)
class Format:
    """An annotation format. Each module in formats/ defines one as FORMAT."""

    name: str                       # value of the config key `dataset` and of --source
    title: str                      # for --help: "COCO JSON"
    anno: str                       # what anno_path is: "JSON file"
    # (image_dir, anno_path, classes, image_set) -> the annotations. classes: as checked by records.check_classes; None = all
    # classes found. DataError if nothing can be read.
    read: Callable[[Path, Path, Optional[list[str]], Optional[str]], Annotations]
    # (anno_path, image_set) -> a hash of all files that `read` reads besides the images, equal to Annotations.digest. If it
    # changes, the data is converted again.
    digest: Callable[[Path, Optional[str]], str] = file_digest
    anno_is_folder: Optional[bool] = False      # None = a file or a folder
    masks: bool = False             # whether objects may have a segmentation
    image_set: str = ""             # for --help: what image_set names; "" = the format has no lists of images
    # (anno_path, classes) -> the result of `read`, as ground truth to score against without the images. None = the reader
    # needs the images.
    ground_truth: Optional[Callable[[Path, Optional[list[str]]], Annotations]] = None
    layout: Optional[Layout] = None
    # (anno_path, image_set) -> the image folder if none is given; anno_path exists. None = it must be given.
    find_images: Optional[Callable[[Path, Optional[str]], Path]] = None
    # (anno_path, train) -> the image_set to train or evaluate on if none is given and the annotations name such sets.
    default_set: Optional[Callable[[Path, bool], Optional[str]]] = None
    # folder -> the data sets of this format in it, for detecting the format.
    find: Optional[Callable[[Path], list[Place]]] = None
    # anno_path -> names that image_set may have, if there are lists of images beside the annotations.
    lists: Optional[Callable[[Path], list[str]]] = None
    # Increase it when `read` returns other records for the same files; older conversions are then repeated.
    revision: int = 1
