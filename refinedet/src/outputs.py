"""What the network gives, what of it is scored, and the lines of the log.

Not a copy of another model's file: others give more, and name their losses otherwise.
"""
import functools

# In the order in which `predict` gives them. Shapes: N images, D detections an image, best first; `valid` tells which are
# meant, the others are padding. boxes (N, D, 4) float32: x1, y1, x2, y2 in pixels of the network input; scores (N, D)
# float32; labels (N, D) int32, from 1 on; valid (N, D) bool.
OUTPUTS = ("boxes", "scores", "labels", "valid")
# What a file exported with with_nms=False gives: all boxes (N, A, 4), and the scores (N, A, K) of their foreground classes.
RAW_OUTPUTS = ("boxes", "scores")
# Kinds of COCO AP; the last decides which checkpoint is the best.
IOU_TYPES = ("bbox",)
# Sums that the log gives besides the losses themselves: name -> how the names begin that it adds up.
LOSS_SUMS = {"arm_loss": "arm_", "odm_loss": "odm_"}
# Beginnings of the parameters whose shapes follow from the number of classes.
CLASS_LAYERS = ("odm.conf.",)


def loss_line(epoch: int, batch: int, values: dict) -> str:
    """The line of loss_{rank}.log: `epoch: 1 step: 458, loss is 3.1681802, arm_loss: 1.20054, ...`."""
    parts = ", ".join(f"{name}: {value:.5f}" for name, value in values.items() if name != "total_loss")
    return f"epoch: {epoch} step: {batch}, loss is {values['total_loss']:.7f}, {parts}"


def epoch_line(steps: int, step_time: float):
    """The line at the end of an epoch. step_time: seconds of a step, without compiling, evaluation and checkpoints."""
    return f"epoch time: {1e3 * steps * step_time:.3f} ms, per step time: {1e3 * step_time:.3f} ms"


def mask_encoder(config):
    """None: there are no masks to encode."""


def own_scores(config, ground_truth, results) -> dict:
    """{key of metrics.json: scores that the data set has beside COCO AP, with `lines` and `to_dict`}."""
    if config.dataset != "voc":
        return {}
    from .eval_utils import voc_ap

    return {"voc": voc_ap(ground_truth, results)}


def exported(net, config, inputs: dict) -> list:
    """[(what is added to the file's name, network, {input: shape}, names of its outputs)] that export.py writes.

    inputs: {input: shape} of the whole network.
    """
    from .decoding_net import DecodingNet
    from .network_define import InferenceNet

    network, outputs = (InferenceNet(net), OUTPUTS) if config.with_nms else (DecodingNet(net), RAW_OUTPUTS)
    return [("", network, inputs, outputs)]


def program_settings(config) -> dict:
    """{name: value} of what the program of ascend310_infer has to know besides the pictures' size and colours."""
    keys = ("test_score_thr", "test_iou_thr", "test_nms_pre", "test_nms_total", "test_max_per_img")
    return {key: config[key] for key in keys}


def host_steps(config) -> dict:
    """Number of outputs of an exported file -> function that makes OUTPUTS of these on the host."""
    from .host_nms import detections_of

    return {len(RAW_OUTPUTS): functools.partial(
        detections_of, score_thr=config.test_score_thr, iou_thr=config.test_iou_thr, per_class=config.test_nms_pre,
        total=config.test_nms_total, max_per_img=config.test_max_per_img)}
