"""The result of a training run."""
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Run:
    """The result of a training run, and the files in its output folder."""

    output_path: Path
    status: int                 # 0: finished; 128 + N: stopped by signal N, resume="auto" resumes it
    steps: int                  # trained steps, including those before it was resumed
    best_ap: float | None       # on the validation set, 0 to 1; None: never evaluated
    best_epoch: int | None      # from 1

    @property
    def config_path(self) -> Path:
        """The resolved configuration of the run."""
        return self.output_path / "config.yaml"

    @property
    def checkpoint(self) -> Path | None:
        """The weights to use: best.ckpt if there is one, else last.ckpt; None if the run saved none."""
        folder = self.output_path / "checkpoint"
        return next((folder / name for name in ("best.ckpt", "last.ckpt") if (folder / name).is_file()), None)

    def metrics(self) -> list[dict[str, Any]]:
        """Return the rows of metrics.jsonl. `kind` tells losses and rates of steps from scores of evaluations."""
        path = self.output_path / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
