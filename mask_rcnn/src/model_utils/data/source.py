# Same as faster_rcnn/src/model_utils/data/source.py
"""Find the data sets that a configuration names, and convert them to MindRecord."""
import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ...util import counted, first_of
from ..config import Config, InputError
from ..own_utils import own_utils
from .resampling import read_presence, read_sizes, repeat_factors, resampled_count

if TYPE_CHECKING:       # utils/ may be missing, see _mindrecord_tools
    from utils.mindrecord import Split
    from utils.mindrecord.format import Format

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Images and annotations of a set, and the part of them to use: arguments of utils.mindrecord.ensure."""

    source: str                     # name of the format
    image_dir: str
    anno_path: str
    image_set: str | None
    classes: list[str] | None
    keep_empty: bool
    masks: bool
    exif_orientation: str           # auto, apply or ignore
    split: "Split | None" = None    # the side of a split to use


class HeldFiles(tuple[Path, ...]):
    """Files of a conversion; other processes do not delete them as long as this object exists."""

    def __new__(cls, paths: Iterable[Path], holds: list[Any]) -> Self:
        made = super().__new__(cls, paths)
        made.holds = holds
        return made

    holds: list[Any]


@dataclass(frozen=True)
class DataInfo:
    """A data set in MindRecord."""

    files: tuple[Path, ...]             # in the order of the records
    count: int                          # images
    categories: list[dict[str, Any]]    # {"id", "name", "label"} of each class; the id comes from the source
    source: Source
    repeats: np.ndarray | None = None   # (count,), how often each image occurs in an epoch; None = once

    @property
    def class_names(self) -> list[str]:
        """Return the name of each label, background first."""
        return ["background", *(item["name"] for item in sorted(self.categories, key=lambda item: item["label"]))]

    def ground_truth(self) -> dict[str, Any]:
        """Return the COCO ground truth of the converted objects, with the sizes of the original images.

        Objects in images that cannot be read count as missed. The annotations are read for each evaluation instead of being kept
        in memory during training.
        """
        source = self.source
        problems: list[Any] = []
        truth = _mindrecord_tools().read_ground_truth(source.source, source.image_dir, source.anno_path, source.classes,
                                                      source.image_set, read_sizes(self.files), problems, source.split,
                                                      source.exif_orientation)
        if problems and not self.files:     # otherwise the conversion has reported them
            _mindrecord_tools().warn_of(problems, log)
        return truth


def source_format(config: Config) -> "Format":
    """Return the format that the key `dataset` names, an entry of utils/mindrecord/formats."""
    return _mindrecord_tools().find_format(config.dataset)


def prepare_data(config: Config, train: bool, in_training: bool = False, masks: bool = False) -> DataInfo:
    """Return the training or the evaluation set; convert it to MindRecord unless that has been done.

    Args:
        config: the configuration.
        train: the training set, else the evaluation set.
        in_training: the evaluation set of a training run, in which image_dir and anno_path name the training set.
        masks: include masks, and leave out objects without one.

    Raises:
        InputError: if keys are missing, paths do not exist, or num_classes does not fit the data.
    """
    tools = _mindrecord_tools()
    source = find_source(config, train, in_training, masks)
    folder = _conversion_folder(config, source, train)
    _require_source(config, source, "val_" if in_training and not train else "", train and _has_manifest(folder))
    holds: list[Any] = []
    manifest = tools.ensure(output_dir=folder, **vars(source), holds=holds)
    files = HeldFiles([folder / name for name in manifest["files"]], holds)
    info = DataInfo(files, manifest["count"], manifest["categories"], source)
    if source.split:
        # A separate evaluation may be meant for other images than those that training split.
        (log.warning if not train and not in_training else log.info)(
            "val_ratio: %g: using %s of %s for %s", config.val_ratio, counted(info.count, "image"), source.anno_path,
            "training" if train else "validation")
    if config.num_classes and len(info.class_names) != config.num_classes:
        raise InputError(f"num_classes: {config.num_classes}, but {source.anno_path} has {len(info.class_names)} classes including "
                         "the background; set num_classes, or select classes with coco_classes")
    return _with_repeats(info, config.repeat_threshold) if train and config.repeat_threshold else info


def name_classes(config: Config, data: DataInfo) -> Config:
    """Return the configuration; if it names no classes, with those of the data, so that everything later knows them by name.

    Also sets num_classes if it is 0.
    """
    if config.coco_classes:
        return config
    names = data.class_names
    if not config.num_classes:
        log.info("classes of the data: %s", ", ".join(names[1:]))
    # A class of the data may be called background; then names would be ambiguous.
    unique = names if len(set(names)) == len(names) else []
    return Config({**config.to_dict(), "num_classes": len(names), "coco_classes": unique})


def require_same_classes(config: Config, data: DataInfo) -> None:
    """Raise InputError unless the evaluation set of a training run has the classes of the training set, in any order.

    With coco_classes the classes are given, and with val_ratio both sets come from one. If the class names are numbers, the
    evaluation set may lack some of them.
    """
    if config.coco_classes or config.val_ratio:
        return
    source = find_source(config, train=False, in_training=True)
    _require_source(config, source, "val_", converted=False)
    _, categories, _ = _mindrecord_tools().read_annotations(source.source, source.image_dir, source.anno_path,
                                                            image_set=source.image_set)
    wanted, found = set(data.class_names[1:]), {item["name"] for item in categories}
    numbered = all(name.isdecimal() for name in wanted)
    missing, extra = sorted(wanted - found), sorted(found - wanted)
    if extra or (missing and not numbered):
        sides = ((missing, data.source.anno_path, data.source.image_set), (extra, source.anno_path, source.image_set))
        where = " and ".join(f"{first_of(names)} is only in {path}{f' ({image_set})' if image_set else ''}"
                             for names, path, image_set in sides if names)
        raise InputError(f"coco_classes: the classes to train and to evaluate on differ: {where}; select classes, for example "
                         f"--num_classes={len(data.class_names)} --coco_classes='[{', '.join(data.class_names)}]'")


def _with_repeats(info: DataInfo, threshold: float) -> DataInfo:
    """Return the set with repeats of the images of rare classes."""
    present = read_presence(info.files, info.count, len(info.class_names) - 1)
    repeats = repeat_factors(present, threshold)
    log.info("repeat_threshold: an epoch has %d images instead of %d, one of them up to %.1f times", resampled_count(repeats),
             info.count, repeats.max())
    return replace(info, repeats=repeats)


def find_source(config: Config, train: bool, in_training: bool = False, masks: bool = False) -> Source:
    """Return the images and annotations that the configuration's keys name."""
    # Models whose formats have no lists of images lack the key image_set.
    values = {name: config.get(name, "") for name in ("image_dir", "anno_path", "image_set")}
    entry, split = source_format(config), None
    if config.val_ratio:        # both sides come from one set
        split = _mindrecord_tools().Split(config.val_ratio, "train" if train else "val")
        values["image_set"] = values["image_set"] or _default_set(entry, values["anno_path"], True)
    elif not train:
        own = {name: config.get(f"val_{name}", "") for name in values}
        named = _default_set(entry, own["anno_path"] or values["anno_path"], False)
        if any(own.values()):   # missing values are common to both sets, like VOC's folders
            own["image_set"] = own["image_set"] or named
            values = {name: own[name] or value for name, value in values.items()}
        elif in_training and not named:     # evaluating on the training set would say nothing about generalisation
            values = dict.fromkeys(values, "")
        else:                   # annotations that name their sets have one for evaluation
            values["image_set"] = named if in_training else values["image_set"] or named
    else:
        values["image_set"] = values["image_set"] or _default_set(entry, values["anno_path"], True)
    values.update(_of_layout(config, entry, train, train or split is not None or not in_training, values))
    if not values["image_dir"] and values["anno_path"] and entry.find_images and Path(values["anno_path"]).exists():
        values["image_dir"] = str(entry.find_images(Path(values["anno_path"]), values["image_set"] or None))
    return Source(config.dataset, values["image_dir"], values["anno_path"], values["image_set"] or None,
                  list(config.coco_classes) or None,
                  # Evaluation must count false detections on images without objects.
                  keep_empty=config.keep_empty if train else True, masks=masks, exif_orientation=config.exif_orientation,
                  split=split)


