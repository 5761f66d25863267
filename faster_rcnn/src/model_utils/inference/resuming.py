"""Resume inference after a stopped run, from the last image with results."""
import json
from pathlib import Path
from typing import Any

from ..config import Config, InputError
from ..evaluation.results_writer import Kept, read_kept
from ..files import printable, tell, write_text
from .media import Images, Video
from .predictors import find_model

PARTIAL = "detections.partial.json"     # results of the frames so far
RUN = "detections.partial.run.json"     # settings of the run that wrote them
# Keys that do not affect the results, so they may differ from the stopped run.
FREE = frozenset(("output_path", "resume", "draw", "test_batch_size", "num_parallel_workers", "runtime_num_threads", "device_id",
                  "enable_modelarts", "data_url", "checkpoint_url", "train_url", "data_timeout"))


def resume_after(config: Config, source: Images | Video) -> Kept | None:
    """Return the results of a stopped run and skip its finished images in `source`.

    Returns None, and skips nothing, if `resume` is not set, if there is nothing to resume, or for a video.

    Args:
        config: `resume` is "" or "auto"; output_path is the folder of the stopped run.
        source: the frames to process; modified in place.

    Raises:
        InputError: the stopped run had other settings, weights or images.
    """
    output = Path(config.output_path)
    partial, run = output / PARTIAL, output / RUN
    if config.resume not in ("", "auto"):
        raise InputError(f"resume: expected auto or an empty value, got {config.resume!r}")
    if not config.resume or isinstance(source, Video) or not partial.is_file():
        if partial.exists():
            why = "videos cannot be resumed" if config.resume else "--resume=auto was not given"
            tell(f"{partial}: overwriting the results of a stopped run, because {why}")
        elif config.resume:
            tell(f"{output}: no run to resume, starting from the beginning")
        return None
    kept = read_kept(partial)
    if kept is None:
        return None
    _check_same(settings(config), run)
    try:
        done = source.skip_to(kept.last)
    except ValueError:
        raise InputError(f"resume: {partial}: its last image, {kept.last}, is not in {config.input}: pass the same --input, or "
                         "start without --resume") from None
    tell(printable(f"infer.py resumes from {kept.last}: {done} of {done + source.total} images are done"))
    return kept


def settings(config: Config) -> dict[str, Any]:
    """Return the keys, size and modification time of the weights that a run's results depend on, as JSON values."""
    _, model = find_model(config)
    about = Path(model).stat()
    keys = {name: value for name, value in config.to_dict().items() if name not in FREE}
    return json.loads(json.dumps({**keys, "bytes of the weights": about.st_size, "time of the weights": about.st_mtime_ns}))


def keep_settings(config: Config) -> None:
    """Write the run's settings beside its partial results, for a later `resume_after`."""
    write_text(Path(config.output_path) / RUN, json.dumps(settings(config)))


def _check_same(now: dict[str, Any], run: Path) -> None:
    try:
        before = json.loads(run.read_bytes())
        changed = next((name for name in now if name not in before or before[name] != now[name]), None)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"resume: {run}: missing or damaged, so the stopped run's settings are unknown: start "
                         "without --resume") from error
    if changed:
        raise InputError(f"resume: {changed} was {before.get(changed)!r} in the stopped run, but is {now[changed]!r} now: "
                         "restore it, or start without --resume")
