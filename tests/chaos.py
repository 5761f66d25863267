"""Kill the commands at random moments, fill their disks, limit their memory, mutate their inputs; count the failures.

usage: python -m tests.chaos --seed=N [--minutes=M] [--tries=T] [--kinds=kill,disk,memory,input] [--only=NUMBER[,NUMBER]]
                             [--groups=data,weights,scoring,toy,narrow,training]

`lost`: an earlier result is neither whole nor in earlier/, or the run after a killed one ends unlike an uninterrupted one.
`tracebacks`: a traceback through our code, or a crash. `silent`: status 0 with a damaged checkpoint or an unreadable result.
A try depends only on the seed and its number: --only repeats it. Exit status: 0 if nothing failed.
"""
import argparse
import collections
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.chaos_commands import GROUPS, ROOT, prepare
from tests.chaos_processes import LIMITED, Done, is_whole, mutate, run, stripped

KINDS = ("kill", "input", "disk", "memory")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
FAULTS = ("lost", "tracebacks", "hangs", "silent")
OURS = re.compile(r'File "[^"]*/(faster_rcnn|mask_rcnn|refinedet|utils)/')
TEMPORARY = re.compile(r"\.part(\.|$)|^\.export-|^\.partial-|\.partial$|\.lock$")
HANG = 60       # seconds beyond three times a whole run


