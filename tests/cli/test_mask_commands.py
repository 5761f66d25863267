"""The commands of mask_rcnn: what masks add to those of faster_rcnn. Networks are toys: see test_eval_infer.py."""
import json
import re
import sys

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_utils

from mask_rcnn.src.model_utils.inference.draw import colour_of
from tests.toy_data import SIZES, export_toy, left_half, quarters

SEGM = (0.319545, 0.562288, 0.298927, 0.387374, 0.310183, 0.326934,
        0.268230, 0.415449, 0.416839, 0.469450, 0.376759, 0.381472)
TABLES = ["Evaluate annotation type *bbox*", "Evaluate annotation type *segm*"]
OPTIONS = {"num_classes": 4, "coco_classes": "[background, cat, dog, bird]", "img_height": 96, "img_width": 128,
           "device_target": "CPU", "num_parallel_workers": 1}
GROWTH_MB = 25      # from 50 to 200 images; keeping one mask per image as pixels would take 49


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Folder with toy.mindir and toy.onnx, for one image of 96 x 128."""
    from tests.toy_network import ToyMaskDetector

    return export_toy(ToyMaskDetector(4), tmp_path_factory.mktemp("export"), tmp_path_factory.mktemp("toy net"))


@pytest.fixture
def call(run_command, repo_dir, tmp_path):
    """call(script, **options): run mask_rcnn/SCRIPT.py from another folder; it writes to tmp_path / "out put"."""
    def run(script, **options):
        flags = [f"--{name}={value}" for name, value in {"output_path": tmp_path / "out put", **options}.items()]
        return run_command(["python", repo_dir / "mask_rcnn" / f"{script}.py", *flags], cwd=tmp_path)

    return run


def masks_of(height: int, width: int) -> list:
    """Return the masks of the left halves of an image's quarters."""
    return [mask_utils.decode(mask_utils.frPyObjects([left_half(*box)], height, width))[..., 0] for box in
            quarters(height, width)]


def assert_masks(results, sizes) -> None:
    """Each image has four results, with the left halves of its quarters as masks; a pixel column on either side may be rounded."""
    wanted = [(size, mask) for size in sizes for mask in masks_of(*size)]
    assert len(results) == len(wanted)
    for result, (size, mask) in zip(results, wanted):
        assert result["segmentation"]["size"] == list(size)
        found = mask_utils.decode(result["segmentation"])
        assert (found & mask).sum() > 0.95 * (found | mask).sum()


# eval.py

@pytest.mark.parametrize("scorer", ["faster", "pycocotools"])
def test_eval_gives_the_published_figures_of_masks(call, data_dir, tmp_path, scorer):
    folder = data_dir / "coco_known_answer"
    result = call("eval", detections=folder / "instances_val2014_fakesegm100_results.json",
                  anno_path=folder / "instances_val2014_100.json", scorer=scorer)
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "out put" / "metrics.json").read_text())
    np.testing.assert_allclose(list(metrics["segm"].values()), SEGM, rtol=0, atol=5.1e-7)
    assert metrics["per_class"]["person"]["segm_AP"] > 0
    lines = result.stdout.splitlines()
    assert [line for line in lines if line.startswith("Evaluate")] == TABLES
    second = lines[lines.index(TABLES[1]) + 1:]
    assert second[0] == " Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 0.320"
    assert second[11] == " Average Recall     (AR) @[ IoU=0.50:0.95 | area= large | maxDets=100 ] = 0.381"
    assert re.search(r"^class +AP +AP50 +segm AP +segm AP50 +objects$", result.stdout, re.M)
    assert re.search(r"^person +(0\.\d{3} +){4}250$", result.stdout, re.M)
    for name in ("pr_curves.png", "segm_pr_curves.png"):
        assert cv2.imread(str(tmp_path / "out put" / name)) is not None


def test_eval_of_a_file_of_boxes_scores_boxes(call, data_dir, tmp_path):
    folder = data_dir / "coco_known_answer"
    result = call("eval", detections=folder / "instances_val2014_fakebbox100_results.json",
                  anno_path=folder / "instances_val2014_100.json")
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "out put" / "metrics.json").read_text())
    assert metrics["bbox"]["AP"] == pytest.approx(0.504581, abs=5.1e-7) and "segm" not in metrics
    assert "note: the detections have no masks, so only boxes are scored" in result.stdout


