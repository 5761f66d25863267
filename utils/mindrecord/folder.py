"""The output folder of conversions: one process at a time writes to it, and unfinished conversions are removed."""
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Optional, Union

from .errors import DataError
from .holding import NO_LOCKS, remove_unread

PARTIAL, ROWS = ".partial-", "rows-"
OURS = re.compile(r"(\.partial|rows)-[0-9a-f]{8}")
log = logging.getLogger(__name__)


@contextmanager
def locked_folder(output_dir: Union[str, os.PathLike[str]]) -> Iterator[Path]:
    """Create and lock the output folder for one conversion; errors of the file system become DataError."""
    folder = Path(output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _lock(folder)
        try:
            yield folder
        finally:
            if lock is not None:
                os.close(lock)
    except OSError as error:
        raise DataError(f"{error.filename or folder}: {error.strerror or error}") from error


def _lock(folder: Path) -> Optional[int]:
    """Return a descriptor that holds the lock until it is closed; None if the file system has no locks."""
    try:
        import fcntl
    except ImportError:
        return None
    fd = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("%s: waiting for another process that is converting to it", folder)
            fcntl.flock(fd, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            os.close(fd)
            raise
    except BaseException:
        os.close(fd)
        raise
    return fd


def remove_leftovers(folder: Path, keep: str) -> None:
    """Delete earlier and unfinished conversions, except those that a process is using."""
    remove_unread([Path(entry.path) for entry in os.scandir(folder)
                   if OURS.fullmatch(entry.name) and entry.name != keep and entry.is_dir(follow_symlinks=False)])
