# Same as faster_rcnn/src/model_utils/signals.py
"""Make SIGINT and SIGTERM end a command with status 130 or 143 and one line, at any moment.

In our Python code, the signal becomes an exception, so that files are closed and temporary ones removed. While modules are imported
or graphs compiled, an exception would be swallowed or printed with a traceback, so the process exits at once; likewise if the main
thread does not return from a library within GRACE seconds.
"""
import contextlib
import ctypes
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Optional

SIGNALS = (signal.SIGINT, signal.SIGTERM)
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
GRACE = 2.0         # seconds until the main thread must have noticed a signal
UNWINDING = 10.0    # seconds from then until the process must have ended
RENEWAL = 0.05      # seconds; MindSpore 2.10 replaces the handler of SIGINT whenever it runs a graph, and turns it into SIGTERM
IMPORTING = "<frozen importlib"
# Modules that record temporary files, in a model and in utils.
FILES = (f"{__package__}.files", "utils.files")
# Functions that return a line about incomplete results, called before the process exits at once.
last_words: list[Callable[[], str]] = []


class Interrupted(KeyboardInterrupt):
    """A signal ended the block; `number` is the signal's number."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


class _Ending:
    """Signals that this process has received."""

    def __init__(self) -> None:
        self.guarded = 0            # active calls of `guarded`
        self.number = 0             # number of the first signal
        self.noticed = threading.Event()    # set by the main thread


_ending = _Ending()
_libc: Any = ctypes.CDLL(None) if os.name == "posix" else None


def end_at_signals() -> None:
    """Install the handlers, in the main thread, before other imports. A signal that the parent ignores stays ignored."""
    numbers = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    if not _libc or not numbers or threading.current_thread() is not threading.main_thread():
        return
    reader, writer = os.pipe()      # macOS has no pipe2
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in numbers:
        signal.signal(number, _take)
    action = ctypes.create_string_buffer(512)       # an opaque struct sigaction
    _libc.sigaction(signal.SIGINT, None, action)
    threading.Thread(target=_watch, args=(reader, action), daemon=True).start()
    sys.excepthook = _uncaught
    os.register_at_fork(after_in_child=lambda: _forget(writer))


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Raise signals as Interrupted within the block, for the caller to report."""
    _ending.guarded += 1
    try:
        yield
    finally:
        _ending.guarded -= 1


def taken() -> int:
    """Return the number of the received signal, or 0. Libraries may convert an Interrupted to other exceptions."""
    return _ending.number


def status_of(error: Optional[BaseException]) -> int:
    """Return the exit status by which shells denote the end by a signal."""
    return 128 + (getattr(error, "number", 0) or _ending.number or signal.SIGINT)


def word_of(error: Optional[BaseException]) -> str:
    """Return the word for the signal: "interrupted" or "terminated"."""
    return WORDS[signal.Signals(status_of(error) - 128)]


def _uncaught(kind: type[BaseException], error: BaseException, trace: Optional[TracebackType]) -> None:
    """Print one line for a lack of memory, which may strike while the first modules are imported; else print the traceback."""
    with contextlib.suppress(Exception):
        from .memory import lacks_memory, shortage

        if lacks_memory(error):
            print(f"{Path(sys.argv[0]).name}: error: {shortage(error)}", file=sys.stderr)
            return
    sys.__excepthook__(kind, error, trace)


def _take(number: int, frame: Optional[FrameType]) -> None:
    again, _ending.number = _ending.number, _ending.number or number
    _ending.noticed.set()
    if again or not _ending.guarded or _in_library(frame):
        _leave(number)
    raise Interrupted(number)


def _in_library(frame: Optional[FrameType]) -> bool:
    """Return whether modules are being imported or MindSpore is running; a folder of ours may also be called mindspore."""
    library = getattr(sys.modules.get("mindspore"), "__file__", None)
    names = (IMPORTING, os.path.dirname(library) + os.sep) if library else (IMPORTING,)
    while frame is not None:
        if frame.f_code.co_filename.startswith(names):
            return True
        frame = frame.f_back
    return False


def _leave(number: int) -> None:
    """Remove incomplete files, print the last words, and exit."""
    for name in FILES:
        for path in tuple(getattr(sys.modules.get(name), "temporaries", ())):
            _remove(path)
    for line in (*last_words, lambda: f"{Path(sys.argv[0]).name}: {WORDS[signal.Signals(number)]}"):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.write(2, f"{text}\n".encode() if (text := line()) else b"")
    os._exit(128 + number)


def _remove(path: Path) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        path.unlink()


def _watch(reader: int, action: Any) -> None:
    while True:
        ready, _, _ = select.select([reader], [], [], RENEWAL)
        if not ready:
            if "mindspore" in sys.modules and callable(signal.getsignal(signal.SIGINT)):
                _libc.sigaction(signal.SIGINT, action, None)
            continue
        for number in os.read(reader, 64):
            if number in SIGNALS and signal.getsignal(number) is _take:
                threading.Thread(target=_insist, args=(number,), daemon=True).start()


def _insist(number: int) -> None:
    """End the process if its main thread is in a library that does not return, or that drops the exception."""
    if _ending.noticed.wait(GRACE):
        time.sleep(UNWINDING)
    _leave(number)


def _forget(writer: int) -> None:
    """Restore Python's handlers in a forked process, such as a data loader."""
    _ending.number = 0
    _ending.noticed.clear()
    before = signal.set_wakeup_fd(-1)
    if before not in (writer, -1):
        signal.set_wakeup_fd(before)
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) is _take:
            signal.signal(number, handler)
