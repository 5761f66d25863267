"""Score what the program of ascend310_infer found in annotated pictures; before that, tell it the configuration.

usage: python postprocess.py --settings_path=FILE [--config_path=F] [--key=value ...]
       python postprocess.py --results_path=RESULTS.jsonl --image_dir=D --anno_path=A [--config_path=F] [--key=value ...]

The first writes what the program has to know, lines of a key and its value; annotations that the configuration names are
read, where they are there, so that a fault shows before the program runs. The second writes to output_path what eval.py
writes, and acc.log with what it prints.
"""
import contextlib
import io
import json
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))   # utils/

from src.model_utils.local_adapter import prepare_environment

prepare_environment()               # before MindSpore is imported

import numpy as np
from src.data_source import find_source
from src.model_utils.config import Config, InputError, parse_config, require_path, run_main
from src.outputs import program_settings
from src.util import Predictions

# What the program reads of every model.
SETTINGS = ("num_classes", "img_height", "img_width", "pad_to", "keep_ratio", "size_rounding", "resize_mode", "image_mean",
            "image_std", "to_rgb")


def main() -> None:
    config = parse_config(default_path=HERE / "default_config.yaml", description=__doc__.splitlines()[0])
    if bool(config.settings_path) == bool(config.results_path):
        raise InputError("give one of --settings_path, to write the program's settings, and --results_path, to score its results")
    if config.settings_path:
        check_annotations(config)
        write_settings(config)
        return
    start = time.monotonic()
    results = require_path(config, "results_path", "file")
    categories, ids = annotated(config)
    predictions = read_results(results, categories, ids)
    output = Path(config.output_path)
    output.mkdir(parents=True, exist_ok=True)
    predictions.save(output / "detections.json")
    text = scored(config, output, start)
    (output / "acc.log").write_text(text, encoding="utf-8")
    print(text, end="")


def write_settings(config) -> None:
    """A line `name value` for each of SETTINGS and those of the model; the numbers of a list stand between spaces."""
    if config.pad_to == "divisor":
        raise InputError("pad_to: an exported network takes inputs of one size: fixed or HEIGHTxWIDTH")
    values = {**{key: config[key] for key in SETTINGS}, **program_settings(config)}
    if config.runtime_num_threads:
        values["threads"] = config.runtime_num_threads
    lines = [f"{name} {' '.join(map(str, value)) if isinstance(value, tuple) else value}\n" for name, value in values.items()]
    try:
        Path(config.settings_path).write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise InputError(f"settings_path: {config.settings_path} cannot be written: {error.strerror}") from error


def check_annotations(config) -> None:
    """A fault of annotations that are there is told before the program runs, not after."""
    source = find_source(config, train=False)
    if all(source[name] and Path(source[name]).exists() for name in ("image_dir", "anno_path")):
        annotated(config)


def annotated(config) -> tuple:
    """(categories, {file name: image id}) of the ground truth."""
    from utils.mindrecord import read_annotations

    source = find_source(config, train=False)
    names = ("source", "image_dir", "anno_path", "classes", "image_set")
    records, categories, _ = read_annotations(**{name: source[name] for name in names})
    return categories, {record.file_name: record.image_id for record in records}


def read_results(path: Path, categories, ids: dict) -> Predictions:
    """The detections of the pictures that are annotated; says on stderr which are not, and which are missing."""
    predictions = Predictions(categories, encode=_as_they_are)
    strange, seen = [], set()
    with path.open(encoding="utf-8", errors="surrogateescape") as stream:     # a file's name may be of any bytes
        for number, line in enumerate(stream, 1):
            try:
                item = json.loads(line)
                name = item["file_name"]
                if name in ids and "problem" not in item:
                    add_picture(predictions, item, ids[name])
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{path}: line {number}: not a line of results ({type(error).__name__}: {error})") from error
            seen.add(name)
            if name not in ids:
                strange.append(name)
    missing = [name for name in ids if name not in seen]
    if strange:
        print(f"{len(strange)} pictures are not annotated, so not scored, such as {ascii(strange[0])}", file=sys.stderr)
    if missing:
        print(f"{len(missing)} annotated pictures are not in the results: their objects count as missed, such as "
              f"{ascii(missing[0])}", file=sys.stderr)
    if len(missing) == len(ids):
        raise InputError(f"{path}: holds none of the {len(ids)} annotated pictures: other annotations, or another folder?")
    return predictions


def _as_they_are(masks, boxes, height: int, width: int) -> list:
    """The program has encoded them."""
    return [{"counts": counts} for counts in masks]


def add_picture(predictions: Predictions, item: dict, image_id: int) -> None:
    count = len(item["scores"])
    masks = [np.array([item["masks"]], object)] if "masks" in item else []
    boxes = np.array(item["boxes"], np.float32).reshape(1, count, 4)
    scores, labels = (np.array([item[key]]) for key in ("scores", "labels"))
    predictions.add(boxes, scores.astype(np.float32), labels.astype(np.int64), np.ones((1, count), bool),
                    np.array([item["image_info"]], np.float32), [image_id], *masks)


def scored(config, output: Path, start: float) -> str:
    """What eval.py prints of detections.json; it writes metrics.json and the curves."""
    import eval as evaluation

    ground_truth = find_source(config, train=False)["anno_path"] if config.dataset == "coco" else ""
    changes = {"detections": str(output / "detections.json"), "checkpoint_path": "", "mindir_path": "", "onnx_path": "",
               "val_anno_path": ground_truth or config.val_anno_path}
    config = Config({**config.to_dict(), **changes})
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        evaluation.report(*evaluation.score_file(config), config, output, time.monotonic() - start)
    return text.getvalue()


if __name__ == "__main__":
    run_main(main)
