"""Check a device: its numbers against the CPU's, 30 steps of each model, resuming, inference, export, two devices.

usage: python tests/hardware.py --device=Ascend|GPU|CPU [--size=full|small] [--models=faster_rcnn,...] [--checks=numbers,...]
                                [--output=hardware_output] [--minutes=11.5]

It draws its own data and needs no network. The checks:

numbers   losses, gradients and detections of a narrow network in float32, and on Ascend and GPU with amp_level O2, against the
          CPU in float32
speed     30 steps of default_config.yaml after 2 warm-up steps, data loading included
resume    6 steps of the demo network give the same losses in one run and in two
infer     infer.py with the checkpoint of these steps
export    MINDIR, which infer.py then runs, and ONNX; on Ascend also AIR
devices   two processes train on two devices, if there are two, or on the CPU

`--size=small` takes 2 steps instead of 30 and 6, small images, the demo network for `speed`, and exports only MINDIR. The program
prints a line per check, then Markdown for the table in docs/troubleshooting.md, also written to OUTPUT/report.md. The output of
each command is in OUTPUT/logs. Checks that do not fit into --minutes are not run, and the report says so. Exit status: 0 if
nothing failed, 1 if a check failed, 2 for wrong usage.
"""
import argparse
import json
import re
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
MODELS = {"faster_rcnn": "Faster R-CNN", "mask_rcnn": "Mask R-CNN", "refinedet": "RefineDet"}
CLASSES = ["background", "fish", "starfish", "shell"]       # of the drawn data
STEPS = {"full": 30, "small": 2}
RESUMED = {"full": 6, "small": 2}
IMAGES = {"full": {"train": 16, "val": 4, "size": 320}, "small": {"train": 4, "val": 2, "size": 96}}
SMALL = {"img_height": 64, "img_width": 64, "batch_size": 2}
# Largest deviations from the CPU: relative error of a loss, 1 - cosine of the angle between all gradients, pixels between matched
# boxes, share of the CPU's detections that may be missing. Float32 leaves room for TF32 and HF32, with which GPUs and Ascend
# multiply.
TOLERANCES = {"O0": (0.02, 0.01, 0.5, 0.1), "O2": (0.1, 0.05, 2.0, 0.3)}


class CheckError(Exception):
    """A check that failed; the text says how."""


class Skipped(Exception):
    """A check that was not run; the text says why."""


class Outcome(NamedTuple):
    state: str      # ok, failed or not run
    text: str


def compare(ours: dict, cpu: dict, level: str) -> str:
    """Describe the deviations between two results of hardware_numbers.py. Raise CheckError if one exceeds TOLERANCES."""
    most_loss, most_angle, most_box, most_missing = TOLERANCES[level]
    if bad := [name for name, array in ours.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]:
        raise CheckError(f"not finite: {', '.join(bad[:3])}")
    loss = float(np.max(np.abs(ours["losses"] - cpu["losses"]) / np.maximum(np.abs(cpu["losses"]), 1e-3)))
    names = [name for name in cpu if name.startswith("gradient.")]
    a, b = (np.concatenate([arrays[name].ravel() for name in names]).astype(np.float64) for arrays in (ours, cpu))
    angle = 1 - float(a @ b / max(np.sqrt((a @ a) * (b @ b)), 1e-30))
    length = float(np.sqrt((a @ a) / max(b @ b, 1e-30))) - 1
    matched, missing, extra, box = match_detections(ours, cpu)
    text = (f"losses {loss:.1e}, gradients {angle:.1e} by direction and {length:+.1e} by length, "
            f"detections {matched} / {missing} / {extra} matched / missing / extra, boxes {box:.1e} px")
    if (loss > most_loss or angle > most_angle or abs(length) > most_loss or box > most_box
            or missing > most_missing * (matched + missing) or not matched):
        raise CheckError(f"{text}; at most {most_loss:g}, {most_angle:g}, {most_loss:g}, {most_missing:.0%}, {most_box:g} px")
    return text


