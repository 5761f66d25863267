# Same as faster_rcnn/postprocess.py
"""Score what the program of ascend310_infer found in annotated pictures; before that, tell it the configuration.

usage: python postprocess.py --settings_path=FILE [--config_path=F] [--key=value ...]
       python postprocess.py --results_path=RESULTS.jsonl --image_dir=D --anno_path=A [--config_path=F] [--key=value ...]

The first writes what the program has to know, lines of a key and its value; annotations that the configuration names are
read, where they are there, so that a fault shows before the program runs. The second writes to output_path what eval.py
writes, and acc.log with what it prints.
"""
from src.model_utils.signals import end_at_signals

end_at_signals()                    # before anything else is imported

from pathlib import Path

from src.model_utils.local_adapter import prepare_environment
from src.model_utils.own_utils import use_own_utils

HERE = Path(__file__).resolve().parent
use_own_utils()
prepare_environment()               # before MindSpore is imported

from src.model_utils.config import parse_config, run_main
from src.model_utils.evaluation.program import postprocess


def main() -> None:
    postprocess(parse_config(default_path=HERE / "default_config.yaml", description=__doc__.splitlines()[0]))


if __name__ == "__main__":
    run_main(main)
