"""A command as a ModelArts job: input fetched before, results sent after, whatever becomes of the command itself.

With enable_modelarts the process that ModelArts starts does not import MindSpore: it fetches, starts the same command
anew as a child, utils/launch in between where the job has several cards and nobody else starts them, waits, sends the
results and leaves with the child's status. So results are sent also where the child was killed or crashed.
"""
import ctypes
import importlib.util
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

from .cloud.fetching import fetch, fetched_root
from .cloud.object_storage import Storage, open_storage
from .config import Config, InputError
from .device_adapter import Launch, plan_launch
from .files import log_to_stderr, tell
from .locks import SUFFIX
from .own_utils import own_utils

# Set in the environment of the child.
CHILD = "MODELARTS_JOB_COMMAND"
# Keys that may name a part of what data_url, and of what checkpoint_url holds.
DATA_KEYS = ("coco_root", "voc_root", "image_dir", "anno_path", "image_set", "val_image_dir", "val_anno_path",
             "val_image_set", "mindrecord_dir", "detections", "input")
WEIGHT_KEYS = ("pre_trained", "resume", "checkpoint_path", "ckpt_file", "mindir_path", "onnx_path")
# What a command may take its network or detections from; one of them given, no other is looked for.
SOURCES = {"pre_trained": ("resume",), "checkpoint_path": ("mindir_path", "onnx_path", "detections"), "ckpt_file": ()}
# In output_path, but made from the input.
NOT_SENT = ("mindrecord",)
log = logging.getLogger(__name__)


def as_job(config: Config, weights: str, data: bool = False) -> Config:
    """The configuration to run with: as it is, or on ModelArts with the paths of what was fetched.

    weights: the key of the weights that the command needs; data: the command reads a data set. On ModelArts the process
    that was started itself does not return from here: it exits with the status of the command.
    """
    if not config.enable_modelarts:
        return config
    if os.environ.get(CHILD):
        return localize(config, weights)
    _tell()
    launch = plan_launch(os.environ, config.distribute, str(Path(config.output_path).absolute() / "msrun_log"))
    for name in (*(["mindrecord"] if data else []), *(["launch"] if launch.msrun else [])):
        _require_tool(name)
    results = open_storage(config.train_url, "train_url") if config.train_url else None
    if results:     # hours of training are not to end in a wrong address
        results.check_writable()
    for address, folder in (("data_url", "data_path"), ("checkpoint_url", "load_path")):
        if config[address]:
            fetch(config[address], config[folder], address, folder)
    local = localize(config, weights)       # its faults come before anything is started
    if launch.scheduler:
        return local
    status = run_command(launch)
    sys.exit(_send(results, launch, Path(config.output_path), status))


def _tell() -> None:
    """Lines of the job on stderr, of this package alone."""
    log_to_stderr()
    logging.getLogger(__package__).setLevel(logging.INFO)


def _require_tool(name: str) -> Path:
    """The folder utils/NAME; InputError where it was not uploaded, before the data is fetched."""
    try:
        found = importlib.util.find_spec(f"utils.{name}")
    except ModuleNotFoundError:
        found = None
    if found is None or found.origin is None:
        model = Path(__file__).resolve().parents[2].name
        raise InputError(f"utils/{name} is not in the code directory: upload utils/ too, inside {model}/ or beside it")
    return Path(found.origin).parent


def localize(config: Config, weights: str) -> Config:
    """The same with paths in what was fetched: relative ones, those below data_path and load_path, those left out."""
    changes = {}
    data_keys = {*DATA_KEYS, *(key for key in config if key.endswith("_root"))}     # the roots of other formats too
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
    if not Path(config.file_name).is_absolute():    # of export.py: a result too
        changes["file_name"] = str(Path(config.output_path) / config.file_name)
    return Config({**config.to_dict(), **changes})