def match_detections(ours: dict, cpu: dict) -> tuple:
    """Match detections of the same class and IoU > 0.5. Return the number matched, the CPU's unmatched, ours unmatched, and the
    largest coordinate difference among the matched."""
    matched, missing, extra, worst = 0, 0, 0, 0.0
    for image in range(len(cpu["output.valid"])):
        (found, labels), (wanted, classes) = (
            [arrays[f"output.{name}"][image][arrays["output.valid"][image]] for name in ("boxes", "labels")]
            for arrays in (ours, cpu))
        free = np.ones(len(found), bool)
        for box, label in zip(wanted, classes):
            overlap = iou(box, found) * (free & (labels == label)) if len(found) else np.zeros(1)
            best = int(np.argmax(overlap))
            if overlap[best] <= 0.5:
                missing += 1
                continue
            matched, free[best] = matched + 1, False
            worst = max(worst, float(np.abs(found[best] - box).max()))
        extra += int(free.sum())
    return matched, missing, extra, worst


def iou(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    sides = np.maximum(np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2]), 0)
    shared = sides.prod(1)
    return shared / np.maximum((box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(1) - shared, 1e-9)


class Checks:
    """The checks of one device. Each is a method that takes the model and returns its result for the report."""

    FIRST = ("numbers", "speed")                            # for all models, before the others
    THEN = ("resume", "infer", "export", "devices")

    def __init__(self, device: str, size: str, output: Path, seconds: float):
        self.device, self.size, self.output, self.end = device, size, output.absolute(), time.monotonic() + seconds
        self.facts: dict = {}
        self.runs: dict = {}
        (self.output / "logs").mkdir(parents=True, exist_ok=True)

    def run_program(self, name: str, command: list, status: int = 0) -> str:
        """Run a command, write its output to logs/NAME.log and return it."""
        left = self.end - time.monotonic()
        if left < 1:
            raise Skipped("no time left")
        try:
            done = self.call([str(word) for word in command], left)
        except subprocess.TimeoutExpired as error:
            raise Skipped("no time left, stopped while it ran") from error
        text = done.stdout + done.stderr
        (self.output / "logs" / f"{name}.log").write_text(f"$ {' '.join(map(str, command))}\n{text}", encoding="utf-8")
        if done.returncode != status:
            last = next((line for line in reversed(text.splitlines()) if line.strip()), "no output")
            raise CheckError(f"{name}: status {done.returncode}: {last.strip()[:200]}")
        return text

    def call(self, command: list, seconds: float) -> subprocess.CompletedProcess:
        program = subprocess.Popen(command, cwd=self.output, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        try:
            out, err = program.communicate(timeout=seconds)
            return subprocess.CompletedProcess(command, program.returncode, out, err)
        except subprocess.TimeoutExpired:
            program.terminate()     # at SIGTERM, utils/launch ends its ranks
            try:
                program.wait(20)
            except subprocess.TimeoutExpired:
                program.kill()
            raise

    def numbers(self, model: str) -> str:
        reference = self.output / f"{model}_cpu.npz"
        self.worker(f"{model}_cpu", model, "CPU", "O0", reference)
        texts = []
        for level in ("O0",) if self.device == "CPU" else ("O0", "O2"):
            path = self.output / f"{model}_{level}.npz"
            self.facts |= json.loads(self.worker(f"{model}_{level}", model, self.device, level, path, reference).splitlines()[-1])
            with np.load(path) as ours, np.load(reference) as cpu:
                texts.append(f"{'float32' if level == 'O0' else level}: {compare(dict(ours), dict(cpu), level)}")
        return "; ".join(texts)

    def worker(self, name: str, *arguments) -> str:
        text = self.run_program(f"numbers_{name}", [sys.executable, ROOT / "tests" / "hardware_numbers.py", *arguments])
        return "\n".join(line for line in text.splitlines() if line.startswith("{"))

    def speed(self, model: str) -> str:
        config = "default_config.yaml" if self.size == "full" else "demo_config_cpu.yaml"
        text = self.run_program(f"speed_{model}", [*self.train(model, "speed", config), f"--perf_steps={STEPS[self.size]}",
                                                   f"--perf_warmup={min(2, STEPS[self.size] - 1)}"])
        return _line_of(text, r"FPS: .*")

    def resume(self, model: str) -> str:
        whole = RESUMED[self.size]
        losses = [_losses(self.trained(model))]
        for name, steps in (("first", whole // 2), ("second", whole)):
            self.run_program(f"resume_{model}_{name}", [*self.train(model, "parts"), f"--max_steps={steps}", "--resume=auto"])
        losses.append(_losses(self.output / model / "parts"))
        if [len(rows) for rows in losses] != [whole, whole]:
            raise CheckError(f"expected {whole} steps in each, got {[len(rows) for rows in losses]}")
        apart = max(abs(a - b) / max(abs(a), 1e-3) for row, other in zip(*losses) for a, b in zip(row, other))
        if not apart <= 0.02:
            raise CheckError(f"losses differ by {apart:.1e}")
        return f"losses of {whole} steps differ by {apart:.1e}"

    def infer(self, model: str) -> str:
        checkpoint = self.trained(model) / "checkpoint" / "last.ckpt"
        return self.detections(model, "infer", f"--checkpoint_path={checkpoint}", "--backend=mindspore")

    def export(self, model: str) -> str:
        checkpoint = self.trained(model) / "checkpoint" / "last.ckpt"
        made = []
        formats = ["MINDIR"] if self.size == "small" else ["MINDIR", "ONNX"]
        for file_format in formats + ["AIR"] * (self.device == "Ascend"):
            name = self.output / model / f"network_{file_format}"
            self.run_program(f"export_{model}_{file_format}", [*self.command(model, "export.py"), f"--ckpt_file={checkpoint}",
                                                               f"--file_format={file_format}", f"--file_name={name}"])
            made += sorted(path for path in name.parent.glob(f"{name.name}*") if path.suffix != ".yaml")
        found = self.detections(model, "mindir", f"--mindir_path={made[0]}")
        return ", ".join(path.suffix[1:].upper() for path in made) + f"; MINDIR: {found}"

    def devices(self, model: str) -> str:
        count = 2 if self.device == "CPU" else self.facts.get("count", 1)
        if count < 2:
            raise Skipped("there is one device")
        launch = [sys.executable, ROOT / "utils" / "launch" / "run.py", "--worker_num=2", "--local_worker_num=2",
                  f"--log_dir={self.output / 'logs' / f'devices_{model}'}", f"--device_target={self.device}"]
        train = [word for word in self.train(model, "devices")[1:] if not word.startswith("--device_target")]
        text = self.run_program(f"devices_{model}", [*launch, *train, "--distribute=True", f"--perf_steps={STEPS[self.size]}",
                                                     f"--perf_warmup={min(2, STEPS[self.size] - 1)}"])
        return _line_of(text, r"FPS: .*")

    def trained(self, model: str) -> Path:
        """Train the demo network for a few steps, once. Return the folder of the run."""
        folder = self.output / model / "whole"
        if model not in self.runs:
            try:
                self.run_program(f"train_{model}", [*self.train(model, "whole"), f"--max_steps={RESUMED[self.size]}"])
                self.runs[model] = None
            except (CheckError, Skipped) as why:
                self.runs[model] = why
        if self.runs[model] is not None:
            raise self.runs[model]
        return folder

    def detections(self, model: str, name: str, *source: str) -> str:
        folder = self.output / model / name
        self.run_program(f"{name}_{model}", [
            *self.command(model, "infer.py"), *source, f"--input={self.output / 'data' / 'val2017'}", f"--output_path={folder}",
            "--test_score_thr=0.01", "--score_thr=0.01", "--draw=False"])
        rows = json.loads((folder / "detections.json").read_text(encoding="utf-8"))
        if not all(np.isfinite([*row["bbox"], row["score"]]).all() for row in rows):
            raise CheckError(f"{folder / 'detections.json'}: not finite")
        return f"{len(rows)} detections in {len({row['file_name'] for row in rows})} images"

    def command(self, model: str, script: str, config: str = "demo_config_cpu.yaml") -> list:
        """Return a command line of the model. Write its config file, which has the classes of the drawn data."""
        path = self.output / f"{model}_{config}"
        keys = {"__BASE__": str(ROOT / model / config), "num_classes": len(CLASSES), "coco_classes": CLASSES}
        path.write_text(json.dumps(keys | (SMALL if self.size == "small" else {})), encoding="utf-8")     # JSON is YAML
        return [sys.executable, str(ROOT / model / script), f"--config_path={path}", f"--device_target={self.device}"]

    def train(self, model: str, name: str, config: str = "demo_config_cpu.yaml") -> list:
        data = self.output / "data"
        return [*self.command(model, "train.py", config), f"--coco_root={data}", f"--mindrecord_dir={data / 'mindrecord' / model}",
                f"--output_path={self.output / model / name}", "--run_eval=False", "--log_interval=1", "--seed=1"]

    def carry_out(self, check: str, model: str) -> Outcome:
        start = time.monotonic()
        try:
            state, text = "ok", getattr(self, check)(model)
        except Skipped as why:
            state, text = "not run", str(why)
        except CheckError as error:
            state, text = "failed", str(error)
        print(f"{check:8} {model:12} {state:8} {time.monotonic() - start:6.1f} s  {text}", flush=True)
        return Outcome(state, text)


def report(checks: Checks, outcomes: dict) -> str:
    """Return Markdown: a row for docs/troubleshooting.md, and the result of each check. outcomes: {(check, model): Outcome}."""
    states = [outcome.state for outcome in outcomes.values()]
    summary = ", ".join(f"{states.count(state)} {state}" for state in ("ok", "failed", "not run") if state in states)
    place = f"{checks.device} ({checks.facts.get('name', checks.device)}), MindSpore {checks.facts.get('mindspore', '?')}"
    lines = ["| where | state |", "|---|---|",
             f"| {place}, {date.today()} | `tests/hardware.py --size={checks.size}`: {summary} |", "",
             "| check | model | state | result |", "|---|---|---|---|"]
    lines += [f"| {check} | {MODELS[model]} | {outcome.state} | {outcome.text.replace('|', '/')} |"
              for (check, model), outcome in outcomes.items()]
    return "\n".join([*lines, ""])


def _line_of(text: str, pattern: str) -> str:
    found = re.findall(pattern, text)
    if not found:
        raise CheckError(f"no line {pattern!r} in the output")
    return found[-1].strip()


def _losses(folder: Path) -> list:
    """Return the losses in each line of a run's loss log."""
    rows = (folder / "loss_0.log").read_text(encoding="utf-8").splitlines()
    return [values for row in rows if (values := [float(value) for value in re.findall(r"loss(?: is|:) ([^,\s]+)", row)])]


def plan(models: list, wanted: list) -> list:
    """Return [(check, model)] in the order to run, the most informative first."""
    order = [(check, model) for check in Checks.FIRST for model in models]
    order += [(check, model) for model in models for check in Checks.THEN]
    return [(check, model) for check, model in order if check in wanted]


def parse_arguments(arguments) -> argparse.Namespace:
    def names(known):
        def parse(text: str) -> list:
            if unknown := [name for name in text.split(",") if name not in known]:
                raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
            return text.split(",")

        return parse

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", required=True, choices=("Ascend", "GPU", "CPU"))
    parser.add_argument("--size", default="full", choices=STEPS)
    parser.add_argument("--models", default=list(MODELS), type=names(MODELS))
    every = [*Checks.FIRST, *Checks.THEN]
    parser.add_argument("--checks", default=every, type=names(every))
    parser.add_argument("--output", default="hardware_output", type=Path)
    parser.add_argument("--minutes", default=11.5, type=float)
    return parser.parse_args(arguments)


def main(arguments=None, checks_class=Checks) -> int:
    args = parse_arguments(arguments)
    from utils.demo.shapes import draw_dataset

    checks = checks_class(args.device, args.size, args.output, 60 * args.minutes)
    draw_dataset(checks.output / "data", **IMAGES[args.size])
    outcomes = {(check, model): checks.carry_out(check, model) for check, model in plan(args.models, args.checks)}
    text = report(checks, outcomes)
    (checks.output / "report.md").write_text(text, encoding="utf-8")
    print(f"\n{text}")
    return int(any(outcome.state == "failed" for outcome in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
