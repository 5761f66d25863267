# Same as faster_rcnn/eval.py
"""Score a checkpoint or a file of detections on annotated images: COCO AP.

usage: python eval.py --config_path=F --checkpoint_path=C --coco_root=D [--anno_path=A] [--key=value ...]
       (with --distribute=True and a launcher such as msrun, each process evaluates its shard of the images;
        --mindir_path or --onnx_path instead of --checkpoint_path: an exported network)
       python eval.py --detections=RESULTS.json --anno_path=GROUND_TRUTH.json [--scorer=faster|pycocotools]

Writes metrics.json, detections.json, pr_curves.png and report.html to output_path, and segm_pr_curves.png for masks.
"""
from src.model_utils.signals import end_at_signals

end_at_signals()                    # before other imports

import functools
import sys
from pathlib import Path

from src.model_utils.local_adapter import prepare_environment
from src.model_utils.own_utils import use_own_utils

HERE = Path(__file__).resolve().parent
use_own_utils()
prepare_environment()               # before MindSpore's import

from src.model_utils.config import parse_config, run_main
from src.model_utils.moxing_adapter import as_job
from src.model_utils.weights.named import weights_arguments


def main() -> None:
    config = parse_config(weights_arguments(sys.argv[1:], "checkpoint_path"), default_path=HERE / "default_config.yaml",
                          description=__doc__.splitlines()[0],
                          prepare=functools.partial(as_job, weights="checkpoint_path", data=True))
    # Imported late: MindSpore takes seconds, so wrong options are reported first, and a file of detections does not need it.
    if config.detections:
        from src.model_utils.evaluation.report import evaluate_file as evaluate
    else:
        from src.model_utils.evaluation.network import evaluate_network as evaluate
    evaluate(config)


if __name__ == "__main__":
    run_main(main)
