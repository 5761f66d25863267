# Same as faster_rcnn/src/model_utils/weights/cache.py
"""Cache of published weights: fetch each file once, verify it, convert it for this model, and use it from there.

The cache is $ZOO_WEIGHTS, else mindspore_detection_zoo in $XDG_CACHE_HOME or ~/.cache. It holds the published files under their
names and, in converted/, the checkpoints made from them. The user may delete it at any time. $ZOO_WEIGHTS_URL names a mirror: the
address of a folder that holds the files, instead of the addresses in the table.
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
# Files that determine what a published file is converted to; their hash is part of the cache's path.
CONVERSION = ("src/convert_checkpoint.py", "src/**/conversion/*.py", "src/model_utils/weights/*.py", "default_config.yaml")
WAIT_SECONDS = 3600
log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Return the folder that holds the published files."""
    own = os.environ.get("ZOO_WEIGHTS")
    if own:
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "mindspore_detection_zoo"


def converted_file(entry: Published) -> Path:
    """Return the path of the converted checkpoint; each version of the conversion has its own folder."""
    version = hashlib.sha256()
    for path in sorted(path for pattern in CONVERSION for path in MODEL_DIR.glob(pattern)):
        version.update(path.read_bytes())
    folder = cache_folder() / "converted" / f"{NAME}-{version.hexdigest()[:8]}" / entry.name
    return folder / f"{entry.file.rpartition('.')[0]}.ckpt"


def checkpoint_of(entry: Published, key: str) -> Path:
    """Return the MindSpore checkpoint of published weights; fetch and convert them if the cache lacks them.

    One process does the work, and other processes that want the same file wait for it.

    Args:
        entry: the published file.
        key: the option or argument that names it, for messages.

    Raises:
        InputError: if the file cannot be fetched, verified, converted or written.
    """
    cache, converted = cache_folder(), converted_file(entry)
    if converted.is_file():
        return converted
    published = cache / entry.file
    mirror = os.environ.get("ZOO_WEIGHTS_URL")
    url = f"{mirror.rstrip('/')}/{entry.file}" if mirror else entry.url
    wanted = Wanted(entry.name, url, entry.digest, entry.digits, entry.size)
    by_hand = f"fetch {entry.url} elsewhere and save it as {published}"
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
    """Fetch the file, or verify the one that exists."""
    if published.is_file():
        found = digits_of(published, wanted)
        if found != wanted.digits:
            raise InputError(f"{place}: {published} is not the published file: its {wanted.digest} begins with {found}, expected "
                             f"{wanted.digits}; {by_hand}")
        return
    _check_room(published.parent, wanted.size)
    tell(f"{wanted.label}: fetching {wanted.url} to {published.parent}")
    try:
        download(wanted, published)
    except NotFetchedError as error:
        raise InputError(f"{place}: {wanted.url} cannot be fetched: {error}; {by_hand}") from error


def _check_room(cache: Path, size: float | None) -> None:
    free = shutil.disk_usage(cache).free
    if size and 2 * size * (1 << 20) > free:
        raise OSError(f"no room for the file of {size:.0f} MiB and a converted file of the same size")


def _convert(entry: Published, published: Path, converted: Path, key: str) -> None:
    """Convert into a temporary folder and rename it once it holds both the checkpoint and its YAML."""
    folder = converted.parent
    partial = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)      # left by a process that was killed: this process holds the lock
    partial.mkdir(parents=True)
    try:
        status, text = run_converter([f"--ckpt_file={published}", f"--output_file={partial / converted.name}"])
        if status:
            raise InputError(f"{key}: {published} cannot be converted: {text.strip().rpartition(chr(10))[2]}")
        log.info("%s", text.strip())
        shutil.copymode(published, partial / converted.name)    # MindSpore lets only the owner read it
        shutil.rmtree(folder, ignore_errors=True)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def run_converter(options: Sequence[str]) -> tuple[int, str]:
    """Run convert_checkpoint in another process, so that MindSpore occupies neither device nor memory here: (status, output)."""
    done = subprocess.run([sys.executable, str(CONVERTER), *options], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr
