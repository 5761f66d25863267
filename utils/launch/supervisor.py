"""msrun and its ranks from start to end: who failed, whom to ask to stop, what to kill.

msrun alone (MindSpore 2.10) ends half a minute after a rank was killed and shows nothing of its log, leaves the ranks running
when it gets SIGTERM itself, and kills them at Ctrl-C before they have written their state.

msrun starts every rank in a session of its own, as its child; beside them the scheduler and what shows the logs, which are in
msrun's own session.
"""
import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Optional, Protocol, TextIO

import psutil

# Between two looks at the processes; the shorter until all ranks are known, for one may fail at once.
POLL_S, SEARCH_S = 0.2, 0.03
# From the last rank's end until what msrun still waits for is killed: the scheduler gives lost ranks up after half a minute.
SCHEDULER_S = 3.0
LINES = 30      # of a failed rank's log
FAILED = re.compile(r"Worker process (\d+) exit with exception\. Error code: (-?\d+)")
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)
# Loaded here: between fork and exec as little as can be is done.
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
SET_DEATH_SIGNAL = 1    # PR_SET_PDEATHSIG


def _end_with_parent(parent: int) -> None:
    """In the child: where this process is killed, SIGINT, at which msrun.py ends its ranks; at SIGTERM msrun does not."""
    if LIBC:
        LIBC.prctl(SET_DEATH_SIGNAL, signal.SIGINT)
        if os.getppid() != parent:      # gone before it was asked for
            os._exit(1)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


class NodesWatch(Protocol):
    """What says how the launchers of other nodes ended."""

    number: int                                     # of this node
    failed: Optional[tuple[int, Optional[int]]]     # number of a node, its status or None


