# Same as faster_rcnn/src/model_utils/training/log.py
"""The output of a training run: console lines, loss_{rank}.log, metrics.jsonl, curves.png, curves.html, TensorBoard events.

A step is one update; `step` counts from 1 over the whole run, `batch` within the epoch.
"""
import json
import math
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from ...model import LOSS_SUMS, epoch_line, loss_line
from ...util import counted, format_seconds
from ..config import InputError
from ..files import write_text, writing
from .precision import LossScale
from .step import StepResult

POSITION = re.compile(r"epoch: (\d+) step: (\d+),")      # start of a line of loss_{rank}.log


def with_sums(losses: Mapping[str, float]) -> dict[str, float]:
    """Return the sums of LOSS_SUMS, then each loss, then total_loss."""
    sums = {name: sum(value for key, value in losses.items() if key.startswith(start)) for name, start in LOSS_SUMS.items()}
    return {**sums, **losses, "total_loss": sum(losses.values())}


def of_validation(losses: Mapping[str, float]) -> dict[str, float]:
    """Return `with_sums` of validation losses as val_NAME; empty if there are none."""
    return {f"val_{name}": value for name, value in with_sums(losses).items()} if losses else {}


class TrainLog:
    """The log of a run; files are appended to. Losses and norms are means over the steps since the previous line.

    log_interval: batches between lines; the end of an epoch has one too. Only the rank that is the `writer` writes.
    """

    def __init__(self, output_path: Path | str, *, total_steps: int, done_steps: int, images_per_step: int, log_interval: int,
                 rank: int = 0, writer: bool = True):
        self.total_steps, self.images_per_step, self.log_interval = total_steps, images_per_step, log_interval
        self.writer, self._bar = writer, None
        self._sums: dict[str, float] = {}                   # since the previous line
        self._count = 0                                     # steps in _sums
        self._mark: float | None = None                     # end of the previous step; None: the next step is not timed
        # [steps, seconds] since the previous line, in the epoch, and in total.
        self._line_time, self._epoch_time, self._all_time = [0, 0.0], [0, 0.0], [0, 0.0]
        self._recorded, self._drawn = False, time.monotonic()     # whether there is something to plot; time of the last plot
        if not writer:
            return
        from tensorboardX import SummaryWriter

        root = Path(output_path)
        root.mkdir(parents=True, exist_ok=True)
        self._losses = (root / f"loss_{rank}.log").open("a", encoding="utf-8")      # noqa: SIM115
        self._metrics = (root / "metrics.jsonl").open("a", encoding="utf-8")        # noqa: SIM115
        self._board = SummaryWriter(str(root), purge_step=done_steps + 1)
        if sys.stderr.isatty():
            from tqdm import tqdm
            self._bar = tqdm(total=total_steps, initial=done_steps, desc="train", unit="step", dynamic_ncols=True)

    def say(self, text: str) -> None:
        """Print a line."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stdout)
        elif self.writer:
            print(text, flush=True)

    def pause(self) -> None:
        """Exclude the time until the next step from the training time."""
        self._mark = None

    def step(self, step: int, epoch: int, batch: int, result: StepResult, lr: float, scale: LossScale, last: bool) -> None:
        """Log a step. last: whether it is the last one of the epoch or of the run."""
        self._take_time()
        if result.applied:
            self._count += 1
            for name, value in (*result.losses.items(), ("grad_norm", result.grad_norm)):
                self._sums[name] = self._sums.get(name, 0.0) + value
        if self._bar is not None:
            self._bar.update()
        if batch % self.log_interval and not last:
            return
        means = {name: self._sums.get(name, 0.0) / self._count if self._count else math.nan
                 for name in (*result.losses, "grad_norm")}
        grad_norm = means.pop("grad_norm")
        losses = with_sums(means)
        rate = self._line_time[0] * self.images_per_step / self._line_time[1] if self._line_time[1] else math.nan
        self._sums, self._count, self._line_time = {}, 0, [0, 0.0]
        if self.writer:
            line = loss_line(epoch, batch, losses)
            _append(self._losses, line)
            more = {"lr": lr, "grad_norm": grad_norm, "images_per_s": rate}
            if scale.dynamic or scale.value != 1:
                more.update(loss_scale=scale.value, skipped_steps=scale.skipped)
            self.record("train", step, {"epoch": epoch, "batch": batch, **losses, **more})
            skipped = f", {counted(scale.skipped, 'step')} skipped" if scale.skipped else ""
            self.say(f"{line}, lr: {lr:.6f}{self._pace(step, rate)}{skipped}")
        if last:
            self._end_epoch(batch)

    def _end_epoch(self, steps: int) -> None:
        (timed, seconds), self._epoch_time = self._epoch_time, [0, 0.0]
        line = epoch_line(steps, seconds / timed) if timed else None
        if line:
            self.tell(line)

    def tell(self, line: str) -> None:
        """Write a line to loss_{rank}.log and print it."""
        if self.writer:
            _append(self._losses, line)
            self.say(line)

    def _take_time(self) -> None:
        now = time.monotonic()
        if self._mark is not None:
            for clock in (self._line_time, self._epoch_time, self._all_time):
                clock[0] += 1
                clock[1] += now - self._mark
        self._mark = now

    def _pace(self, step: int, rate: float) -> str:
        """Format images per second and remaining time; "" after the first step, whose time is mostly compilation."""
        if not self._all_time[0]:
            return ""
        left = (self.total_steps - step) * self._all_time[1] / self._all_time[0]
        shown = "" if math.isnan(rate) else f", {rate:.2f} img/s"
        return shown + (f", {format_seconds(left)} left" if step < self.total_steps else "")

    def record(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Write a line of metrics.jsonl and the TensorBoard scalars. Non-finite numbers become null.

        A value may be a dict of numbers; TensorBoard names its scalars `segm/AP` and so on.
        """
        if not self.writer:
            return
        values = {name: None if isinstance(value, float) and not math.isfinite(value) else value
                  for name, value in values.items()}
        _append(self._metrics, json.dumps({"kind": kind, "step": step, **values}))
        self._recorded = True
        flat = {}
        for name, value in values.items():
            flat.update({f"{name}/{key}": item for key, item in value.items()} if isinstance(value, dict) else {name: value})
        for name, value in flat.items():
            if isinstance(value, (int, float)) and name not in ("epoch", "batch"):
                self._board.add_scalar(f"{kind}/{name}", value, step)
        with writing(Path(self._board.logdir)):
            self._board.flush()

    def draw_curves(self, pause: float = 0.0) -> None:
        """Plot losses, learning rate and AP from metrics.jsonl to curves.png and curves.html.

        pause: minimum number of seconds since the last plot or the start; 0: the run has ended.
        """
        if not self.writer or not self._recorded or time.monotonic() - self._drawn < pause:
            return
        from ..evaluation.html_report import write_training
        from ..evaluation.plots import plot_training  # matplotlib takes a second

        metrics = Path(self._metrics.name)
        plots: dict[str, Callable[[Path], Any]] = {
            "curves.png": lambda path: plot_training(metrics, path),
            "curves.html": lambda path: write_training(metrics, path, running=pause > 0)}
        for name, draw in plots.items():
            try:
                draw(metrics.with_name(name))
            except (OSError, InputError, ImportError) as error:      # a failed plot must not end the run
                self.say(f"{name} cannot be drawn: {error}")
        self._drawn = time.monotonic()

    def state(self) -> dict[str, Any]:
        """Return numbers for `load_state`, so that a resumed run logs the same lines as an uninterrupted one."""
        return {"sums": self._sums, "count": self._count}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._sums, self._count = dict(state["sums"]), state["count"]

    def close(self) -> None:
        if self.writer:
            if self._bar is not None:
                self._bar.close()
            for file in (self._losses, self._metrics):
                with writing(Path(file.name)):
                    file.close()
            with writing(Path(self._board.logdir)):
                self._board.close()


