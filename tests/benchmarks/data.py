"""Time data conversion and loading; print one JSON line.

usage: python tests/benchmarks/data.py [--workers 2] [--rounds 15] [--load] [--height 768] [--width 1280] [--batch 2]
                                       [--data_dir DIR] [--work_dir DIR]

Conversion: the 80 training images of coco_mini ($DATA_DIR) to MindRecord, compared with copying the same files (shutil.copy) and
parsing the same JSON. The two alternate and write to fresh folders on one file system. `copy_ratio` is the copy's median time
divided by the conversion's, so it is the fraction of copy speed. `convert_with_masks_s` is for Mask R-CNN. All files are in the
page cache. MindSpore is not needed, and interpreter startup is not counted.

Loading, with --load: batches read from the converted files, see loading.py. Compare it with the training step of step.py.
"""
import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from utils.mindrecord import convert  # noqa: E402


def timed(function, *args) -> float:
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start


def copy_set(image_dir: Path, annotations: Path, target: Path) -> None:
    target.mkdir()
    for path in image_dir.iterdir():
        shutil.copy(path, target)
    json.loads(annotations.read_bytes())


def convert_set(image_dir: Path, annotations: Path, target: Path, workers: int, masks: bool) -> None:
    convert("coco", image_dir, annotations, target, workers=workers, progress=False, masks=masks)


def time_conversion(data_dir: Path, work_dir, workers: int, rounds: int) -> dict:
    """Return median times over `rounds` rounds, after one warm-up round."""
    image_dir = data_dir / "coco_mini" / "train2017"
    annotations = data_dir / "coco_mini" / "annotations" / "instances_train2017.json"
    turns = {"copy": (copy_set,), "convert": (convert_set, workers, False), "masks": (convert_set, workers, True)}
    times = {name: [] for name in turns}
    with tempfile.TemporaryDirectory(dir=work_dir) as folder:
        for number in range(rounds + 1):
            for name, (function, *extra) in turns.items():
                target = Path(folder) / f"{name}{number}"
                times[name].append(timed(function, image_dir, annotations, target, *extra))
                shutil.rmtree(target)
    copy_s, convert_s, masks_s = (statistics.median(times[name][1:]) for name in turns)
    images = len(list(image_dir.iterdir()))
    return {"pictures": images, "megabytes": round(sum(path.stat().st_size for path in image_dir.iterdir()) / 1e6, 1),
            "workers": workers, "rounds": rounds, "convert_s": round(convert_s, 4), "copy_s": round(copy_s, 4),
            "convert_with_masks_s": round(masks_s, 4),
            "pictures_per_s": round(images / convert_s), "copy_ratio": round(copy_s / convert_s, 2)}


def time_loading(args) -> dict:
    from loading import measure_loading  # imports MindSpore

    with tempfile.TemporaryDirectory(dir=args.work_dir) as folder:
        coco = args.data_dir / "coco_mini"
        manifest = convert("coco", coco / "train2017", coco / "annotations" / "instances_train2017.json",
                           Path(folder) / "converted", workers=args.workers, progress=False)
        files = [Path(folder) / "converted" / name for name in manifest["files"]]
        return measure_loading(files, manifest["count"], args.height, args.width, args.batch, args.workers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--data_dir", type=Path, default=os.environ.get("DATA_DIR") or ROOT.parent / "shared" / "data")
    parser.add_argument("--work_dir", help="where to write (the folder for temporary files)")
    parser.add_argument("--load", action="store_true", help="time loading too")
    for name, default in (("height", 768), ("width", 1280), ("batch", 2)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"of loading (default: {default})")
    args = parser.parse_args()
    report = time_conversion(args.data_dir, args.work_dir, args.workers, args.rounds)
    if args.load:
        report |= time_loading(args)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
