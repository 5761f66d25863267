# Same as faster_rcnn/src/model_utils/training/checkpoint.py
"""The checkpoints of a training run, for evaluation and for resuming.

OUTPUT_PATH/checkpoint/ holds
    NAME-EPOCH_STEP.ckpt    weights, the newest few
    last.ckpt, best.ckpt    weights: the newest, also of a stopped run, and those with the best AP
    state.ckpt              everything needed to resume: weights, optimizer, averaged weights, position
    state_before.ckpt       the previous state, for --resume=auto if state.ckpt is damaged
Weights are the averaged weights if the run keeps them. Each file has a checksum and is written to a temporary name and renamed when
complete, so neither a full disk nor an interruption destroys the previous file.
"""
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mindspore import Parameter

from ...model import FREE_KEYS
from ..config import Config, DamagedError, InputError
from ..files import clear_leftovers, replacing
from ..weights.checksum import load_checked, require_finite, save_checked
from ..weights.class_names import CLASS_NAMES
from ..weights.mindspore_file import STATE_KEY
from .step import RunState, TrainStep

VERSION = 1
STATE, STATE_BEFORE = "state.ckpt", "state_before.ckpt"
# A resumed run must have the same values of these: otherwise the weights or the position would not fit.
FIXED_KEYS = ("backbone", "num_classes", "coco_classes", "batch_size", "accumulate_steps", "dataset", "keep_empty",
              "repeat_threshold")
# These and model.py's FREE_KEYS may differ in a resumed run: training does not depend on them.
COMMON_FREE_KEYS = frozenset((
    "enable_modelarts", "data_url", "data_path", "checkpoint_url", "load_path", "train_url",
    "device_target", "device_id", "backend", "runtime_num_threads", "num_parallel_workers", "output_path", "mindrecord_dir",
    "resume", "pre_trained", "max_steps", "log_interval",
    "save_checkpoint", "save_checkpoint_epochs", "save_checkpoint_steps", "keep_checkpoint_max", "run_eval",
    "eval_start_epoch", "eval_interval", "save_best_ckpt", "early_stop_patience",
    "perf_steps", "perf_warmup", "data_timeout", "checkpoint_path", "detections", "ckpt_file", "file_name",
    "file_format", "aipp_path", "mindir_path", "onnx_path", "input", "score_thr", "draw", "scorer", "max_dets", "report",
    "test_batch_size", "tta", "tile", "overlap", "val_loss"))
# Keys of one command line rather than of the run; config.yaml, which later commands start from, omits them.
CALL_KEYS = ("resume", "distribute", "enable_modelarts", "data_url", "checkpoint_url", "train_url", "perf_steps", "checkpoint_path",
             "detections", "ckpt_file", "mindir_path", "onnx_path", "input", "settings_path", "results_path", "aipp_path")
# Files that a run writes to its output folder, other than MindRecord files.
RUN_FILES = ("config.yaml", "checkpoint", "loss_*.log", "metrics.jsonl", "curves.png", "curves.html", "events.out.tfevents.*")
log = logging.getLogger(__name__)


class CheckpointFolder:
    """OUTPUT_PATH/checkpoint. Only the rank that is the `writer` writes. classes: class names stored with the weights."""

    def __init__(self, output_path: Path | str, name: str, keep: int, writer: bool = True, classes: Sequence[str] = ()):
        self.path, self.name, self.keep, self.writer = Path(output_path) / "checkpoint", name, keep, writer
        self.sound = False      # whether state.ckpt is known to be intact: this process has read or written it
        self.names = {CLASS_NAMES: json.dumps(list(classes))} if classes else {}
        if writer:
            self.path.mkdir(parents=True, exist_ok=True)
            clear_leftovers(self.path)
            for leftover in self.path.glob("*.partial.*"):      # left by a killed run of an earlier version
                leftover.unlink()

    def save(self, train_step: TrainStep, epoch: int, step: int) -> None:
        """Save the weights after `step` steps of epoch `epoch`, and delete the oldest beyond `keep`."""
        if not self.writer:
            return
        path = self.path / f"{self.name}-{epoch}_{step}.ckpt"
        write_checkpoint(path, train_step.weights(), self.names)
        _place_copy(path, self.path / "last.ckpt")
        for old in self.numbered()[:-self.keep]:
            old.unlink()

    def save_last(self, train_step: TrainStep) -> None:
        """Save the weights of a run that is stopped between two checkpoints."""
        if self.writer:
            write_checkpoint(self.path / "last.ckpt", train_step.weights())

    def save_best(self, train_step: TrainStep) -> None:
        if self.writer:
            write_checkpoint(self.path / "best.ckpt", train_step.weights(), self.names)

    def save_state(self, train_step: TrainStep, values: Mapping[str, Any]) -> None:
        """Save everything that `resume` needs. values: JSON-serialisable."""
        if self.writer:
            tensors, more = train_step.state()
            state = {STATE_KEY: json.dumps({"version": VERSION, **more, **values})}
            path = self.path / STATE
            write_checkpoint(path, tensors, state, self.path / STATE_BEFORE if self.sound and path.is_file() else None)
            self.sound = True

    def numbered(self) -> list[Path]:
        """Return the files NAME-EPOCH_STEP.ckpt, oldest first."""
        pattern = re.compile(rf"{re.escape(self.name)}-(\d+)_(\d+)\.ckpt")
        found = [(pattern.fullmatch(path.name), path) for path in self.path.iterdir()]
        return [path for _, path in sorted((tuple(map(int, match.groups())), path) for match, path in found if match)]


