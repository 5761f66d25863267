# Same as faster_rcnn/infer.py
"""Detect objects in an image, a folder of images or a video.

usage: python infer.py --config_path=F (--checkpoint_path|--mindir_path|--onnx_path)=P --input=IMAGE|FOLDER|VIDEO
                       --output_path=D [--score_thr=T] [--draw=False] [--key=value ...]

Writes D/detections.json: COCO results with file_name (for videos also frame and time in seconds) and boxes (x, y, width,
height) in pixels of the original. Unless --draw=False, also writes the images or the video with the detections
drawn to D/drawn.
"""
from src.model_utils.signals import end_at_signals

end_at_signals()                    # first, so that a signal during the slow imports ends the program cleanly

import functools
import sys
from pathlib import Path

from src.model_utils.local_adapter import prepare_environment
from src.model_utils.own_utils import use_own_utils

HERE = Path(__file__).resolve().parent
use_own_utils()
prepare_environment()               # MindSpore reads the environment when it is imported

from src.model_utils.config import parse_config, run_main
from src.model_utils.moxing_adapter import as_job
from src.model_utils.weights.named import weights_arguments


def main() -> None:
    config = parse_config(weights_arguments(sys.argv[1:], "checkpoint_path"), default_path=HERE / "default_config.yaml",
                          description=__doc__.splitlines()[0], prepare=functools.partial(as_job, weights="checkpoint_path"))
    from src.model_utils.inference.infer import infer  # imported late, so that --help and invalid keys do not wait for it

    infer(config)


if __name__ == "__main__":
    run_main(main)