def test_eval_of_a_network_finds_every_mask(call, toy, pictures, tmp_path):
    result = call("eval", onnx_path=toy / "toy.onnx", coco_root=pictures, **OPTIONS)
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "out put" / "metrics.json").read_text())
    assert metrics["bbox"]["AP"] == pytest.approx(1) and metrics["segm"]["AP"] == pytest.approx(1)
    assert_masks(json.loads((tmp_path / "out put" / "detections.json").read_text()), SIZES)


# infer.py

def test_infer_writes_and_draws_masks(call, toy, pictures, tmp_path):
    found = []
    for model in ({"onnx_path": toy / "toy.onnx"}, {"mindir_path": toy / "toy.mindir"}):
        result = call("infer", **model, input=pictures / "val2017", score_thr=0, **OPTIONS)
        assert result.returncode == 0, result.stderr
        found.append(json.loads((tmp_path / "out put" / "detections.json").read_text()))
    assert_masks(found[0], SIZES)
    for onnx, mindir in zip(*found):
        assert onnx.pop("score") == pytest.approx(mindir.pop("score"), abs=1e-6)
        assert onnx == mindir
    for path, size in zip(sorted((pictures / "val2017").iterdir()), SIZES[:2]):     # labels cover the third
        before, after = cv2.imread(str(path)), cv2.imread(str(tmp_path / "out put" / "drawn" / path.name))
        for i, mask in enumerate(masks_of(*size)):
            tinted = 0.55 * before + 0.45 * np.array(colour_of(i))
            as_tinted = (np.abs(after - tinted) < 1.5).all(-1)      # not under lines and labels
            assert as_tinted[mask == 1].mean() > 0.4 and as_tinted[mask == 0].mean() < 0.02


def test_memory_of_infer_does_not_grow_with_the_images(toy, run_command, repo_dir, tmp_path):
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for i in range(200):
        cv2.imwrite(str(tmp_path / "in" / f"{i}.png"), np.kron(rng.integers(0, 255, (8, 10, 3), np.uint8), np.ones((64, 64, 1))))
    options = {**OPTIONS, "mindir_path": toy / "toy.mindir", "input": tmp_path / "in", "output_path": tmp_path / "out",
               "score_thr": 0}
    result = run_command(["python", repo_dir / "tests" / "infer_memory.py", "mask_rcnn",
                          *(f"--{name}={value}" for name, value in options.items())], cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    held = json.loads(result.stdout.splitlines()[-1])
    assert held["200"] - held["50"] < GROWTH_MB, held
    assert len(json.loads((tmp_path / "out" / "detections.json").read_text())) == 800


# Faults

def test_a_network_without_masks_is_refused(call, pictures, tmp_path, one_line, tmp_path_factory):
    from tests.toy_network import ToyDetector

    toy = export_toy(ToyDetector(4), tmp_path_factory.mktemp("export"), tmp_path_factory.mktemp("boxes alone"))
    result = call("infer", onnx_path=toy / "toy.onnx", input=pictures / "val2017", **OPTIONS)
    result.stderr = result.stderr.splitlines()[-1]      # the progress line comes first
    assert "has 4 outputs, expected boxes, scores, labels, valid, masks" in one_line(result, "infer.py")


@pytest.mark.parametrize(("script", "options", "message"), [
    ("train", {"dataset": "voc"}, "--dataset: 'voc' has no masks; Mask R-CNN takes COCO or LabelMe or YOLO annotations "
     "(dataset: coco, coco_files, labelme, yolo)"),
    ("eval", {"mask_thr_binary": 2}, "--mask_thr_binary: expected 0 to 1, got 2.0"),
    ("infer", {"mask_shape": "[14, 14]"}, "--mask_shape: expected twice mask_out_size of roi_layer, [28, 28], got [14, 14]"),
])
def test_faults_are_one_line(call, one_line, script, options, message):
    assert one_line(call(script, **options), f"{script}.py") == f"{script}.py: error: {message}"


def test_the_memory_probe_sees_growth(run_command, repo_dir, tmp_path):
    """test_memory_of_infer_does_not_grow_with_the_images measures with this probe."""
    code = ("import sys; sys.path.insert(0, sys.argv[1]); from tests.infer_memory import resident_mb; import numpy as np; "
            "before = resident_mb(); kept = np.ones(50_000_000, np.uint8); print(resident_mb() - before)")
    result = run_command([sys.executable, "-c", code, repo_dir], cwd=tmp_path)
    assert 45 < float(result.stdout) < 60, result.stderr