def cut_logs(output_path: Path | str, values: Mapping[str, Any]) -> None:
    """Remove from loss_0.log and metrics.jsonl what a killed run wrote after its last state; the resumed run writes it again.

    values: of the state.
    """
    root, last = Path(output_path), (values["epoch"] + 1, values["batch"])

    def done(line: str) -> bool:
        try:
            row = json.loads(line)
            return row["step"] <= (values["evaluated"] if row["kind"] == "eval" else values["step"])
        except (ValueError, KeyError, TypeError):
            return False

    def lines_until(text: list[str]) -> Iterator[str]:
        kept = True
        for line in text:
            found = POSITION.match(line)
            kept = tuple(map(int, found.groups())) <= last if found else kept      # other lines belong to the line before
            if kept:
                yield line

    for name, chosen in (("metrics.jsonl", lambda text: filter(done, text)), ("loss_0.log", lines_until)):
        path = root / name
        if path.is_file():
            before = path.read_text(encoding="utf-8", errors="replace")
            after = "".join(f"{line}\n" for line in chosen(before.split("\n")[:-1]))       # the last item is incomplete or empty
            if after != before:
                write_text(path, after)


def _append(file: TextIO, line: str) -> None:
    with writing(Path(file.name)):
        file.write(line + "\n")
        file.flush()
