# Same as faster_rcnn/src/model_utils/training/outcome.py
"""What a training run leaves."""
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Run:
    """What a training run leaves in its output folder."""

    output_path: Path
    status: int                 # 0: trained to the end; 128 + N: stopped by signal N, resume="auto" goes on
    steps: int                  # that were trained, those before a resume included
    best_ap: float | None       # of the validation set, 0 to 1; None: nothing was evaluated
    best_epoch: int | None      # from 1

    @property
    def config_path(self) -> Path:
        """The configuration that the run used, complete."""
        return self.output_path / "config.yaml"

    @property
    def checkpoint(self) -> Path | None:
        """The weights to use: those of the best epoch, else the last ones; None where the run wrote none."""
        folder = self.output_path / "checkpoint"
        return next((folder / name for name in ("best.ckpt", "last.ckpt") if (folder / name).is_file()), None)

    def metrics(self) -> list[dict[str, Any]]:
        """Return the rows of metrics.jsonl: losses and the rate of steps, and the scores of epochs; `kind` tells them apart."""
        path = self.output_path / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
