# Same as faster_rcnn/src/model_utils/evaluation/evaluate.py
"""Evaluation of a network on an annotated set, shared by training and eval.py.

    network --Evaluation.detect--> Detections of all ranks --Evaluation.score--> Scores, one per entry of IOU_TYPES
"""
import functools
import logging
from collections.abc import Callable, Iterable

import numpy as np

from ...model import IOU_TYPES, mask_encoder
from ..config import Config
from ..data.loading import EvalBatches, build_preprocess
from ..data.source import DataInfo
from ..inference.view_predictor import Feed
from ..training.ranks import exchange, from_first
from .coco_inputs import clean_ground_truth
from .coco_scores import Scores, coco_ap, crowded
from .detections import Detections, collect

log = logging.getLogger(__name__)


class Evaluation:
    """Evaluation of networks on one annotated set.

    If several ranks share the set, every rank must create an Evaluation and call `detect` or `run`.

    Args:
        data: images and annotations of the set.
        config: see default_config.yaml.
        rank, ranks: index of this process, and number of processes that share the set.
        feed: preprocessing and batch size of the inputs to `predict`; defaults to those of the network in `config`.

    Raises:
        InputError: on rank 0, the annotations cannot be scored. They are checked here, since the scores are computed only
            after an epoch of training or hours of inference.
    """

    def __init__(self, data: DataInfo, config: Config, rank: int = 0, ranks: int = 1, feed: Feed | None = None):
        self.data, self.scorer, self.max_dets, self.rank, self.ranks = data, config.scorer, config.max_dets, rank, ranks
        self.encode, self.keep_empty = mask_encoder(config), config.get("keep_empty_boxes", False)   # some models lack the key
        if rank == 0:
            ground_truth = data.ground_truth()
            for kind in IOU_TYPES:
                truth, notes = clean_ground_truth(ground_truth, kind)
                for note in dict.fromkeys([*notes, *crowded(truth, self.max_dets)]):
                    log.info("evaluation set: %s", note)
        preprocess, batch_size = feed or Feed(build_preprocess(config), config.test_batch_size)
        self.batches = EvalBatches(data.files, data.count, preprocess, batch_size, rank=rank, rank_size=ranks,
                                   workers=config.num_parallel_workers)

    def detect(self, predict: Callable[[np.ndarray, np.ndarray], Iterable]) -> Detections:
        """Run a network on this rank's images and return the detections of all ranks.

        Args:
            predict: predict(image, image_info) -> (boxes, scores, labels, valid[, masks]), see `detections.collect`.
        """
        gather = functools.partial(exchange, ranks=self.ranks) if self.ranks > 1 else None
        return collect(predict, self.batches, self.data.categories, self.batches.count, encode=self.encode, gather=gather,
                       keep_empty=self.keep_empty)

    def score(self, found: Detections) -> list[Scores]:
        """Return the COCO scores of the detections, one per entry of IOU_TYPES. Only one rank needs to call this."""
        ground_truth = self.data.ground_truth()
        return [coco_ap(ground_truth, found, kind, self.scorer, self.max_dets) for kind in IOU_TYPES]

    def run(self, predict: Callable[[np.ndarray, np.ndarray], Iterable]) -> list[Scores]:
        """Detect and score. Rank 0 computes the scores and broadcasts them; every rank returns them without the curves."""
        found = self.detect(predict)

        def score() -> list[tuple]:
            return [(item.iou_type, item.figures, item.per_class, item.images, item.detections) for item in self.score(found)]

        return [Scores(*fields) for fields in from_first(score, self.rank, self.ranks, "evaluation")]
