"""Let one process at a time, among those on a machine that want the same file, do the work."""
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from .configuration.schema import InputError


@contextlib.contextmanager
def turn(path: Path, wait_seconds: float) -> Iterator[None]:
    """Hold `path` exclusively within the block. If the block raises InputError, all processes waiting then raise it, too.

    Args:
        path: the lock file.
        wait_seconds: how long to wait for another process.

    Raises:
        InputError: after `wait_seconds`, or if the process that was waited for failed.
    """
    import fcntl  # not available on every system

    came = time.time()
    with path.open("a+", encoding="utf-8") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.time() - came > wait_seconds:
                    raise InputError(f"{path}: another process has been fetching for {wait_seconds / 60:g} minutes") from None
                time.sleep(min(0.5, wait_seconds / 10))
        file.seek(0)
        failed, _, message = file.read().partition("\n")
        if failed and float(failed) > came:
            raise InputError(message)
        try:
            yield
        except InputError as error:
            file.truncate(0)
            file.write(f"{time.time()}\n{error}")
            raise
