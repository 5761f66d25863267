"""Run a command as a ModelArts job: fetch the inputs first, and upload the results afterwards, even if the command fails.

With enable_modelarts, the process that ModelArts starts does not import MindSpore. It fetches the inputs, starts the same command
as a child process (through utils/launch if the job has several cards and nothing else starts them), waits, uploads the results
and exits with the child's status. Therefore results are uploaded even if the child crashes or is killed.
"""
import ctypes
import importlib.util
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

from ..util import counted
from .cloud.fetching import fetch, fetched_root
from .cloud.object_storage import Storage, open_storage
from .config import Config, InputError
from .device_adapter import Launch, plan_launch
from .files import log_to_stderr, tell
from .locks import SUFFIX
from .own_utils import own_utils

# Environment variable that marks the child.
CHILD = "MODELARTS_JOB_COMMAND"
# Keys whose paths may lie in what data_url or checkpoint_url holds.
DATA_KEYS = ("coco_root", "voc_root", "image_dir", "anno_path", "image_set", "val_image_dir", "val_anno_path",
             "val_image_set", "mindrecord_dir", "detections", "input")
WEIGHT_KEYS = ("pre_trained", "resume", "checkpoint_path", "ckpt_file", "mindir_path", "onnx_path")
# Weights key -> alternative sources of a command; if one of them is set, no weights are looked up.
SOURCES = {"pre_trained": ("resume",), "checkpoint_path": ("mindir_path", "onnx_path", "detections"), "ckpt_file": ()}
# Folders of output_path that are derived from the input.
NOT_SENT = ("mindrecord",)
log = logging.getLogger(__name__)


def as_job(config: Config, weights: str, data: bool = False) -> Config:
    """Return the configuration to run with: unchanged, or on ModelArts with the paths of the fetched files.

    On ModelArts, the process that was started does not return from this function: it exits with the command's status.

    Args:
        config: the configuration.
        weights: the key of the weights that the command needs.
        data: whether the command reads a data set.

    Raises:
        InputError: if inputs or tools are missing, or results could not be uploaded.
    """
    if not config.enable_modelarts:
        return config
    if os.environ.get(CHILD):
        return localize(config, weights)
    _show_log()
    launch = plan_launch(os.environ, config.distribute, str(Path(config.output_path).absolute() / "msrun_log"))
    for name in (*(["mindrecord"] if data else []), *(["launch"] if launch.msrun else [])):
        _require_tool(name)
    results = open_storage(config.train_url, "train_url") if config.train_url else None
    if results:     # detect a wrong address before hours of training
        results.check_writable()
    for address, folder in (("data_url", "data_path"), ("checkpoint_url", "load_path")):
        if config[address]:
            fetch(config[address], config[folder], address, folder)
    local = localize(config, weights)       # raises its errors before anything is started
    if launch.scheduler:
        return local
    status = run_command(launch)
    sys.exit(_send(results, launch, Path(config.output_path), status))


def _show_log() -> None:
    """Log to stderr, with info messages from this package only."""
    log_to_stderr()
    logging.getLogger(__package__).setLevel(logging.INFO)


def _require_tool(name: str) -> Path:
    """Return the folder utils/NAME. Raises InputError, before data is fetched, if it was not uploaded."""
    try:
        found = importlib.util.find_spec(f"utils.{name}")
    except ModuleNotFoundError:
        found = None
    if found is None or found.origin is None:
        model = Path(__file__).resolve().parents[2].name
        raise InputError(f"utils/{name} is not in the code directory; upload utils/ too, inside {model}/ or beside it")
    return Path(found.origin).parent


def localize(config: Config, weights: str) -> Config:
    """Return the configuration with paths in the fetched files, if they are relative, empty, or below data_path or load_path."""
    changes = {}
    data_keys = {*DATA_KEYS, *(key for key in config if key.endswith("_root"))}     # including the roots of other formats
    for address, folder, keys in (("data_url", "data_path", data_keys), ("checkpoint_url", "load_path", WEIGHT_KEYS)):
        if config[address]:
            root = fetched_root(config[address], config[folder])
            for key in keys:
                found = _inside(root, Path(config[folder]), config.get(key, ""), address == "checkpoint_url")
                changes.update({key: str(found)} if found else {})
    if config.data_url:
        changes.update(_find_data(config, fetched_root(config.data_url, config.data_path)))
    if config.checkpoint_url and not any(config[key] for key in (weights, *SOURCES[weights])):
        changes[weights] = str(_find_weights(config, weights, fetched_root(config.checkpoint_url, config.load_path)))
    if not Path(config.file_name).is_absolute():    # export.py's file is a result, too
        changes["file_name"] = str(Path(config.output_path) / config.file_name)
    return Config({**config.to_dict(), **changes})


