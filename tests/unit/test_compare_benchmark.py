"""compare.py of the benchmarks: command line, cases, table and worker processes, for which a short script stands in."""
import argparse
import io
import json
import sys

import pytest

from tests.benchmarks import compare, measuring
from tests.benchmarks.workers import Group, WorkerError

# Answers like run_worker: facts, then one number of its command line for each line it reads.
STUB = """
import json, os, sys
print("chatter")
print(json.dumps({"version": "stub " + os.environ["OMP_NUM_THREADS"]}), flush=True)
for seconds, line in zip(map(float, sys.argv[1:]), sys.stdin):
    print(json.dumps({"s": seconds, "cpu_s": 2 * seconds, "peak_rss_mb": 10}), flush=True)
"""


def stub(*seconds) -> list:
    return [sys.executable, "-S", "-c", STUB, *map(str, seconds)]


def test_command_line_is_read():
    args = compare.parse_arguments([])
    assert args.sizes == [(384, 640), (576, 960), (768, 1280)]
    assert (args.batches, args.layouts, args.tasks, args.rounds) == ([1, 2, 4], [(1, 2), (2, 1)], list(compare.TASKS), 5)
    args = compare.parse_arguments(["--sizes=128x192", "--batches=3", "--layouts=2x1", "--tasks=mask_rcnn-infer"])
    assert (args.sizes, args.batches, args.layouts, args.tasks) == ([(128, 192)], [3], [(2, 1)], ["mask_rcnn-infer"])


@pytest.mark.parametrize("flag, expected", [
    ("--sizes=100x192", "100x192: expected multiples of 32"), ("--sizes=128", "expected AxB,..., got '128'"),
    ("--layouts=0x2", "expected AxB"), ("--batches=1,x", "expected N,..., got '1,x'"), ("--rounds=1,2", "expected a number"),
    ("--tasks=refinedet-train", "unknown: refinedet-train; there is faster_rcnn-train"), ("--programs=our", "unknown: our")])
def test_wrong_arguments_are_named(flag, expected, capsys):
    with pytest.raises(SystemExit, match="2"):
        compare.parse_arguments([flag])
    assert expected in capsys.readouterr().err


def test_further_layouts_run_at_the_first_size_and_batch_only():
    args = argparse.Namespace(tasks=["faster_rcnn-train"], sizes=[(32, 64), (64, 96)], batches=[1, 2], layouts=[(1, 2), (2, 1)])
    assert [case[2:] for case in compare.cases_of(args)] == [
        (32, 64, 1, 1, 2), (32, 64, 2, 1, 2), (64, 96, 1, 1, 2), (64, 96, 2, 1, 2), (32, 64, 1, 2, 1)]


def test_programs_with_onnx_files_share_them(tmp_path):
    args, case = argparse.Namespace(peers_python="peer", warm=1), compare.Case("mask_rcnn", "infer", 32, 64, 2, 1, 2)
    commands = {name: compare.command_of(case, name, args, tmp_path) for name in compare.PROGRAMS["infer"]}
    files = {name: [part for part in command if part.startswith("--onnx=")] for name, command in commands.items()}
    assert files["ours"] == files["ours-openvino"] == [f"--onnx={tmp_path / 'ours_mask_rcnn_32x64.onnx'}"]
    assert files["torchvision-onnxruntime"] == files["torchvision-openvino"] != files["ours"]
    assert files["torchvision"] == files["ours-mindspore"] == []
    assert {name: command[0] for name, command in commands.items() if command[0] != "peer"} == {
        "ours": sys.executable, "ours-mindspore": sys.executable}


def test_ratios_are_medians_of_the_rounds():
    case = compare.Case("faster_rcnn", "train", 128, 192, 4, 2, 1)
    measured = {"ours": ("m 1", [(1.0, 3.0, 100), (2.0, 3.0, 200), (8.0, 3.0, 200)]),
                "torchvision": ("t 2", [(2.0, 2.0, 400), (2.0, 2.0, 400), (4.0, 2.0, 400)])}     # ratios 0.5, 1, 2
    ours, peer = compare.rows_of(case, measured)
    assert ours == ["faster_rcnn train", "128x192", "4", "2x1", "ours", "m 1", "2.000", "3.000", "4.00", "200", "-", "-", "-"]
    assert peer[4:] == ["torchvision", "t 2", "2.000", "2.000", "4.00", "400", "1.00", "1.50", "0.50"]
    assert len(ours) == len(compare.COLUMNS)
    assert compare.rows_of(case, {"torchvision": measured["torchvision"]})[0][-3:] == ["-", "-", "-"]
    assert compare.markdown(["a", "b"]) == "| a | b |"


def test_table_of_the_programs_that_run(monkeypatch, capsys, tmp_path):
    commands = {"ours": stub(1, 2), "torchvision": [str(tmp_path / "python")]}
    monkeypatch.setattr(compare, "command_of", lambda case, name, *_: commands[name])
    monkeypatch.setattr(sys, "argv", ["compare.py", "--tasks=faster_rcnn-train", "--sizes=32x64", "--batches=2", "--layouts=1x3",
                                      "--rounds=2"])
    compare.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3] == ""
    assert lines[4] == "| faster_rcnn train | 32x64 | 2 | 1x3 | ours | stub 3 | 1.500 | 3.000 | 1.33 | 10 | - | - | - |"
    assert lines[-1] == f"left out: torchvision (faster_rcnn train): {tmp_path / 'python'}: No such file or directory"


def test_measurements_of_a_group_are_combined():
    group = Group(stub(0.5, 0.25), processes=2, threads=1)
    try:
        assert [group.version, group.time(), group.time()] == ["stub 1", (0.5, 2.0, 20), (0.25, 1.0, 20)]
        with pytest.raises(WorkerError, match="status 0"):      # the stub has no third number
            group.time()
    finally:
        group.close()
    assert [worker.process.returncode for worker in group.workers] == [0, 0]


@pytest.mark.parametrize("program, expected", [
    ("print('{\"missing\": \"No module named torch\"}')", "No module named torch"),
    ("import sys; sys.exit('first\\nno memory')", "status 1, no memory")])
def test_program_that_cannot_run_says_why(program, expected):
    with pytest.raises(WorkerError) as error:
        Group([sys.executable, "-S", "-c", program], processes=1, threads=1)
    assert str(error.value) == expected


def test_each_line_times_one_call(monkeypatch, capsys):
    calls = []
    args = measuring.worker_parser("", ["one"]).parse_args(["one", "--warm=3", "--serve"])
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n\n"))
    measuring.run_worker(args, {"one": lambda given: (lambda: calls.append(given), {"version": "1"})})
    facts, *times = map(json.loads, capsys.readouterr().out.splitlines())
    assert facts == {"version": "1"}
    assert len(calls) == 5 and all(call is args for call in calls)
    assert [sorted(time) for time in times] == [["cpu_s", "peak_rss_mb", "s"]] * 2


def test_medians_are_per_column():
    assert measuring.medians([(1, 10), (5, 30), (2, 20)]) == (2, 20)
