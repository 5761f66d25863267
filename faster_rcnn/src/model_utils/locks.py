"""One process at a time writes its kind of results to a folder.

A lock is a POSIX record lock of the system, on a file in the folder. It ends with its process, however that ends, and a forked
process does not have it. The file names its holder for others to report; without a holder it means nothing.
"""
import contextlib
import importlib
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .configuration.schema import InputError

# Kinds of results, and who writes them.
TRAINING, RESULTS = "training", "results"
SUFFIX = ".lock"
WRITERS = {TRAINING: "training", RESULTS: "inference or evaluation"}
# File -> its descriptor, which stays open, as closing any would end the lock; and whether the folder is there for it.
_held: dict[Path, tuple[int, bool]] = {}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_held.clear)     # a forked process has none of them


class InUseError(InputError):
    """A folder that another process writes to."""

    status = 1


@contextlib.contextmanager
def writing_alone(folder: Path | str, kind: str) -> Iterator[None]:
    """Hold the lock within; InUseError, before anything is touched, if another process has it."""
    take(folder, kind)
    try:
        yield
    finally:
        release(folder, kind)


def take(folder: Path | str, kind: str) -> None:
    """Lock `folder` for results of this kind until `release`, or until the process ends; InUseError if another process has it.

    Where the file system has no locks or cannot be written, nothing is locked: what writes reports that.
    """
    path = _path(folder, kind)
    if path in _held:
        return
    with contextlib.suppress(OSError, ImportError):
        new = not path.parent.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        while not _try(path, folder, kind, new):
            pass


def release(folder: Path | str, kind: str) -> None:
    """Free a lock that this process has, and remove the folder if it was made for it and is empty."""
    path = _path(folder, kind)
    number, new = _held.pop(path, (None, False))
    if number is None:
        return
    with contextlib.suppress(OSError):
        path.unlink()       # still locked: who waits for it looks whether this is the file that is there
        if new:
            path.parent.rmdir()
    os.close(number)


def _path(folder: Path | str, kind: str) -> Path:
    return Path(os.path.realpath(folder)) / f".{kind}{SUFFIX}"


def _try(path: Path, folder: Path | str, kind: str, new: bool) -> bool:
    """Return whether the lock is ours; False: its last holder has just removed the file."""
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl = importlib.import_module("fcntl")        # not on every system
        fcntl.lockf(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not path.exists() or not os.path.samestat(os.fstat(number), path.stat()):
            os.close(number)
            return False
    except (BlockingIOError, PermissionError):      # EAGAIN or EACCES, as the system likes
        holder = _holder(os.pread(number, 4096, 0))
        os.close(number)
        raise InUseError(f"output_path: {folder}: another {WRITERS[kind]} writes to it, {holder}: wait for its end, or give "
                         "another --output_path") from None
    except (OSError, ImportError):
        os.close(number)
        raise
    _held[path] = number, new
    about = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S"),
             "program": Path(sys.argv[0]).name}
    with contextlib.suppress(OSError):      # a full disk
        os.ftruncate(number, 0)
        os.pwrite(number, json.dumps(about).encode(), 0)
    return True


def _holder(text: bytes) -> str:
    try:
        about = json.loads(text)
        return f"process {int(about['pid'])} on {about['host']} ({about['program']}), since {about['since']}"
    except (ValueError, KeyError, TypeError):
        return "a process that has not given its name yet"
