"""A conversion is complete or absent, however it ends. A stale conversion is repeated."""
import errno
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.unit.mindrecord_samples import annotation, coco_set, cut, draw, read_back, txt_set
from utils.mindrecord import DataError, conversion, convert, ensure, holding, load_manifest
from utils.mindrecord.shard import ShardWriter


def files_of(folder) -> dict:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def quietly(source, paths, output, **more) -> dict:
    return convert(source, *paths, output, progress=False, **more)


@pytest.fixture
def converted(tmp_path):
    """((image_dir, JSON file) of 3 images, folder of their conversion)."""
    paths = coco_set(tmp_path, [annotation(k, k, [1, 1, 5, 5]) for k in (1, 2, 3)])
    quietly("coco", paths, tmp_path / "out dir")
    return paths, tmp_path / "out dir"


def again(converted, **more) -> dict:
    return ensure("coco", *converted[0], converted[1], progress=False, **more)


def test_ensure_uses_a_complete_conversion(converted, tmp_path):
    before = files_of(converted[1])
    assert again(converted, workers=1, shards=3) == load_manifest(converted[1])
    assert files_of(converted[1]) == before
    made = ensure("coco", *converted[0], tmp_path / "new" / "folder", progress=False)
    assert made["count"] == 3 and len(read_back(tmp_path / "new" / "folder")) == 3


def test_a_conversion_can_be_moved(converted, tmp_path):
    """The manifest contains no path of this machine."""
    moved = converted[1].rename(tmp_path / "elsewhere")
    assert len(read_back(moved)) == 3 and str(tmp_path) not in (moved / "manifest.json").read_text()


def change_annotations(image_dir, path, output):
    path.write_text(path.read_text() + " ")


def change_image(image_dir, path, output):
    draw(image_dir / "2.png", seed=77)
    os.utime(image_dir / "2.png", ns=(1, 1))


def remove_image(image_dir, path, output):
    (image_dir / "2.png").unlink()


def cut_shard(image_dir, path, output):
    cut(output / load_manifest(output)["files"][0], 0.9)


def remove_index(image_dir, path, output):
    (output / f"{load_manifest(output)['files'][-1]}.db").unlink()


def cut_manifest(image_dir, path, output):
    cut(output / "manifest.json", 0.5)


def empty_manifest(image_dir, path, output):
    (output / "manifest.json").write_text("[]")


def older_schema(image_dir, path, output):
    file = output / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema": 0}))


@pytest.mark.parametrize("change", [change_annotations, change_image, remove_image, cut_shard, remove_index,
                                    cut_manifest, empty_manifest, older_schema])
def test_ensure_repeats_stale_and_broken_conversions(converted, change, caplog):
    paths, output = converted
    change(*paths, output)
    with caplog.at_level(logging.WARNING):
        manifest = again(converted)
    assert any("converting again" in line for line in caplog.messages)
    assert manifest["count"] == len(read_back(output)) == (2 if change is remove_image else 3)
    assert sorted(path.name for path in output.iterdir()) == ["manifest.json", manifest["files"][0].split("/")[0]]
    assert again(converted) == manifest


def test_ensure_converts_again_for_other_options(converted):
    first = again(converted)
    assert again(converted, keep_empty=True)["options"]["keep_empty"]
    with_classes = again(converted, classes=["background", "dog", "cat"])
    assert with_classes["categories"] != first["categories"]
    assert again(converted, classes=["background", "dog", "cat"]) == with_classes


def test_ensure_notices_an_image_that_was_missing(converted):
    image_dir, _ = converted[0]
    data = (image_dir / "2.png").read_bytes()
    (image_dir / "2.png").unlink()
    assert again(converted)["count"] == 2
    (image_dir / "2.png").write_bytes(data)
    assert again(converted)["count"] == 3


def test_ensure_works_without_the_source(converted, message, caplog):
    (image_dir, path), output = converted
    image_dir.rename(image_dir.with_name("gone"))
    with caplog.at_level(logging.WARNING):
        assert again(converted) == load_manifest(output)
    assert "is used as it is" in caplog.messages[-1]
    assert "no such folder" in message(again, converted, keep_empty=True)
    path.write_text(path.read_text() + " ")
    assert "no such folder" in message(again, converted)
    path.unlink()
    assert again(converted) == load_manifest(output)
    cut_shard(image_dir, path, output)
    assert "no such folder" in message(again, converted)


def test_load_manifest_without_a_conversion(tmp_path, message):
    assert message(load_manifest, tmp_path) == f"{tmp_path}: no complete conversion: no {tmp_path / 'manifest.json'}"


def test_other_files_in_the_folder_are_kept(converted):
    _, output = converted
    (output / "rows-of mine").mkdir()
    (output / "notes.txt").write_text("mine")
    (output / ".partial-0123abcd").mkdir()
    (output / "rows-0123abcd").mkdir()
    quietly("coco", converted[0], output)
    names = {path.name for path in output.iterdir()}
    assert {"rows-of mine", "notes.txt"} < names and len(names) == 4


@pytest.mark.parametrize("where", ["add", "finish"])
def test_a_failure_leaves_the_old_conversion(converted, monkeypatch, where):
    paths, output = converted
    before = files_of(output)
    calls = []
    monkeypatch.setattr(conversion, "WORTH_A_THREAD", 1)

    def fail(self, *arguments):
        calls.append(1)
        raise OSError(28, "No space left on device", str(self.path))

    monkeypatch.setattr(ShardWriter, where, fail)
    with pytest.raises(DataError, match="No space left on device"):
        quietly("coco", paths, output, workers=2)
    assert calls and files_of(output) == before
    monkeypatch.undo()
    assert again(converted) == json.loads(before["manifest.json"])


