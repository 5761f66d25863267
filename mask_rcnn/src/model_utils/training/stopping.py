# Same as faster_rcnn/src/model_utils/training/stopping.py
"""Ctrl-C and SIGTERM as requests to stop, which the loop looks at between two steps."""
import ctypes
import logging
import os
import signal
import threading
import time
from types import FrameType
from typing import Any, Self

log = logging.getLogger(__name__)
# Signals that come together, from a terminal and from a launcher, count as one, seconds.
TOGETHER = 0.5


class StopRequest:
    """Within `with`, SIGINT and SIGTERM ask to stop instead of ending the process; a second one of the kind ends it.

    Whenever MindSpore 2.10 runs a graph it takes SIGINT over, and turns it into SIGTERM. `renew` takes it back after the
    graph, and a thread does so during long ones. Python handles a signal only when the main thread is back from a graph that
    runs or is being compiled, which may take minutes, so another thread acknowledges it at once.

    Python lets only the main thread handle signals: in another thread nothing changes, and nobody is heard.

    Attributes:
        during: what the run ends after, for that line.
        compiling: a second signal does not raise KeyboardInterrupt, of which MindSpore would dump its whole analysis.
    """

    signals = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.number = 0         # of the signal
        self.during, self.compiling = "what runs now", False
        self._restored = False  # a second signal is Python's to handle
        self._before: dict[int, Any] = {}
        self._done = threading.Event()
        self._action: ctypes.Array | None = None     # of Python at SIGINT
        self._ends: tuple[int, int] | None = None    # of the pipe that Python's own handler writes to
        self._wakeup = -1                            # where it wrote before

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        self._before = {number: signal.signal(number, self._take) for number in self.signals}
        self._action = _current_action(signal.SIGINT)
        reader, writer = self._ends = os.pipe()
        os.set_blocking(writer, False)
        _writers.add(writer)
        self._wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for work, *arguments in ((self._keep_renewing,), (self._acknowledge, reader)):
            threading.Thread(target=work, args=arguments, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._ends:
            signal.set_wakeup_fd(self._wakeup)
            _writers.discard(self._ends[1])
            os.close(self._ends[1])
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __bool__(self) -> bool:
        return bool(self.number)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        self._done.set()
        self.number = number
        if not self.compiling:
            self._restored = True
            signal.signal(number, self._before[number])

    def _acknowledge(self, reader: int) -> None:
        """Say that a signal has come; end the process at a second one, where the main thread cannot."""
        first = 0.0
        while received := os.read(reader, 1):
            if received[0] not in self.signals:
                continue
            if not first:
                first = time.monotonic()
                log.warning("asked to stop: the run ends after %s; a second time ends it at once", self.during)
            elif time.monotonic() - first > TOGETHER and not self._restored:
                log.warning("ended at once")
                os._exit(128 + received[0])
        os.close(reader)

    def renew(self) -> None:
        """Take SIGINT back."""
        if self._action is not None:
            _libc.sigaction(signal.SIGINT, self._action, None)

    def _keep_renewing(self) -> None:
        while not self._done.wait(0.01):
            self.renew()

    @property
    def status(self) -> int:
        """The exit status that a shell gives a process which the signal ended; 143 where another device was asked."""
        return 128 + (self.number or signal.SIGTERM)


def _leave_the_pipe() -> None:
    """In a forked process, a loader of data say: its signals are not those of the run."""
    before = signal.set_wakeup_fd(-1)
    if before not in _writers:
        signal.set_wakeup_fd(before)


_writers: set[int] = set()      # ends of pipes in use
os.register_at_fork(after_in_child=_leave_the_pipe)
_libc = ctypes.CDLL(None)


def _current_action(number: int) -> ctypes.Array:
    """What the C library does at a signal: its struct sigaction, which nobody needs to look into."""
    action = ctypes.create_string_buffer(512)
    _libc.sigaction(number, None, action)
    return action
