"""export.py of mask_rcnn: each exported file gives the same masks as the checkpoint; and the hub entry."""
import json

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_utils

from mask_rcnn.src.model_utils.config import load_config
from tests import ten_lines
from tests.kept_graph import keep_exported


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Folder with small.ckpt, a detector with random weights for 64 x 96, its small.yaml, and images in in/.

    It has mindspore-lab's convention, whose operators differ from the defaults. Faster R-CNN's tests export the defaults.
    """
    import mindspore as ms

    from mask_rcnn.src.model_utils.config import save_config
    from tests.narrow_network import narrow_mask_config, narrow_network, spread_heads

    folder = tmp_path_factory.mktemp("a model")
    config = narrow_mask_config(img_height=64, img_width=96, test_score_thr=0.3, test_max_per_img=8, convention="mslab",
                                keep_empty_boxes=False)
    net = narrow_network(config)
    spread_heads(net)
    rng = np.random.default_rng(6)
    logits = net.rcnn_mask.logits.weight
    weight = rng.standard_normal(logits.shape).astype(np.float32)
    logits.set_data(ms.Tensor(weight - weight.mean(1, keepdims=True)))      # masks with foreground and background
    ms.save_checkpoint(net, str(folder / "small.ckpt"))
    save_config(config, folder / "small.yaml")
    (folder / "in").mkdir()
    for name, size in (("wide", (64, 180)), ("high", (150, 100))):
        coarse = rng.integers(0, 256, (*(side // 10 + 1 for side in size), 3)).astype(np.uint8)
        cv2.imwrite(str(folder / "in" / f"{name}.png"), cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC))
    return folder


@pytest.fixture(scope="module")
def call(model, run_command, repo_dir):
    def run(script, **options):
        flags = [f"--{name}={value}" for name, value in {"config_path": model / "small.yaml", **options}.items()]
        result = run_command(["python", repo_dir / "mask_rcnn" / f"{script}.py", *flags], cwd=model)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    return run


@pytest.fixture(scope="module")
def wanted(model, call):
    call("infer", checkpoint_path=model / "small.ckpt", input=model / "in", draw=False, score_thr=ten_lines.SCORE,
         output_path=model / "out", backend="mindspore")
    found = json.loads((model / "out" / "detections.json").read_text())
    areas = [mask_utils.area(r["segmentation"]) / (r["bbox"][2] * r["bbox"][3]) for r in found]
    assert {r["file_name"] for r in found} == {"wide.png", "high.png"} and len(found) > 5
    assert 0.2 < min(areas) <= max(areas) < 0.8      # neither empty nor full
    return found


@pytest.mark.parametrize("file_format", ["MINDIR", "ONNX"])
def test_the_ten_lines_find_what_infer_finds(model, call, run_command, wanted, file_format):
    output = call("export", ckpt_file=model / "small.ckpt", file_format=file_format, file_name=model / "net")
    assert "outputs boxes, scores, labels, valid, masks" in output
    files = [model / f"net.{file_format.lower()}"]
    if file_format == "ONNX":
        keep_exported("mask_rcnn", load_config(model / "small.yaml"), model / "small.ckpt", *files)
        files.append(model / "small.ckpt")
    found = ten_lines.run_ten_lines(run_command, "mask_rcnn", model, model / "in", files)
    assert len(found) == len(files)
    for results in found:
        ten_lines.assert_same(results, wanted, ["background", "disc", "box", "bar"])


def test_hub_builds_the_network_that_its_keys_describe(run_command, repo_dir, model):
    code = ("import sys; sys.path.insert(0, sys.argv[1]); import mindspore_hub_conf as hub\n"
            "net = hub.create_network('maskrcnn_resnet50', config_path=sys.argv[2], rcnn_mask_out_channels=24)\n"
            "shapes = {param.name: param.shape for param in net.get_parameters()}\n"
            "print(shapes['rcnn.cls_score.weight'], [s for n, s in shapes.items() if n.startswith('rcnn_mask.')][0][0])\n"
            "hub.create_network('maskrcnn_resnet101')")
    result = run_command(["python", "-c", code, repo_dir / "mask_rcnn", model / "small.yaml"], cwd=model)
    assert result.stdout == "(4, 64) 24\n", result.stderr
    assert result.stderr.strip().endswith(
        "NotImplementedError: maskrcnn_resnet101: expected one of maskrcnn_resnet50, maskrcnn")
