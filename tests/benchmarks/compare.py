"""Time the zoo, torchvision and other runtimes on the CPU, interleaved in one run; print a Markdown table.

usage: python tests/benchmarks/compare.py [--peers_python .venv-peers/bin/python] [--tasks TASK,...] [--programs PROGRAM,...]
           [--sizes 384x640,576x960,768x1280] [--batches 1,2,4] [--layouts 1x2,2x1] [--rounds 5] [--warm 2] [--scratch FOLDER]

Tasks: faster_rcnn-train, faster_rcnn-infer, mask_rcnn-train, mask_rcnn-infer. A layout is PROCESSES x THREADS: 1x2 is one process
with two threads, 2x1 two independent processes with one thread each, which run at the same time. The first layout is timed at
size and batch, the other layouts only at the first size and the first batch. --peers_python: a Python environment with
requirements-peers.txt. --scratch keeps the exported networks for the next run.

Every program has its own processes. They build the network, warm up and stay alive. Each round asks every program in turn for one
call, so that a change in the machine's load affects all of them. A program that cannot run is skipped; a line at the end says why.

s               seconds per call, of the slowest process
CPU s, MB       CPU seconds and peak memory (compilation included) of all threads and processes
images/s        all processes together
ours / this     median of the per-round ratios: below 1, ours is faster or smaller. `ours` is what the commands run by default on
                the CPU: MindSpore for training, ONNX Runtime for inference. ONNX files take one image at a time.
"""
import argparse
import datetime
import os
import platform
import re
import statistics
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from tests.benchmarks.workers import Group, WorkerError  # noqa: E402

TASKS = ("faster_rcnn-train", "faster_rcnn-infer", "mask_rcnn-train", "mask_rcnn-infer")
# Program -> (file, its PROGRAM argument, whose network the ONNX file holds). `ours` comes first: ratios are relative to it.
PROGRAMS = {
    "train": {"ours": ("ours.py", "train", None), "torchvision": ("peers.py", "torchvision-train", None)},
    "infer": {
        "ours": ("ours.py", "onnxruntime", "ours"),
        "ours-mindspore": ("ours.py", "infer", None),
        "ours-openvino": ("peers.py", "openvino", "ours"),
        "torchvision": ("peers.py", "torchvision-infer", None),
        "torchvision-onnxruntime": ("peers.py", "torchvision-onnxruntime", "torchvision"),
        "torchvision-openvino": ("peers.py", "torchvision-openvino", "torchvision"),
    },
}
NAMES = tuple(dict.fromkeys(name for programs in PROGRAMS.values() for name in programs))
COLUMNS = ("task", "size", "batch", "layout", "program", "version", "s", "CPU s", "images/s", "MB",
           "ours / this: s", "CPU s", "MB")


class Case(NamedTuple):
    """What is timed: a task at one size, with this many processes of this many threads."""

    model: str
    work: str
    height: int
    width: int
    batch: int
    processes: int
    threads: int


def pairs(text: str) -> list:
    """'1x2,384x640' -> [(1, 2), (384, 640)]."""
    items = text.split(",")
    if not all(re.fullmatch(r"[1-9]\d*x[1-9]\d*", item) for item in items):
        raise argparse.ArgumentTypeError(f"expected AxB,..., got {text!r}")
    return [tuple(map(int, item.split("x"))) for item in items]


def sizes(text: str) -> list:
    """'384x640,...' -> [(height, width), ...]. Multiples of 32, because torchvision pads to them."""
    wrong = [f"{height}x{width}" for height, width in pairs(text) if height % 32 or width % 32]
    if wrong:
        raise argparse.ArgumentTypeError(f"{', '.join(wrong)}: expected multiples of 32")
    return pairs(text)


def counts(text: str) -> list:
    """'1,2,4' -> [1, 2, 4]."""
    if not all(re.fullmatch(r"[1-9]\d*", item) for item in text.split(",")):
        raise argparse.ArgumentTypeError(f"expected N,..., got {text!r}")
    return list(map(int, text.split(",")))


def count(text: str) -> int:
    number, *others = counts(text)
    if others:
        raise argparse.ArgumentTypeError(f"expected a number, got {text!r}")
    return number


def some_of(names):
    """Return a parser for a list of these names."""
    def parse(text: str) -> list:
        unknown = [item for item in text.split(",") if item not in names]
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there is {', '.join(names)}")
        return text.split(",")

    return parse


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers_python", default=str(ROOT / ".venv-peers" / "bin" / "python"))
    parser.add_argument("--tasks", type=some_of(TASKS), default=",".join(TASKS))
    parser.add_argument("--programs", type=some_of(NAMES), default=",".join(NAMES))
    parser.add_argument("--sizes", type=sizes, default="384x640,576x960,768x1280", help="HEIGHTxWIDTH, ...")
    parser.add_argument("--batches", type=counts, default="1,2,4")
    parser.add_argument("--layouts", type=pairs, default="1x2,2x1", help="PROCESSESxTHREADS, ...")
    parser.add_argument("--rounds", type=count, default=5)
    parser.add_argument("--warm", type=count, default=2, help="calls that do not count")
    parser.add_argument("--scratch", help="folder for exported networks; what is there is used again")
    return parser.parse_args(argv)


