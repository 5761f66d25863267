# Same as faster_rcnn/src/model_utils/weights/cache.py
"""The cache of published weights: each file fetched once, checked, converted for this model, and used from there.

The cache is $ZOO_WEIGHTS, else mindspore_detection_zoo in $XDG_CACHE_HOME or ~/.cache. It holds the published files under their own
names and, in converted/, what is made of them; all of it may be deleted at any time. $ZOO_WEIGHTS_URL is the address of a folder
that holds the files, in place of those of the table: a mirror.
"""
import hashlib
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ...model import NAME
from ..configuration.schema import InputError
from ..files import tell
from ..turns import turn
from .download import NotFetchedError, Wanted, digits_of, download
from .published import Published

MODEL_DIR = Path(__file__).resolve().parents[3]
CONVERTER = MODEL_DIR / "src" / "convert_checkpoint.py"
# What decides what a file is converted to.
CONVERSION = ("src/convert_checkpoint.py", "src/**/conversion/*.py", "src/model_utils/weights/*.py", "default_config.yaml")
WAIT_SECONDS = 3600
log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Return the folder of the published files."""
    own = os.environ.get("ZOO_WEIGHTS")
    if own:
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "mindspore_detection_zoo"


def converted_file(entry: Published) -> Path:
    """Return where the checkpoint is once it is made; another version of the conversion has a folder of its own."""
    version = hashlib.sha256()
    for path in sorted(path for pattern in CONVERSION for path in MODEL_DIR.glob(pattern)):
        version.update(path.read_bytes())
    folder = cache_folder() / "converted" / f"{NAME}-{version.hexdigest()[:8]}" / entry.name
    return folder / f"{entry.file.rpartition('.')[0]}.ckpt"


def checkpoint_of(entry: Published, key: str) -> Path:
    """Return the MindSpore checkpoint of published weights: the one in the cache, or fetched and converted.

    One process does this, and others that want the same file wait for it. InputError, in one line, where it is not possible.
    """
    cache, converted = cache_folder(), converted_file(entry)
    if converted.is_file():
        return converted
    published = cache / entry.file
    mirror = os.environ.get("ZOO_WEIGHTS_URL")
    url = f"{mirror.rstrip('/')}/{entry.file}" if mirror else entry.url
    wanted = Wanted(entry.name, url, entry.digest, entry.digits, entry.size)
    by_hand = f"fetch {entry.url} elsewhere and put it to {published}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with turn(cache / f".{entry.file}.lock", WAIT_SECONDS):
            if not converted.is_file():
                _bring(wanted, published, f"{key}: {entry.name}", by_hand)
                _convert(entry, published, converted, key)
    except OSError as error:
        raise InputError(f"{key}: {entry.name}: {cache} cannot be written: {error.strerror or error}; set ZOO_WEIGHTS to another "
                         f"folder, or {by_hand}") from error
    return converted


def _bring(wanted: Wanted, published: Path, place: str, by_hand: str) -> None:
    """Fetch the file, or check the one that is there."""
    if published.is_file():
        found = digits_of(published, wanted)
        if found != wanted.digits:
            raise InputError(f"{place}: {published} is not the published file: its {wanted.digest} begins with {found}, not "
                             f"{wanted.digits}; {by_hand}")
        return
    _check_room(published.parent, wanted.size)
    tell(f"{wanted.label}: fetches {wanted.url} to {published.parent}")
    try:
        download(wanted, published)
    except NotFetchedError as error:
        raise InputError(f"{place}: {wanted.url} cannot be fetched: {error}; {by_hand}") from error


def _check_room(cache: Path, size: float | None) -> None:
    free = shutil.disk_usage(cache).free
    if size and 2 * size * (1 << 20) > free:
        raise OSError(f"no room for the {size:.0f} MiB of the file and as much again, converted")


def _convert(entry: Published, published: Path, converted: Path, key: str) -> None:
    """Convert into a temporary folder, which gets its name when both the checkpoint and its YAML are in it."""
    folder = converted.parent
    partial = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)      # of a process that was killed: this one holds the lock
    partial.mkdir(parents=True)
    try:
        status, text = run_converter([f"--ckpt_file={published}", f"--output_file={partial / converted.name}"])
        if status:
            raise InputError(f"{key}: {published} cannot be converted: {text.strip().rpartition(chr(10))[2]}")
        log.info("%s", text.strip())
        shutil.copymode(published, partial / converted.name)    # MindSpore lets only the owner read; a cache may be shared
        shutil.rmtree(folder, ignore_errors=True)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def run_converter(options: Sequence[str]) -> tuple[int, str]:
    """Status and output of convert_checkpoint, in a process of its own: MindSpore keeps the device and memory of this one free."""
    done = subprocess.run([sys.executable, str(CONVERTER), *options], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr
