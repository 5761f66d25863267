"""Helpers for tests of the C++ program in ascend310_infer: the Lite package, the build, images, and comparison of results."""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_utils

from tests import commands

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "ascend310_infer"
FAST_ASAN = "detect_leaks=0:malloc_context_size=3:quarantine_size_mb=16"
STRICT = {"UBSAN_OPTIONS": "print_stacktrace=1", "GLOG_v": "3"}


def lite_home(scratch: Path) -> Path:
    """Return the folder of MindSpore Lite: $MS_LITE_HOME, or a download, kept beside this interpreter if that is writable."""
    if os.environ.get("MS_LITE_HOME"):
        return Path(os.environ["MS_LITE_HOME"])
    folder = Path(sys.prefix if os.access(sys.prefix, os.W_OK) else scratch) / "mindspore-lite-2.0.0"
    if not folder.is_dir():
        done = subprocess.run(["bash", str(SOURCE / "get_lite.sh"), str(folder)], env={**os.environ, "PYTHON": sys.executable},
                              capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, done.stderr
    return folder


def build(folder: Path, lite: Path, *options) -> Path:
    """Build the program in `folder` and return it. Compiler warnings are errors."""
    missing = [name for name in ("cmake", "c++") if not shutil.which(name)]
    if missing:
        pytest.skip(f"not on the PATH: {' and '.join(missing)}")
    for command in (["cmake", "-S", SOURCE, "-B", folder, f"-DMS_LITE_HOME={lite}", "-DWARNINGS_AS_ERRORS=ON",
                     "-DTEST_PROGRAMS=ON", *options], ["cmake", "--build", folder]):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


def smooth_picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 9 + 2, width // 9 + 2, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def write_kinds(folder: Path) -> list:
    """Write images of all common kinds of JPEG and PNG, and two that end early. Return their paths."""
    folder.mkdir()
    image = Image.fromarray(smooth_picture(97, 150))
    image.save(folder / "rgb.jpg", quality=88)
    image.save(folder / "full colour.jpg", quality=95, subsampling=0)
    image.save(folder / "progressive.jpg", progressive=True)
    turned = Image.Exif()
    for turned[0x112] in range(10):
        image.save(folder / f"turned {turned[0x112]}.jpg", exif=turned)
    turned[0x112] = 5
    image.save(folder / "turned.png", exif=turned)
    image.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(smooth_picture(128, 256)).save(folder / "double.jpg")
    for mode in ("L", "P", "RGBA", "1", "LA", "RGB"):
        image.convert(mode).save(folder / f"{mode}.png")
    image.convert("L").save(folder / "grey.jpg")
    image.convert("P").save(folder / "with holes.png", transparency=3)
    rng = np.random.default_rng(1)
    cv2.imwrite(str(folder / "deep.png"), rng.integers(0, 65536, (50, 60, 3)).astype(np.uint16))
    cv2.imwrite(str(folder / "deep grey.png"), rng.integers(0, 65536, (50, 60)).astype(np.uint16))
    for name in ("rgb.jpg", "RGB.png"):
        data = (folder / name).read_bytes()
        (folder / f"half of {name}").write_bytes(data[:len(data) // 2])
    return sorted(folder.iterdir())


def mutated(data: bytes, seed: int) -> bytes:
    """Return the data with a few bytes changed. Every third seed also cuts off the end."""
    rng = np.random.default_rng(seed)
    changed = bytearray(data)
    for place in rng.integers(0, len(data), rng.integers(1, 12)):
        changed[place] = rng.integers(0, 256)
    return bytes(changed[:rng.integers(1, len(data))]) if seed % 3 == 0 else bytes(changed)


def some_damaged(source: Path, folder: Path, whole: int = 3) -> Path:
    """Copy the first `whole` images of `source` to `folder`, and damaged copies of the first three. Return `folder`."""
    folder.mkdir()
    for number, image in enumerate(sorted(source.iterdir())[:3]):
        if number < whole:
            shutil.copy(image, folder)
        (folder / f"damaged {number}.jpg").write_bytes(mutated(image.read_bytes(), number))
    return folder


def told_sanitized(program: Path, *flags) -> tuple:
    """Run `detect`, check that no sanitizer reports anything, and return (status, stderr). Leaks are not checked."""
    done = subprocess.run([str(program / "detect"), *map(str, flags)], capture_output=True, text=True, timeout=120, check=False,
                          env={**os.environ, **STRICT, "ASAN_OPTIONS": FAST_ASAN})
    assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr, done.stderr
    return done.returncode, done.stderr


def run_sanitized(program: Path, *flags) -> int:
    """Return only the status of `told_sanitized`."""
    return told_sanitized(program, *flags)[0]


def unmatched(found: list, wanted: list) -> list:
    """Return the results of `wanted` without a partner in `found`: same image and class, boxes within 0.5 px, scores within 1e-3,
    mask IoU at least 0.98."""
    left = {}
    for result in found:
        left.setdefault((result["image_id"], result["category_id"]), []).append(result)
    lonely = []
    for result in wanted:
        others = left.get((result["image_id"], result["category_id"]), [])
        partner = next((other for other in others if _near(other, result)), None)
        if partner is None:
            lonely.append(result)
        else:
            others.remove(partner)
    return lonely


def _near(a: dict, b: dict) -> bool:
    if np.abs(np.subtract(a["bbox"], b["bbox"])).max() > 0.5 or abs(a["score"] - b["score"]) > 1e-3:
        return False
    if "segmentation" not in b or a["segmentation"] == b["segmentation"]:       # two empty masks have no IoU
        return True
    return mask_utils.iou([a["segmentation"]], [b["segmentation"]], [0])[0, 0] >= 0.98


def run_python(program, *flags, cwd):
    done = commands.run(["python", program, *flags], cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def write_coco(folder: Path, source: Path) -> Path:
    """Write a COCO folder with 6 images of the COCO folder `source`, and a PNG."""
    content = json.loads((source / "annotations" / "instances_val2017.json").read_text())
    content["images"] = sorted(content["images"], key=lambda image: image["file_name"])[:6]
    for name in ("annotations", "val2017"):
        (folder / name).mkdir()
    for image in content["images"]:
        shutil.copy(source / "val2017" / image["file_name"], folder / "val2017")
    cv2.imwrite(str(folder / "val2017" / "000000900001.png"), smooth_picture(120, 90))
    content["images"].append({"id": 900001, "file_name": "000000900001.png", "height": 120, "width": 90})
    ids = {image["id"] for image in content["images"]}
    content["annotations"] = [item for item in content["annotations"] if item["image_id"] in ids]
    (folder / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    return folder


def make_model(model: str, folder: Path, coco: Path, save, files: dict, *flags) -> None:
    """Write a model and its detections (`infer_python`) to the folder.

    save(folder, class names) writes narrow.ckpt and narrow.yaml. `files`, {exported name: new name}, become MINDIR files of the
    version that Lite 2.0 reads. flags: of the export.
    """
    content = json.loads((coco / "annotations" / "instances_val2017.json").read_text())
    save(folder, ["background", *(item["name"] for item in content["categories"])])
    run_python(ROOT / model / "export.py", "--config_path=narrow.yaml", "--ckpt_file=narrow.ckpt", "--file_name=exported", *flags,
               cwd=folder)
    for exported, name in files.items():
        run_python(SOURCE / "mindir_v1.py", f"{exported}.mindir", f"{name}.mindir", cwd=folder)
    infer_python(model, folder, coco)


def infer_python(model: str, folder: Path, coco: Path) -> None:
    """Write what infer.py detects with the folder's network to detections/detections.json."""
    run_python(ROOT / model / "infer.py", "--config_path=narrow.yaml", "--checkpoint_path=narrow.ckpt",
               f"--input={coco / 'val2017'}", "--output_path=detections", "--score_thr=0", "--draw=False", "--backend=mindspore",
               cwd=folder)


def called(repo_dir, model, command, cwd, lite, program, **environment):
    return commands.run(["bash", repo_dir / model / "scripts" / command[0], *command[1:]], cwd, env={
        "PYTHON": commands.PRELOADED.python, "MS_LITE_HOME": lite, "BUILD_DIR": program, **environment})


def learnt_truth(folder, coco) -> dict:
    """Return annotations that the network meets in part: two of three of its detections, every second one shifted."""
    content = json.loads((coco / "annotations" / "instances_val2017.json").read_text())
    found = json.loads((folder / "detections" / "detections.json").read_text())
    boxes = [item for i, item in enumerate(found) if i % 3]
    content["annotations"] = []
    for number, item in enumerate(boxes, 1):
        x, y, width, height = item["bbox"]
        box = [x + (number % 2) * width / 5, y, width, height]
        masks = {key: item[key] for key in ("segmentation",) if key in item}
        content["annotations"].append({"id": number, "image_id": item["image_id"], "category_id": item["category_id"], "bbox": box,
                                     "area": width * height, "iscrowd": 0, **masks})
    return content


def fault(done) -> str:
    assert done.returncode == 2, done.stdout + done.stderr
    return done.stderr.strip().splitlines()[-1]


def check_against_python(model: str, made: Path, mindir: str, coco: Path, tools: tuple, repo_dir: Path, folder: Path) -> None:
    """Check that run_infer_cpp.sh gives the detections of infer.py, and acc.log the scores of eval.py.

    made: folder of `make_model`; tools: (Lite, the build).
    """
    anno_path = folder / "learnt truth.json"
    anno_path.write_text(json.dumps(learnt_truth(made, coco)))
    images = folder / "some pictures"
    shutil.copytree(coco / "val2017", images)
    (images / "000000900002.jpg").write_text("no picture")
    command = ["run_infer_cpp.sh", made / mindir, images, anno_path, "CPU", f"--config_path={made / 'narrow.yaml'}",
               "--report=False"]
    done = called(repo_dir, model, command, folder, *tools)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "000000900002.jpg: neither JPEG nor PNG (10 bytes)" in done.stderr
    assert "7 images, 1 not readable" in done.stdout and "latency of network and NMS in ms: 50%" in done.stdout
    wanted = json.loads((made / "detections" / "detections.json").read_text())
    found = json.loads((folder / "infer_result" / "detections.json").read_text())
    assert abs(len(found) - len(wanted)) <= 0.01 * len(wanted) and len(wanted) > 300
    assert len(unmatched(found, wanted)) <= 0.01 * len(wanted)
    python = run_python(repo_dir / model / "eval.py", f"--detections={made / 'detections' / 'detections.json'}",
                        f"--anno_path={anno_path}", f"--config_path={made / 'narrow.yaml'}", "--report=False",
                        cwd=folder).stdout.splitlines()
    log = (folder / "acc.log").read_text().splitlines()
    python, log = ([line for line in lines if line.startswith(" Average")] for lines in (python, log))
    assert len(log) == len(python) == (24 if "segmentation" in wanted[0] else 12)
    for ours, theirs in zip(log, python):
        assert ours[:-6] == theirs[:-6] and abs(float(ours[-6:]) - float(theirs[-6:])) <= 0.002
    assert 0.2 < float(log[0][-5:]) < 0.9
    with (folder / "infer_result" / "results.jsonl").open() as stream:
        rows = [json.loads(line) for line in stream]
    assert len(rows) == 8 and rows[-1] == {"image_id": 900002, "file_name": "000000900002.jpg",
                                            "problem": "neither JPEG nor PNG (10 bytes)"}
