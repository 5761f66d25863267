"""train.py with a toy network in place of the detector, so that a run takes seconds.

usage: python tests/toy_train.py [--toy_delay=SECONDS] --key=value ...
"""
import runpy
import sys
import time
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "faster_rcnn"


def stand_ins(delay: float) -> dict:
    """Modules that train.py imports, by name. delay: seconds that a step takes longer."""
    from tests.toy_network import LOSS_NAMES, ToyDetector

    class SlowDetector(ToyDetector):
        def noise_shapes(self, batch_size):
            return _SlowShapes(super().noise_shapes(batch_size), delay)

    detector, resnet = types.ModuleType("src.FasterRcnn.faster_rcnn"), types.ModuleType("src.FasterRcnn.resnet")
    detector.LOSS_NAMES = LOSS_NAMES
    detector.build_network = lambda config, fast: SlowDetector(config.num_classes)

    def calibrate_norms(backbone, images, missing):
        print(f"calibrate {tuple(images.shape)} {len(missing)}")
        return 0

    def begin_as_identity(backbone, missing):
        print(f"identity {len(missing)}")
        return 3

    resnet.calibrate_norms, resnet.begin_as_identity = calibrate_norms, begin_as_identity
    return {module.__name__: module for module in (detector, resnet)}


class _SlowShapes(dict):
    """Shapes of the noise, asked for once a step."""

    def __init__(self, shapes, delay):
        super().__init__(shapes)
        self.delay = delay

    def values(self):
        time.sleep(self.delay)
        return super().values()


if __name__ == "__main__":
    script = MODEL / "train.py"
    arguments = sys.argv[1:]
    slow = [item for item in arguments if item.startswith("--toy_delay=")]
    sys.argv = [str(script), *(item for item in arguments if item not in slow)]
    sys.path[:1] = [str(MODEL), str(ROOT)]
    from src.model_utils.local_adapter import prepare_environment

    prepare_environment()
    sys.modules.update(stand_ins(float(slow[0].partition("=")[2]) if slow else 0.0))
    runpy.run_path(str(script), run_name="__main__")
