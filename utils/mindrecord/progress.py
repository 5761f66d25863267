"""Report the progress of long work: a bar with rate and remaining time on a terminal, otherwise a line every few seconds."""
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any, Literal, Optional, Union

INTERVAL = 5.0      # seconds between plain lines
# None reports on stderr, False reports nothing, a callable receives (done, total).
Report = Union[None, Literal[False], Callable[[int, int], Any]]


class Progress:
    """Reports progress as `report` says; call `update` with the number of items done so far."""

    def __init__(self, total: int, title: str, report: Optional[Report] = None):
        self.total, self.title, self.report = total, title, report
        self.start = self.last = time.monotonic()
        self.bar = None
        if report is None and sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total, desc=title, unit="image", file=sys.stderr)

    def update(self, done: int) -> None:
        if callable(self.report):
            self.report(done, self.total)
        elif self.bar is not None:
            self.bar.update(done - self.bar.n)
        elif self.report is None and time.monotonic() - self.last >= INTERVAL:
            self.last = time.monotonic()
            rate = done / (self.last - self.start)
            left = f"{(self.total - done) / rate:.0f} s left" if rate else "time left unknown"
            line = f"{self.title}: {done} of {self.total} images, {rate:.0f} images/s, {left}"
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def default_workers() -> int:
    """Return one thread per core that this process may use, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 8)


class Crew:
    """A pool of threads that process parts of the work.

    Reading, writing and decoding images releases the GIL, so threads are as fast as processes and start at once. Each part gets
    `tick` to call once per item; it raises Stopped if the work was abandoned.
    """

    def __init__(self, workers: int):
        self.pool = ThreadPoolExecutor(workers)
        self.stopped = False

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *error: object) -> None:
        self.stopped = True
        self.pool.shutdown(wait=True)

    def run(self, function: Callable[[Any, Callable[[], None]], Any], parts: Sequence[Any],
            progress: Optional[Progress] = None) -> list[Any]:
        """Return [function(part, tick)] in the order of the parts. An exception or Ctrl-C stops the other parts."""
        counts = [0] * len(parts)

        def tick_of(number: int) -> Callable[[], None]:
            def tick() -> None:
                if self.stopped:
                    raise Stopped
                counts[number] += 1
            return tick

        futures = [self.pool.submit(function, part, tick_of(number)) for number, part in enumerate(parts)]
        try:
            pending = set(futures)
            while pending:
                done, pending = wait(pending, timeout=0.2, return_when=FIRST_EXCEPTION)
                if progress:
                    progress.update(sum(counts))
                if any(future.exception() for future in done):
                    break
        finally:
            self.stopped = any(not future.done() or future.exception() for future in futures)
        for future in futures:
            error = future.exception()
            if error and not isinstance(error, Stopped):
                raise error
        return [future.result() for future in futures]


class Stopped(Exception):
    """Raised by `tick` after another thread failed or the user interrupted."""
