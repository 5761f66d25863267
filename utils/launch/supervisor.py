"""Supervise msrun and its ranks from start to end: find the rank that failed, pass on signals, kill what remains.

msrun by itself (MindSpore 2.10) ends half a minute after a rank is killed without showing its log, leaves the ranks running when it
receives SIGTERM, and at Ctrl-C kills them before they have saved their state.

msrun starts each rank as a child in a session of its own. Its other children, the scheduler and the tail processes that show logs,
stay in msrun's session.
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

# Polling intervals; the shorter one applies until all ranks are known, since a rank may fail at once.
POLL_S, SEARCH_S = 0.2, 0.03
# Grace period after the last rank has ended. The scheduler would wait half a minute for lost ranks.
SCHEDULER_S = 3.0
LINES = 30      # shown from the end of a failed rank's log
FAILED = re.compile(r"Worker process (\d+) exit with exception\. Error code: (-?\d+)")
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)
# Loaded here because as little as possible should happen between fork and exec.
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
SET_DEATH_SIGNAL = 1    # PR_SET_PDEATHSIG


def _end_with_parent(parent: int) -> None:
    """In the child: request SIGINT for when this process is killed. At SIGINT, unlike SIGTERM, msrun.py ends its ranks."""
    if LIBC:
        LIBC.prctl(SET_DEATH_SIGNAL, signal.SIGINT)
        if os.getppid() != parent:      # the parent ended before the request
            os._exit(1)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


class NodesWatch(Protocol):
    """Reports how the launchers of other nodes ended."""

    number: int                                     # this node
    failed: Optional[tuple[int, Optional[int]]]     # (node, its status or None)


class Supervisor:
    """Runs `command`, an msrun with --join=True that starts `count` ranks on this node.

    log is msrun's own log; the ranks' logs are in the same folder. nodes: the watch over other nodes (nodes.py), or None.
    """

    def __init__(self, command: list[str], env: dict[str, str], log: Path, count: int, kill_after: float,
                 nodes: Optional[NodesWatch] = None):
        self.command, self.env, self.log, self.count, self.kill_after = command, env, log, count, kill_after
        self.folder, self.nodes = log.parent, nodes
        self.ranks: dict[int, tuple[psutil.Process, str]] = {}      # pid -> process, rank
        self.scheduler: Optional[psutil.Process] = None             # runs on the first node only
        self.lost = False                                           # the scheduler ended while ranks were running
        # (pid, return code as subprocess defines it) of the rank that failed first
        self.failed: Optional[tuple[int, int]] = None
        self.asked = 0                                              # number of the signal that asked the run to stop
        self.msrun: Any = None                                      # a subprocess.Popen once it runs

    def run(self) -> int:
        before = {number: signal.signal(number, self._take) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
        try:
            with self.log.open("w", encoding="utf-8") as log:
                # In a new session, so that Ctrl-C reaches only this process.
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
        """Show the ranks' output."""
        for line in self.msrun.stdout:
            text = line.decode("utf-8", "replace")
            with contextlib.suppress(OSError, ValueError):      # stdout may be closed
                (log if text.startswith(("Start worker process", "Start scheduler process")) else sys.stdout).write(text)
                sys.stdout.flush()

    def _listen(self, log: TextIO) -> None:
        """Log msrun's messages and note the first rank that failed."""
        for line in self.msrun.stderr:
            text = line.decode("utf-8", "replace")
            with contextlib.suppress(ValueError):
                log.write(text)
                log.flush()
            found = FAILED.search(text)
            if found and self.failed is None:
                self.failed = int(found[1]), int(found[2])

    def _watch(self) -> None:
        """Wait until msrun has ended or must be killed."""
        # Times at which the first rank failed, the last rank ended, and the scheduler ended.
        first, last, orphaned = None, None, None
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
                orphaned = orphaned or now
                if now - orphaned > self.kill_after and any(map(_is_alive, self._processes())):
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
                    if not _is_alive(child) and os.getsid(child.pid) != child.pid:     # not a rank, and already ended
                        if not (self.nodes and self.nodes.number):      # other nodes: a program that msrun runs as a probe
                            self.scheduler = self.scheduler or child
                        continue
                    variables = child.environ()
                    role = variables.get("MS_ROLE")
                    if role == "MS_SCHED":
                        self.scheduler = child
                    elif role == "MS_WORKER" and os.getsid(child.pid) == child.pid:
                        self.ranks[child.pid] = child, variables.get("RANK_ID", "*")

    def _take(self, number: int, _frame: Optional[FrameType]) -> None:
        """Pass a request to stop on to the ranks; a second request kills them."""
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
        """Kill msrun and all ranks immediately."""
        if self.msrun is None:
            return
        self._find_ranks()
        for pid in (self.msrun.pid, *(process.pid for process in self._processes())):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        self.msrun.wait()

    def _conclude(self) -> int:
        """Return the exit status, and explain it if it is not 0."""
        status = self.msrun.returncode
        if self.failed is not None:
            pid, code = self.failed
            own = 128 - code if code < 0 else code
            if own in STOPPED and (self.asked or code > 0):
                print(f"run.py: stopped as requested; logs in {self.folder}", file=sys.stderr)
                return 128 + self.asked if self.asked else own
            number = self.ranks[pid][1] if pid in self.ranks else "*"      # ended before it was seen
            how = f"was killed by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"ended with status {code}"
            who = "a rank" if number == "*" else f"rank {number}"
            self._tell(f"{who} {how}; all other ranks were stopped", f"worker_{number}.log")
            return own
        if self.nodes and self.nodes.failed and status:
            node, ended = self.nodes.failed
            print(f"run.py: node {node} {'disconnected without a status' if ended is None else f'ended with status {ended}'}; all "
                  f"ranks on this node were stopped", file=sys.stderr)
            return ended or 1
        if self.asked and status:
            print("run.py: killed as requested", file=sys.stderr)
            return 128 + self.asked
        if self.lost:
            self._tell("the scheduler ended before the ranks; all ranks were stopped", "scheduler.log")
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