class Try:
    """One try: its number, its command, and its own random generator."""

    def __init__(self, chaos, number: int):
        self.chaos, self.number = chaos, number
        self.random = random.Random(f"{chaos.seed} {number}")
        self.kind = self.random.choice(chaos.kinds)
        usable = [item for item in chaos.known.values() if self.kind != "input" or item[0].inputs]
        self.command, self.source = self.random.choices(usable, [item[0].weight for item in usable])[0]
        self.folder = chaos.folder / f"try {number}"
        self.inputs, self.output = self.source, self.folder / "out"
        self.faults, self.end = [], ""

    def run(self) -> None:
        self.folder.mkdir()
        try:
            getattr(self, self.kind)()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    # ---- kinds

    def kill(self) -> None:
        before = self.earlier()
        number, delay = self.random.choice(SIGNALS), self.random.uniform(0, 1.2 * self.chaos.seconds(self.command))
        new = self.random.random() < 0.2
        if new:
            delay = self.random.uniform(0.05, 4)
        done = self.start(signal_at=(number, delay), new=new)
        where = " of a new interpreter" if new else ""
        self.end = f"{signal.Signals(number).name} after {delay:.2f} s{where}: status {done.status}"
        reference = self.chaos.reference(self.command, self.source)
        expected = {-number, reference.status, *(() if number == signal.SIGKILL else (128 + number,))}
        self.judge(done, expected)
        self.check_kept(before)
        if not self.faults:
            again = self.start()
            self.judge(again, {reference.status}, "of the run after it")
            self.compare(reference)
            left = [path.name for path in self.output.rglob("*") if TEMPORARY.search(path.name)]
            if left:
                self.fault("lost", f"left after the next run: {left}")

    def disk(self) -> None:
        before = self.earlier()
        size = int(2 ** self.random.uniform(0, 18))
        done = self.start(limit=("RLIMIT_FSIZE", size)) if self.random.random() < 0.5 else self.on_small_disk(size)
        self.end = f"room for {size} bytes: status {done.status}"
        self.judge(done, {0, 1, 2, self.chaos.reference(self.command, self.source).status})
        self.check_kept(before)

    def on_small_disk(self, size: int) -> Done:
        """Run with the results on a separate file system that has this much room left."""
        used = sum(path.stat().st_size + 4096 for path in self.output.rglob("*"))
        aside = self.folder / "aside"
        self.output.rename(aside)
        self.output.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={used + 65536 + size}", "tmpfs", str(self.output)]
        mounted = subprocess.run(words, check=False, capture_output=True).returncode == 0
        try:
            shutil.copytree(aside, self.output, dirs_exist_ok=True)
            done = self.start()
            shutil.rmtree(aside)
            shutil.copytree(self.output, aside)
        finally:
            if mounted:
                subprocess.run(["umount", "-l", str(self.output)], check=True)
        shutil.rmtree(self.output)
        aside.rename(self.output)
        return done

    def memory(self) -> None:
        before = self.earlier()
        size = int(self.random.uniform(0, 300 * 2 ** 20))
        done = self.start(limit=("RLIMIT_AS", size))
        self.end = f"{size >> 20} MiB of memory: status {done.status}"
        ends = {*range(3), self.chaos.reference(self.command, self.source).status, -signal.SIGABRT, 127}   # 127: the C library
        self.judge(done, ends)
        self.check_kept(before)

    def state(self) -> None:
        """Mutate the state that a run resumes from. The run falls back to the state before it, with a warning."""
        shutil.copytree(self.chaos.whole[self.command.name], self.output)
        path = self.output / "checkpoint" / "state.ckpt"
        data = path.read_bytes()
        path.write_bytes(mutate(data, self.random))
        done = self.start()
        self.end = f"state.ckpt mutated: status {done.status}"
        self.judge(done, {0})
        if "damaged" not in done.said and path.read_bytes() != data:
            self.fault("silent", f"state.ckpt loads though it is damaged: {done.said[-300:]}")
        self.compare(self.chaos.reference(self.command, self.source))

    def input(self) -> None:
        if self.command.resumes and self.random.random() < 0.5:
            self.state()
            return
        self.inputs = self.folder / "in"
        shutil.copytree(self.source, self.inputs, symlinks=True)
        files = sorted({path for pattern in self.command.inputs for path in self.inputs.glob(pattern) if path.is_file()})
        path = self.random.choice(files)
        data = path.read_bytes()
        changed = mutate(data, self.random)
        path.write_bytes(changed)
        for config in self.inputs.glob("*.txt"):        # paths of images listed in a file
            config.write_bytes(config.read_bytes().replace(str(self.source).encode(), str(self.inputs).encode()))
        done = self.start()
        self.end = f"{path.relative_to(self.inputs)} mutated: status {done.status}"
        self.judge(done, {0, 1, 2})
        if done.status == 0 and path.suffix == ".ckpt" and changed != data:
            self.fault("silent", f"{path.name} loads though it is damaged")
        for result in self.results():
            if done.status == 0 and not is_whole(self.output / result):
                self.fault("silent", f"{result} is not whole, with status 0")

    # ---- parts

    def start(self, signal_at=None, limit=None, new=False) -> Done:
        self.output.mkdir(parents=True, exist_ok=True)
        words = self.command.arguments(self.inputs, self.output)
        words = ["-c", LIMITED, *map(str, limit), *words] if limit else words
        timeout = HANG + 3 * self.chaos.seconds(self.command)
        return run(words, self.folder, self.command.env, timeout, signal_at, new)

    def earlier(self) -> dict:
        """Create the results of an earlier run, or none; return {name: content}."""
        if self.random.random() < 0.7:
            shutil.copytree(self.chaos.whole[self.command.name], self.output)
        self.output.mkdir(exist_ok=True)
        return {name: (self.output / name).read_bytes() for name in self.results()}

    def results(self) -> list:
        return sorted(path.relative_to(self.output) for path in self.output.rglob("*") if path.is_file()
                      and not TEMPORARY.search(path.name) and not {"earlier", "rows"} & set(path.relative_to(self.output).parts))

    def check_kept(self, before: dict) -> None:
        for name, content in before.items():
            places = [self.output / name, *self.output.glob(f"earlier/*/{name}")]
            if self.command.resumes and name.parts[0] == "checkpoint" and name.name not in ("state.ckpt", "last.ckpt"):
                continue        # a run keeps only its newest checkpoints
            if not any(path.is_file() and (path.read_bytes() == content or is_whole(path)) for path in places):
                self.fault("lost", f"{name} is gone or not whole")

    def compare(self, reference: "Reference") -> None:
        """Compare the results of the run after the killed one with those of a whole run."""
        for name, content in reference.results.items():
            path = self.output / name
            if name.name.startswith("events."):     # its name contains the time
                continue
            if not path.is_file() or not is_whole(path):
                self.fault("lost", f"{name} is missing after the next run")
            elif name.name in ("detections.json", "loss_0.log", "made.json") and stripped(path.read_bytes()) != stripped(content):
                self.fault("lost", f"{name} is another one after the next run")
            elif name.name == "metrics.jsonl":
                steps = [(row["kind"], row["step"]) for row in map(json.loads, path.read_text().splitlines())]
                if len(steps) != len(set(steps)):
                    self.fault("lost", f"{name} has lines twice")

    def judge(self, done: Done, statuses: set, which: str = "") -> None:
        if done.status is None:
            self.fault("hangs", f"it does not end {which}")
        elif "Traceback (most recent" in done.said and OURS.search(done.said):
            self.fault("tracebacks", f"{which}\n{done.said[-2000:]}")
        elif done.status not in statuses and "Failed to import the site module" not in done.said:     # Python was still starting
            self.fault("tracebacks", f"status {done.status} {which}\n{done.said[-600:]}")

    def fault(self, kind: str, what: str) -> None:
        self.faults.append((kind, what))