def cases_of(args) -> list:
    """Return every Case. Layouts after the first use only the first size and batch."""
    cases = []
    for model, work in (task.rsplit("-", 1) for task in args.tasks):
        first = args.sizes[0], args.batches[0]
        for layout in args.layouts:
            chosen = [(size, batch) for size in args.sizes for batch in args.batches] if layout == args.layouts[0] else [first]
            cases += [Case(model, work, *size, batch, *layout) for size, batch in chosen]
    return cases


def command_of(case: Case, name: str, args, scratch: Path) -> list:
    """Return the command line of one process of this program."""
    file, program, exported = PROGRAMS[case.work][name]
    python = sys.executable if file == "ours.py" else args.peers_python
    size = f"--height={case.height} --width={case.width} --batch={case.batch} --threads={case.threads}".split()
    onnx = [f"--onnx={scratch / f'{exported}_{case.model}_{case.height}x{case.width}.onnx'}"] if exported else []
    return [python, str(ROOT / "tests" / "benchmarks" / file), program, f"--model={case.model}", *size, f"--warm={args.warm}",
            *onnx, "--serve"]


def measure(case: Case, args, scratch: Path) -> tuple:
    """Return {program: (version, [(s, CPU s, MB) per round])} and {program: why it was left out}."""
    groups, left_out, rounds = {}, {}, {}
    try:
        for name in filter(args.programs.__contains__, PROGRAMS[case.work]):
            try:
                groups[name] = Group(command_of(case, name, args, scratch), case.processes, case.threads)
            except WorkerError as error:
                left_out[name] = str(error)
        for _ in range(args.rounds):
            for name, group in list(groups.items()):
                try:
                    rounds.setdefault(name, []).append(group.time())
                except WorkerError as error:
                    left_out[name] = str(error)
                    groups.pop(name).close()
        return {name: (group.version, rounds[name]) for name, group in groups.items()}, left_out
    finally:
        for group in groups.values():
            group.close()


def rows_of(case: Case, measured: dict) -> list:
    """Return the rows of the table, without ratios where `ours` was not measured."""
    rows = []
    ours = measured["ours"][1] if "ours" in measured else None
    for name, (version, rounds) in measured.items():
        seconds, cpu, memory = (statistics.median(column) for column in zip(*rounds))
        ratios = ["-"] * 3
        if ours and name != "ours":
            ratios = [f"{statistics.median(a[i] / b[i] for a, b in zip(ours, rounds)):.2f}" for i in range(3)]
        images = case.batch * case.processes
        rows.append([f"{case.model} {case.work}", f"{case.height}x{case.width}", str(case.batch),
                     f"{case.processes}x{case.threads}", name, version, f"{seconds:.3f}", f"{cpu:.3f}", f"{images / seconds:.2f}",
                     f"{memory:.0f}", *ratios])
    return rows


def markdown(cells) -> str:
    return f"| {' | '.join(cells)} |"


def processor() -> str:
    """Return the processor's name and the vector instructions that determine its speed."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    name = re.search(r"^model name\s*: (.*)", text, re.M)
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_tile") if re.search(rf"\b{flag}\b", text)]
    return " ".join([name[1] if name else platform.machine(), *flags])


def load() -> str:
    return "load " + " ".join(f"{value:.1f}" for value in os.getloadavg())


def main() -> None:
    args = parse_arguments()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"{datetime.datetime.now():%Y-%m-%d %H:%M}, {processor()}, {cores} cores, {load()}, Python {platform.python_version()}, "
          f"{platform.system()} {platform.release()}; {args.rounds} rounds\n")
    print(markdown(COLUMNS), markdown(["---"] * len(COLUMNS)), sep="\n", flush=True)
    left_out = {}       # (program, reason) -> tasks
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(args.scratch or temporary).resolve()
        scratch.mkdir(parents=True, exist_ok=True)
        for case in cases_of(args):
            measured, without = measure(case, args, scratch)
            for row in rows_of(case, measured):
                print(markdown(row), flush=True)
            for item in without.items():
                left_out.setdefault(item, []).append(f"{case.model} {case.work}")
    print(f"\nat the end: {load()}")
    for (name, reason), tasks in left_out.items():
        print(f"left out: {name} ({', '.join(dict.fromkeys(tasks))}): {reason}")


if __name__ == "__main__":
    main()
