"""The demo: draw a data set, train a small detector on it, score it, export it, infer with the export, show the result.

    python -m utils.demo.run --model faster_rcnn [--output demo_output] [--seed 1] [--KEY=VALUE ...]

It calls the model's entry points as a user would. --KEY=VALUE is passed to all of them and overrides demo_config_cpu.yaml. After an
interruption, the same command resumes; after a finished demo, it starts from scratch and moves the old results to OUTPUT/earlier/.
Exit status: 0 if AP50 on images not trained on is at least 0.8 (for masks, if the model has them, 0.75), 1 if it is lower or a
stage failed, 2 for wrong usage, 130 if interrupted.
"""

import argparse
import hashlib
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))       # so that `python /path/to/utils/demo/run.py` works from any folder

from utils.demo import report, shapes  # noqa: E402
from utils.demo.report import duration  # noqa: E402
from utils.files import write_text  # noqa: E402
from utils.mindrecord.errors import counted  # noqa: E402

MIN_AP50 = {"bbox": 0.8, "segm": 0.75}
MIN_AP50_OF_MODEL = {"refinedet": 0.75}     # overrides MIN_AP50
SCORE_THR = 0.5         # of the detections shown
RESULTS = ("train", "eval", "export", "infer", "detections.png", "curves.png", "metrics.json")
STATE = "demo.json"     # the request and the progress
PATIENCE_S = 20         # for an interrupted program to save its state


class Outcome(NamedTuple):
    """The result of a stage."""

    stage: str
    seconds: float
    text: str


class StageError(Exception):
    """A stage failed; the text is for the user."""


# -------------------------------------------------------------------------------------------- screen


def _styled(text: str, code: int) -> str:
    return f"\033[{code}m{text}\033[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text


def _say(text: str = "") -> None:
    print(text, flush=True)


def _run_program(command: list[str], folder: Path) -> None:
    """Run an entry point in `folder`, showing its output and appending it to console.log there."""
    folder.mkdir(parents=True, exist_ok=True)
    tail: deque[str] = deque(maxlen=25)
    _say(_styled(f"  $ python {' '.join(_shown(part) for part in command[1:])}", 2))
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with (folder / "console.log").open("a", encoding="utf-8") as log:
        program = subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace")
        try:
            for line in program.stdout or ():
                log.write(line)
                tail.append(line.rstrip())
                _say(f"  {_styled('|', 2)} {line.rstrip()}")
            status = program.wait()
        except BaseException as stop:
            _end(program, at_once=not isinstance(stop, KeyboardInterrupt))
            raise
    if status:
        raise StageError("\n".join([f"{Path(command[1]).name} ended with status {status}. The end of its output:", "",
                                    *(f"    {line}" for line in tail), "", f"Full output: {folder / 'console.log'}"]))


def _end(program: subprocess.Popen, at_once: bool) -> None:
    """Wait for the program to end. Ctrl-C in a terminal has reached it too, so it gets time to save before it is killed."""
    for ask in [program.terminate, program.kill] if at_once else [None, program.terminate, program.kill]:
        if ask is not None:
            ask()
        try:
            program.communicate(timeout=PATIENCE_S)
            return
        except subprocess.TimeoutExpired:
            continue


def _shown(part: str) -> str:
    """Format an argument as one would type it in the current folder."""
    return shlex.quote(str(part).replace(f"{Path.cwd()}{os.sep}", ""))


# -------------------------------------------------------------------------------------------- stages


