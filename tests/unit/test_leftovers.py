"""Temporary files of killed processes: the next process that writes to the folder removes them, and no other files."""
import os
import signal

import pytest

import utils.files
from faster_rcnn.src.model_utils import files
from faster_rcnn.src.model_utils.files import clear_leftovers, own_name, replacing, scratch_folder, write_text


@pytest.fixture(autouse=True)
def _first_time():
    files._cleared.clear()


def killed_while_writing(folder) -> int:
    """Kill a process while it writes a file and a folder of files; return its id."""
    child = os.fork()
    if child == 0:
        with replacing(folder / "results.json") as partial, scratch_folder(folder / "net.onnx") as scratch:
            for path in (partial, partial.with_suffix(".tmp"), scratch / "half"):
                path.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    return child


def test_files_of_a_dead_process_are_removed(tmp_path):
    child = killed_while_writing(tmp_path)
    assert sorted(path.name.rpartition(f".{child}.part")[2] for path in tmp_path.iterdir()) == [".folder", ".json", ".tmp"]
    mine = own_name(tmp_path / "other.json")
    foreign = tmp_path / f".other.00000000.{child}.part.json"       # from another machine or container
    kept = [mine, foreign, tmp_path / ".other.123.part.json", tmp_path / f"part.{child}", tmp_path / ".config"]
    for path in kept:
        path.write_text("x")
    write_text(tmp_path / "results.json", "whole")
    assert sorted(tmp_path.iterdir()) == sorted([*kept, tmp_path / "results.json"])


def test_files_of_a_running_process_stay(tmp_path):
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        with replacing(tmp_path / "results.json") as partial:
            partial.write_text("half")
            os.write(write_end, b"1")
            signal.pause()
    os.read(read_end, 1)
    try:
        write_text(tmp_path / "more.json", "x")
        assert len(list(tmp_path.iterdir())) == 2
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    files._cleared.clear()
    utils.files._cleared.clear()
    utils.files.clear_leftovers(tmp_path)       # either copy of files.py removes them
    assert [path.name for path in tmp_path.iterdir()] == ["more.json"]


def test_a_folder_is_scanned_once(tmp_path):
    clear_leftovers(tmp_path)
    killed_while_writing(tmp_path)
    for name in ("a.png", "b.png"):             # a scan for each of thousands of drawings would be slow
        write_text(tmp_path / name, "x")
    assert len(list(tmp_path.iterdir())) == 5
    clear_leftovers(tmp_path / "nowhere")


def test_a_link_to_a_folder_is_not_followed(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    child = killed_while_writing(tmp_path)
    files._cleared.clear()
    (tmp_path / f".x.{files._place()}.{child}.part.folder").symlink_to(tmp_path / "mine")
    clear_leftovers(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "file"]


def test_files_of_a_process_with_the_same_id_are_removed(tmp_path):
    """In a container, a command has the same process id at every start."""
    older, target = tmp_path / "net-1_20.ckpt", tmp_path / "last.ckpt"
    older.write_text("older")
    os.link(older, own_name(target))        # killed before `target` was replaced
    own_name(tmp_path / "net.folder").mkdir()
    (own_name(tmp_path / "net.folder") / "half").touch()
    with replacing(target) as partial, scratch_folder(tmp_path / "net.onnx") as folder:
        partial.write_text("newer")
        assert list(folder.iterdir()) == []
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {older.name: "older", target.name: "newer"}
