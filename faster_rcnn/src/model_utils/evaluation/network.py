"""Evaluation of a checkpoint or an exported network, on one device or several."""
import time
from pathlib import Path

from ...dataset import prepare_data
from .. import locks
from ..config import Config
from ..inference.predictors import find_model
from ..inference.view_predictor import feed_of, open_detection
from ..local_adapter import get_ranks, setup_device
from ..training.ranks import first_then_others, from_first
from ..weights.class_names import with_class_names
from .coco_scores import Scores
from .evaluate import Evaluation
from .report import other_scores, report, with_others


def evaluate_network(config: Config) -> Scores:
    """Run a network on the evaluation set and score its detections.

    Every rank must call this. Each rank runs inference on its shard of the images. Rank 0 computes and prints the scores, and
    writes them and detections.json to output_path.

    Args:
        config: see default_config.yaml; exactly one of checkpoint_path, mindir_path and onnx_path names the network.

    Returns:
        Scores of the boxes. Ranks other than 0 get them without the curves and `others`.

    Raises:
        InputError: the network or the data set cannot be read.
        OSError: detections.json cannot be written; the scores are printed and written first.
    """
    key, model = find_model(config, "detections")
    if key == "checkpoint_path":
        config = with_class_names(config, model)
    device = setup_device(config)
    rank, ranks = get_ranks(config)
    from_first(lambda: locks.take(config.output_path, locks.RESULTS), rank, ranks, "output_path")
    try:
        return _evaluate(config, device, rank, ranks)
    finally:
        locks.release(config.output_path, locks.RESULTS)


def _evaluate(config: Config, device: str, rank: int, ranks: int) -> Scores:
    start, output = time.monotonic(), Path(config.output_path)
    data = first_then_others(lambda: prepare_data(config, train=False), rank, ranks, "conversion of the data",
                             config.data_timeout)
    evaluation = Evaluation(data, config, rank, ranks, feed_of(config))
    found = evaluation.detect(open_detection(config, device))
    whole: list[Scores] = []        # filled on rank 0 only; other ranks get the JSON-serializable fields

    def finish() -> tuple:
        fault = None
        try:
            found.save(output / "detections.json")
        except OSError as error:        # raised after scoring: a full disk must not lose the scores of hours of inference
            fault = error
        scores = evaluation.score(found)
        others = other_scores(config, data.ground_truth(), found)
        report(scores, others, config, output, time.monotonic() - start)
        if fault:
            raise fault
        whole.append(with_others(scores, others))
        return scores[0].iou_type, scores[0].figures, scores[0].per_class, scores[0].images, scores[0].detections

    fields = from_first(finish, rank, ranks, "evaluation")
    return whole[0] if whole else Scores(*fields)
