"""Properties of this model: everything in which the models of this repository differ and that model_utils asks for.

MindSpore is not imported here, so that unknown options are reported before its import, which takes seconds.
"""
from collections.abc import Callable, Mapping

from .key_rules import ALIASES, PRESETS, RETIRED, SEVERAL, check_config

__all__ = ["ALIASES", "CLASS_LAYERS", "FREE_KEYS", "IOU_TYPES", "LOSS_SUMS", "MODELS", "NAME", "OUTPUTS", "PRESETS",
           "RAW_OUTPUTS", "RETIRED", "SEVERAL", "check_config", "closing_lines", "epoch_line", "loss_line", "mask_encoder",
           "program_settings"]

# Name of the model's directory and of its checkpoints.
NAME = "refinedet"
# What `predict` returns, in this order. Shapes: N images, D detections per image, best first; slots that are not valid are
# padding. boxes (N, D, 4) float32: x1, y1, x2, y2 in pixels of the network input; scores (N, D) float32; labels (N, D)
# int32, from 1 on; valid (N, D) bool.
OUTPUTS = ("boxes", "scores", "labels", "valid")
# What a file exported with with_nms=False returns: all boxes (N, A, 4), and the scores (N, A, K) of the foreground classes.
RAW_OUTPUTS = ("boxes", "scores")
# Kinds of COCO AP; the last one decides which checkpoint is the best.
IOU_TYPES = ("bbox",)
# Sums that the log prints besides the losses: name -> prefix of the losses to add up.
LOSS_SUMS = {"arm_loss": "arm_", "odm_loss": "odm_"}
# Prefixes of the parameters whose shapes depend on the number of classes.
CLASS_LAYERS = ("odm.conf.",)
# Prefix of parameter names -> model of this repository that such weights belong to; the first match counts.
MODELS = {"rcnn_mask.": "mask_rcnn", "rcnn.": "faster_rcnn", "odm.": "refinedet"}
# Keys of this model that a resumed run may change: they matter before the first step, or not in training.
FREE_KEYS = frozenset(("calibrate_init", "with_nms"))


def loss_line(epoch: int, batch: int, values: Mapping[str, float]) -> str:
    """Return the line of loss_{rank}.log: `epoch: 1 step: 458, loss is 3.1681802, arm_loss: 1.20054, ...`."""
    parts = ", ".join(f"{name}: {value:.5f}" for name, value in values.items() if name != "total_loss")
    return f"epoch: {epoch} step: {batch}, loss is {values['total_loss']:.7f}, {parts}"


def epoch_line(steps: int, step_time: float) -> str | None:
    """Return the line that the log prints at the end of an epoch. step_time: seconds per step, without compiling or evaluation."""
    return f"epoch time: {1e3 * steps * step_time:.3f} ms, per step time: {1e3 * step_time:.3f} ms"


def closing_lines(mean_ap: float) -> list[str]:
    """Return the last lines of an evaluation, as in the old zoo. mean_ap: COCO AP of the boxes, or VOC mAP."""
    return ["", "=" * 40, "", f"mAP:{mean_ap:.4f}"]


def mask_encoder(config: Mapping) -> Callable | None:
    """Return the function that encodes masks: None, since this model has no masks."""
    return None


def program_settings(config) -> dict:
    """Return {name: value} of the settings that the C++ program needs besides the size and normalisation of the images."""
    keys = ("test_score_thr", "test_iou_thr", "test_nms_pre", "test_nms_total", "test_max_per_img")
    return {key: config[key] for key in keys}
