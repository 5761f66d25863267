"""What the network gives, and what of it is scored.

Not a copy of another model's file: others give no masks.
"""
import functools

from .cpp_settings import program_settings  # noqa: F401  (of the model's outputs too)

# In the order in which `predict` gives them. Shapes: N images, D detections an image, best first; `valid` tells which are
# meant, the others are padding. boxes (N, D, 4) float32: x1, y1, x2, y2 in pixels of the network input; scores (N, D)
# float32; labels (N, D) int32, from 1 on; valid (N, D) bool; masks (N, D, 28, 28) float32: probability that a cell of the
# detection's box belongs to the object.
OUTPUTS = ("boxes", "scores", "labels", "valid", "masks")
# Kinds of COCO AP; the last decides which checkpoint is the best.
IOU_TYPES = ("bbox", "segm")
# Sums that the log gives besides the losses themselves: name -> how the names begin that it adds up.
LOSS_SUMS = {"rpn_loss": "rpn_", "rcnn_loss": "rcnn_"}
# Beginnings of the parameters whose shapes follow from the number of classes.
CLASS_LAYERS = ("rcnn.cls_score.", "rcnn.bbox_pred.", "rcnn_mask.logits.")


def loss_line(epoch: int, batch: int, values: dict) -> str:
    """The line of loss_{rank}.log: `epoch: 1 step: 7393, rpn_loss: 0.12054, ..., total_loss: 0.52655`."""
    return f"epoch: {epoch} step: {batch}, " + ", ".join(f"{name}: {value:.5f}" for name, value in values.items())


def epoch_line(steps: int, step_time: float):
    """None: the log has no line at the end of an epoch."""


def mask_encoder(config):
    """encode(masks (K, 28, 28), boxes (K, 4), height, width) -> K RLE of the original image, boxes in its pixels."""
    from .paste_masks import paste_rle

    return functools.partial(paste_rle, threshold=config.mask_thr_binary, rule=config.mask_paste)


def own_scores(config, ground_truth, results) -> dict:
    """{key of metrics.json: scores that the data set has beside COCO AP}: no other data set than COCO has masks."""
    return {}


def exported(net, config, inputs: dict) -> list:
    """[(what is added to the file's name, network, {input: shape}, names of its outputs)] that export.py writes.

    inputs: {input: shape} of the whole network.
    """
    if config.split:
        from .MaskRcnn.mask_parts import mask_network_parts

        return mask_network_parts(net, config, inputs)
    from .network_define import InferenceNet

    return [("", InferenceNet(net), inputs, OUTPUTS)]


def host_steps(config) -> dict:
    """Number of outputs of an exported file -> function that makes OUTPUTS of these on the host; none are needed here."""
    return {}
