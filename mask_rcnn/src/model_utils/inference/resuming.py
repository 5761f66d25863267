# Same as faster_rcnn/src/model_utils/inference/resuming.py
"""Inference that resumes after a run that was stopped: with the image whose results came last."""
import json
from pathlib import Path
from typing import Any

from ..config import Config, InputError
from ..evaluation.results_writer import Kept, read_kept
from ..files import printable, tell, write_text
from .media import Pictures, Video
from .predictors import find_model

PARTIAL = "detections.partial.json"     # the results of the frames so far
RUN = "detections.partial.run.json"     # the settings of the run that they are of
# Keys that may differ from those of the run that was stopped.
FREE = frozenset(("output_path", "resume", "draw", "test_batch_size", "num_parallel_workers", "runtime_num_threads", "device_id",
                  "enable_modelarts", "data_url", "checkpoint_url", "train_url", "data_timeout"))


def resume_after(config: Config, source: Pictures | Video) -> Kept | None:
    """Return what is kept of a stopped run, and leave out of `source` the images that it has finished; None: all are to be done.

    InputError where that run had other settings, weights or images.
    """
    output = Path(config.output_path)
    partial, run = output / PARTIAL, output / RUN
    if config.resume not in ("", "auto"):
        raise InputError(f"resume: expected auto, or nothing, got {config.resume!r}")
    if not config.resume or isinstance(source, Video) or not partial.is_file():
        if partial.exists():
            why = "a video starts" if config.resume else "--resume=auto was not given, so this run starts"
            tell(f"{partial}: of a run that did not end: replaced, as {why} from the beginning")
        elif config.resume:
            tell(f"{output}: no run to resume: this one starts from the beginning")
        return None
    kept = read_kept(partial)
    if kept is None:
        return None
    _check_same(settings(config), run)
    try:
        done = source.skip_to(kept.last)
    except ValueError:
        raise InputError(f"resume: {partial}: its last image, {kept.last}, is not in {config.input}") from None
    tell(printable(f"infer.py resumes with {kept.last}: {done} of {done + source.total} pictures are done"))
    return kept


def settings(config: Config) -> dict[str, Any]:
    """Return what the results of a run depend on, as JSON holds it."""
    _, model = find_model(config)
    about = Path(model).stat()
    keys = {name: value for name, value in config.to_dict().items() if name not in FREE}
    return json.loads(json.dumps({**keys, "bytes of the weights": about.st_size, "time of the weights": about.st_mtime_ns}))


def keep_settings(config: Config) -> None:
    """Write them beside the results of this run."""
    write_text(Path(config.output_path) / RUN, json.dumps(settings(config)))


def _check_same(now: dict[str, Any], run: Path) -> None:
    try:
        before = json.loads(run.read_bytes())
        changed = next((name for name in now if name not in before or before[name] != now[name]), None)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"resume: {run}: does not say what the run that was stopped did: start without --resume") from error
    if changed:
        raise InputError(f"resume: {changed} was {before.get(changed)!r} and is {now[changed]!r} now: start without --resume")