def _inside(root: Path, folder: Path, value: str, by_name: bool) -> Path | None:
    """Return the path below `root` that `value` names, or None.

    folder: where the files of `root` would be if they had been copied. by_name: also accept the last component only, since weights
    may have been in another folder before they were uploaded.
    """
    path = Path(value)
    if not value or (path.is_absolute() and folder not in path.parents and path != folder):
        return None
    path = path.relative_to(folder) if path.is_absolute() else path
    places = [root / path, *([root / path.name] if by_name else [])]
    return next((place for place in places if place.exists()), None)


def _find_data(config: Config, root: Path) -> dict[str, str]:
    """Return {key: folder} of the only data set in `root` if the configuration names none."""
    try:
        find_format = own_utils("mindrecord").find_format
    except ImportError:     # not needed by commands that read no data set
        return {}
    entry = find_format(config.dataset)
    layout = entry.layout
    if layout is None or layout.key not in config or any(config[name] for name in (layout.key, "image_dir", "anno_path")):
        return {}
    key = layout.key
    marks: list[tuple[str, ...]] = [layout.paths(config, train) for train in (True, False)]
    if not entry.anno_is_folder:    # the name of the annotation file suffices
        marks = [(anno_path,) for _, anno_path in marks]
    found = [folder for folder in (root, *sorted(root.glob("*/")), *sorted(root.glob("*/*/")))
             if any(all((folder / name).exists() for name in mark) for mark in marks)]
    if len(found) > 1:
        raise InputError(f"{key}: data_url holds several data sets: {', '.join(str(item.relative_to(root)) for item in found)}; "
                         f"set --{key} to one of them")
    return {key: str(found[0])} if found else {}


def _find_weights(config: Config, key: str, root: Path) -> Path:
    found = sorted(root.rglob("*.ckpt"))
    if len(found) != 1:
        names = ", ".join(str(path.relative_to(root)) for path in found) or "no .ckpt file"
        raise InputError(f"{key}: checkpoint_url {config.checkpoint_url} holds {names}; set --{key} to the name of one file")
    return found[0]


def run_command(launch: Launch) -> int:
    """Run the current command line again in a child process, as `launch` says, and return its status. Forwards SIGTERM, SIGINT."""
    environment = {**os.environ, **launch.environment, CHILD: "1"}
    script = next(i for i, word in enumerate(sys.orig_argv) if word.endswith(".py"))    # behind the interpreter's flags
    launcher = [str(_require_tool("launch") / "run.py"), *launch.msrun] if launch.msrun else []
    command = [sys.executable, *sys.orig_argv[1:script], *launcher, *sys.orig_argv[script:]]
    log.info("starting: %s", " ".join(command))
    # A separate session, so that Ctrl-C reaches the child only once: from here, and not from the terminal, too.
    child = subprocess.Popen(command, env=environment, start_new_session=True, preexec_fn=_end_with_parent)
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda got, _: child.send_signal(got)) for number in numbers}
    try:
        status = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status if status >= 0 else 128 - status


def _end_with_parent() -> None:
    """Make the kernel send the child SIGTERM if this process is killed, so that no card stays occupied."""
    if sys.platform == "linux":
        set_death_signal = 1    # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)


def _send(results: Storage | None, launch: Launch, output: Path, status: int) -> int:
    """Upload the results, and return the status of the job: the command's, or 1 if only the upload failed."""
    log.info("the command has ended with status %d", status)
    names = result_files(output, launch)
    if results is None:
        log.warning("train_url is not set; the results stay in %s", output)
        return status
    ignored = signal.signal(signal.SIGTERM, signal.SIG_IGN)     # the command has received it; now save the results
    try:
        results.upload(output, names)
    except InputError as error:
        tell(f"{Path(sys.argv[0]).name}: error: {error}")
        return status or 1
    finally:
        signal.signal(signal.SIGTERM, ignored)
    log.info("train_url: %s of %s", counted(len(names), "file"), output)
    return status


def result_files(output: Path, launch: Launch) -> list[str]:
    """Return names relative to `output`. The first process of a job uploads everything, other processes only their own logs."""
    found = [path.relative_to(output) for path in sorted(output.rglob("*")) if path.is_file()]
    found = [name for name in found if name.parts[0] not in NOT_SENT and not {".partial", ".part", SUFFIX} & set(name.suffixes)]
    if launch.rank and not launch.whole_machine:
        found = [name for name in found if name.stem.endswith(f"_{launch.rank}") and name.suffix == ".log"]
    return [name.as_posix() for name in found]
