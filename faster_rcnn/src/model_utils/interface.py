"""The model's Python interface: Detector, train, evaluate, export.

Importing it prepares the environment for MindSpore, so MindSpore is only imported inside functions.
"""
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .config import Config, InputError, config_file, load_config, save_config
from .evaluation.coco_scores import Scores
from .inference.detector import Detector
from .inference.found import Drawing, Found
from .local_adapter import prepare_environment
from .python_words import input_errors
from .training.outcome import Run
from .weights.named import check_pretrained, is_name, weights_file
from .weights.own_config import KEYS, find_config, key_of, own_model

__all__ = ["Config", "Detector", "Drawing", "Found", "InputError", "Run", "Scores", "evaluate", "export", "load_config",
           "train"]

prepare_environment()


@input_errors()
def train(config: Config | str | os.PathLike | None = None, **keys: Any) -> Run:
    """Train like train.py.

    Ctrl-C stops the run after the current step: Run.status is then 130, and resume="auto" resumes it. Python handles signals in the
    main thread only, so a run in another thread does not notice it.

    Args:
        config: a configuration or a YAML file; a relative path is looked up in the working directory, then in the model's folder.
            Defaults to default_config.yaml.
        keys: configuration keys such as coco_root="COCO", epoch_size=2; they override the file's.

    Returns:
        The files and figures that the run leaves in `output_path`.

    Raises:
        InputError: for a key or data that is wrong, in one line.
        NotFiniteError: an ArithmeticError: a loss is NaN or infinite.
    """
    resolved = configure(config, keys, classes_of_data=True)
    if resolved.pre_trained:
        check_pretrained(resolved)
    from .training.run import train as run  # after the checks: importing MindSpore takes seconds

    return run(resolved)


@input_errors()
def evaluate(config: Config | str | os.PathLike | None = None, **keys: Any) -> Scores:
    """Score a network or a file of detections like eval.py: print the figures and write them to `output_path`.

    Args:
        config: see `train`; or a .ckpt, .mindir or .onnx file, with the configuration beside it as for Detector; or the name of
            published weights.
        keys: configuration keys: the network (checkpoint_path, mindir_path, onnx_path) or `detections`, and the data.

    Returns:
        The scores of the boxes: `scores["AP"]`, 0 to 1, `scores.per_class["cat"]["AP50"]`. scores.others holds those of masks
        ("segm") and of VOC data ("voc").

    Raises:
        InputError: for a key or data that is wrong, in one line.
    """
    weights = None
    if isinstance(config, (str, os.PathLike)) and (Path(config).suffix.lower() in KEYS or is_name(config)):
        weights = weights_file(config, "config", whole=True)
        config, keys = find_config(weights), {key_of(weights): str(weights), **keys}
    with own_model(weights):
        resolved = configure(config, keys)
    if resolved.detections:
        from .evaluation.report import evaluate_file as score
    else:
        from .evaluation.network import evaluate_network as score
    return score(resolved)


@input_errors()
def export(checkpoint: str | os.PathLike, **keys: Any) -> list[Path]:
    """Write a checkpoint's network with its weights as `file_name` in `file_format`, like export.py.

    Args:
        checkpoint: a .ckpt file, with the configuration beside it as for Detector; or the name of published weights.
        keys: configuration keys such as file_format="ONNX" (or MINDIR, AIR), file_name="net.onnx".

    Returns:
        The files: one, or several with split=True.

    Raises:
        InputError: for a key or file that is wrong, in one line.
    """
    path = weights_file(checkpoint, "checkpoint", whole=True)
    with own_model(path):
        resolved = configure(find_config(path), {"ckpt_file": str(path), **keys})
    from .inference.export import export as write

    return write(resolved)


def configure(config: Config | str | os.PathLike | None, keys: Mapping[str, Any], classes_of_data: bool = False) -> Config:
    """Return the configuration, overridden by `keys`. classes_of_data: see parse_config."""
    texts = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in keys.items()}
    if not isinstance(config, Config):
        return load_config(config_file(config), texts, classes_of_data=classes_of_data)
    with tempfile.TemporaryDirectory() as folder:       # as a file, so that its presets are resolved before `keys`
        path = Path(folder, "config.yaml")
        save_config(config, path, () if config.num_classes else ("num_classes", "coco_classes"))
        return load_config(path, texts, classes_of_data=classes_of_data)
