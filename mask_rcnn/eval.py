# Same as faster_rcnn/eval.py
"""Evaluate a checkpoint, an exported network or a file of detections: COCO AP.

usage: python eval.py --config_path=F --checkpoint_path=C --coco_root=D [--anno_path=A] [--key=value ...]
       (--mindir_path or --onnx_path evaluates an exported network instead of --checkpoint_path;
        with --distribute=True and a launcher such as msrun, each process evaluates its shard of the images)
       python eval.py --detections=RESULTS.json --anno_path=GROUND_TRUTH.json [--scorer=faster|pycocotools]

Writes metrics.json, detections.json, pr_curves.png and report.html to output_path; a model with masks also writes
segm_pr_curves.png.
"""
from src.model_utils.signals import end_at_signals

end_at_signals()                    # must precede the other imports, which take seconds

import functools
import sys
from pathlib import Path

from src.model_utils.local_adapter import prepare_environment
from src.model_utils.own_utils import use_own_utils

HERE = Path(__file__).resolve().parent
use_own_utils()
prepare_environment()               # must precede the import of MindSpore, which reads the environment

from src.model_utils.config import parse_config, run_main
from src.model_utils.moxing_adapter import as_job
from src.model_utils.weights.named import weights_arguments


def main() -> None:
    config = parse_config(weights_arguments(sys.argv[1:], "checkpoint_path"), default_path=HERE / "default_config.yaml",
                          description=__doc__.splitlines()[0],
                          prepare=functools.partial(as_job, weights="checkpoint_path", data=True))
    # Importing MindSpore takes seconds: invalid options are reported first, and scoring a file of detections does not need it.
    if config.detections:
        from src.model_utils.evaluation.report import evaluate_file as evaluate
    else:
        from src.model_utils.evaluation.network import evaluate_network as evaluate
    evaluate(config)


if __name__ == "__main__":
    run_main(main)
