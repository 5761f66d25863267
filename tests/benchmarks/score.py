"""Time COCO scoring on synthetic detections; print one JSON line.

usage: python tests/benchmarks/score.py [--images 1000] [--detections 100] [--objects 7] [--classes 80]
                                        [--scorers faster,pycocotools]

`set_rss_mb` is the memory before scoring, detections included; `peak_rss_mb` is the peak during scoring. RefineDet on COCO's
val2017: --images=5000 --detections=200 --scorers=faster.
"""
import argparse
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from faster_rcnn.src.model_utils.evaluation.coco_scores import coco_ap  # noqa: E402
from faster_rcnn.src.model_utils.evaluation.detections import Collector  # noqa: E402

SIZE = 640.0    # side of an image


def make_set(images: int, detections: int, objects: int, classes: int, seed: int = 0) -> tuple:
    """Return (ground truth, Detections). Each object is found once, with some error; the rest is low-score noise."""
    rng = np.random.default_rng(seed)
    categories = [{"id": k + 1, "name": f"class {k + 1}", "label": k + 1} for k in range(classes)]
    image_list = [{"id": i + 1, "height": int(SIZE), "width": int(SIZE)} for i in range(images)]
    ground_truth = {"images": image_list, "annotations": [], "categories": categories}
    collector = Collector(categories)
    info = np.array([[SIZE, SIZE, 1, 1, SIZE, SIZE]])
    for image_id in range(1, images + 1):
        sides = np.exp(rng.uniform(np.log(12), np.log(400), (max(objects, detections), 2)))
        corners = rng.uniform(0, 1, sides.shape) * (SIZE - sides)
        boxes = np.concatenate([corners, corners + sides], 1)
        labels = rng.integers(1, classes + 1, len(boxes))
        for box, label in zip(boxes[:objects].tolist(), labels[:objects].tolist()):
            width, height = box[2] - box[0], box[3] - box[1]
            ground_truth["annotations"].append({"id": len(ground_truth["annotations"]) + 1, "image_id": image_id,
                                                "category_id": label, "bbox": [box[0], box[1], width, height],
                                                "area": width * height, "iscrowd": 0})
        found = boxes[:detections] + rng.normal(0, 0.06, (detections, 4)) * np.tile(sides[:detections], 2)
        real = np.arange(detections) < objects
        scores = np.where(real, rng.uniform(0.2, 1, detections), rng.uniform(0.05, 0.5, detections))
        valid = np.ones((1, detections), bool)
        collector.add(found[None], scores[None], labels[None, :detections], valid, info, [image_id])
    return ground_truth, collector.detections()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("images", 1000), ("detections", 100), ("objects", 7), ("classes", 80)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--scorers", default="faster,pycocotools")
    args = parser.parse_args()
    ground_truth, predictions = make_set(args.images, args.detections, args.objects, args.classes)
    report = {"images": args.images, "detections": len(predictions), "objects": len(ground_truth["annotations"]),
              "classes": args.classes}
    figures = []
    report["set_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    for scorer in args.scorers.split(","):
        start, start_cpu = time.perf_counter(), time.process_time()
        scores = coco_ap(ground_truth, predictions, "bbox", scorer)
        report[f"{scorer}_s"] = round(time.perf_counter() - start, 3)
        report[f"{scorer}_cpu_s"] = round(time.process_time() - start_cpu, 3)
        report[f"{scorer}_AP"] = round(scores["AP"], 6)
        figures.append(list(scores.figures.values()))
    report["largest_difference"] = float(np.ptp(figures, axis=0).max())
    report["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(report))


if __name__ == "__main__":
    main()