class Demo:
    """One demo in one output folder. Each method named in STAGES is a stage and returns a one-line result."""

    STAGES = (("draw", "Draw the images"), ("train", "Train from scratch"),
              ("evaluate", "Score on unseen images"), ("export", "Export"),
              ("infer", "Infer with the exported network"), ("show", "Draw the results"))

    def __init__(self, model: str, output: Path, seed: int, image_counts: tuple[int, int], overrides: list[str]):
        self.model, self.output, self.seed, self.image_counts, self.overrides = model, output, seed, image_counts, overrides
        self.folder = ROOT / model
        self.data, self.annotations = output / "data", output / "data" / "annotations" / "instances_val2017.json"
        self.mindrecord = self.data / "mindrecord" / model
        self.seconds: dict[str, float] = {}
        self.metrics: dict[str, Any] = {}

    def command(self, script: str, *flags: str) -> list[str]:
        """Return a command line of the model's entry point."""
        return [sys.executable, str(self.folder / script), f"--config_path={self.folder / 'demo_config_cpu.yaml'}",
                f"--seed={self.seed}", *flags, *self.overrides]

    # The request; results of a different one are moved away before the two can mix.
    def wish(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        for name in ("default_config.yaml", "demo_config_cpu.yaml"):
            digest.update((self.folder / name).read_bytes())
        return {"model": self.model, "seed": self.seed, "pictures": list(self.image_counts), "overrides": self.overrides,
                "config": digest.hexdigest()[:16]}

    def load_state(self) -> None:
        """Resume an interrupted demo, or move away the results of a finished or different one."""
        file = self.output / STATE
        state = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if state and (state["wish"] != self.wish() or state["finished"]):
            old = [self.output / name for name in (*RESULTS, STATE) if (self.output / name).exists()]
            number = 1 + sum(1 for _ in (self.output / "earlier").glob("*"))
            shelf = self.output / "earlier" / f"{number:02d}-{state['wish']['model']}"
            shelf.mkdir(parents=True)
            for path in old:
                path.rename(shelf / path.name)
            _say(f"The results of an earlier demo were moved to {shelf}")
            state = {}
        self.state = {"wish": self.wish(), "train_seconds": 0.0, "trained": False, "finished": False, **state}
        self.save_state()

    def save_state(self) -> None:
        write_text(self.output / STATE, json.dumps(self.state, indent=1))

    def draw(self) -> str:
        train, val = self.image_counts
        info = shapes.draw_dataset(self.data, train=train, val=val, seed=self.seed)
        objects = sum(info["objects"].values())
        if not info["drawn"]:
            _say("  already drawn")
        return f"{counted(train, 'training image')}, {counted(val, 'validation image')}, {counted(objects, 'object')}"

    def train(self) -> str:
        if self.state["trained"]:
            self.seconds["train"] = self.state["train_seconds"]
            return "already done"
        start = time.monotonic()
        before = self.state["train_seconds"]
        resume = ["--resume=auto"] if (self.output / "train").is_dir() else []
        try:
            _run_program(self.command("train.py", f"--coco_root={self.data}", f"--output_path={self.output / 'train'}",
                                      f"--mindrecord_dir={self.mindrecord}", *resume), self.output / "train")
            self.state["trained"] = True
        finally:
            self.state["train_seconds"] = before + time.monotonic() - start
            self.save_state()
        self.seconds["train"] = self.state["train_seconds"]
        return str(self.checkpoint().relative_to(self.output))

    def checkpoint(self) -> Path:
        """Return the last weights: the best ones were selected on the images that are scored here."""
        file = self.output / "train" / "checkpoint" / "last.ckpt"
        if not file.is_file():
            raise StageError(f"train.py did not write {file}")
        return file

    def evaluate(self) -> str:
        folder = self.output / "eval"
        _run_program(self.command("eval.py", f"--checkpoint_path={self.checkpoint()}", f"--coco_root={self.data}",
                                  f"--anno_path={self.annotations}", f"--output_path={folder}",
                                  f"--mindrecord_dir={self.mindrecord}"), folder)
        self.metrics = _read_json(folder / "metrics.json")
        kinds = [kind for kind in report.KINDS if kind in self.metrics]
        return ", ".join(f"{report.KINDS[kind]}{name} {self.metrics[kind][name]:.3f}" for kind in kinds
                         for name in ("AP50", "AP"))

    def export(self) -> str:
        folder, made = self.output / "export", []
        for file_format in ("MINDIR", "ONNX"):
            _run_program(self.command("export.py", f"--ckpt_file={self.checkpoint()}", f"--file_format={file_format}",
                                      f"--file_name={folder / self.model}", f"--output_path={folder}"), folder)
            file = self.exported(file_format)
            made.append(f"{file.name} ({file.stat().st_size / 1e6:.1f} MB)")
        return ", ".join(made)

    def exported(self, file_format: str) -> Path:
        files = list((self.output / "export").rglob(f"*.{file_format.lower()}"))
        if not files:
            raise StageError(f"export.py wrote no .{file_format.lower()} file to {self.output / 'export'}")
        return max(files, key=lambda path: path.stat().st_mtime)

    def infer(self) -> str:
        folder = self.output / "infer"
        _run_program(self.command("infer.py", f"--mindir_path={self.exported('MINDIR')}",
                                  f"--input={self.data / 'val2017'}", f"--output_path={folder}",
                                  f"--score_thr={SCORE_THR}"), folder)
        return f"{counted(len(_read_json(folder / 'detections.json')), 'detection')} in {counted(self.image_counts[1], 'image')}"

    def show(self) -> str:
        values = report.write(self, SCORE_THR)
        return f"a detector with {values['parameters']:,} parameters"

    def run(self) -> list[Outcome]:
        """Run all stages and return the summary."""
        rows = []
        for number, (name, title) in enumerate(self.STAGES, 1):
            _say("\n" + _styled(f"[{number}/{len(self.STAGES)}] {title}", 1))
            start = time.monotonic()
            outcome = getattr(self, name)()
            self.seconds.setdefault(name, time.monotonic() - start)
            _say(f"  {_styled('done', 32)} in {duration(self.seconds[name])}: {outcome}")
            rows.append(Outcome(name, self.seconds[name], outcome))
        self.state["finished"] = True
        self.save_state()
        return rows


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StageError(f"{path} was not written") from None
    except json.JSONDecodeError as error:
        raise StageError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None


# ---------------------------------------------------------------------------------------------- main


def _parse(argv: Optional[Sequence[str]]) -> tuple[argparse.Namespace, list[str]]:
    models = sorted(path.parent.name for path in ROOT.glob("*/demo_config_cpu.yaml"))
    parser = argparse.ArgumentParser(
        prog="python -m utils.demo.run", description=__doc__.split("\n", 1)[0],
        epilog="Any other --KEY=VALUE overrides a key of the model's demo_config_cpu.yaml.", allow_abbrev=False)
    parser.add_argument("--model", choices=models, default="faster_rcnn", help="default: %(default)s")
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="seed of images and training; default: %(default)s")
    parser.add_argument("--train_pictures", type=int, default=400, help="number of training images; default: %(default)s")
    parser.add_argument("--val_pictures", type=int, default=60, help="number of validation images; default: %(default)s")
    args, overrides = parser.parse_known_args(argv)
    for item in overrides:
        if not item.startswith("--") or "=" not in item:
            parser.error(f"unexpected argument {item!r}: give keys as --KEY=VALUE")
    if min(args.train_pictures, args.val_pictures) < 1 or args.seed < 0:
        parser.error("--train_pictures and --val_pictures must be at least 1, --seed at least 0")
    return args, overrides