def _default_set(entry: "Format", anno_path: str, train: bool) -> str:
    """Return the set that the annotations name for training or for evaluation, or ""."""
    if not entry.default_set or not anno_path or not Path(anno_path).exists():
        return ""
    return entry.default_set(Path(anno_path), train) or ""


def _of_layout(config: Config, entry: "Format", train: bool, own_set: bool, values: dict[str, str]) -> dict[str, str]:
    """Fill in missing values from the root of the data set. own_set: it cannot be the training set by mistake."""
    layout = entry.layout
    root = config.get(layout.key) if layout else None       # not every model has the keys of all formats
    # If one root holds all sets, only a list of images distinguishes the evaluation set of a training run from the training set.
    if not layout or not root or not (layout.separate_sets or own_set or values["image_set"]):
        return {}
    paths = zip(("image_dir", "anno_path"), layout.paths(config, train or bool(config.val_ratio)))
    return {name: values[name] or str(Path(root) / path) for name, path in paths}


def _require_source(config: Config, source: Source, prefix: str, converted: bool) -> None:
    """Raise InputError, with the key, if the source is not given or missing. For training, its conversion suffices."""
    if converted:
        return
    layout = source_format(config).layout
    key = layout.key if layout else None
    root = config.get(key)      # None: the model has no such key
    if root and not Path(root).is_dir():
        raise InputError(f"{key}: no such folder: {root}")
    # Some formats' annotations say where the images are.
    names = ("anno_path",) if source_format(config).find_images else ("image_dir", "anno_path")
    missing = next((name for name in names if not getattr(source, name)), None)
    if missing and layout and root and not layout.separate_sets:
        missing = "image_set"   # the root determines the folders
    if missing:
        choice = "" if root is None or missing == "image_set" else f"--{key} or "
        needed = f"{prefix}{missing} is required{' for run_eval' if prefix else ''}"
        division = ", or --val_ratio=0.2 to split it off the training set" if prefix else ""
        raise InputError(f"{needed}: give {choice}--{prefix}{missing}{division}")


