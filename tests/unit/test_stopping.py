"""Ctrl-C and SIGTERM during training: when a run notices them, and what it prints at once."""
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mindspore as ms
import pytest
from mindspore import Tensor

from faster_rcnn.src.model_utils.training.stopping import TOGETHER, StopRequest

ROOT = Path(__file__).resolve().parents[2]
# C code computes the hash and checks no signals, like a compilation.
BUSY = """
import hashlib, logging, os, signal, sys
from faster_rcnn.src.model_utils.training.stopping import StopRequest
logging.basicConfig(format="%(message)s")
with StopRequest() as stop:
    stop.during, stop.compiling = "the first step", True
    if sys.argv[1] == "fork":
        child = os.fork()
        if not child:
            os.kill(os.getpid(), signal.SIGINT)
            os._exit(0)
        os.waitpid(child, 0)
    print("begun", file=sys.stderr, flush=True)
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", 10 ** 9 if sys.argv[1] == "long" else 3 * 10 ** 5)
print(stop.status, flush=True)
"""


@pytest.fixture
def busy():
    """busy(how) -> a process that has begun its work."""
    started = []

    def start(how):
        process = subprocess.Popen([sys.executable, "-c", BUSY, how], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE,
                                   text=True)
        started.append(process)
        assert process.stderr.readline() == "begun\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_is_acknowledged_while_c_code_runs(busy, number, status):
    process = busy("long")
    process.send_signal(number)
    assert process.stderr.readline() == "stop requested: the run ends after the first step; a second signal ends it at once\n"
    process.send_signal(number)     # counts as the first, as if a terminal and a launcher both sent it
    time.sleep(TOGETHER + 0.1)
    assert process.poll() is None
    process.send_signal(number)
    assert process.wait(60) == status
    assert process.stderr.read() == "ended at once\n"


def test_signal_of_a_forked_process_does_not_stop_the_parent(busy):
    process = busy("fork")
    out, errors = process.communicate(timeout=60)
    assert (out, errors, process.returncode) == ("143\n", "", 0)       # the parent noticed no signal


def test_ctrl_c_while_graphs_run():
    """MindSpore takes over SIGINT when it runs a graph."""
    @ms.jit
    def double(x):
        return x + x

    for after in ("renew", "pause"):
        with StopRequest() as stop:
            double(Tensor([1.0])).asnumpy()
            stop.renew() if after == "renew" else time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.status == 130


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_ask_to_stop(number, status):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
        assert stop.status == status
        assert signal.getsignal(number) == before   # a second signal acts as usual
    assert signal.getsignal(number) == before


def test_another_thread_leaves_the_signals_as_they_are():
    """Python lets only the main thread handle signals."""
    def train() -> tuple[list, bool]:
        with StopRequest() as stop:
            stop.renew()
            return [signal.getsignal(number) for number in StopRequest.signals], bool(stop)

    before = [signal.getsignal(number) for number in StopRequest.signals]
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(train).result() == (before, False)