def _summary(demo: Demo, rows: list[Outcome]) -> None:
    _say("\n" + _styled("Summary", 1))
    for name, seconds, outcome in rows:
        _say(f"  {name:<10} {duration(seconds):>12}   {outcome}")
    _say(f"  {'total':<10} {duration(sum(row.seconds for row in rows)):>12}")
    for name in ("detections.png", "curves.png", "metrics.json"):
        _say(f"  {demo.output / name}")


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the demo and return the exit status."""
    stream: Any = sys.stdout
    stream.reconfigure(errors="replace")
    args, overrides = _parse(argv)
    output = args.output.expanduser().resolve()
    demo = Demo(args.model, output, args.seed, (args.train_pictures, args.val_pictures), overrides)
    _say(_styled(f"{report.TITLES.get(args.model, args.model)}: draw, train, score, export, infer", 1))
    _say(f"Python {platform.python_version()}, results in {output}")
    try:
        output.mkdir(parents=True, exist_ok=True)
        demo.load_state()
        rows = demo.run()
    except StageError as error:
        _say(f"\n{_styled('FAILED', 31)}: {error}")
        return 1
    except KeyboardInterrupt:
        _say("\nInterrupted. The same command resumes where this one stopped.")
        return 130
    except OSError as error:
        _say(f"\n{_styled('FAILED', 31)}: {error}")
        return 1
    _summary(demo, rows)
    kind = report.main_kind(demo.metrics)
    name, ap50, least = f"{report.KINDS[kind]}AP50", demo.metrics[kind]["AP50"], MIN_AP50_OF_MODEL.get(args.model, MIN_AP50[kind])
    if ap50 < least:
        _say(f"\n{_styled('FAILED', 31)}: {name} is {ap50:.3f}; a working detector reaches at least {least} here")
        return 1
    _say(f"\n{_styled('It works', 32)}: {name} {ap50:.3f} on images that it was not trained on")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))     # SystemExit also ends the program that is running
    sys.exit(main())
