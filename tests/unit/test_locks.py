"""Locks on a folder: a second process stops, names the first and changes nothing. A dead process holds no lock."""
import contextlib
import json
import os
import re
import signal
import socket
import threading

import pytest

from faster_rcnn.src.model_utils import locks
from faster_rcnn.src.model_utils.locks import RESULTS, TRAINING, InUseError, release, take, writing_alone
from faster_rcnn.src.model_utils.moxing_adapter import result_files
from faster_rcnn.src.model_utils.training import ranks


@contextlib.contextmanager
def other_process(work):
    """Run `work` in a forked process, yield its id, and kill it at the end of the block."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work()
            os.write(write_end, b"1")
            signal.pause()
        finally:
            os._exit(1)
    os.close(write_end)
    assert os.read(read_end, 1) == b"1"
    os.close(read_end)
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def in_another_process(work) -> str:
    """Run `work` in a forked process; return the text of its InUseError, or an empty string."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work()
        except InUseError as error:
            os.write(write_end, str(error).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    os.waitpid(child, 0)
    with open(read_end, encoding="utf-8") as file:
        return file.read()


def test_the_second_process_names_the_first(tmp_path):
    folder = tmp_path / "out"
    with other_process(lambda: take(folder, TRAINING)) as pid:
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        with pytest.raises(InUseError) as caught:
            take(folder, TRAINING)
        match = re.fullmatch(r"output_path: (.+): another training writes to it, process (\d+) on (.+) \(.+\), since "
                            r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d; wait until it ends, or set another --output_path", str(caught.value))
        assert match.groups() == (str(folder), str(pid), socket.gethostname())
        assert caught.value.status == 1
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        with writing_alone(folder, RESULTS):        # a lock of another kind is free
            assert len(list(folder.iterdir())) == 2
    with writing_alone(folder, TRAINING):           # the killed process left its file, but no lock
        assert json.loads((folder / ".training.lock").read_bytes())["pid"] == os.getpid()
    assert list(folder.iterdir()) == []


def test_a_lock_ends_with_its_block_and_leaves_nothing(tmp_path):
    folder = tmp_path / "new"
    with pytest.raises(KeyboardInterrupt), writing_alone(folder, RESULTS):
        assert in_another_process(lambda: take(folder, RESULTS)).startswith("output_path: ")
        take(folder, RESULTS)       # this process already holds it
        raise KeyboardInterrupt
    assert not folder.exists()
    with writing_alone(folder, RESULTS):
        (folder / "detections.json").touch()
    assert [path.name for path in folder.iterdir()] == ["detections.json"]
    assert in_another_process(lambda: take(folder, RESULTS)) == ""


def test_a_forked_process_neither_frees_nor_keeps_the_lock(tmp_path):
    take(tmp_path, TRAINING)
    assert in_another_process(lambda: release(tmp_path, RESULTS)) == ""
    with other_process(lambda: None) as worker:     # inherits the descriptor, as a data loader does
        assert in_another_process(lambda: take(tmp_path, TRAINING)) != ""
        release(tmp_path, TRAINING)
        assert in_another_process(lambda: take(tmp_path, TRAINING)) == "" and worker


def test_the_lock_file_is_removed_while_it_is_opened(tmp_path, monkeypatch):
    path = tmp_path / ".training.lock"
    opened, real = [], os.open

    def removed_once(name, *rest, **options):
        number = real(name, *rest, **options)
        opened.append(number)
        if len(opened) == 1:
            path.unlink()
        return number

    monkeypatch.setattr(locks.os, "open", removed_once)
    with writing_alone(tmp_path, TRAINING):
        assert len(opened) == 2 and os.path.samestat(os.fstat(opened[1]), path.stat())


def test_file_systems_without_locks(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.lockf", no_locks)
    with writing_alone(tmp_path, TRAINING):
        assert not locks._held
    (tmp_path / "file").touch()
    with writing_alone(tmp_path / "file", TRAINING):
        assert not locks._held


def test_lock_files_are_not_uploaded(tmp_path):
    from types import SimpleNamespace

    with writing_alone(tmp_path, TRAINING):
        (tmp_path / "loss_0.log").touch()
        assert result_files(tmp_path, SimpleNamespace(rank=0, whole_machine=False)) == ["loss_0.log"]


def test_all_ranks_end_with_the_status_of_the_first(monkeypatch):
    """Rank 0 takes the lock and sends the outcome to the other ranks."""
    sent, turn = {}, threading.Barrier(2)

    def exchange(data, _):
        sent[threading.current_thread().name] = data
        turn.wait()
        both = [sent["0"], sent["1"]]
        turn.wait()
        return both

    def fails():
        raise InUseError("of another process")

    ended = {}

    def rank(number):
        try:
            ranks.from_first(fails, number, 2, "output_path")
        except ValueError as error:
            ended[number] = str(error), error.status

    monkeypatch.setattr(ranks, "exchange", exchange)
    threads = [threading.Thread(target=rank, args=(number,), name=str(number)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended == {0: ("of another process", 1), 1: ("output_path: rank 0 failed: of another process", 1)}
