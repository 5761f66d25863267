"""train.py with a toy network in place of the detector, so that a run takes seconds.

usage: python tests/toy_train.py [--toy_model=faster_rcnn|mask_rcnn|refinedet] [--toy_delay=SECONDS] --key=value ...
"""
import runpy
import sys
import time
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"faster_rcnn": "src.FasterRcnn", "mask_rcnn": "src.MaskRcnn", "refinedet": "src"}


def stand_ins(model: str, delay: float) -> dict:
    """Return the modules that train.py imports, by name. delay: seconds added to each step."""
    from tests import toy_network

    toy, loss_names = {"faster_rcnn": (toy_network.ToyDetector, toy_network.LOSS_NAMES),
                       "mask_rcnn": (toy_network.ToyMaskDetector, toy_network.MASK_LOSS_NAMES),
                       "refinedet": (toy_network.ToyOneStage, toy_network.ONE_STAGE_LOSS_NAMES)}[model]

    class SlowDetector(toy):
        def noise_shapes(self, batch_size):
            return _SlowShapes(super().noise_shapes(batch_size), delay)

    detector, resnet, init_params = (types.ModuleType(name) for name in (
        f"{PACKAGES[model]}.{model}", f"{PACKAGES[model]}.resnet", "src.init_params"))
    detector.LOSS_NAMES = loss_names
    detector.build_network = lambda config, fast: SlowDetector(config.num_classes)

    def calibrate_norms(backbone, images, missing):
        print(f"calibrate {tuple(images.shape)} {len(missing)}")
        return 0

    def zero_init_residuals(backbone, missing):
        print(f"identity {len(missing)}")
        return 3

    resnet.calibrate_norms, resnet.zero_init_residuals = calibrate_norms, zero_init_residuals
    init_params.set_first_weights = lambda net, config, batches: print(f"first weights of {len(list(net.get_parameters()))}")
    modules = (detector, init_params) if model == "refinedet" else (detector, resnet)
    return {module.__name__: module for module in modules}


class _SlowShapes(dict):
    """Noise shapes. Training reads them once per step."""

    def __init__(self, shapes, delay):
        super().__init__(shapes)
        self.delay = delay

    def values(self):
        time.sleep(self.delay)
        return super().values()


if __name__ == "__main__":
    own = dict(item[len("--toy_"):].split("=", 1) for item in sys.argv[1:] if item.startswith("--toy_"))
    model = own.get("model", "faster_rcnn")
    script = ROOT / model / "train.py"
    sys.argv = [str(script), *(item for item in sys.argv[1:] if not item.startswith("--toy_"))]
    sys.path[:1] = [str(script.parent), str(ROOT)]
    from src.model_utils.signals import end_at_signals

    end_at_signals()
    from src.model_utils.local_adapter import prepare_environment

    prepare_environment()
    sys.modules.update(stand_ins(model, float(own.get("delay", 0))))
    runpy.run_path(str(script), run_name="__main__")
