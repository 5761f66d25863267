"""Accept detectron2's names of settings at the end of a command line, as detectron2 does: `SOLVER.MAX_ITER 400 AMP 1`.

Each sets one or several of our keys, and overrides the configuration like a flag.
"""
import re
from collections.abc import Container, Iterable

from .schema import Entry, InputError, nearest

# detectron2's name -> our keys; KEY.NAME is an entry of a mapping.
NAMES = {
    "AMP": ("amp_level",),
    "DATALOADER.NUM_WORKERS": ("num_parallel_workers",),
    "LOSS_SCALE_VALUE": ("loss_scale",),
    "MODEL.BACKBONE.FREEZE_AT": ("frozen_stages",),
    "MODEL.DEVICE": ("device_target", "device_id"),
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": ("roi_layer.sample_num",),
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": ("test_iou_thr",),
    "MODEL.ROI_HEADS.NUM_CLASSES": ("num_classes",),
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": ("test_score_thr",),
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": ("roi_layer.sample_num",),
    "MODEL.RPN.NMS_THRESH": ("rpn_proposal_nms_thr", "rpn_nms_thr"),
    "MODEL.WEIGHTS": ("pre_trained", "checkpoint_path"),
    "OPT_LEVEL": ("amp_level",),
    "OUTPUT_DIR": ("output_path",),
    "SEED": ("seed",),
    "SOLVER.BASE_LR": ("base_lr", "lr_reference_batch"),
    "SOLVER.CHECKPOINT_PERIOD": ("save_checkpoint_steps",),
    "SOLVER.GAMMA": ("lr_gamma",),
    "SOLVER.IMS_PER_BATCH": ("batch_size",),
    "SOLVER.MAX_ITER": ("max_steps", "epoch_size"),
    "SOLVER.MOMENTUM": ("momentum",),
    "SOLVER.STEPS": ("lr_steps",),
    "SOLVER.WARMUP_FACTOR": ("warmup_ratio",),
    "SOLVER.WARMUP_ITERS": ("warmup_step",),
    "SOLVER.WEIGHT_DECAY": ("weight_decay",),
    "TEST.DETECTIONS_PER_IMAGE": ("test_max_per_img",),
}
DEVICES = {"npu": "Ascend", "cuda": "GPU", "cpu": "CPU"}


def solver_entries(arguments: Iterable[str], keys: Container[str], devices: int) -> tuple[list[Entry], list[str]]:
    """Split the positional arguments of a command line into settings and others.

    Args:
        arguments: words; settings of NAMES, each followed by its value, may stand between others. The last occurrence counts.
        keys: names of the model's keys.
        devices: number of devices that train together; IMS_PER_BATCH counts the images on all of them.

    Returns:
        (entries of our keys, the other arguments).

    Raises:
        InputError: for an unknown setting, a missing value, or settings that contradict each other.
    """
    given, rest, words = {}, [], list(arguments)
    while words:
        name = words.pop(0)
        if name not in NAMES:
            if re.fullmatch(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)+", name):
                raise InputError(f"{name}: unknown setting{nearest(name, NAMES)}")
            rest.append(name)
            continue
        if not words:
            raise InputError(f"{name}: its value is missing")
        value = words.pop(0)
        if not name.startswith("MODEL.ROI_MASK_HEAD.") or "rcnn_mask_out_channels" in keys:     # else: no mask head
            given[name] = value
    return _entries(_values(given, devices), keys), rest


def _values(given: dict[str, str], devices: int) -> dict[str, tuple[str, str]]:
    """Return {key: (value as text, setting that it comes from)}."""
    values: dict[str, tuple[str, str]] = {}
    for name, text in given.items():
        for key, value in zip(NAMES[name], _texts(name, text, given, devices)):
            if values.get(key, (value,))[0] != value:
                raise InputError(f"{name}: sets {key} to {value}, but {values[key][1]} sets it to {values[key][0]}")
            values[key] = value, name
    return values


def _texts(name: str, text: str, given: dict[str, str], devices: int) -> tuple[str, ...]:
    """Return the values of the keys that a setting stands for."""
    if name in ("AMP", "OPT_LEVEL"):
        if given.get("AMP", "1") not in ("0", "1", "True", "False"):
            raise InputError(f"AMP: expected 0 or 1, got {given['AMP']!r}")
        return ("O0" if given.get("AMP", "1") in ("0", "False") else given.get("OPT_LEVEL", "O2"),)
    if name == "MODEL.DEVICE":
        device, _, number = text.partition(":")
        if device not in DEVICES or not (number or "0").isdigit():
            raise InputError(f"{name}: expected npu, cuda or cpu, or npu:3, got {text!r}")
        return DEVICES[device], number or "0"
    if name == "MODEL.ROI_HEADS.NUM_CLASSES":
        return (str(_whole(name, text) + 1),)           # num_classes counts the background
    if name == "SOLVER.BASE_LR":
        return text, "0"                                # not scaled with the batch
    if name == "SOLVER.IMS_PER_BATCH":
        total = _whole(name, text)
        if total % devices:
            raise InputError(f"{name}: {total} images cannot be split evenly among {devices} devices")
        return (str(total // devices),)
    if name == "SOLVER.MAX_ITER":
        return text, "0"                                # as many epochs as needed
    if name == "SOLVER.STEPS":
        return (f"[{text.strip().strip('()').rstrip(',')}]",)
    return (text,) * len(NAMES[name])


def _whole(name: str, text: str) -> int:
    if not text.isdigit():
        raise InputError(f"{name}: expected a whole number, got {text!r}")
    return int(text)


def _entries(values: dict[str, tuple[str, str]], keys: Container[str]) -> list[Entry]:
    entries = []
    for key, (value, name) in values.items():
        own, _, part = key.partition(".")
        if own not in keys:
            raise InputError(f"{name}: not a setting of this model")
        entries.append(Entry(own, f"{{{part}: {value}}}" if part else value, name, text=True))
    return entries