def test_a_failure_stops_the_other_threads(tmp_path, monkeypatch):
    paths = txt_set(tmp_path, "a.jpg 1,1,5,5,1\n" + "b.jpg 1,1,5,5,1\n" * 400)
    added, before = [], threading.active_count()

    def slow_or_fail(self, *arguments):
        added.append(self.path.name)
        if self.path.name.startswith("shard-0"):
            raise RuntimeError("a fault of the program")
        time.sleep(0.01)

    monkeypatch.setattr(ShardWriter, "add", slow_or_fail)
    monkeypatch.setattr(conversion, "WORTH_A_THREAD", 1)
    with pytest.raises(RuntimeError, match="a fault of the program"):
        quietly("other", paths, tmp_path / "o", workers=2)
    assert len(added) < 150 and list((tmp_path / "o").iterdir()) == []
    assert threading.active_count() <= before


CRASH = """
import os, sys
from utils.mindrecord import convert
signal = int(sys.argv[5])
convert(*sys.argv[1:5], workers=2, progress=lambda done, total: os.kill(os.getpid(), signal))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_conversion_leaves_the_old_one(converted, repo_dir, number):
    """The signal arrives after the rows are written, before the shards are finished."""
    (image_dir, path), output = converted
    before = files_of(output)
    run = subprocess.run([sys.executable, "-c", CRASH, "coco", image_dir, path, output, str(int(number))], cwd=repo_dir,
                         capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode in (-number, 1 if number == signal.SIGINT else -number), run.stderr
    after = files_of(output)
    assert {name: after[name] for name in before} == before
    left = [entry.name for entry in output.iterdir() if entry.name.startswith(".partial-")]
    assert len(left) == (0 if number == signal.SIGINT else 1)       # Ctrl-C leaves time to clean up
    assert again(converted) == json.loads(before["manifest.json"]) and len(read_back(output)) == 3
    change_annotations(image_dir, path, output)
    manifest = again(converted)
    assert sorted(entry.name for entry in output.iterdir()) == ["manifest.json", manifest["files"][0].split("/")[0]]


def test_a_killed_first_conversion_does_not_load(tmp_path, repo_dir):
    paths = coco_set(tmp_path, [annotation(1, 1, [1, 1, 5, 5])])
    run = subprocess.run([sys.executable, "-c", CRASH, "coco", *map(str, paths), tmp_path / "o", "9"], cwd=repo_dir,
                         timeout=300, check=False)
    assert run.returncode == -9
    with pytest.raises(DataError, match="no complete conversion"):
        load_manifest(tmp_path / "o")
    assert ensure("coco", *paths, tmp_path / "o", progress=False)["count"] == 1 and len(read_back(tmp_path / "o")) == 1


SLOW = """
import sys, time
from utils.mindrecord import conversion, ensure
work = conversion._convert
def slow(*arguments):
    print("converts", flush=True)
    time.sleep(0.5)
    return work(*arguments)
conversion._convert = slow
print(ensure(*sys.argv[1:5], progress=False)["files"])
"""


def test_only_one_of_several_processes_converts(tmp_path, repo_dir):
    paths = coco_set(tmp_path, [annotation(k, 1 + k % 9, [1, 1, 5, 5]) for k in range(60)], images=9)
    command = [sys.executable, "-c", SLOW, "coco", *map(str, paths), str(tmp_path / "o")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    runs = [subprocess.Popen(command, cwd=repo_dir, **pipes) for _ in range(3)]
    outputs = [run.communicate(timeout=300)[0].splitlines() for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert sum(lines.count("converts") for lines in outputs) == 1
    assert len({lines[-1] for lines in outputs}) == 1


def test_a_held_conversion_stays(converted, tmp_path, monkeypatch, caplog):
    paths, output = converted
    holds: list = []
    first = again(converted, holds=holds)
    shard = output / first["files"][0]
    quietly("coco", paths, output, keep_empty=True)
    second = output / again(converted, keep_empty=True, holds=holds)["files"][0]
    quietly("coco", paths, output)
    assert shard.is_file() and second.is_file() and "a later conversion removes it" in caplog.text
    holds.pop(0).close()
    quietly("coco", paths, output)
    assert not shard.exists() and second.is_file()
    holds.clear()       # as at the end of a process
    quietly("coco", paths, output)
    assert not second.exists() and len(list(output.iterdir())) == 2
    for way in ("errno", "mount"):      # a file system without locks; locks that other machines do not see
        rows = output / load_manifest(output)["files"][0]
        with monkeypatch.context() as patch:
            if way == "errno":
                patch.setattr("fcntl.flock", lambda fd, how: (_ for _ in ()).throw(OSError(errno.ENOLCK, "no locks")))
            else:
                patch.setattr(holding, "_seen_here_only", lambda fd: True)
            caplog.clear()
            again(converted, keep_empty=True, holds=holds)
            again(converted, holds=holds)
        assert rows.is_file() and not holds and "has no locks that show" in caplog.text, way
    quietly("coco", paths, output)
    assert len(list(output.iterdir())) == 2
