"""Protect conversions in use: a process that reads one holds it, and other processes do not delete it meanwhile.

A hold is a shared lock on pictures.json in the folder of rows; deleting the folder requires the exclusive lock. A file is locked
because NFS shares file locks between machines, but not locks on folders.
"""
import errno
import logging
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Optional

from .manifest import IMAGE_NAMES

# Errors of file systems without locks.
NO_LOCKS = (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
# Mount options of network file systems whose locks are not visible to other machines.
LOCAL = {"nolock", "local_lock=all", "local_lock=flock", "localflock"}
log = logging.getLogger(__name__)


class Hold:
    """Keeps a folder of rows from being deleted until it is closed or garbage-collected, or the process ends."""

    def __init__(self, fd: int):
        self._fd: Optional[int] = fd

    def close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


def hold(rows: Path) -> Optional[Hold]:
    """Hold a folder of rows. None if the file system has no locks; FileNotFoundError if the folder has been deleted."""
    path = rows / IMAGE_NAMES
    if not path.exists() and rows.is_dir():     # older versions wrote no such file
        return None
    held = Hold(os.open(path, os.O_RDONLY))
    if not _lock(held, exclusive=False):
        return None
    if not path.exists():                       # deleted while waiting for the lock
        raise FileNotFoundError(errno.ENOENT, "deleted by another conversion", str(path))
    return held


def remove_unread(folders: Iterable[Path]) -> None:
    """Delete folders of rows, complete or not, that no process uses; warn about the others."""
    read, unknown = [], []
    for rows in folders:
        held = None
        try:
            held = _open_to_change(rows / IMAGE_NAMES)
            if held is None or _lock(held, exclusive=True):
                shutil.rmtree(rows, ignore_errors=True)
            else:
                unknown.append(rows)
        except BlockingIOError:
            read.append(rows)
        finally:
            if held:
                held.close()
    if read:
        log.warning("%s: kept, because another process reads it; a later conversion removes it", _names(read))
    if unknown:
        log.warning("%s: kept, because this file system has no locks that show whether a process reads it; delete it by hand",
                    _names(unknown))


def _names(folders: list[Path]) -> str:
    return ", ".join(map(str, folders))


def _open_to_change(path: Path) -> Optional[Hold]:
    """Open a file for writing if possible, as NFS requires for an exclusive lock; None if the file does not exist."""
    try:
        try:
            return Hold(os.open(path, os.O_RDWR))
        except PermissionError:
            return Hold(os.open(path, os.O_RDONLY))
    except FileNotFoundError:
        return None


def _lock(held: Hold, exclusive: bool) -> bool:
    """Lock the file and return whether locks work. A shared lock waits; an exclusive one raises BlockingIOError if it is taken."""
    try:
        import fcntl
    except ImportError:
        return False
    fd = held._fd
    assert fd is not None
    if _seen_here_only(fd):
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB if exclusive else fcntl.LOCK_SH)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return False
    return True


def _seen_here_only(fd: int) -> bool:
    """Return whether the file is on a mount whose locks other machines cannot see."""
    device = os.fstat(fd).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as stream:
            mounts = [line.split() for line in stream]
    except OSError:         # not Linux
        return False
    return any(mount[2] == wanted and LOCAL.intersection(mount[-1].split(",")) for mount in mounts)
