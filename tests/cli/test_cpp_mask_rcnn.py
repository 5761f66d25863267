"""Mask R-CNN in the C++ program of ascend310_infer: three networks, and masks as RLE of the picture."""
import pytest

from tests.cpp_program import check_against_python, make_model

PARTS = {f"exported_{part}": f"v1_{part}" for part in ("dense", "heads", "masks")}


@pytest.fixture(scope="module", params=["grid", "truncated"])
def mask_rcnn(request, cpp_coco, tmp_path_factory):
    """Folder of a narrow Mask R-CNN of 80 classes, its three MINDIR files, and what infer.py finds with it."""
    import mindspore as ms

    from mask_rcnn.src.model_utils.config import save_config
    from tests.narrow_network import narrow_mask_config, narrow_network, spread_heads

    def save(folder, names):
        config = narrow_mask_config(num_classes=81, coco_classes=names, test_max_per_img=100, test_score_thr=0.02,
                                    mask_paste=request.param)
        net = narrow_network(config)
        spread_heads(net)
        ms.save_checkpoint(net, str(folder / "narrow.ckpt"))
        save_config(config, folder / "narrow.yaml")

    folder = tmp_path_factory.mktemp("masks")
    make_model("mask_rcnn", folder, cpp_coco, save, PARTS, "--split=True")
    return folder


def test_mask_rcnn_finds_what_python_finds(mask_rcnn, cpp_coco, cpp_lite, cpp_program, repo_dir, tmp_path):
    check_against_python("mask_rcnn", mask_rcnn, "v1_dense.mindir", cpp_coco, (cpp_lite, cpp_program), repo_dir, tmp_path)
