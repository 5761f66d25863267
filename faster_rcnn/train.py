"""Train Faster R-CNN.

usage: python train.py --config_path=F --coco_root=D [--pre_trained=C] [--resume=auto|PATH] [--key=value ...]

Writes config.yaml, checkpoint/, loss_0.log, metrics.jsonl and TensorBoard events to output_path. Ctrl-C and SIGTERM stop the run
after the current step; --resume=auto then resumes it with the same results as an uninterrupted run.
"""
from src.model_utils.signals import end_at_signals

end_at_signals()                    # before other imports

import functools
from pathlib import Path

from src.model_utils.local_adapter import prepare_environment
from src.model_utils.own_utils import use_own_utils

HERE = Path(__file__).resolve().parent
use_own_utils()
prepare_environment()               # before MindSpore's import

from src.model_utils.config import parse_config, run_main
from src.model_utils.moxing_adapter import as_job
from src.model_utils.weights.named import check_pretrained


def main() -> int:
    config = parse_config(default_path=HERE / "default_config.yaml", description=__doc__.splitlines()[0],
                          prepare=functools.partial(as_job, weights="pre_trained", data=True), classes_of_data=True)
    if config.pre_trained:
        check_pretrained(config)
    from src.model_utils.training.run import train_command  # imported late: MindSpore takes seconds

    return train_command(config)


if __name__ == "__main__":
    run_main(main)
