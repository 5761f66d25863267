"""An annotation format as the tools and models see it, and what the readers of files share.

formats/ holds one module for each format. Conversion, checks, commands and models ask its entry, a `Format`, and never
compare names.
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
    """Return the content of a regular file; DataError if it cannot be read. A FIFO would wait for a writer."""
    return read_head(path, -1)


def read_head(path: Path, size: int) -> bytes:
    """Return the first bytes of a file, as `read_bytes` returns them all."""
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
    """Return the digest of annotations in one file."""
    return digest_of(read_bytes(path))


def decode_text(path: Path, data: bytes, errors: str = "strict") -> str:
    """Return the text in the bytes of a file, UTF-8 or with the mark of UTF-16; DataError with the line if it is neither.

    errors: what becomes of bytes that are not UTF-8, as `bytes.decode` has it.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: begins as UTF-16 and is none from byte {error.start} on") from error
    try:
        return data.decode("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        what = f"byte {error.start} of the file is {data[error.start]:#04x}"
        raise DataError(f"{path}:{line}: not text in UTF-8: {what}") from error


class Place(NamedTuple):
    """Where a data set lies, as a format's reader takes it."""

    image_dir: Path
    anno_path: Path
    image_set: Optional[str] = None


@dataclass(frozen=True)
class Layout:
    """The usual folders of a data set below one root, which a config key names."""

    key: str                        # config key of the root: "coco_root"
    # (configuration, train) -> (image_dir, anno_path), both relative to the root.
    paths: Callable[[Mapping[str, Any], bool], tuple[str, str]]
    # False: the folders hold all sets, and only image_set separates training from evaluation.
    separate_sets: bool = True


@dataclass(frozen=True)
class Format:
    """One annotation format. A module of formats/ defines it as FORMAT."""

    name: str                       # value of the config key `dataset` and of --source
    title: str                      # for --help: "COCO JSON"
    anno: str                       # what anno_path is: "JSON file"
    # (image_dir, anno_path, classes, image_set) -> what the annotations hold. classes: as checked by records.check_classes,
    # None = all that are found. DataError: nothing can be read.
    read: Callable[[Path, Path, Optional[list[str]], Optional[str]], Annotations]
    # (anno_path, image_set) -> a hash of all files that `read` reads besides the images, equal to Annotations.digest. A
    # conversion is repeated when it changes.
    digest: Callable[[Path, Optional[str]], str] = file_digest
    anno_is_folder: Optional[bool] = False      # None = a file or a folder
    masks: bool = False             # objects may have a segmentation
    image_set: str = ""             # for --help: what image_set names; "" = the format has no lists of images
    # (anno_path, classes) -> what `read` gives, of annotations that can be scored against without the images. None = they
    # cannot, because their images have to be looked up.
    ground_truth: Optional[Callable[[Path, Optional[list[str]]], Annotations]] = None
    layout: Optional[Layout] = None
    # (anno_path, image_set) -> the folder of images if none is given; anno_path exists. None = it must be given.
    find_images: Optional[Callable[[Path, Optional[str]], Path]] = None
    # (anno_path, train) -> the image_set to train or to evaluate on if none is given, where the annotations name such sets.
    default_set: Optional[Callable[[Path, bool], Optional[str]]] = None
    # folder -> the data sets of this format in it, to tell the format of a folder.
    find: Optional[Callable[[Path], list[Place]]] = None
    # anno_path -> the names that image_set may have, where lists of images lie beside the annotations.
    lists: Optional[Callable[[Path], list[str]]] = None
    # Raised when `read` gives other records of the same files: conversions of an earlier reader are repeated.
    revision: int = 1
