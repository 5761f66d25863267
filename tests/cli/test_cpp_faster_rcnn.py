"""Faster R-CNN in the C++ program of ascend310_infer: two networks, with NMS and RoIAlign between them."""
import json
import shutil
import subprocess

import numpy as np
import pytest

from tests import commands
from tests.cpp_program import (
    called,
    check_against_python,
    fault,
    infer_python,
    make_model,
    run_python,
    told_sanitized,
    unmatched,
)

pytestmark = pytest.mark.cpp


def operator(program, *words, data) -> bytes:
    done = subprocess.run([str(program / "ops"), *map(str, words)], input=b"".join(np.float32(part).tobytes() for part in data),
                          capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def fixtures(parity_file):
    return np.load(parity_file("op_fixtures.npz"))


@pytest.mark.parametrize("bins", [7, 14])
@pytest.mark.parametrize("samples", [0, 2])
@pytest.mark.parametrize("aligned", [0, 1])
def test_roi_align_parity(cpp_program, fixtures, aligned, samples, bins):
    x, rois = fixtures["roi_align/x"], fixtures["roi_align/rois"]
    wanted = fixtures[f"roi_align/aligned{aligned}_sr{samples}_o{bins}/y"]
    for image in (0, 1):
        mine = rois[:, 0] == image
        got = operator(cpp_program, "pool", *x.shape[1:], bins, samples, ["false", "true"][aligned], 8,
                       data=(x[image], rois[mine, 1:]))
        np.testing.assert_allclose(np.frombuffer(got, np.float32).reshape(wanted[mine].shape), wanted[mine], rtol=0, atol=1e-5)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_nms_parity(cpp_program, fixtures, threshold):
    boxes, scores, classes = (fixtures[f"nms/{name}"] for name in ("boxes", "scores", "classes"))
    order = np.argsort(-scores, kind="stable")
    for labels, key in ((np.zeros_like(classes), "keep"), (classes, "batched_keep")):
        rows = np.column_stack([boxes, labels])[order]
        kept = order[np.array(operator(cpp_program, "nms", threshold, data=(rows,)).split(), int)]
        np.testing.assert_array_equal(np.sort(kept), np.sort(fixtures[f"nms/{key}_{threshold}"]))


SETTINGS = ("num_classes 3\ntest_score_thr 0.1\ntest_iou_thr 0.5\ntest_nms_pre 3\ntest_nms_total 4\ntest_max_per_img 4\n"
            "test_min_bbox_size 0\nbox_offset 0\n")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["class", "box"])
def test_non_finite_candidates_suppress_nothing(cpp_program, tmp_path, kind, bad):
    """Better candidates whose box or score is not finite are dropped; the four valid ones of two classes stay."""
    settings = tmp_path / "settings.txt"
    settings.write_text(SETTINGS)
    boxes = np.float32([[10, 0, 20, 9], [30, 0, 40, 9], [50, 0, 60, 9], [70, 0, 80, 9], [10, 0, 20, 9]])
    scores = np.float32([[0.9, 0.95], [0.3, 0], [0, 0.5], [0.4, 0], [0.2, 0.6]])
    boxes[0, 2] = scores[4, 0] = bad
    rows = boxes if kind == "class" else np.repeat(boxes[:, None], 2, 1)
    count, *lines = operator(cpp_program, kind, settings, len(boxes), data=(rows, scores)).decode().splitlines()
    wanted = ["2 0.600000024 10", "2 0.5 50", "1 0.400000006 70", "1 0.300000012 30"]
    # test_nms_pre limits the candidates of each class, or for `box` those of all classes together.
    assert count == "3" and lines == (wanted if kind == "class" else wanted[:3])


@pytest.fixture(scope="module")
def faster_rcnn(cpp_coco, tmp_path_factory):
    """Folder with a narrow Faster R-CNN of 80 classes, its two MINDIR files, and the detections of infer.py."""
    import mindspore as ms

    from faster_rcnn.src.model_utils.config import save_config
    from tests.narrow_network import narrow_config, narrow_network, spread_heads

    def save(folder, names):
        config = narrow_config(num_classes=81, coco_classes=names, test_max_per_img=100, test_score_thr=0.02)
        net = narrow_network(config)
        spread_heads(net)
        ms.save_checkpoint(net, str(folder / "narrow.ckpt"))
        save_config(config, folder / "narrow.yaml")

    folder = tmp_path_factory.mktemp("two stages")
    make_model("faster_rcnn", folder, cpp_coco, save, {"exported_dense": "v1_dense", "exported_heads": "v1_heads"}, "--split=True")
    return folder


