"""Save graphs of exported networks beside the checkpoint, or in the user's cache, and find them again.

A file holds the SHA-256 of the rest, a line of JSON, then the ONNX graph without weights (onnx_graph.py). The file name is a hash
of the configuration and the input size; the JSON records the versions of MindSpore and of this code. A file that is damaged or from
other versions is ignored.
"""
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ...model import NAME
from ..config import Config
from ..files import replacing

SOURCE = Path(__file__).resolve().parents[2]
PREFIX, SUFFIX = ".network-", ".onnx_graph"
# Keys that do not affect the graph: those of commands, machines and data sets, and the class names.
SHAPELESS = frozenset((
    "device_target", "device_id", "distribute", "data_timeout", "runtime_num_threads", "seed", "backend", "output_path",
    "enable_modelarts", "data_url", "data_path", "checkpoint_url", "load_path", "train_url", "exif_orientation", "run_eval",
    "resume", "pre_trained", "dataset", "data_root", "coco_root", "voc_root", "train_data_type", "val_data_type", "instance_set",
    "image_dir", "anno_path", "image_set", "val_image_dir", "val_anno_path", "val_image_set", "val_ratio", "mindrecord_dir",
    "keep_empty", "num_parallel_workers", "first_category_id", "coco_classes", "checkpoint_path", "detections", "scorer",
    "max_dets", "ckpt_file", "file_name", "split", "with_nms", "file_format", "aipp_path", "mindir_path", "onnx_path", "input",
    "score_thr", "draw", "report", "settings_path", "results_path", "test_batch_size", "tta", "tile", "overlap", "val_loss"))


class Graph(NamedTuple):
    """The graph of an exported network, without its weights."""

    onnx: bytes                             # serialised ModelProto
    shapes: dict[str, tuple[int, ...]]      # of all weights of the checkpoint, to check that it fits
    used: list[str]                         # names of the weights that the graph reads


def graph_name(config: Config, size: tuple[int, int]) -> str:
    """Return the file name for this configuration and an input size (height, width)."""
    keys = {name: value for name, value in config.to_dict().items() if name not in SHAPELESS}
    text = json.dumps([NAME, size, keys], sort_keys=True)
    return f"{PREFIX}{hashlib.sha256(text.encode()).hexdigest()[:16]}{SUFFIX}"


def folders(checkpoint: Path) -> Iterator[Path]:
    """Yield the folders for graphs of a checkpoint, in order of preference."""
    yield checkpoint.absolute().parent
    yield Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mindspore-detection"


def find_graph(checkpoint: Path, name: str) -> Graph | None:
    """Return the graph that an earlier run saved, or None."""
    return next(filter(None, (_read(folder / name) for folder in folders(checkpoint))), None)


def keep_graph(checkpoint: Path, name: str, graph: Graph) -> Path:
    """Save the graph atomically in the first writable folder and return its path.

    Raises:
        OSError: no folder is writable.
    """
    problems = []
    for folder in folders(checkpoint):
        try:
            with replacing(folder / name) as partial:
                partial.write_bytes(_pack(graph))
            return folder / name
        except OSError as error:
            problems.append(f"{folder}: {error.strerror}")
    raise OSError("; ".join(problems))


def _pack(graph: Graph) -> bytes:
    head = json.dumps({"written_by": written_by(), "shapes": graph.shapes, "used": graph.used}).encode()
    content = head + b"\n" + graph.onnx
    return hashlib.sha256(content).digest() + content


def _read(path: Path) -> Graph | None:
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, content = data[:32], data[32:]
    if hashlib.sha256(content).digest() != digest:
        return None
    head, _, onnx = content.partition(b"\n")
    about = json.loads(head)
    if about.get("written_by") != written_by():
        return None
    return Graph(onnx, {name: tuple(shape) for name, shape in about["shapes"].items()}, about["used"])


def written_by() -> list[str]:
    """Return MindSpore's version, and a digest of the code that builds the network."""
    digest = hashlib.sha256()
    for path in sorted(path for path in SOURCE.rglob("*") if path.suffix in (".py", ".yaml")):
        digest.update(path.relative_to(SOURCE).as_posix().encode() + path.read_bytes())
    try:
        version = importlib.metadata.version("mindspore")
    except importlib.metadata.PackageNotFoundError:     # MindSpore was built from source or installed under another name
        version = "unknown"
    return [version, digest.hexdigest()]
