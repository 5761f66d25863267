# Same as faster_rcnn/src/model_utils/training/checkpoint.py
"""What a training run leaves to evaluate and to go on from.

OUTPUT_PATH/checkpoint/ holds
    NAME-EPOCH_STEP.ckpt    weights, the newest of them
    last.ckpt, best.ckpt    weights: the newest, also of a run that was stopped, and those of the best AP
    state.ckpt              all that a run needs to go on: weights, optimiser, averaged weights, position
    state_before.ckpt       the state before that one, for --resume=auto if state.ckpt is damaged
Weights are the averaged ones where they are kept. Each file has a checksum. It is written beside its place and renamed when it is
whole, so that neither a full disk nor an interruption costs the one before.
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
# A run cannot go on with another value of these: the weights or the position would not fit.
FIXED_KEYS = ("backbone", "num_classes", "coco_classes", "batch_size", "accumulate_steps", "dataset", "keep_empty",
              "repeat_threshold")
# These and FREE_KEYS of model.py may change between two parts of a run: they change nothing that training computes.
COMMON_FREE_KEYS = frozenset((
    "enable_modelarts", "data_url", "data_path", "checkpoint_url", "load_path", "train_url",
    "device_target", "device_id", "backend", "runtime_num_threads", "num_parallel_workers", "output_path", "mindrecord_dir",
    "resume", "pre_trained", "max_steps", "log_interval",
    "save_checkpoint", "save_checkpoint_epochs", "save_checkpoint_steps", "keep_checkpoint_max", "run_eval",
    "eval_start_epoch", "eval_interval", "save_best_ckpt", "early_stop_patience",
    "perf_steps", "perf_warmup", "data_timeout", "checkpoint_path", "detections", "ckpt_file", "file_name",
    "file_format", "aipp_path", "mindir_path", "onnx_path", "input", "score_thr", "draw", "scorer", "max_dets", "report",
    "test_batch_size", "tta", "tile", "overlap", "val_loss"))
# Keys that belong to a command line, not to the run: config.yaml, which later commands begin with, does not have them.
CALL_KEYS = ("resume", "distribute", "enable_modelarts", "data_url", "checkpoint_url", "train_url", "perf_steps", "checkpoint_path",
             "detections", "ckpt_file", "mindir_path", "onnx_path", "input", "settings_path", "results_path", "aipp_path")
# What a run writes into its output folder, MindRecord files apart.
RUN_FILES = ("config.yaml", "checkpoint", "loss_*.log", "metrics.jsonl", "curves.png", "curves.html", "events.out.tfevents.*")
log = logging.getLogger(__name__)


class CheckpointFolder:
    """OUTPUT_PATH/checkpoint; `train_step` is a TrainStep. Of several devices one is the `writer`. classes: their names."""

    def __init__(self, output_path: Path | str, name: str, keep: int, writer: bool = True, classes: Sequence[str] = ()):
        self.path, self.name, self.keep, self.writer = Path(output_path) / "checkpoint", name, keep, writer
        self.sound = False      # state.ckpt is known to be: this process has read or written it
        self.names = {CLASS_NAMES: json.dumps(list(classes))} if classes else {}
        if writer:
            self.path.mkdir(parents=True, exist_ok=True)
            clear_leftovers(self.path)
            for leftover in self.path.glob("*.partial.*"):      # of a killed run of an earlier version
                leftover.unlink()

    def save(self, train_step: TrainStep, epoch: int, step: int) -> None:
        """Weights after `step` steps of epoch `epoch`; the oldest beyond `keep` go."""
        if not self.writer:
            return
        path = self.path / f"{self.name}-{epoch}_{step}.ckpt"
        write_checkpoint(path, train_step.weights(), self.names)
        _place_copy(path, self.path / "last.ckpt")
        for old in self.numbered()[:-self.keep]:
            old.unlink()

    def save_last(self, train_step: TrainStep) -> None:
        """Weights of a run that is stopped between two checkpoints."""
        if self.writer:
            write_checkpoint(self.path / "last.ckpt", train_step.weights())

    def save_best(self, train_step: TrainStep) -> None:
        if self.writer:
            write_checkpoint(self.path / "best.ckpt", train_step.weights(), self.names)

    def save_state(self, train_step: TrainStep, values: Mapping[str, Any]) -> None:
        """All that `resume` needs; values: what JSON can hold."""
        if self.writer:
            tensors, more = train_step.state()
            state = {STATE_KEY: json.dumps({"version": VERSION, **more, **values})}
            path = self.path / STATE
            write_checkpoint(path, tensors, state, self.path / STATE_BEFORE if self.sound and path.is_file() else None)
            self.sound = True

    def numbered(self) -> list[Path]:
        """NAME-EPOCH_STEP.ckpt, oldest first."""
        pattern = re.compile(rf"{re.escape(self.name)}-(\d+)_(\d+)\.ckpt")
        found = [(pattern.fullmatch(path.name), path) for path in self.path.iterdir()]
        return [path for _, path in sorted((tuple(map(int, match.groups())), path) for match, path in found if match)]


def write_checkpoint(path: Path, tensors: Mapping[str, Parameter], texts: Mapping[str, str] | None = None,
                     before: Path | None = None) -> None:
    """Write name -> Parameter and name -> text, whole or not at all; InputError where the file system refuses.

    before: where the file goes that was at `path`.
    """
    try:
        with replacing(path) as partial:
            save_checked(partial, tensors, texts)
            partial.chmod(0o644)        # MindSpore leaves it to its owner, read-only
            if before:
                _place_copy(path, before)
    except OSError as error:
        raise InputError(f"{error}; what was there before is whole") from error


def _place_copy(path: Path, target: Path) -> None:
    """`target` becomes another name of `path`, or a copy where the file system has no such thing."""
    with replacing(target) as partial:
        try:
            os.link(path, partial)
        except OSError:
            shutil.copyfile(path, partial)


def find_state(resume: str, output_path: Path | str) -> Path | None:
    """The state that --resume means: none for "", that of output_path, if any, for "auto", else a file or folder's."""
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
    """Return the state that --resume means, and where it is; None if there is none.

    For "auto", the state before it takes the place of a damaged one, with a warning.
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
        log.warning("%s; the run resumes from the state before it, %s", error, before)
        return state, before


def read_state(path: Path) -> RunState:
    """Read a state that `CheckpointFolder.save_state` wrote."""
    try:
        tensors = load_checked(path)
    except DamagedError as error:
        raise DamagedError(f"resume: {error}") from error
    if STATE_KEY not in tensors:
        beside = path.with_name(STATE)
        instead = f"; take {beside}" if beside.is_file() else "; to start from these weights set pre_trained"
        raise InputError(f"resume: {path}: holds weights and no state of a run{instead}")
    try:
        values = json.loads(tensors.pop(STATE_KEY))
        values["version"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise DamagedError(f"resume: {path}: damaged: its state is no JSON of a run") from error
    require_finite(tensors, f"resume: {path}")
    if values["version"] != VERSION:
        raise InputError(f"resume: {path}: of format {values['version']}; this version goes on with format {VERSION}")
    return RunState(tensors, values)


def check_same_run(values: Mapping[str, Any], config: Config, facts: Mapping[str, Any], source: Path | str) -> None:
    """InputError where a run cannot go on with this configuration, a warning where it goes on otherwise than it began.

    facts: what position and data order rest on besides the configuration, name -> value, as `values["facts"]` has them.
    """
    before, now = {**translated(values["config"]), **values["facts"]}, {**config.to_dict(), **facts}
    if not before.get("coco_classes"):      # of an earlier version: now those of the data are in the configuration
        before.pop("coco_classes", None)
    free = COMMON_FREE_KEYS | FREE_KEYS
    if config.lr_schedule == "cosine" and not config.epoch_size:
        free -= {"max_steps"}       # the rate falls to 0 there
    changed = [name for name in now if name in before and before[name] != now[name] and name not in free]
    for name in changed:
        told = f"resume: {name} was {_shown(before[name])} and is {_shown(now[name])} now"
        if name in FIXED_KEYS or name in facts:
            raise InputError(f"{told}: {source} cannot go on so; set it back, or start anew with --pre_trained")
        log.warning("%s: the run goes on, but not as it would have", told)


def translated(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a state, in which earlier versions had the factor under the name of the chance.

    What a key of today was before it existed is in it too.
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
    """Move an earlier run's files to OUTPUT_PATH/earlier/N, so that a new run cannot harm them; the folder or None."""
    root = Path(output_path)
    if not any((root / "checkpoint").glob("*.ckpt")):
        return None     # it left nothing to evaluate or to go on from
    shelf = next(shelf for n in range(1, 10 ** 6) if not (shelf := root / "earlier" / str(n)).exists())
    shelf.mkdir(parents=True)
    for pattern in RUN_FILES:
        for path in root.glob(pattern):
            path.rename(shelf / path.name)
    return shelf
