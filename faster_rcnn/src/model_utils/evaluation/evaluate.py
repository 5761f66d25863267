"""The evaluation of a network on an annotated set, for training and for eval.py alike.

    network --Evaluation.detect--> Detections of all ranks --Evaluation.score--> Scores, one of each kind in IOU_TYPES
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
    """A set to evaluate on. If several ranks share it, every rank must make one and call its methods.

    InputError on rank 0 if its annotations cannot be scored: neither an epoch nor hours of inference are to end in that.

    Args:
        data: the set.
        config: see default_config.yaml.
        rank, ranks: number of this process and of all that evaluate together.
        feed: of what `detect` gets; default: that of the network itself.
    """

    def __init__(self, data: DataInfo, config: Config, rank: int = 0, ranks: int = 1, feed: Feed | None = None):
        self.data, self.scorer, self.max_dets, self.rank, self.ranks = data, config.scorer, config.max_dets, rank, ranks
        self.encode, self.keep_empty = mask_encoder(config), config.get("keep_empty_boxes", False)   # not every model's
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
        """Run `predict(image, image_info)` on this rank's images; every rank returns the detections of all ranks."""
        gather = functools.partial(exchange, ranks=self.ranks) if self.ranks > 1 else None
        return collect(predict, self.batches, self.data.categories, self.batches.count, encode=self.encode, gather=gather,
                       keep_empty=self.keep_empty)

    def score(self, found: Detections) -> list[Scores]:
        """Score what was found, a COCO AP of each kind in IOU_TYPES. Only one rank needs to call it."""
        ground_truth = self.data.ground_truth()
        return [coco_ap(ground_truth, found, kind, self.scorer, self.max_dets) for kind in IOU_TYPES]

    def run(self, predict: Callable[[np.ndarray, np.ndarray], Iterable]) -> list[Scores]:
        """Detect and score: rank 0 computes the scores, every rank returns their figures (without the curves)."""
        found = self.detect(predict)

        def score() -> list[tuple]:
            return [(item.iou_type, item.figures, item.per_class, item.images, item.detections) for item in self.score(found)]

        return [Scores(*fields) for fields in from_first(score, self.rank, self.ranks, "evaluation")]