def _conversion_folder(config: Config, source: Source, train: bool) -> Path:
    """Return the folder of a set's MindRecord: below mindrecord_dir, or mindrecord_dir itself if it holds a conversion of it."""
    # A model without masks may convert the same set to the same folder.
    name = ("train" if train else "eval") + ("_masks" if source.masks else "")
    root = Path(config.mindrecord_dir or Path(config.output_path) / "mindrecord")
    manifest, _ = own_utils("mindrecord.manifest").read_manifest(root)
    split = None if source.split is None else vars(source.split)
    if manifest is None or (manifest["options"].get("masks", False), manifest["options"].get("split")) != (source.masks, split):
        return root / name
    if not (source.anno_path and Path(source.anno_path).exists()):
        return root if train else root / name
    same = own_utils("mindrecord.readers").source_digest(config.dataset, source.anno_path, source.image_set)
    return root if manifest["fingerprint"]["annotations"] == same else root / name


def _has_manifest(folder: Path) -> bool:
    return (folder / "manifest.json").is_file()


def _mindrecord_tools() -> ModuleType:
    try:
        return own_utils("mindrecord")
    except ImportError as error:
        if not (error.name or "").endswith(("utils", "utils.mindrecord")):
            raise
        raise InputError("utils/mindrecord is missing; copy utils/ and the model's folder side by side") from error