def write_checkpoint(path: Path, tensors: Mapping[str, Parameter], texts: Mapping[str, str] | None = None,
                     before: Path | None = None) -> None:
    """Write name -> Parameter and name -> text atomically; InputError if the file cannot be written.

    before: path that the previous file at `path` is kept under.
    """
    try:
        with replacing(path) as partial:
            save_checked(partial, tensors, texts)
            partial.chmod(0o644)        # MindSpore writes it read-only and only for its owner
            if before:
                _place_copy(path, before)
    except OSError as error:
        raise InputError(f"{error}; the previous file is intact") from error


def _place_copy(path: Path, target: Path) -> None:
    """Make `target` a hard link to `path`, or a copy if the file system has no hard links."""
    with replacing(target) as partial:
        try:
            os.link(path, partial)
        except OSError:
            shutil.copyfile(path, partial)


def find_state(resume: str, output_path: Path | str) -> Path | None:
    """Return the state file that --resume names: None for "", the run's own in output_path for "auto", else of a file or folder."""
    if not resume:
        return None
    if resume == "auto":
        folder = Path(output_path) / "checkpoint"
        return next((folder / name for name in (STATE, STATE_BEFORE) if (folder / name).is_file()), None)
    places = [Path(resume), Path(resume) / STATE, Path(resume) / "checkpoint" / STATE]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        what = "no state.ckpt in this folder" if places[0].is_dir() else "no such file or folder"
        raise InputError(f"resume: {what}: {resume}")
    return found


def open_state(resume: str, output_path: Path | str) -> tuple[RunState, Path] | None:
    """Return the state that --resume names, and its path; None if there is none.

    For "auto", a damaged state is replaced by the previous one, with a warning.
    """
    path = find_state(resume, output_path)
    if path is None:
        return None
    try:
        return read_state(path), path
    except DamagedError as error:
        before = path.with_name(STATE_BEFORE)
        if resume != "auto" or before == path or not before.is_file():
            raise
        state = read_state(before)
        log.warning("%s; resuming from the previous state, %s", error, before)
        return state, before


def read_state(path: Path) -> RunState:
    """Read a state written by `CheckpointFolder.save_state`."""
    try:
        tensors = load_checked(path)
    except DamagedError as error:
        raise DamagedError(f"resume: {error}") from error
    if STATE_KEY not in tensors:
        beside = path.with_name(STATE)
        instead = f"; give {beside}" if beside.is_file() else "; to start from these weights, set pre_trained"
        raise InputError(f"resume: {path}: holds weights, not the state of a run{instead}")
    try:
        values = json.loads(tensors.pop(STATE_KEY))
        values["version"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise DamagedError(f"resume: {path}: damaged: its state is not the JSON of a run") from error
    require_finite(tensors, f"resume: {path}")
    if values["version"] != VERSION:
        raise InputError(f"resume: {path}: state of format {values['version']}; this version reads format {VERSION}")
    return RunState(tensors, values)


def check_same_run(values: Mapping[str, Any], config: Config, facts: Mapping[str, Any], source: Path | str) -> None:
    """Raise InputError if the run cannot resume with this configuration; warn if it will train differently.

    facts: {name: value} that position and data order depend on besides the configuration, as in `values["facts"]`.
    """
    before, now = {**translated(values["config"]), **values["facts"]}, {**config.to_dict(), **facts}
    if not before.get("coco_classes"):      # from an earlier version; now the configuration holds the classes of the data
        before.pop("coco_classes", None)
    free = COMMON_FREE_KEYS | FREE_KEYS
    if config.lr_schedule == "cosine" and not config.epoch_size:
        free -= {"max_steps"}       # max_steps then sets the step at which the rate reaches 0
    changed = [name for name in now if name in before and before[name] != now[name] and name not in free]
    for name in changed:
        what = f"resume: {name} was {_shown(before[name])} and is now {_shown(now[name])}"
        if name in FIXED_KEYS or name in facts:
            raise InputError(f"{what}: {source} cannot resume with it; set it back, or start a new run with --pre_trained")
        log.warning("%s: the rest of the run will differ from the original", what)


def translated(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a state under today's keys: earlier versions kept expand_factor in `expand_ratio`.

    Keys that did not exist get the value that earlier versions behaved as.
    """
    values = {"stem_pool_padding": "both", **values}
    factor = values.get("expand_ratio")
    if factor is None or "expand_factor" in values:
        return dict(values)
    return {**values, "expand_ratio": float(factor > 1), **({"expand_factor": factor} if factor > 1 else {})}


def _shown(value: Any, most: int = 60) -> str:
    text = str(value)
    return text if len(text) <= most else f"{text[:most]}..."


def set_aside(output_path: Path | str) -> Path | None:
    """Move the files of an earlier run to OUTPUT_PATH/earlier/N, out of the way of a new run; return that folder or None."""
    root = Path(output_path)
    if not any((root / "checkpoint").glob("*.ckpt")):
        return None     # the earlier run left nothing worth keeping
    shelf = next(shelf for n in range(1, 10 ** 6) if not (shelf := root / "earlier" / str(n)).exists())
    shelf.mkdir(parents=True)
    for pattern in RUN_FILES:
        for path in root.glob(pattern):
            path.rename(shelf / path.name)
    return shelf