def test_faster_rcnn_finds_what_python_finds(faster_rcnn, cpp_coco, cpp_lite, cpp_program, repo_dir, tmp_path):
    check_against_python("faster_rcnn", faster_rcnn, "v1_dense.mindir", cpp_coco, (cpp_lite, cpp_program), repo_dir, tmp_path)


@pytest.fixture(scope="module")
def across_levels(faster_rcnn, cpp_coco, tmp_path_factory):
    """The same network with NMS across all levels, which changes more detections than the comparison below tolerates."""
    from faster_rcnn.src.model_utils.config import load_config, save_config

    folder = tmp_path_factory.mktemp("across levels")
    for path in faster_rcnn.glob("*.*"):
        shutil.copy(path, folder)
    save_config(load_config(folder / "narrow.yaml", {"rpn_nms_across_levels": True}), folder / "narrow.yaml")
    infer_python("faster_rcnn", folder, cpp_coco)
    found, others = (json.loads((made / "detections" / "detections.json").read_text()) for made in (folder, faster_rcnn))
    assert len(unmatched(found, others)) > 0.02 * len(others)
    return folder


def test_nms_across_levels_finds_what_python_finds(across_levels, cpp_coco, cpp_lite, cpp_program, repo_dir, tmp_path):
    check_against_python("faster_rcnn", across_levels, "v1_dense.mindir", cpp_coco, (cpp_lite, cpp_program), repo_dir, tmp_path)


@pytest.mark.parametrize(("part", "message"), [
    ("dense", "lonely_heads.mindir: no such file; it belongs to lonely_dense.mindir"),
    ("heads", "lonely_heads.mindir is a later part of a network: give the file that ends in _dense.mindir"),
])
def test_half_a_network(faster_rcnn, cpp_coco, cpp_lite, cpp_program, repo_dir, tmp_path, part, message):
    (tmp_path / f"lonely_{part}.mindir").write_bytes((faster_rcnn / f"v1_{part}.mindir").read_bytes())
    command = ["run_infer_cpp.sh", f"lonely_{part}.mindir", cpp_coco / "val2017",
               cpp_coco / "annotations" / "instances_val2017.json", "CPU", f"--config_path={faster_rcnn / 'narrow.yaml'}"]
    assert fault(called(repo_dir, "faster_rcnn", command, tmp_path, cpp_lite, cpp_program)).endswith(message)


@pytest.fixture(scope="module")
def settings(faster_rcnn, repo_dir):
    """The settings that the script passes to the program."""
    path = faster_rcnn / "settings.txt"
    run_python(repo_dir / "faster_rcnn" / "postprocess.py", f"--settings_path={path}", "--config_path=narrow.yaml", cwd=faster_rcnn)
    return path.read_text()


@pytest.mark.parametrize(("setting", "message"), [
    ("roi_borders 2 4 8 16 32 64", "roi_borders: expected 3 numbers, one fewer than roi_strides"),
    ("roi_strides ", "roi_strides: expected numbers >= 1"),
    ("roi_strides 0 8 16 32", "roi_strides: expected numbers >= 1"),
    ("roi_strides 8 16 32 64", "v1_dense.mindir: the network has 14 outputs, unlike those of export.py --split=True"),
    ("num_classes 91", "v1_heads.mindir: the network has 80 classes, the configuration 90: pass the --config_path"),
    ("rpn_max_num 99", "heads.mindir: the network expects an input of 100 x 32 x 7 x 7, the configuration gives 99 x 32 x 7 x 7"),
])
def test_settings_of_another_network(faster_rcnn, settings, cpp_coco, cpp_sanitized, tmp_path, setting, message):
    """The program reports the setting in one line, before it reads or writes out of bounds."""
    path = tmp_path / "settings.txt"
    path.write_text(f"{settings}{setting}\n")      # the last line with a name wins
    status, output = told_sanitized(cpp_sanitized, f"--settings_path={path}", f"--mindir_path={faster_rcnn / 'v1_dense.mindir'}",
                                    f"--input_path={cpp_coco / 'val2017'}", f"--output_path={tmp_path / 'results.jsonl'}",
                                    "--device_type=CPU")
    assert status == 2 and message in output.strip().splitlines()[-1]


@pytest.mark.parametrize(("part", "message"), [
    ("dense", "the network has 14 outputs, expected boxes, scores, labels, valid: export it with this model's export.py"),
    ("heads", "export it without --split and pass the --config_path that it was exported with"),
])
def test_infer_py_refuses_a_part_of_a_network(faster_rcnn, cpp_coco, repo_dir, tmp_path, part, message):
    command = ["python", repo_dir / "faster_rcnn" / "infer.py", f"--mindir_path=exported_{part}.mindir",
               "--config_path=narrow.yaml", f"--input={cpp_coco / 'val2017'}", f"--output_path={tmp_path}"]
    assert message in fault(commands.run(command, faster_rcnn))
