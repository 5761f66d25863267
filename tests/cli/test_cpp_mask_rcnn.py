"""Mask R-CNN in the C++ program of ascend310_infer: three networks, and masks as RLE of the whole image."""
import shutil

import pytest

from tests.cpp_program import (
    check_against_python,
    infer_python,
    make_model,
    mutated,
    run_python,
    run_sanitized,
    some_damaged,
)

pytestmark = pytest.mark.cpp

PARTS = {f"exported_{part}": f"v1_{part}" for part in ("dense", "heads", "masks")}


@pytest.fixture(scope="module")
def mask_rcnn(cpp_coco, tmp_path_factory):
    """Folder with a narrow Mask R-CNN of 80 classes, its three MINDIR files, and the detections of infer.py."""
    import mindspore as ms

    from mask_rcnn.src.model_utils.config import save_config
    from tests.narrow_network import narrow_mask_config, narrow_network, spread_heads

    def save(folder, names):
        config = narrow_mask_config(num_classes=81, coco_classes=names, test_max_per_img=100, test_score_thr=0.02)
        net = narrow_network(config)
        spread_heads(net)
        ms.save_checkpoint(net, str(folder / "narrow.ckpt"))
        save_config(config, folder / "narrow.yaml")

    folder = tmp_path_factory.mktemp("masks")
    make_model("mask_rcnn", folder, cpp_coco, save, PARTS, "--split=True")
    return folder


@pytest.fixture(scope="module")
def truncated(mask_rcnn, cpp_coco, tmp_path_factory):
    """The same network, with masks pasted as in torchvision."""
    from mask_rcnn.src.model_utils.config import load_config, save_config

    folder = tmp_path_factory.mktemp("truncated masks")
    for path in mask_rcnn.glob("*.*"):
        shutil.copy(path, folder)
    save_config(load_config(folder / "narrow.yaml", {"mask_paste": "truncated"}), folder / "narrow.yaml")
    infer_python("mask_rcnn", folder, cpp_coco)
    return folder


@pytest.fixture(scope="module")
def rounded(mask_rcnn, cpp_coco, tmp_path_factory):
    """The same network under mindspore-lab's convention."""
    from mask_rcnn.src.model_utils.config import load_config, save_config

    folder = tmp_path_factory.mktemp("rounded masks")
    for path in mask_rcnn.glob("narrow.*"):
        shutil.copy(path, folder)
    kept = load_config(folder / "narrow.yaml")
    own = {key: kept[key] for key in ("rpn_nms_pre", "rpn_nms_post", "rpn_max_num", "rpn_proposal_max_num", "test_max_per_img")}
    save_config(load_config(folder / "narrow.yaml", {"convention": "mslab", **own}), folder / "narrow.yaml")
    make_model("mask_rcnn", folder, cpp_coco, lambda *_: None, PARTS, "--split=True")
    return folder


@pytest.mark.parametrize("paste", ["grid", "truncated", "rounded"])
def test_mask_rcnn_finds_what_python_finds(request, paste, cpp_coco, cpp_lite, cpp_program, repo_dir, tmp_path):
    made = request.getfixturevalue({"grid": "mask_rcnn"}.get(paste, paste))
    assert f"mask_paste: {paste}" in (made / "narrow.yaml").read_text()
    check_against_python("mask_rcnn", made, "v1_dense.mindir", cpp_coco, (cpp_lite, cpp_program), repo_dir, tmp_path)


def test_masks_under_sanitizers(mask_rcnn, cpp_coco, cpp_sanitized, repo_dir, tmp_path):
    """Intact files, then each of the three truncated in turn, and one with changed bytes, which may go unnoticed."""
    settings = tmp_path / "settings.txt"
    run_python(repo_dir / "mask_rcnn" / "postprocess.py", f"--settings_path={settings}", "--config_path=narrow.yaml", cwd=mask_rcnn)
    images = some_damaged(cpp_coco / "val2017", tmp_path / "pictures", whole=1)
    files = {name: (mask_rcnn / f"{name}.mindir").read_bytes() for name in PARTS.values()}
    statuses = []
    for changed, seed in [("", 0), *((name, 0) for name in files), (next(iter(files)), 1)]:
        for name, data in files.items():
            (tmp_path / f"{name}.mindir").write_bytes(mutated(data, seed) if name == changed else data)
        statuses.append(run_sanitized(cpp_sanitized, f"--settings_path={settings}", f"--mindir_path={tmp_path / 'v1_dense.mindir'}",
                                      f"--input_path={images}", f"--output_path={tmp_path / 'results.jsonl'}",
                                      "--device_type=CPU"))
    assert statuses[0] == 0 and set(statuses) == {0, 2}
