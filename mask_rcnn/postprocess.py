# Same as faster_rcnn/postprocess.py
"""Write the settings of the C++ program in ascend310_infer, or score its results on annotated images.

usage: python postprocess.py --settings_path=FILE [--config_path=F] [--key=value ...]
       python postprocess.py --results_path=RESULTS.jsonl --image_dir=D --anno_path=A [--config_path=F] [--key=value ...]

The first command writes one setting per line, a key and its value. If the configuration names annotations that exist, they
are checked too, so that errors are reported before the program runs. The second command writes the files of eval.py to
output_path, and the printed scores to acc.log.
"""
from src.model_utils.signals import end_at_signals

end_at_signals()                    # must precede the other imports, which take seconds

from pathlib import Path

from src.model_utils.local_adapter import prepare_environment
from src.model_utils.own_utils import use_own_utils

HERE = Path(__file__).resolve().parent
use_own_utils()
prepare_environment()               # must precede the import of MindSpore, which reads the environment

from src.model_utils.config import parse_config, run_main
from src.model_utils.evaluation.program import postprocess


def main() -> None:
    postprocess(parse_config(default_path=HERE / "default_config.yaml", description=__doc__.splitlines()[0]))


if __name__ == "__main__":
    run_main(main)
