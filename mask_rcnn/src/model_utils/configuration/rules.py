# Same as faster_rcnn/src/model_utils/configuration/rules.py
"""Rules between configuration keys that hold for every model. Each check yields (key, fault)."""
from collections.abc import Iterator

from ..data.augmentation import AUGMENTATIONS, keys_of
from .schema import nearest
from .values import Config

# A key, and what is wrong with its value.
Fault = tuple[str, str]


def check_anchors(config: Config) -> Iterator[Fault]:
    """Check that anchors have sizes and shapes."""
    for name in ("anchor_scales", "anchor_ratios"):
        if not config[name]:
            yield name, "expected at least one value"


def check_classes(config: Config) -> Iterator[Fault]:
    """Check that coco_classes is a valid list of num_classes names."""
    names = config.coco_classes
    if not names:  # the labels have no names
        return
    if names[0] != "background":
        yield "coco_classes", f"the first must be 'background', got {names[0]!r}"
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        yield "coco_classes", f"given twice: {', '.join(twice)}"
    if config.num_classes != len(names):
        yield "num_classes", f"{config.num_classes}, but coco_classes has {len(names)} names including the background"


def check_epochs_and_names(config: Config) -> Iterator[Fault]:
    """Check the length of training, the order of the schedule, and the placeholder in instance_set."""
    yield from _training(config)
    if list(config.sgd_step) != sorted(config.sgd_step):
        yield "sgd_step", f"expected rising epochs, got {list(config.sgd_step)}"
    if list(config.lr_steps) != sorted(config.lr_steps):
        yield "lr_steps", f"expected rising steps, got {list(config.lr_steps)}"
    if config.instance_set.count("{}") != 1:
        yield "instance_set", f"expected one {{}} in place of the data type's name, got {config.instance_set!r}"


def _training(config: Config) -> Iterator[Fault]:
    """Check how long training runs, and what it evaluates."""
    if not config.epoch_size and not config.max_steps:
        yield "epoch_size", "0 leaves the end of the run to max_steps, but max_steps is 0; set one of them"
    own = [name for name in ("val_image_dir", "val_anno_path", "val_image_set") if config.get(name)]
    if config.val_ratio and own:
        yield "val_ratio", f"{config.val_ratio:g} splits the training set, but {own[0]} names a validation set; set one of them"
    done = config.pre_trained_epoch_size
    if done and done >= config.epoch_size:
        yield "pre_trained_epoch_size", f"{done} of {config.epoch_size} epochs (epoch_size) leave nothing to train"
    if config.early_stop_patience and not config.run_eval:
        yield "early_stop_patience", "needs run_eval: True, otherwise nothing is evaluated"
    if config.val_loss and not config.run_eval:
        yield "val_loss", "needs run_eval: True, otherwise nothing is evaluated"
    if config.perf_steps and config.resume:
        yield "perf_steps", "measures a new run; leave resume empty"
    if config.perf_steps and config.perf_warmup < 1:
        yield "perf_warmup", "expected at least 1, the step that compiles, got 0"


def check_augmentations(config: Config) -> Iterator[Fault]:
    """Check that augmentations exist, occur once, and only read keys that the model has."""
    names = config.augmentations
    for name in names:
        if name not in AUGMENTATIONS:
            yield "augmentations", f"expected names from {', '.join(AUGMENTATIONS)}, got {name!r}{nearest(name, AUGMENTATIONS)}"
            continue
        if names.count(name) > 1:
            yield "augmentations", f"given twice: {name}"
        missing = [key for key in keys_of(name) if key not in config]
        if missing:
            yield "augmentations", f"{name} reads {', '.join(missing)}; declare each in default_config.yaml to use it"
