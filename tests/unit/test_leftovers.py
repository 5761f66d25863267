"""Temporary files of killed processes: the next that writes to the folder removes them, and no others."""
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
    """The id of a process that was killed while it wrote a file and a folder of files."""
    child = os.fork()
    if child == 0:
        with replacing(folder / "results.json") as partial, scratch_folder(folder / "net.onnx") as scratch:
            for path in (partial, partial.with_suffix(".tmp"), scratch / "half"):
                path.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    return child


def test_those_of_a_dead_process_go(tmp_path):
    child = killed_while_writing(tmp_path)
    assert sorted(path.name.rpartition(f".{child}.part")[2] for path in tmp_path.iterdir()) == [".folder", ".json", ".tmp"]
    mine = own_name(tmp_path / "other.json")
    foreign = tmp_path / f".other.00000000.{child}.part.json"       # of another machine or container
    kept = [mine, foreign, tmp_path / ".other.123.part.json", tmp_path / f"part.{child}", tmp_path / ".config"]
    for path in kept:
        path.write_text("x")
    write_text(tmp_path / "results.json", "whole")
    assert sorted(tmp_path.iterdir()) == sorted([*kept, tmp_path / "results.json"])


def test_those_of_a_living_process_stay(tmp_path):
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        with replacing(tmp_path / "results.json") as partial:
            partial.write_text("half")
            os.write(told, b"1")
            signal.pause()
    os.read(ready, 1)
    try:
        write_text(tmp_path / "more.json", "x")
        assert len(list(tmp_path.iterdir())) == 2
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    files._cleared.clear()
    utils.files._cleared.clear()
    utils.files.clear_leftovers(tmp_path)       # both copies know the names
    assert [path.name for path in tmp_path.iterdir()] == ["more.json"]


def test_a_folder_is_looked_through_once(tmp_path):
    clear_leftovers(tmp_path)
    killed_while_writing(tmp_path)
    for name in ("a.png", "b.png"):             # thousands of drawn pictures
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


def test_those_of_a_process_with_the_same_id_go(tmp_path):
    """As in a container, whose command has the same id whenever it starts."""
    older, target = tmp_path / "net-1_20.ckpt", tmp_path / "last.ckpt"
    older.write_text("older")
    os.link(older, own_name(target))        # killed before `target` was replaced
    own_name(tmp_path / "net.folder").mkdir()
    (own_name(tmp_path / "net.folder") / "half").touch()
    with replacing(target) as partial, scratch_folder(tmp_path / "net.onnx") as folder:
        partial.write_text("newer")
        assert list(folder.iterdir()) == []
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {older.name: "older", target.name: "newer"}
