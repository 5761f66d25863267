"""Device limits: docs/platforms.md against MindSpore's documentation and our graphs; commands refuse what a device lacks."""
import importlib

import pytest

from faster_rcnn.src.model_utils.training.step import TrainStep
from tests import platform_docs, primitives
from tests.toy_network import LOSS_NAMES, ToyDetector, toy_batch

MODELS = ("faster_rcnn", "mask_rcnn", "refinedet")


def configured(model: str, **keys):
    return importlib.import_module(f"{model}.src.model_utils.config").load_config(overrides=keys)


@pytest.mark.parametrize(("model", "keys", "training", "key", "boxes"), [
    ("faster_rcnn", {"rpn_nms_pre": 3000}, False, "rpn_nms_pre", 3000),
    ("faster_rcnn", {"test_nms_pre": 2865}, False, "test_nms_pre", 2865),
    ("faster_rcnn", {"rpn_proposal_nms_pre": 3000}, True, "rpn_proposal_nms_pre", 3000),
    ("faster_rcnn", {"rpn_nms_across_levels": True}, False, "rpn_nms_post", 5000),
    ("mask_rcnn", {"rpn_proposal_nms_across_levels": True}, True, "rpn_proposal_nms_post", 10000),
    ("mask_rcnn", {"rpn_nms_across_levels": True, "nms_across_levels_last": True, "rpn_max_num": 2900}, False, "rpn_max_num", 2900),
    ("refinedet", {"test_nms_total": 3000}, True, "test_nms_total", 3000),
])
def test_ascend_limits_the_boxes_of_one_nms_call(model, keys, training, key, boxes, monkeypatch, message):
    adapter = importlib.import_module(f"{model}.src.model_utils.local_adapter")
    monkeypatch.setattr(adapter, "_choose_target", lambda wanted: "Ascend")
    error = message(adapter.setup_device, configured(model, **keys), training)
    assert error.startswith(f"{key}: NMS takes 2864 boxes at most on Ascend, and this makes {boxes}")
    check = importlib.import_module(f"{model}.src.model").check_device
    assert check(configured(model, **keys), "GPU", training) is None
    assert check(configured(model), "Ascend", training) is None


@pytest.mark.parametrize(("model", "keys", "training"), [
    ("faster_rcnn", {"rpn_proposal_nms_pre": 3000}, False), ("faster_rcnn", {"rpn_nms_pre": 3000, "run_eval": False}, True),
    ("refinedet", {"test_nms_total": 3000, "run_eval": False}, True),
    ("refinedet", {"test_nms_total": 9000, "num_classes": 3, "coco_classes": ["background", "a", "b"]}, False)])
def test_limits_that_are_not_reached_are_not_refused(model, keys, training):
    check = importlib.import_module(f"{model}.src.model").check_device
    assert check(configured(model, **keys), "Ascend", training) is None


@pytest.mark.parametrize("convention", ["default", "torchvision", "detectron2", "mmdet", "zoo", "mslab"])
def test_every_convention_suits_ascend(convention):
    for model in ("faster_rcnn", "mask_rcnn"):
        check = importlib.import_module(f"{model}.src.model").check_device
        assert [check(configured(model, convention=convention), "Ascend", training) for training in (True, False)] == [None, None]


def test_primitives_are_read_from_a_graph():
    text = """
subgraph @1() {
  %0(a) = Load(%para2_w, UMonad[U])
      : (<Ref[Tensor[Float32]], (4), ref_key=w>, <UMonad, NoShape>) -> (<Tensor[Float32], (4)>)
  %1(b) = PrimFunc_Add(%0, Tensor(shape=[2], dtype=Int32, value=
[[  0]
 [144]])) cnode_attrs: {checkpoint: Bool(1)}
      : (<Tensor[Int32], (2, 5)>, <Tensor[Int32], (2, 1), value=...>) -> (<Tensor[Int32], (2, 5)>)
  %2(c) = TopK(%1, I64(5)) primitive_attrs: {sorted: Bool(1)}
      : (<Tensor[Float32], (2, 144)>, <Int64, NoShape>) -> (<Tuple[Tensor[Float32],Tensor[Int32]], TupleShape((2, 5), (2, 5))>)
  Return(%2)
      : (<Tensor[Float32], (2)>)
}
"""
    assert primitives.primitives_in(text) == {"Add": {"Int32 Int32"}, "TopK": {"Float32"}}


def test_no_graph_of_a_step_calls_python():
    """Devices leave Python calls to the host, and exported files cannot hold them."""
    step = TrainStep(ToyDetector(), LOSS_NAMES, momentum=0.9, weight_decay=0.1, clip_grad_norm=1.0, ema_decay=0.9, accumulate=2)
    with primitives.recorded() as found:
        step(toy_batch(), 0.1, more=[toy_batch()])
    assert {"Assign", "AssignAdd", "MatMulExt", "TanhGrad", "L2Loss", "ApplyMomentum"} <= set(found)
    assert "PyExecute" not in found


@pytest.mark.parametrize("file", platform_docs.WORDS)
def test_table_follows_the_documentation(file):
    """Each row agrees with MindSpore's docstrings for each device; both languages have the same rows."""
    table = platform_docs.table_in(file)
    assert len(table) > 60
    assert list(table) == list(platform_docs.table_in("platforms.md"))
    wrong = [name for name, cells in table.items() if cells[2:5] != platform_docs.marks_of(name)]
    assert not wrong


@pytest.mark.parametrize("file", platform_docs.WORDS)
def test_what_a_device_lacks_is_explained(file):
    """The page's text names every primitive that some device lacks."""
    above = (platform_docs.DOCS / file).read_text(encoding="utf-8").partition(platform_docs.BEGIN)[0]
    lacking = [name for name, cells in platform_docs.table_in(file).items() if cells[2:5] != ["yes"] * 3]
    assert [name for name in lacking if f"`{name}`" not in above] == []


@pytest.mark.slow
def test_the_table_lists_the_primitives_of_the_graphs(tmp_path):
    """RefineDet training and Mask R-CNN inference; test_train_step_real.py covers Faster R-CNN training."""
    found = platform_docs.graphs("refinedet:training", "mask_rcnn:inference")
    assert {case: list(stages) for case, stages in found.items()} == {"refinedet": ["training"], "mask_rcnn": ["inference"]}
    for case, stages in found.items():
        for stage, names in stages.items():
            assert len(names) > 20, (case, stage)
            assert platform_docs.unlisted(names, case, stage) == [], (case, stage)
