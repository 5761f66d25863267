"""detectron2's setting names on the command line."""
import pytest

from faster_rcnn.src.model_utils.config import parse_config
from mask_rcnn.src.model_utils.config import parse_config as parse_mask
from refinedet.src.model_utils.config import parse_config as parse_refinedet


def test_settings_of_the_ascend_recipe(monkeypatch):
    """The settings of its scripts for 8 devices."""
    monkeypatch.setenv("RANK_SIZE", "8")
    words = """--lr_reference_batch=16 AMP 1 OPT_LEVEL O2 LOSS_SCALE_VALUE 64 MODEL.DEVICE npu:5 SOLVER.IMS_PER_BATCH 64
        SOLVER.MAX_ITER 11250 SEED 1234 MODEL.RPN.NMS_THRESH 0.8 MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO 2
        MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO 2 DATALOADER.NUM_WORKERS 4"""
    config = parse_config(words.split())
    assert (config.amp_level, config.loss_scale, config.device_target, config.device_id) == ("O2", 64.0, "Ascend", 5)
    assert (config.batch_size, config.max_steps, config.epoch_size, config.seed) == (8, 11250, 0, 1234)
    assert (config.rpn_proposal_nms_thr, config.rpn_nms_thr, config.num_parallel_workers) == (0.8, 0.8, 4)
    assert config.roi_layer.sample_num == 2 and config.roi_layer.out_size == 7 and config.lr_reference_batch == 16


def test_mask_head_names_are_ignored_without_a_mask_head():
    words = ["MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO", "2"]
    assert parse_config(words).roi_layer == parse_config([]).roi_layer != parse_mask(words).roi_layer


def test_rate_is_not_scaled_and_lists_are_parsed():
    config = parse_config(["SOLVER.BASE_LR", "0.04", "SOLVER.STEPS", "(60, 80,)", "SOLVER.MAX_ITER", "90",
                           "MODEL.ROI_HEADS.NUM_CLASSES", "80", "MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "a b/R-101.ckpt"])
    assert (config.base_lr, config.lr_reference_batch, config.lr_steps) == (0.04, 0, (60, 80))
    assert (config.num_classes, config.device_target, config.pre_trained) == (81, "CPU", "a b/R-101.ckpt")
    assert parse_config(["AMP", "0", "OPT_LEVEL", "O2"]).amp_level == "O0"


def test_the_last_value_wins():
    assert parse_config(["SEED", "2", "SEED", "3"]).seed == 3
    # Our own flag overrides a script's recipe.
    assert parse_config(["SEED", "2", "--seed=4"]).seed == 4


@pytest.mark.parametrize("words, expected", [
    ("SOLVER.MAX_ITERS 3", "SOLVER.MAX_ITERS: unknown setting, did you mean SOLVER.MAX_ITER?"),
    ("SOLVER.MAX_ITER", "SOLVER.MAX_ITER: its value is missing"),
    ("SOLVER.MAX_ITER many", "SOLVER.MAX_ITER: expected a whole number, got 'many'"),
    ("SOLVER.IMS_PER_BATCH many", "SOLVER.IMS_PER_BATCH: expected a whole number, got 'many'"),
    ("SOLVER.IMS_PER_BATCH 9", "SOLVER.IMS_PER_BATCH: 9 images cannot be split evenly among 2 devices"),
    ("--accumulate_steps=4 SOLVER.IMS_PER_BATCH 64", "SOLVER.IMS_PER_BATCH: counts the images of a step, but "
     "accumulate_steps splits a step into 4 parts; set --batch_size, the images per part and device"),
    ("MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO 2 MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO 0",
     "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO: sets roi_layer.sample_num to 0, but "
     "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO sets it to 2"),
    ("MODEL.DEVICE tpu", "MODEL.DEVICE: expected npu, cuda or cpu, or npu:3, got 'tpu'"),
    ("AMP 2", "AMP: expected 0 or 1, got '2'"),
    ("seed 1", "unexpected argument 'seed': expected --key=value"),
])
def test_faults(monkeypatch, message, words, expected):
    monkeypatch.setenv("RANK_SIZE", "2")
    assert message(parse_mask, words.split()) == expected


def test_a_model_without_such_a_setting(message):
    assert message(parse_refinedet, ["MODEL.RPN.NMS_THRESH", "0.8"]) == "MODEL.RPN.NMS_THRESH: not a setting of this model"
    assert parse_refinedet(["SOLVER.MAX_ITER", "9"]).max_steps == 9
