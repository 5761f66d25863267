"""utils/launch/run.py: how a run on several devices can end. The program is a few lines without MindSpore."""
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from utils.launch import cli

pytestmark = pytest.mark.ranks

LAUNCHER = Path(__file__).resolve().parents[2] / "utils" / "launch" / "run.py"
PROGRAM = '''
import os, signal, sys, time
mode = sys.argv[1]
if os.environ["MS_ROLE"] == "MS_SCHED":
    if mode == "unscheduled":
        sys.exit("cannot listen")
    time.sleep(100)
rank = int(os.environ["RANK_ID"])
print("rank", rank, "has", sys.argv[2:], "of", os.environ["RANK_SIZE"], flush=True)
def asked(*_):
    time.sleep(rank / 2)
    print("stops", flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, asked)
if rank == 1 and mode in ("killed", "fails"):
    time.sleep(0.5)     # as a program takes that imports something
    print("last words", flush=True)
    sys.exit(3) if mode == "fails" else os.kill(os.getpid(), signal.SIGKILL)
if mode != "ends":
    open(f"ready {rank}", "w").close()
    time.sleep(100)
'''


@pytest.fixture
def start(tmp_path):
    """start(mode, *options) -> the launcher's process, in a folder whose name has a space."""
    folder = tmp_path / "a run"
    folder.mkdir()
    (folder / "program.py").write_text(PROGRAM)

    def launch(mode, *options):
        return subprocess.Popen([sys.executable, str(LAUNCHER), "--worker_num=2", "--log_dir=the logs", *options, "program.py",
                                 mode, "one two"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return launch


def wait_for(path, process) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)


def running(folder) -> list:
    """Return the processes that were started in this folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def assert_all_end(folder) -> None:
    deadline = time.monotonic() + 30
    while left := running(folder):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


@pytest.mark.parametrize("mode, status, message", [
    ("killed", 137, "rank 1 was killed by signal 9 (SIGKILL); all other ranks were stopped"),
    ("fails", 3, "rank 1 ended with status 3; all other ranks were stopped")])
def test_a_rank_that_fails_ends_all(start, tmp_path, mode, status, message):
    out, errors = (process := start(mode)).communicate(timeout=60)
    assert process.returncode == status, errors
    assert "rank 0 has ['one two'] of 2" in out and "rank 1 has" not in out
    assert message in errors and "    last words" in errors
    assert not running(tmp_path / "a run")


def test_a_scheduler_that_fails_ends_all(start, tmp_path):
    """msrun would wait for the ranks, and the ranks for the scheduler."""
    _, errors = (process := start("unscheduled", "--kill_after=2")).communicate(timeout=60)
    assert process.returncode == 1, errors
    assert "the scheduler ended before the ranks; all ranks were stopped" in errors and "    cannot listen" in errors
    assert not running(tmp_path / "a run")


def test_a_request_to_stop_reaches_the_ranks(start, tmp_path):
    """The logs of an earlier run in the same folder are kept."""
    folder = tmp_path / "a run"
    (folder / "the logs").mkdir()
    (folder / "the logs" / "worker_0.log").write_text("of before")
    process = start("waits", "--show_ranks=all")
    for rank in (0, 1):
        wait_for(folder / f"ready {rank}", process)
    os.kill(process.pid, signal.SIGTERM)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 143 and "stopped as requested" in errors
    assert "stops" in out
    assert (folder / "the logs" / "earlier" / "1" / "worker_0.log").read_text() == "of before"
    assert not running(folder)


@pytest.mark.parametrize("mark", ["ready 1", "the logs/scheduler.log"])
def test_all_end_if_the_launcher_is_killed(start, tmp_path, mark):
    """This also holds while ranks are being started."""
    folder = tmp_path / "a run"
    process = start("waits")
    try:
        wait_for(folder / mark, process)
        process.kill()
        process.communicate(timeout=60)
        assert_all_end(folder)
    finally:
        for left in running(folder):
            left.kill()


def test_a_node_that_fails_ends_the_others(start, tmp_path):
    """Either node may fail; node 0 is killed and sends no status. The nodes share a log folder and keep each other's logs."""
    for victim, message in ((1, "node 1 ended with status 3"), (0, "node 0 disconnected without a status")):
        port = cli.free_port()
        nodes = [start("fails" if victim else "waits", "--local_worker_num=1", f"--node_rank={i}", f"--master_port={port}",
                       f"--log_dir=logs {victim}") for i in (0, 1)]
        if victim == 0:
            for rank, node in enumerate(nodes):
                wait_for(tmp_path / "a run" / f"ready {rank}", node)
            nodes[0].kill()
        _, errors = nodes[1 - victim].communicate(timeout=60)
        assert nodes[1 - victim].returncode == (3 if victim else 1), errors
        assert f"{message}; all ranks on this node were stopped" in errors
        nodes[victim].communicate(timeout=60)
        assert sorted(path.name for path in (tmp_path / "a run" / f"logs {victim}").iterdir()) == [
            "msrun.log", "msrun_1.log", "scheduler.log", "worker_0.log", "worker_1.log"]
        for path in (tmp_path / "a run").glob("ready *"):
            path.unlink()
    assert_all_end(tmp_path / "a run")


@pytest.mark.parametrize("options, message", [
    ((), "worker_num and local_worker_num: give at least one"),
    (("--worker_num=2", "--local_worker_num=3"), "worker_num and local_worker_num"),
    (("--worker_num=4", "--local_worker_num=2", "--node_rank=2"), "node_rank: 2 does not fit 4 processes with 2 per node"),
    (("--worker_num=2", "--show_ranks=first"), "--show_ranks: expected comma-separated numbers"),
    (("--worker_num=2", "--master_port=99999"), "--master_port: expected 1 to 65535, or 0 for a free port, got 99999"),
    (("--worker_num=2", "--master_port=-5"), "--master_port: expected 1 to"),
    (("--worker_num=2", "--local_worker_num=1", "--node_rank=1", "--master_port=65535"),
     "--master_port: expected 1 to 65534, or 0 for a free port, got 65535"),
    (("--worker_num=two",), "argument --worker_num: invalid int value"),
    (("--worker_num=2", "--kill_after=nan"), "argument --kill_after: invalid float value: 'nan'"),
    (("--log_dir=/dev/null/x", "--worker_num=2"), "--log_dir: /dev/null"),
])
def test_faults_are_one_line(run_command, one_line, options, message):
    assert message in one_line(run_command(["python", LAUNCHER, *options, __file__]), "run.py")


@pytest.mark.parametrize("options, message", [
    (("--worker_num=1_0", __file__), "invalid int value: '1_0'"), (("--worker_num=\u0663", __file__), "invalid int value"),
    (("--worker_num=" + "9" * 5000, __file__), "invalid int value: '999"),
    (("--worker_num=2", "--kill_after=1e999", __file__), "invalid float value"),
    (("--worker_num=2", "--show_ranks=\u00b2", __file__), "--show_ranks: expected comma-separated numbers"),
    (("--worker_num=2", "--master_addr=a\n--x", __file__), "--master_addr: expected an IP address or host name, got"),
    (("--worker_num=2", "--", "--x.py"), "no such program: --x.py")])
def test_values_with_a_second_meaning_are_refused(tmp_path, monkeypatch, options, message):
    """int() would accept some of them; msrun and what it starts would misread the others."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "--x.py").touch()
    with pytest.raises(cli.LaunchError) as caught:
        cli.parse(options)
    assert message in str(caught.value) and len(str(caught.value)) < 300


def test_a_log_folder_is_not_taken_for_an_option():
    assert cli.parse(["--worker_num=2", "--log_dir=--follow", "--kill_after=20.", __file__]).log_dir == "./--follow"


def test_missing_program(run_command, one_line):
    assert "no such program: nowhere.py" in one_line(run_command(["python", LAUNCHER, "--worker_num=2", "nowhere.py"]), "run.py")


@pytest.mark.parametrize("nodes, message", [((), "choose another port, or 0 for a free one"),
                                            (("--local_worker_num=1",), "choose another port, the same on all nodes")])
def test_taken_port(run_command, one_line, nodes, message):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run_command(["python", LAUNCHER, "--worker_num=2", *nodes, f"--master_port={port}", __file__])
    assert f"--master_port: {port} is in use; {message}" in one_line(done, "run.py")


def test_taken_port_of_several_nodes(monkeypatch):
    """The default port is checked too; otherwise the other nodes would wait for a node that cannot start."""
    monkeypatch.setattr(cli, "_is_free", lambda port: port != cli.DEFAULT_PORT)
    call = ["--worker_num=2", "--local_worker_num=1", __file__]
    with pytest.raises(cli.LaunchError, match=f"--master_port: {cli.DEFAULT_PORT} is in use"):
        cli.parse(call)
    assert cli.parse(["--node_rank=1", *call]).master_port == cli.DEFAULT_PORT


def test_free_port_is_followed_by_a_free_one(monkeypatch):
    """It lies below Linux's default range for outgoing connections, which starts at 32768."""
    monkeypatch.setattr(cli, "_is_free", lambda port: port % 4 in (1, 2))
    ports = [cli.free_port() for _ in range(50)]
    assert all(port % 4 == 1 and 1024 < port < 32768 - 1 for port in ports) and len(set(ports)) > 1