def _inside(root: Path, folder: Path, value: str, by_name: bool) -> Path | None:
    """What `value` names below `root`, else None. folder: where root's files would be if they had been copied.

    by_name: the last part will do, as weights were in a folder of their own before they were uploaded.
    """
    path = Path(value)
    if not value or (path.is_absolute() and folder not in path.parents and path != folder):
        return None
    path = path.relative_to(folder) if path.is_absolute() else path
    places = [root / path, *([root / path.name] if by_name else [])]
    return next((place for place in places if place.exists()), None)


def _find_data(config: Config, root: Path) -> dict[str, str]:
    """{key: folder} of the one data set in `root`, where the configuration names none."""
    try:
        find_format = own_utils("mindrecord").find_format
    except ImportError:     # a command that reads no data set does without
        return {}
    entry = find_format(config.dataset)
    layout = entry.layout
    if layout is None or layout.key not in config or any(config[name] for name in (layout.key, "image_dir", "anno_path")):
        return {}
    key = layout.key
    marks: list[tuple[str, ...]] = [layout.paths(config, train) for train in (True, False)]
    if not entry.anno_is_folder:    # its name is mark enough
        marks = [(anno_path,) for _, anno_path in marks]
    found = [folder for folder in (root, *sorted(root.glob("*/")), *sorted(root.glob("*/*/")))
             if any(all((folder / name).exists() for name in mark) for mark in marks)]
    if len(found) > 1:
        raise InputError(f"{key}: data_url holds several data sets: {', '.join(str(item.relative_to(root)) for item in found)}; "
                         f"give --{key} with one of them")
    return {key: str(found[0])} if found else {}


def _find_weights(config: Config, key: str, root: Path) -> Path:
    found = sorted(root.rglob("*.ckpt"))
    if len(found) != 1:
        names = ", ".join(str(path.relative_to(root)) for path in found) or "no .ckpt file"
        raise InputError(f"{key}: checkpoint_url {config.checkpoint_url} holds {names}; give --{key} with the name of one file")
    return found[0]


def run_command(launch: Launch) -> int:
    """Status of this very command, started anew as `launch` says; SIGTERM and SIGINT are passed on."""
    environment = {**os.environ, **launch.environment, CHILD: "1"}
    script = next(i for i, word in enumerate(sys.orig_argv) if word.endswith(".py"))    # behind the interpreter's flags
    launcher = [str(_require_tool("launch") / "run.py"), *launch.msrun] if launch.msrun else []
    command = [sys.executable, *sys.orig_argv[1:script], *launcher, *sys.orig_argv[script:]]
    log.info("starts: %s", " ".join(command))
    # A session of its own: Ctrl-C comes from here alone, not from the terminal too, and a second one would end it at once.
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
    """In the child: SIGTERM where this process is killed, so that no card stays taken."""
    if sys.platform == "linux":
        set_death_signal = 1    # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)


def _send(results: Storage | None, launch: Launch, output: Path, status: int) -> int:
    """Send what the command has left; the status of the job: the command's, or 1 where only the sending failed."""
    log.info("the command has ended with status %d", status)
    names = result_files(output, launch)
    if results is None:
        log.warning("train_url is not given: the results stay in %s", output)
        return status
    ignored = signal.signal(signal.SIGTERM, signal.SIG_IGN)     # the command has got it; now it is about the results
    try:
        results.upload(output, names)
    except InputError as error:
        tell(f"{Path(sys.argv[0]).name}: error: {error}")
        return status or 1
    finally:
        signal.signal(signal.SIGTERM, ignored)
    log.info("train_url: %d files of %s", len(names), output)
    return status


def result_files(output: Path, launch: Launch) -> list[str]:
    """Names relative to `output`; of several processes on a machine the first of the job sends all, others their own logs."""
    found = [path.relative_to(output) for path in sorted(output.rglob("*")) if path.is_file()]
    found = [name for name in found if name.parts[0] not in NOT_SENT and not {".partial", ".part", SUFFIX} & set(name.suffixes)]
    if launch.rank and not launch.whole_machine:
        found = [name for name in found if name.stem.endswith(f"_{launch.rank}") and name.suffix == ".log"]
    return [name.as_posix() for name in found]
