# Same as faster_rcnn/src/model_utils/locks.py
"""Locks that let one process at a time write a kind of results to a folder.

A lock is a POSIX record lock on a file in the folder. It ends when its process ends, for any reason, and a forked process does
not inherit it. The file describes the holder, for messages of others; without a holder, its content has no meaning.
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

# Kinds of results, and the programs that write them.
TRAINING, RESULTS = "training", "results"
SUFFIX = ".lock"
WRITERS = {TRAINING: "training", RESULTS: "inference or evaluation"}
# File -> (descriptor, which must stay open because closing any would release the lock; whether the folder was made for it).
_held: dict[Path, tuple[int, bool]] = {}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_held.clear)     # a forked process inherits no lock


class InUseError(InputError):
    """Another process writes to the folder."""

    status = 1


@contextlib.contextmanager
def writing_alone(folder: Path | str, kind: str) -> Iterator[None]:
    """Hold the lock within the block. Raises InUseError, before anything is changed, if another process holds it."""
    take(folder, kind)
    try:
        yield
    finally:
        release(folder, kind)


def take(folder: Path | str, kind: str) -> None:
    """Lock `folder` for this kind of results until `release` or the end of the process.

    If the file system has no locks or is not writable, nothing is locked; writing will report the latter.

    Raises:
        InUseError: if another process holds the lock.
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
    """Release a lock of this process, and remove the folder if it was made for the lock and is empty."""
    path = _path(folder, kind)
    number, new = _held.pop(path, (None, False))
    if number is None:
        return
    with contextlib.suppress(OSError):
        path.unlink()       # while locked: waiting processes check that the file still exists
        if new:
            path.parent.rmdir()
    os.close(number)


def _path(folder: Path | str, kind: str) -> Path:
    return Path(os.path.realpath(folder)) / f".{kind}{SUFFIX}"


def _try(path: Path, folder: Path | str, kind: str, new: bool) -> bool:
    """Return whether the lock was taken; False: its last holder has just removed the file."""
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl = importlib.import_module("fcntl")        # not available on every system
        fcntl.lockf(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not path.exists() or not os.path.samestat(os.fstat(number), path.stat()):
            os.close(number)
            return False
    except (BlockingIOError, PermissionError):      # EAGAIN or EACCES, depending on the system
        holder = _holder(os.pread(number, 4096, 0))
        os.close(number)
        raise InUseError(f"output_path: {folder}: another {WRITERS[kind]} writes to it, {holder}; wait until it ends, or set "
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
        return "a process that has not registered yet"
