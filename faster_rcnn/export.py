"""Export a checkpoint's network as MINDIR, ONNX or AIR: weights and inference with NMS, in one file.

usage: python export.py --config_path=F --ckpt_file=C [--file_format=MINDIR|ONNX|AIR] [--file_name=N] [--key=value ...]

The network takes image (N, 3, H, W), normalised, and image_info (N, 6) (see src/dataset.py), and returns the OUTPUTS of
src/model.py. N is test_batch_size; H x W is the padded input. infer.py and eval.py run MINDIR files (--mindir_path) and ONNX
files (--onnx_path) with the same configuration.
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
    config = parse_config(weights_arguments(sys.argv[1:], "ckpt_file"), default_path=HERE / "default_config.yaml",
                          required=("ckpt_file", "file_name"), description=__doc__.splitlines()[0],
                          prepare=functools.partial(as_job, weights="ckpt_file"))
    from src.model_utils.inference.export import export  # imported late: MindSpore takes seconds

    export(config)


if __name__ == "__main__":
    run_main(main)