class Reference(NamedTuple):
    """A whole run: its exit status, its results and its duration."""

    status: int
    results: dict
    seconds: float


class Chaos:
    """All tries, and the failures they found."""

    def __init__(self, seed: int, kinds, folder: Path, groups):
        self.seed, self.kinds, self.folder = seed, kinds, folder
        (folder / "inputs").mkdir()
        self.known = prepare(folder / "inputs", groups)
        self.whole, self.references = {}, {}
        self.counts = collections.defaultdict(collections.Counter)
        for command, source in self.known.values():
            self.reference(command, source)

    def reference(self, command, source) -> Reference:
        if command.name not in self.references:
            output = self.folder / "whole" / command.name
            output.mkdir(parents=True)
            start = time.monotonic()
            done = run(command.arguments(source, output), self.folder, command.env, 600)
            if done.status not in (0, 1):
                raise RuntimeError(f"{command.name}: {done.said}")
            results = {path.relative_to(output): path.read_bytes() for path in output.rglob("*")
                       if path.is_file() and "rows" not in path.relative_to(output).parts}
            self.whole[command.name] = output
            self.references[command.name] = Reference(done.status, results, time.monotonic() - start)
        return self.references[command.name]

    def seconds(self, command) -> float:
        return self.references[command.name].seconds

    def attempt(self, number: int) -> bool:
        this = Try(self, number)
        this.run()
        count = self.counts[this.command.name]
        count["tries"] += 1
        count[this.kind] += 1
        for kind, what in this.faults:
            count[kind] += 1
            print(f"{kind}: --seed={self.seed} --only={number}: {this.command.name}, {this.kind}, {this.end}: {what}", flush=True)
        return not this.faults

    def report(self) -> None:
        columns = ("tries", *KINDS, *FAULTS)
        print(f"{'command':32}" + "".join(f"{name:>11}" for name in columns))
        total = sum(self.counts.values(), collections.Counter())
        for name, count in [*sorted(self.counts.items()), ("all", total)]:
            print(f"{name:32}" + "".join(f"{count[column]:11}" for column in columns), flush=True)


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--tries", type=int, default=10 ** 9)
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=KINDS)
    parser.add_argument("--only", type=lambda text: list(map(int, text.split(","))), default=[])
    parser.add_argument("--groups", type=lambda text: text.split(","), default=tuple(GROUPS),
                        help=f"of commands; only with the same a seed gives the same tries ({','.join(GROUPS)})")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        chaos = Chaos(args.seed, args.kinds, Path(folder), args.groups)
        end = time.monotonic() + 60 * args.minutes
        good = True
        try:
            for number in args.only or range(args.tries):
                if time.monotonic() > end:
                    break
                good &= chaos.attempt(number)
        except KeyboardInterrupt:       # report what was found so far
            good = False
        chaos.report()
    return 0 if good else 1


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
