"""Launchers of several nodes: which connections they trust, and which node watches the scheduler."""
import os
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from utils.launch import cli, nodes, supervisor
from utils.launch.nodes import PORT_OFFSET, Nodes, token_of

HOST = "127.0.0.1"


@pytest.fixture
def port():
    return cli.free_port()


@pytest.fixture
def started(port):
    """started(number, token="a", patience=5) -> a started node of the run."""
    running = []

    def start(number, token="a", patience=5):
        node = Nodes(number, HOST, port, patience, token_of(token))
        node.start()
        running.append(node)
        return node

    yield start
    for node in running:
        node.finish(0)


def wait(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def stranger(port, *lines) -> bytes:
    """Send lines to the first node; return its answer until it closes the connection."""
    with socket.create_connection((HOST, port + PORT_OFFSET), timeout=5) as connection:
        answer = connection.recv(100)
        for line in lines:
            connection.sendall(line)
        try:
            connection.shutdown(socket.SHUT_WR)
            while more := connection.recv(100):
                answer += more
        except TimeoutError:
            raise
        except OSError:         # the node has already closed it
            pass
    return answer


def test_nodes_learn_of_failures_of_other_nodes(started):
    first, other, third = started(0), started(1), started(2)
    wait(lambda: len(first.connections) == 2 and other.connections and third.connections)
    other.finish(5)
    wait(lambda: first.failed)
    assert first.failed == (1, 5) and third.failed is None
    first.finish(3)
    wait(lambda: third.failed)
    assert third.failed == (0, 3)


def test_strangers_are_ignored_and_reported(started, port, capsys):
    first, other = started(0), started(1)
    wait(lambda: first.connections)
    guessed = b"node 1 " + b"0" * 32 + b" " + b"0" * 64 + b"\nend 1 1\n"
    for line in (b"end 5 1\n", b"node 7\nend 7 1\n", guessed, b"\xff" * 40 + b"\n", b"x" * 9999, b"GET / HTTP/1.1\r\n\r\n", b""):
        answer = stranger(port, line)
        assert answer.startswith(b"nodes ") and answer.count(b"\n") == 1
    wait(lambda: first.reports == 7)
    assert first.failed is None and other.failed is None and len(first.connections) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5 and all(line.startswith(f"run.py: port {port + 1}: {HOST} ") and ": ignored" in line for line in lines)
    assert sum("does not know the token of this run (LAUNCH_TOKEN)" in line for line in lines) == 1
    assert lines[-1].endswith("further ones are not reported")


def test_silent_strangers_do_not_block_nodes(started, port, monkeypatch):
    monkeypatch.setattr(nodes, "HANDSHAKE_S", 0.3)
    first = started(0)
    silent = [socket.create_connection((HOST, port + PORT_OFFSET)) for _ in range(nodes.MOST_STRANGERS + 3)]
    other = started(1)
    wait(lambda: first.connections and other.connections)
    for connection in silent:
        connection.close()


def test_another_token(started, port, capsys):
    first, other = started(0), started(1, "b")
    wait(lambda: first.reports)
    text = ""
    deadline = time.monotonic() + 10
    while "has a different token" not in text and time.monotonic() < deadline:
        text += capsys.readouterr().err
        time.sleep(0.01)
    assert f"run.py: {HOST}:{port + 1}: has a different token (LAUNCH_TOKEN): failures of other nodes will not be noticed\n" in text
    assert not other.connections and first.failed is None


def test_a_first_node_that_is_another_service(port, capsys):
    """A stranger gets no message that could be used to prove knowledge of the token."""
    with socket.create_server((HOST, port + PORT_OFFSET)) as server:
        node = Nodes(1, HOST, port, 5, token_of("a"))
        node.start()
        connection, _ = server.accept()
        connection.sendall(b"220 smtp ready\n")
        assert connection.recv(100) == b""
        connection.close()
    node.finish(0)
    wait(lambda: f"run.py: {HOST}:{port + 1}: is not a launcher: failures of other nodes" in capsys.readouterr().err)
    assert not node.connections


def test_hello_does_not_raise_in_its_thread(port, monkeypatch):
    raised = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    with socket.create_server((HOST, port + PORT_OFFSET)) as server:
        node = Nodes(1, HOST, port, 5, token_of("a"))
        node.start()
        for _ in range(2):      # each connection ends at another step of the handshake
            connection, _ = server.accept()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.close()
    node.finish(0)
    assert not raised


def test_the_server_binds_only_the_address_of_the_cluster(port, monkeypatch, capsys):
    node = Nodes(0, HOST, port, 5, b"")
    node.start()
    assert node.server.getsockname()[0] == HOST
    node.finish(0)
    place = socket.AF_INET, socket.SOCK_STREAM, 0, "", ("192.0.2.1", port)      # not an address of this machine
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [place])
    Nodes(0, "cluster", port, 5, b"").start()
    assert capsys.readouterr().err == (f"run.py: cluster:{port + 1}: Cannot assign requested address: "
                                       "failures of other nodes will not be noticed\n")


def test_the_token_comes_from_the_environment_and_ranks_do_not_get_it(monkeypatch):
    derived = token_of("10.0.0.1", 8118, 16, 8)
    assert derived == token_of("10.0.0.1", 8118, 16, 8) != token_of("10.0.0.2", 8118, 16, 8)
    monkeypatch.setenv("LAUNCH_TOKEN", "secret")
    assert token_of("10.0.0.1", 8118, 16, 8) == token_of() != derived
    options = cli.parse(["--worker_num=2", __file__])
    assert "LAUNCH_TOKEN" not in cli.environment(options) and "secret" not in " ".join(cli.msrun_command(options))


# ---- the scheduler

@pytest.mark.parametrize(("number", "found"), [(None, True), (0, True), (1, False), (3, False)])
def test_only_the_first_node_treats_an_ended_child_as_the_scheduler(monkeypatch, number, found):
    """On other nodes, the child is a program that msrun queries the machine with, and its end must not end the run."""
    child = SimpleNamespace(pid=os.getpid(), is_running=lambda: True, status=lambda: psutil.STATUS_ZOMBIE)
    monkeypatch.setattr(supervisor.psutil, "Process", lambda pid: SimpleNamespace(children=lambda: [child]))
    monkeypatch.setattr(supervisor.os, "getsid", lambda pid: pid + 1)
    other = None if number is None else SimpleNamespace(number=number, failed=None)
    watcher = supervisor.Supervisor([], {}, Path("logs/msrun.log"), 1, 1.0, other)
    watcher.msrun = SimpleNamespace(pid=1)
    watcher._find_ranks()
    assert (watcher.scheduler is child) == found
