# Same as faster_rcnn/src/model_utils/training/stopping.py
"""Ctrl-C and SIGTERM as requests to stop, which the training loop checks between steps."""
import ctypes
import logging
import os
import signal
import threading
import time
from types import FrameType
from typing import Any, Self

log = logging.getLogger(__name__)
# Signals within this many seconds count as one: a terminal and a launcher may both send one.
TOGETHER = 0.5


class StopRequest:
    """Within `with`, SIGINT and SIGTERM request to stop instead of ending the process; a second signal ends it.

    When MindSpore 2.10 runs a graph, it replaces the SIGINT handler and turns SIGINT into SIGTERM. `renew` restores the handler
    after a graph, and a thread does so during long ones. Python handles a signal only after the main thread returns from a graph
    that runs or compiles, which may take minutes, so a thread acknowledges it at once.

    Python handles signals only in the main thread: in any other thread, this class does nothing.

    Attributes:
        during: what the run finishes first, for that message.
        compiling: whether a second signal must not raise KeyboardInterrupt, for which MindSpore would dump its whole analysis.
    """

    signals = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.number = 0         # of the received signal
        self.during, self.compiling = "the current work", False
        self._restored = False  # whether Python's own handler takes a second signal
        self._before: dict[int, Any] = {}
        self._done = threading.Event()
        self._action: ctypes.Array | None = None     # the C-level action of Python's SIGINT handler
        self._ends: tuple[int, int] | None = None    # the pipe that Python's C-level handler writes to
        self._wakeup = -1                            # the previous wakeup file descriptor

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
        """Acknowledge a signal; end the process at a second one if the main thread cannot."""
        first = 0.0
        while received := os.read(reader, 1):
            if received[0] not in self.signals:
                continue
            if not first:
                first = time.monotonic()
                log.warning("stop requested: the run ends after %s; a second signal ends it at once", self.during)
            elif time.monotonic() - first > TOGETHER and not self._restored:
                log.warning("ended at once")
                os._exit(128 + received[0])
        os.close(reader)

    def renew(self) -> None:
        """Restore the SIGINT handler."""
        if self._action is not None:
            _libc.sigaction(signal.SIGINT, self._action, None)

    def _keep_renewing(self) -> None:
        while not self._done.wait(0.01):
            self.renew()

    @property
    def status(self) -> int:
        """The exit status that shells report for this signal; 143 if another rank received it."""
        return 128 + (self.number or signal.SIGTERM)


def _leave_the_pipe() -> None:
    """In a forked process, such as a data loader: detach from the pipe, since its signals are not for the run."""
    before = signal.set_wakeup_fd(-1)
    if before not in _writers:
        signal.set_wakeup_fd(before)


_writers: set[int] = set()      # write ends of pipes in use
os.register_at_fork(after_in_child=_leave_the_pipe)
_libc = ctypes.CDLL(None)


def _current_action(number: int) -> ctypes.Array:
    """Return the C library's action for a signal: an opaque struct sigaction."""
    action = ctypes.create_string_buffer(512)
    _libc.sigaction(number, None, action)
    return action
