# Same as faster_rcnn/eval.py
"""Score a checkpoint, or a file of detections, on annotated pictures: COCO AP.

usage: python eval.py --config_path=F --checkpoint_path=C --coco_root=D [--anno_path=A] [--key=value ...]
       (with --distribute=True and a launcher such as msrun: the pictures are shared among its processes;
        or --mindir_path, --onnx_path: an exported network)
       python eval.py --detections=RESULTS.json --anno_path=GROUND_TRUTH.json [--scorer=faster|pycocotools]

Writes metrics.json, detections.json and pr_curves.png to output_path; of masks also segm_pr_curves.png.
"""
import functools
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))   # utils/

from src.model_utils.local_adapter import prepare_environment

prepare_environment()               # before MindSpore is imported

from src.coco_inputs import clean_ground_truth, read_json
from src.coco_scores import class_table, coco_ap
from src.model_utils.config import InputError, parse_config, require_path, run_main
from src.model_utils.moxing_adapter import as_job
from src.outputs import IOU_TYPES, mask_encoder, own_scores
from src.util import run_inference, write_metrics


def main() -> None:
    config = parse_config(default_path=HERE / "default_config.yaml", description=__doc__.splitlines()[0],
                          prepare=functools.partial(as_job, weights="checkpoint_path", data=True))
    output = Path(config.output_path)
    start = time.monotonic()
    if config.detections:
        report(*score_file(config), config, output, time.monotonic() - start)
        return
    from src.model_utils.local_adapter import get_ranks, setup_device
    from src.predictors import find_model
    from src.ranks import from_first

    find_model(config, "detections")
    device = setup_device(config)
    rank, ranks = get_ranks(config)
    ground_truth, predictions = infer_all(config, device, rank, ranks)

    def finish():
        report(*score_network(ground_truth, predictions, config, output), config, output, time.monotonic() - start)

    from_first(finish, rank, ranks, "evaluation")


def infer_all(config, device: str, rank: int, ranks: int) -> tuple:
    """(ground truth, which rank 0 alone has; Predictions of the whole evaluation set)."""
    from src.dataset import EvalBatches, build_preprocess, prepare_data
    from src.predictors import load_predictor
    from src.ranks import exchange, first_then_others

    data = first_then_others(lambda: prepare_data(config, train=False), rank, ranks, "conversion of the data",
                             config.data_timeout)
    ground_truth = data.ground_truth() if rank == 0 else None
    for kind in IOU_TYPES if rank == 0 else ():     # hours of inference are not to end in a fault of the annotations
        clean_ground_truth(ground_truth, kind)
    predict = load_predictor(config, device)
    batches = EvalBatches(data.files, data.count, build_preprocess(config), config.test_batch_size, rank=rank, rank_size=ranks,
                          workers=config.num_parallel_workers)
    gather = functools.partial(exchange, ranks=ranks) if ranks > 1 else None
    return ground_truth, run_inference(predict, batches, data.categories, batches.count, encode=mask_encoder(config),
                                       gather=gather)


def score_network(ground_truth, predictions, config, output: Path) -> tuple:
    """`score` of what a network found; writes detections.json before."""
    output.mkdir(parents=True, exist_ok=True)
    predictions.save(output / "detections.json")
    return score(ground_truth, predictions, IOU_TYPES, config)


def score(ground_truth, results, kinds, config) -> tuple:
    """(COCO AP of each kind, what else the data set is scored by: see outputs.own_scores)."""
    return [coco_ap(ground_truth, results, kind, config.scorer) for kind in kinds], own_scores(config, ground_truth, results)


def score_file(config) -> tuple:
    """`score` of a file of COCO results, of the kinds that it has."""
    others = [key for key in ("checkpoint_path", "mindir_path", "onnx_path") if config[key]]
    if others:
        raise InputError(f"give one of --detections and --{others[0]}, not both")
    detections = require_path(config, "detections", "file")
    if config.dataset == "coco":
        ground_truth = _limit_classes(_coco_file(config), config.coco_classes)
    else:
        from src.dataset import DataInfo, find_source
        ground_truth = DataInfo((), 0, [], find_source(config, train=False)).ground_truth()
    return score(ground_truth, detections, _kinds(detections), config)


def _kinds(detections: Path) -> tuple:
    """What of a file is to be scored: other programs may have written boxes alone."""
    if len(IOU_TYPES) == 1:
        return IOU_TYPES
    _, found = read_json(detections, "detections")
    masks = not found or any(isinstance(item, dict) and "segmentation" in item for item in found)
    return IOU_TYPES if masks else ("bbox",)


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


def report(scores: list, others: dict, config, output: Path, seconds: float) -> None:
    """Print the figures and write metrics.json and the curves."""
    from src.plots import plot_pr_curves

    output.mkdir(parents=True, exist_ok=True)
    more = {key: item.to_dict() for key, item in others.items()}
    write_metrics(output / "metrics.json", scores, **more, config=config.to_dict(), seconds=round(seconds, 2))
    for item in scores:
        plot_pr_curves(item, output / f"{'' if item.iou_type == 'bbox' else item.iou_type + '_'}pr_curves.png")
        if len(IOU_TYPES) > 1:
            print(f"Evaluate annotation type *{item.iou_type}*")
        print("\n".join([*item.lines(), ""]))
    print("\n".join(class_table(scores)))
    for item in others.values():
        print("\n".join(["", *item.lines()]))
    for note in dict.fromkeys(note for item in scores for note in item.notes):
        print(f"note: {note}")
    if len(scores) < len(IOU_TYPES):
        print("note: the detections have no masks: boxes alone are scored")
    print(f"{scores[0].images} images, {scores[0].detections} detections, {seconds:.1f} s; written to {output}")


if __name__ == "__main__":
    run_main(main)
