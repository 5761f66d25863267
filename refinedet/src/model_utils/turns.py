# Same as faster_rcnn/src/model_utils/turns.py
"""One process at a time, of those of a machine that want the same file."""
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from .configuration.schema import InputError


@contextlib.contextmanager
def turn(path: Path, wait_seconds: float) -> Iterator[None]:
    """Within `with`, this is the only process that holds `path`. An InputError is raised in all that were waiting at that time."""
    import fcntl  # not on every system, and only jobs need it

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
        failed, _, told = file.read().partition("\n")
        if failed and float(failed) > came:
            raise InputError(told)
        try:
            yield
        except InputError as error:
            file.truncate(0)
            file.write(f"{time.time()}\n{error}")
            raise
