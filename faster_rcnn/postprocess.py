"""Prepare the C++ program of ascend310_infer with its settings, or score its results on annotated images.

usage: python postprocess.py --settings_path=FILE [--config_path=F] [--key=value ...]
       python postprocess.py --results_path=RESULTS.jsonl --image_dir=D --anno_path=A [--config_path=F] [--key=value ...]

The first command writes the settings as lines of a key and its value; if the configuration names annotations that exist, it
reads them, to report errors before the program runs. The second command writes to output_path what eval.py writes, and
its output to acc.log.
"""
from src.model_utils.signals import end_at_signals

end_at_signals()                    # before other imports

from pathlib import Path

from src.model_utils.local_adapter import prepare_environment
from src.model_utils.own_utils import use_own_utils

HERE = Path(__file__).resolve().parent
use_own_utils()
prepare_environment()               # before MindSpore's import

from src.model_utils.config import parse_config, run_main
from src.model_utils.evaluation.program import postprocess


def main() -> None:
    postprocess(parse_config(default_path=HERE / "default_config.yaml", description=__doc__.splitlines()[0]))


if __name__ == "__main__":
    run_main(main)
