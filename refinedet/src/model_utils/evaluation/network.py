# Same as faster_rcnn/src/model_utils/evaluation/network.py
"""The evaluation of a network out of a file, on one device or several."""
import time
from pathlib import Path

from ...dataset import prepare_data
from .. import locks
from ..config import Config
from ..inference.backend import open_predictor
from ..inference.predictors import find_model
from ..local_adapter import get_ranks, setup_device
from ..training.ranks import first_then_others, from_first
from ..weights.class_names import with_class_names
from .evaluate import Evaluation
from .report import other_scores, report


def evaluate_network(config: Config) -> None:
    """Run the network on the evaluation set; rank 0 prints the scores and writes them and detections.json to output_path."""
    key, model = find_model(config, "detections")
    if key == "checkpoint_path":
        config = with_class_names(config, model)
    device = setup_device(config)
    rank, ranks = get_ranks(config)
    from_first(lambda: locks.take(config.output_path, locks.RESULTS), rank, ranks, "output_path")
    try:
        _evaluate(config, device, rank, ranks)
    finally:
        locks.release(config.output_path, locks.RESULTS)


def _evaluate(config: Config, device: str, rank: int, ranks: int) -> None:
    start, output = time.monotonic(), Path(config.output_path)
    data = first_then_others(lambda: prepare_data(config, train=False), rank, ranks, "conversion of the data",
                             config.data_timeout)
    evaluation = Evaluation(data, config, rank, ranks)
    found = evaluation.detect(open_predictor(config, device))

    def finish() -> None:
        fault = None
        try:
            found.save(output / "detections.json")
        except OSError as error:        # a full disk must not cost the figures of hours of inference
            fault = error
        scores = evaluation.score(found)
        others = other_scores(config, data.ground_truth(), found)
        report(scores, others, config, output, time.monotonic() - start)
        if fault:
            raise fault

    from_first(finish, rank, ranks, "evaluation")
