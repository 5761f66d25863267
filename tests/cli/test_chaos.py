"""A short run of tests/chaos.py, and what it counts as a fault."""
import json
import random

import pytest

from tests import chaos
from tests.chaos_processes import Done, is_whole, mutate


def test_commands_that_are_killed_and_fed_mutated_inputs(capsys):
    status = chaos.main(["--seed=5", "--tries=12", "--groups=scoring,weights"])
    said = capsys.readouterr().out
    assert status == 0, said
    assert said.splitlines()[-1].split() == ["all", "12", *said.splitlines()[-1].split()[2:6], "0", "0", "0", "0"]


@pytest.mark.parametrize(("done", "kind"), [
    (Done(None, ""), "hangs"), (Done(-11, ""), "tracebacks"), (Done(5, ""), "tracebacks"), (Done(0, ""), None),
    (Done(1, 'Traceback (most recent call last):\n  File "/x/utils/files.py", line 1'), "tracebacks"),
    (Done(1, 'Traceback (most recent call last):\n  File "/x/preloaded.py", line 1'), None)])
def test_which_ends_are_faults(done, kind):
    this = object.__new__(chaos.Try)
    this.faults = []
    this.judge(done, {0, 1, 2})
    assert [fault for fault, _ in this.faults] == ([kind] if kind else [])


def test_a_result_that_is_gone_or_broken_is_lost(tmp_path):
    this = object.__new__(chaos.Try)
    this.output, this.faults = tmp_path, []
    this.command = chaos.prepare.__globals__["Command"]("x", [])
    for name in ("whole", "kept", "broken", "gone"):
        (tmp_path / f"{name}.json").write_text(json.dumps(name))
    before = {name: (tmp_path / name).read_bytes() for name in this.results()}
    (tmp_path / "whole.json").write_text("[1]")
    (tmp_path / "broken.json").write_text("[1")
    (tmp_path / "gone.json").unlink()
    (tmp_path / "earlier" / "1").mkdir(parents=True)
    (tmp_path / "kept.json").rename(tmp_path / "earlier" / "1" / "kept.json")
    this.check_kept(before)
    assert this.faults == [("lost", "broken.json is gone or not whole"), ("lost", "gone.json is gone or not whole")]
    assert not is_whole(tmp_path / "broken.json")


def test_mutations_differ_and_repeat():
    data = bytes(range(256)) + b'{"a": 1, "b": [2.5, 3]}'
    made = [mutate(data, random.Random(seed)) for seed in range(60)]
    assert made == [mutate(data, random.Random(seed)) for seed in range(60)]
    assert len({*made, data}) > 50
