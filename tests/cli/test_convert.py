"""Convert another framework's detector, detect with it and convert it back, with commands only."""
import json

import numpy as np

from mask_rcnn.src.MaskRcnn.conversion.detector_weights import detector_shapes, to_framework
from mask_rcnn.src.MaskRcnn.conversion.torch_writer import write_torch
from mask_rcnn.src.model_utils.weights.reader import read_checkpoint
from tests.narrow_network import narrow_mask_config


def test_convert_infer_and_back(tmp_path, coco, repo_dir, run_command):
    """The written YAML is used unchanged: 800 x 1333, each image padded to its own size."""
    rng = np.random.default_rng(0)
    shapes = detector_shapes(narrow_mask_config(coco_classes=[]))
    ours = {name: rng.normal(0, 0.05, shape).astype(np.float32) for name, shape in shapes.items()}
    ours.update({name: np.ones_like(value) for name, value in ours.items() if name.endswith((".gamma", ".moving_variance"))})
    folder, model = tmp_path / "a b", repo_dir / "mask_rcnn"
    folder.mkdir()
    meta = {"CLASSES": ("disc", "box", "bar")}
    write_torch({"meta": meta, "state_dict": to_framework(ours, "mmdet")}, folder / "m.pth")
    done = run_command(["python", "-m", "src.convert_checkpoint", f"--ckpt_file={folder / 'm.pth'}",
                        f"--output_file={folder / 'o.ckpt'}"], cwd=model)
    assert done.returncode == 0, done.stderr
    assert f"wrote {folder / 'o.ckpt'} and {folder / 'o.yaml'}" in done.stdout

    image = sorted((coco / "val2017").iterdir())[0]
    done = run_command(["python", model / "infer.py", "--config_path=o.yaml", "--checkpoint_path=o.ckpt", f"--input={image}",
                        "--output_path=found", "--score_thr=0.05", "--draw=False", "--device_target=CPU"], cwd=folder)
    assert done.returncode == 0, done.stderr
    results = json.loads((folder / "found" / "detections.json").read_text())
    assert results and {result["category_id"] for result in results} <= {0, 1, 2}
    assert all("segmentation" in result for result in results)
    assert "1 image; detections with a score of 0.05 or more: " in done.stdout

    done = run_command(["python", model / "src" / "convert_checkpoint.py", "--ckpt_file=o.ckpt", "--to=mmdet"], cwd=folder)
    assert done.returncode == 0, done.stderr
    written, read = (read_checkpoint(folder / name) for name in ("o_mmdet.pth", "m.pth"))
    assert written.meta["dataset_meta"] == {"classes": ["disc", "box", "bar"]}
    assert written.arrays.keys() == read.arrays.keys()
    assert all(np.array_equal(written.arrays[name], value) for name, value in read.arrays.items())
