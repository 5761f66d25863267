"""The C++ program of ascend310_infer as tests run it: the Lite package, the build, pictures, and how results are compared."""
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

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "ascend310_infer"


def lite_home(scratch: Path) -> Path:
    """MindSpore Lite: $MS_LITE_HOME, or the one from the package index, kept beside this interpreter if that can be written."""
    if os.environ.get("MS_LITE_HOME"):
        return Path(os.environ["MS_LITE_HOME"])
    folder = Path(sys.prefix if os.access(sys.prefix, os.W_OK) else scratch) / "mindspore-lite-2.0.0"
    if not folder.is_dir():
        done = subprocess.run(["bash", str(SOURCE / "get_lite.sh"), str(folder)], env={**os.environ, "PYTHON": sys.executable},
                              capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, done.stderr
    return folder


def build(folder: Path, lite: Path, *options) -> Path:
    """`folder` with the program in it; stops at the first warning."""
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
    """Pictures of all kinds of JPEG and PNG that people have, and two that end early."""
    folder.mkdir()
    picture = Image.fromarray(smooth_picture(97, 150))
    turned = Image.Exif()
    turned[0x112] = 6
    picture.save(folder / "rgb.jpg", quality=88)
    picture.save(folder / "full colour.jpg", quality=95, subsampling=0)
    picture.save(folder / "progressive.jpg", progressive=True)
    picture.save(folder / "turned.jpg", exif=turned)
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(smooth_picture(128, 256)).save(folder / "double.jpg")
    for mode in ("L", "P", "RGBA", "1", "LA", "RGB"):
        picture.convert(mode).save(folder / f"{mode}.png")
    picture.convert("L").save(folder / "grey.jpg")
    picture.convert("P").save(folder / "with holes.png", transparency=3)
    rng = np.random.default_rng(1)
    cv2.imwrite(str(folder / "deep.png"), rng.integers(0, 65536, (50, 60, 3)).astype(np.uint16))
    cv2.imwrite(str(folder / "deep grey.png"), rng.integers(0, 65536, (50, 60)).astype(np.uint16))
    for name in ("rgb.jpg", "RGB.png"):
        data = (folder / name).read_bytes()
        (folder / f"half of {name}").write_bytes(data[:len(data) // 2])
    return sorted(folder.iterdir())


def mutated(data: bytes, seed: int) -> bytes:
    """A few bytes changed, or the end cut off."""
    rng = np.random.default_rng(seed)
    changed = bytearray(data)
    for place in rng.integers(0, len(data), rng.integers(1, 12)):
        changed[place] = rng.integers(0, 256)
    return bytes(changed[:rng.integers(1, len(data))]) if seed % 3 == 0 else bytes(changed)


def unmatched(found: list, wanted: list) -> list:
    """Of `wanted` those without a partner of its own: same picture and class, box within 0.5 px, score within 1e-3, masks' IoU
    at least 0.98."""
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
    return "segmentation" not in b or mask_utils.iou([a["segmentation"]], [b["segmentation"]], [0])[0, 0] >= 0.98
