"""Holds on conversions: a process that reads one holds it, and no other process deletes what is held.

A hold is a shared lock on pictures.json in the folder of rows; to delete the folder, an exclusive one is needed. The lock is on a
file because NFS shares the locks of files between machines, but not those of folders.
"""
import errno
import logging
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Optional

from .manifest import PICTURES

# Those of a file system that has no locks.
NO_LOCKS = (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
# Mount options of network file systems with locks that other machines do not see.
LOCAL = {"nolock", "local_lock=all", "local_lock=flock", "localflock"}
log = logging.getLogger(__name__)


class Hold:
    """Keeps a folder of rows from being deleted until it is closed or collected, or the process ends."""

    def __init__(self, fd: int):
        self._fd: Optional[int] = fd

    def close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


def hold(rows: Path) -> Optional[Hold]:
    """Hold a folder of rows; None where the file system has no locks. FileNotFoundError if the folder has been deleted."""
    path = rows / PICTURES
    if not path.exists() and rows.is_dir():     # of a version that wrote no such file
        return None
    held = Hold(os.open(path, os.O_RDONLY))
    if not _lock(held, exclusive=False):
        return None
    if not path.exists():                       # deleted while the lock was waited for
        raise FileNotFoundError(errno.ENOENT, "deleted by another conversion", str(path))
    return held


def remove_unread(folders: Iterable[Path]) -> None:
    """Delete folders of rows, and unfinished ones, that no process reads or writes; the others are reported."""
    read, unknown = [], []
    for rows in folders:
        held = None
        try:
            held = _open_to_change(rows / PICTURES)
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
        log.warning("%s: another process reads it, so it is kept; a later conversion removes it", _names(read))
    if unknown:
        log.warning("%s: this file system has no locks that tell whether a process reads it, so it is kept; delete it by hand",
                    _names(unknown))


def _names(folders: list[Path]) -> str:
    return ", ".join(map(str, folders))


def _open_to_change(path: Path) -> Optional[Hold]:
    """Open a file as NFS needs it for an exclusive lock; None if there is none, so nobody can hold it."""
    try:
        try:
            return Hold(os.open(path, os.O_RDWR))
        except PermissionError:
            return Hold(os.open(path, os.O_RDONLY))
    except FileNotFoundError:
        return None


def _lock(held: Hold, exclusive: bool) -> bool:
    """Lock the file: shared locks are waited for; BlockingIOError if an exclusive one cannot be had. False: there are no locks."""
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
    """Whether the file lies on a mount whose locks other machines do not see."""
    device = os.fstat(fd).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as stream:
            mounts = [line.split() for line in stream]
    except OSError:         # not Linux
        return False
    return any(mount[2] == wanted and LOCAL.intersection(mount[-1].split(",")) for mount in mounts)
