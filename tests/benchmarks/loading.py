"""Loading speed: what data.py --load measures."""
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def measure_loading(files, count: int, height: int, width: int, batch: int, workers: int, epochs: int = 3) -> dict:
    """Return the speed of reading, decoding, augmenting, normalising and batching, as in training and evaluation.

    files, count: from the manifest. The first epoch is not counted: it fills the file cache.
    """
    from faster_rcnn.src.model_utils.data.augmentation import Augmenter
    from faster_rcnn.src.model_utils.data.loading import EvalBatches, TrainTransform, create_dataset, iterate
    from faster_rcnn.src.model_utils.data.transforms import InputSize, Preprocess

    preprocess = Preprocess(InputSize(height, width), (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
    report = {"load_height": height, "load_width": width, "load_batch": batch, "load_workers": workers, "images": count}
    values = {"flip_ratio": 0.5, "expand_ratio": 1.0, "expand_factor": 2.0, "photo_ratio": 1.0, "multi_scale": (0.8, 0.9, 1.0)}
    for name, augmenter in (("flip", Augmenter(["flip"], values)),
                            ("all", Augmenter(["photo", "expand", "multi_scale", "flip"], values))):
        transform, seconds, first = TrainTransform(preprocess, augmenter, 128, 1), [], []
        for epoch in range(epochs + 1):
            start = time.perf_counter()
            data = iterate(create_dataset(files, count, transform, batch, epoch=epoch, workers=workers))
            next(data)
            first.append(time.perf_counter() - start)
            steps = 1 + sum(1 for _ in data)
            seconds.append(time.perf_counter() - start)
        report[f"train_{name}_images_per_s"] = round(steps * batch * epochs / sum(seconds[1:]), 1)
        report[f"train_{name}_first_batch_s"] = round(max(first), 3)
    start = time.perf_counter()
    for _ in EvalBatches(files, count, preprocess, 1, workers=workers):
        pass
    report["eval_images_per_s"] = round(count / (time.perf_counter() - start), 1)
    report["peak_rss_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return report