class Supervisor:
    """Runs `command`, an msrun with --join=True that starts `count` ranks here and writes their logs beside `log`, its own.

    nodes: those of other nodes, see nodes.py; None = there are no others.
    """

    def __init__(self, command: list[str], env: dict[str, str], log: Path, count: int, kill_after: float,
                 nodes: Optional[NodesWatch] = None):
        self.command, self.env, self.log, self.count, self.kill_after = command, env, log, count, kill_after
        self.folder, self.nodes = log.parent, nodes
        self.ranks: dict[int, tuple[psutil.Process, str]] = {}      # pid -> process, number
        self.scheduler: Optional[psutil.Process] = None             # of several nodes the first has one
        self.lost = False                                           # it ended while ranks went on
        # (pid, status) of the rank that failed first, as subprocess gives the status
        self.failed: Optional[tuple[int, int]] = None
        self.asked = 0                                              # number of the signal that asked to stop
        self.msrun: Any = None                                      # a subprocess.Popen once it runs

    def run(self) -> int:
        before = {number: signal.signal(number, self._take) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
        try:
            with self.log.open("w", encoding="utf-8") as log:
                # A session of its own: Ctrl-C is for us alone.
                self.msrun = subprocess.Popen(self.command, env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                              stderr=subprocess.PIPE, start_new_session=True,
                                              preexec_fn=partial(_end_with_parent, os.getpid()))
                readers = [threading.Thread(target=read, args=(log,), daemon=True) for read in (self._show, self._listen)]
                for reader in readers:
                    reader.start()
                self._watch()
                for reader in readers:
                    reader.join(2)
        finally:
            self.kill()
            for number, handler in before.items():
                signal.signal(number, handler)
        return self._conclude()

    def _show(self, log: TextIO) -> None:
        """What the ranks say."""
        for line in self.msrun.stdout:
            text = line.decode("utf-8", "replace")
            with contextlib.suppress(OSError, ValueError):      # our own output may be closed
                (log if text.startswith(("Start worker process", "Start scheduler process")) else sys.stdout).write(text)
                sys.stdout.flush()

    def _listen(self, log: TextIO) -> None:
        """What msrun tells of them."""
        for line in self.msrun.stderr:
            text = line.decode("utf-8", "replace")
            with contextlib.suppress(ValueError):
                log.write(text)
                log.flush()
            found = FAILED.search(text)
            if found and self.failed is None:
                self.failed = int(found[1]), int(found[2])

    def _watch(self) -> None:
        """Until msrun has ended, or has had its time to."""
        # When a rank failed, when the last of them ended, and when the scheduler did.
        first, last, alone = None, None, None
        while self.msrun.poll() is None:
            self._find_ranks()
            now = time.monotonic()
            if self.nodes and self.nodes.failed and self.failed is None:
                return
            if self.failed is not None:
                first = now if first is None else first
                last = None if any(map(_is_alive, self._processes())) else (last or now)
                if now - first > self.kill_after or (last and now - last > SCHEDULER_S):
                    return
            elif self.scheduler and not _is_alive(self.scheduler):
                alone = alone or now
                if now - alone > self.kill_after and any(map(_is_alive, self._processes())):
                    self.lost = True
                    return
            time.sleep(POLL_S if len(self.ranks) >= self.count else SEARCH_S)

    def _processes(self) -> list[psutil.Process]:
        return [process for process, _ in self.ranks.values() if process.is_running()]

    def _find_ranks(self) -> None:
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self.msrun.pid).children():
                if child.pid in self.ranks or child == self.scheduler:
                    continue
                with contextlib.suppress(psutil.Error, OSError):
                    if not _is_alive(child) and os.getsid(child.pid) != child.pid:     # no rank, and ended before it was seen
                        if not (self.nodes and self.nodes.number):      # a program that msrun asks about the machine, elsewhere
                            self.scheduler = self.scheduler or child
                        continue
                    variables = child.environ()
                    role = variables.get("MS_ROLE")
                    if role == "MS_SCHED":
                        self.scheduler = child
                    elif role == "MS_WORKER" and os.getsid(child.pid) == child.pid:
                        self.ranks[child.pid] = child, variables.get("RANK_ID", "*")

    def _take(self, number: int, _frame: Optional[FrameType]) -> None:
        """Hand the wish to stop on to the ranks; a second one ends them."""
        self._find_ranks()
        if self.asked or not self.ranks:
            self.asked = self.asked or number
            self.kill()
            return
        self.asked = number
        for process in self._processes():
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End at once whatever there is of it."""
        if self.msrun is None:
            return
        self._find_ranks()
        for pid in (self.msrun.pid, *(process.pid for process in self._processes())):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        self.msrun.wait()

    def _conclude(self) -> int:
        """The exit status, told where it is not 0."""
        status = self.msrun.returncode
        if self.failed is not None:
            pid, code = self.failed
            own = 128 - code if code < 0 else code
            if own in STOPPED and (self.asked or code > 0):
                print(f"run.py: stopped as asked; logs in {self.folder}", file=sys.stderr)
                return 128 + self.asked if self.asked else own
            number = self.ranks[pid][1] if pid in self.ranks else "*"      # gone before it was seen
            how = f"was killed by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"ended with status {code}"
            self._tell(f"{'a rank' if number == '*' else f'rank {number}'} {how}; all others were ended", f"worker_{number}.log")
            return own
        if self.nodes and self.nodes.failed and status:
            node, ended = self.nodes.failed
            print(f"run.py: node {node} {'went without a word' if ended is None else f'ended with status {ended}'}; all ranks here "
                  f"were ended", file=sys.stderr)
            return ended or 1
        if self.asked and status:
            print("run.py: ended as asked, at once", file=sys.stderr)
            return 128 + self.asked
        if self.lost:
            self._tell("the scheduler ended before the ranks; all were ended", "scheduler.log")
            return 1
        if status:
            self._tell(f"msrun ended with status {status}", self.log.name)
            return status if status > 0 else 128 - status
        return 0

    def _tell(self, what: str, pattern: str) -> None:
        print(f"run.py: {what}", file=sys.stderr)
        for path in sorted(self.folder.glob(pattern)):
            print(f"run.py: the end of {path}:", file=sys.stderr)
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines()[-LINES:]:
                print(f"    {line}", file=sys.stderr)
