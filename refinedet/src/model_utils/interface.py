# Same as faster_rcnn/src/model_utils/interface.py
"""The Python interface of the model: Detector, train, evaluate, export.

It is set up for MindSpore before MindSpore is imported: the classes and functions here import that where they need it.
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
    """Train, as train.py does, and return what the run leaves in `output_path`.

    Args:
        config: a configuration, or a YAML file; a relative path is looked up in the working directory, then in the model's folder.
            Default: default_config.yaml.
        keys: keys of the configuration, such as coco_root="COCO", epoch_size=2; they override the file's.

    Ctrl-C ends the run after the running step: Run.status is 130 then, and resume="auto" resumes it. In a thread other than the
    main one a run does not notice it, as Python handles signals in the main thread only.

    InputError says in one line what is wrong with a key or the data. NotFiniteError, an ArithmeticError: a loss was not finite.
    """
    resolved = configure(config, keys, classes_of_data=True)
    if resolved.pre_trained:
        check_pretrained(resolved)
    from .training.run import train as run  # MindSpore takes seconds; a wrong key is reported before

    return run(resolved)


@input_errors()
def evaluate(config: Config | str | os.PathLike | None = None, **keys: Any) -> Scores:
    """Score a network or a file of detections, as eval.py does; print the figures and write them to `output_path`.

    Args:
        config: as of `train`; or a .ckpt, .mindir or .onnx file, whose configuration is found as Detector finds it; or the name of
            published weights.
        keys: keys of the configuration: the network (checkpoint_path, mindir_path, onnx_path) or `detections`, and the data.

    Returns the scores of the boxes: `scores["AP"]`, 0 to 1, `scores.per_class["cat"]["AP50"]`. scores.others has those of the masks
    ("segm") and of VOC data ("voc"). InputError says in one line what is wrong.
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
    """Write a checkpoint's network and its weights as `file_name` in `file_format`, as export.py does.

    Args:
        checkpoint: a .ckpt file, whose configuration is found as Detector finds it; or the name of published weights.
        keys: keys of the configuration, such as file_format="ONNX" (or MINDIR, AIR), file_name="net.onnx".

    Returns the files: one, or with split=True several. InputError says in one line what is wrong.
    """
    path = weights_file(checkpoint, "checkpoint", whole=True)
    with own_model(path):
        resolved = configure(find_config(path), {"ckpt_file": str(path), **keys})
    from .inference.export import export as write

    return write(resolved)


def configure(config: Config | str | os.PathLike | None, keys: Mapping[str, Any], classes_of_data: bool = False) -> Config:
    """Return the configuration with `keys` over it. classes_of_data: see parse_config."""
    texts = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in keys.items()}
    if not isinstance(config, Config):
        return load_config(config_file(config), texts, classes_of_data=classes_of_data)
    with tempfile.TemporaryDirectory() as folder:       # a file, because choices among its keys come before `keys`
        path = Path(folder, "config.yaml")
        save_config(config, path, () if config.num_classes else ("num_classes", "coco_classes"))
        return load_config(path, texts, classes_of_data=classes_of_data)
