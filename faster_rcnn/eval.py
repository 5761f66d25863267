"""Score a checkpoint, or a file of detections, on annotated pictures: COCO AP.

usage: python eval.py --config_path=F --checkpoint_path=C --coco_root=D [--anno_path=A] [--key=value ...]
       (or --mindir_path, --onnx_path: an exported network)
       python eval.py --detections=RESULTS.json --anno_path=GROUND_TRUTH.json [--scorer=faster|pycocotools]

Writes metrics.json, detections.json and pr_curves.png to output_path.
"""
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))   # utils/

from src.model_utils.local_adapter import prepare_environment

prepare_environment()               # before MindSpore is imported

from src.coco_scores import clean_ground_truth, coco_ap, read_json
from src.model_utils.config import InputError, parse_config, require_path, run_main
from src.util import run_inference, write_metrics


def main() -> None:
    config = parse_config(default_path=HERE / "default_config.yaml", description=__doc__.splitlines()[0])
    output = Path(config.output_path)
    start = time.monotonic()
    scores = score_file(config) if config.detections else score_network(config, output)
    report(scores, config, output, time.monotonic() - start)


def score_network(config, output: Path):
    """Scores of a network on the evaluation set; writes detections.json before they are computed."""
    from src.dataset import EvalBatches, build_preprocess, prepare_data
    from src.model_utils.local_adapter import setup_device
    from src.predictors import find_model, load_predictor

    find_model(config, "detections")
    device = setup_device(config)
    data = prepare_data(config, train=False)
    ground_truth = data.ground_truth()
    clean_ground_truth(ground_truth)    # hours of inference are not to end in a fault of the annotations
    predict = load_predictor(config, device)
    batches = EvalBatches(data.files, data.count, build_preprocess(config), config.test_batch_size,
                          workers=config.num_parallel_workers)
    predictions = run_inference(predict, batches, data.categories, data.count)
    output.mkdir(parents=True, exist_ok=True)
    predictions.save(output / "detections.json")
    return coco_ap(ground_truth, predictions, "bbox", config.scorer)


def score_file(config):
    """Scores of a file of COCO results."""
    others = [key for key in ("checkpoint_path", "mindir_path", "onnx_path") if config[key]]
    if others:
        raise InputError(f"give one of --detections and --{others[0]}, not both")
    detections = require_path(config, "detections", "file")
    if config.dataset == "coco":
        return coco_ap(_limit_classes(_coco_file(config), config.coco_classes), detections, "bbox", config.scorer)
    from src.dataset import DataInfo, find_source
    ground_truth = DataInfo((), 0, [], find_source(config, train=False)).ground_truth()
    return coco_ap(ground_truth, detections, "bbox", config.scorer)


def _coco_file(config) -> Path:
    """The annotation file alone: scoring needs no pictures."""
    path = config.val_anno_path or config.anno_path
    if not path and config.coco_root:
        path = Path(config.coco_root) / config.instance_set.format(config.val_data_type)
    if not path:
        raise InputError("anno_path is needed: give --anno_path=GROUND_TRUTH.json or --coco_root=...")
    return Path(path)


def _limit_classes(path: Path, classes) -> dict:
    """The ground truth; of the classes those alone that the configuration names, if it names a part of them."""
    _, truth = read_json(path, "ground truth")
    named = [item for item in truth.get("categories", ()) if item.get("name") in classes[1:]] if classes else []
    return {**truth, "categories": named} if named and len(named) == len(classes) - 1 else truth


def report(scores, config, output: Path, seconds: float) -> None:
    """Print the figures and write metrics.json and pr_curves.png."""
    from src.plots import plot_pr_curves

    output.mkdir(parents=True, exist_ok=True)
    write_metrics(output / "metrics.json", scores, config=config.to_dict(), seconds=round(seconds, 2))
    plot_pr_curves(scores, output / "pr_curves.png")
    for line in [*scores.lines(), "", *scores.class_table()]:
        print(line)
    for note in scores.notes:
        print(f"note: {note}")
    print(f"{scores.images} images, {scores.detections} detections, {seconds:.1f} s; written to {output}")


if __name__ == "__main__":
    run_main(main)
