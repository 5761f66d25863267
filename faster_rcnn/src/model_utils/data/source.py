"""From the configuration to the sets of pictures: which keys name them, and their conversion to MindRecord."""
import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ...util import first_of
from ..config import Config, InputError
from ..own_utils import own_utils
from .resampling import read_presence, read_sizes, repeat_factors, resampled_count

if TYPE_CHECKING:       # utils/ may be missing: see _mindrecord_tools
    from utils.mindrecord import Split
    from utils.mindrecord.format import Format

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Where the images and annotations of a set are, and what is taken of them: arguments of utils.mindrecord.ensure."""

    source: str                     # name of the format
    image_dir: str
    anno_path: str
    image_set: str | None
    classes: list[str] | None
    keep_empty: bool
    masks: bool
    exif_orientation: str           # auto, apply or ignore
    split: "Split | None" = None    # the side of them that is taken


class HeldFiles(tuple[Path, ...]):
    """The files of a conversion. While anything refers to them, no other process deletes them."""

    def __new__(cls, paths: Iterable[Path], holds: list[Any]) -> Self:
        made = super().__new__(cls, paths)
        made.holds = holds
        return made

    holds: list[Any]


@dataclass(frozen=True)
class DataInfo:
    """A set in MindRecord."""

    files: tuple[Path, ...]             # in the order of the records
    count: int                          # pictures
    categories: list[dict[str, Any]]    # {"id", "name", "label"} of each class; the id is the source's
    source: Source
    repeats: np.ndarray | None = None   # (count,): how often an epoch has each picture on average; None = once

    @property
    def class_names(self) -> list[str]:
        """The name of each label, background first."""
        return ["background", *(item["name"] for item in sorted(self.categories, key=lambda item: item["label"]))]

    def ground_truth(self) -> dict[str, Any]:
        """COCO ground truth of the objects that the conversion keeps, with the sizes of the pictures themselves.

        Objects in an image that cannot be read count as missed. The annotations are read for each evaluation, so that training
        does not keep them in memory.
        """
        source = self.source
        problems: list[Any] = []
        truth = _mindrecord_tools().read_ground_truth(source.source, source.image_dir, source.anno_path, source.classes,
                                                      source.image_set, read_sizes(self.files), problems, source.split,
                                                      source.exif_orientation)
        if problems and not self.files:     # a conversion has told of them
            _mindrecord_tools().warn_of(problems, log)
        return truth


def source_format(config: Config) -> "Format":
    """Return the entry of utils/mindrecord/formats that the key `dataset` names."""
    return _mindrecord_tools().find_format(config.dataset)


def prepare_data(config: Config, train: bool, in_training: bool = False, masks: bool = False) -> DataInfo:
    """The training or the evaluation set of the configuration, converted to MindRecord where that is not done yet.

    in_training: the evaluation set of a training run, in which image_dir and anno_path are the training set's;
    masks: with the objects' masks, and without those objects that have none.
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
        # An evaluation by itself may be meant for other images than those that training divided.
        (log.warning if not train and not in_training else log.info)(
            "val_ratio: %g: %d images of %s are for %s", config.val_ratio, info.count, source.anno_path,
            "training" if train else "validation")
    if config.num_classes and len(info.class_names) != config.num_classes:
        raise InputError(f"num_classes: {config.num_classes}, but {source.anno_path} has {len(info.class_names)}, "
                         "the background counted; coco_classes can name those to take")
    return _with_repeats(info, config.repeat_threshold) if train and config.repeat_threshold else info


def name_classes(config: Config, data: DataInfo) -> Config:
    """Return the configuration; if it names no classes, with those of the data: whatever follows finds them by name.

    num_classes too, if it is not given (0).
    """
    if config.coco_classes:
        return config
    names = data.class_names
    if not config.num_classes:
        log.info("classes of the data: %s", ", ".join(names[1:]))
    # A class of the data may be called background: then the names tell nothing apart.
    unique = names if len(set(names)) == len(names) else []
    return Config({**config.to_dict(), "num_classes": len(names), "coco_classes": unique})


def require_same_classes(config: Config, data: DataInfo) -> None:
    """InputError unless the evaluation set of a training run has the classes of the training set, whatever their order.

    With coco_classes these are chosen, and with val_ratio both are of one set. If the labels are numbers, the evaluation set need
    not have all of them.
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
        told = " and ".join(f"{first_of(names)} is only in {path}{f' ({image_set})' if image_set else ''}"
                            for names, path, image_set in sides if names)
        raise InputError(f"coco_classes: the classes to train and to evaluate on differ: {told}; name those to take: "
                         f"--num_classes={len(data.class_names)} --coco_classes='[{', '.join(data.class_names)}]' for example")


def _with_repeats(info: DataInfo, threshold: float) -> DataInfo:
    """The set with the pictures of its rare classes repeated."""
    present = read_presence(info.files, info.count, len(info.class_names) - 1)
    repeats = repeat_factors(present, threshold)
    log.info("repeat_threshold: an epoch has %d pictures for %d, one of them up to %.1f times", resampled_count(repeats),
             info.count, repeats.max())
    return replace(info, repeats=repeats)


def find_source(config: Config, train: bool, in_training: bool = False, masks: bool = False) -> Source:
    """Return the source that the configuration's keys stand for."""
    # A model without formats that have lists of images has no image_set.
    values = {name: config.get(name, "") for name in ("image_dir", "anno_path", "image_set")}
    entry, split = source_format(config), None
    if config.val_ratio:        # both sides are of one set
        split = _mindrecord_tools().Split(config.val_ratio, "train" if train else "val")
        values["image_set"] = values["image_set"] or _default_set(entry, values["anno_path"], True)
    elif not train:
        own = {name: config.get(f"val_{name}", "") for name in values}
        named = _default_set(entry, own["anno_path"] or values["anno_path"], False)
        if any(own.values()):   # what is not given is common to both sets, as the folders of VOC are
            own["image_set"] = own["image_set"] or named
            values = {name: own[name] or value for name, value in values.items()}
        elif in_training and not named:     # those of the training set, which says nothing about what was learnt
            values = dict.fromkeys(values, "")
        else:                   # annotations that name their sets hold one for evaluation
            values["image_set"] = named if in_training else values["image_set"] or named
    else:
        values["image_set"] = values["image_set"] or _default_set(entry, values["anno_path"], True)
    values.update(_of_layout(config, entry, train, train or split is not None or not in_training, values))
    if not values["image_dir"] and values["anno_path"] and entry.find_images and Path(values["anno_path"]).exists():
        values["image_dir"] = str(entry.find_images(Path(values["anno_path"]), values["image_set"] or None))
    return Source(config.dataset, values["image_dir"], values["anno_path"], values["image_set"] or None,
                  list(config.coco_classes) or None,
                  # An evaluation counts what is found where nothing is.
                  keep_empty=config.keep_empty if train else True, masks=masks, exif_orientation=config.exif_orientation,
                  split=split)


def _default_set(entry: "Format", anno_path: str, train: bool) -> str:
    """The set that annotations name for training or for evaluation, "" if they name none."""
    if not entry.default_set or not anno_path or not Path(anno_path).exists():
        return ""
    return entry.default_set(Path(anno_path), train) or ""


def _of_layout(config: Config, entry: "Format", train: bool, own_set: bool, values: dict[str, str]) -> dict[str, str]:
    """What the root of the data set gives of the values that are not there. own_set: it cannot be the training set by mistake."""
    layout = entry.layout
    root = config.get(layout.key) if layout else None       # not every model has the key of every format
    # If one root holds all sets, only a list of images keeps the evaluation set of a training run from being the training set.
    if not layout or not root or not (layout.separate_sets or own_set or values["image_set"]):
        return {}
    paths = zip(("image_dir", "anno_path"), layout.paths(config, train or bool(config.val_ratio)))
    return {name: values[name] or str(Path(root) / path) for name, path in paths}


def _require_source(config: Config, source: Source, prefix: str, converted: bool) -> None:
    """InputError that names the key where the source is not given or not there; to train, a conversion will do."""
    if converted:
        return
    layout = source_format(config).layout
    key = layout.key if layout else None
    root = config.get(key)      # None: the model has no such key
    if root and not Path(root).is_dir():
        raise InputError(f"{key}: no such folder: {root}")
    # The annotations of some formats say where the images are.
    names = ("anno_path",) if source_format(config).find_images else ("image_dir", "anno_path")
    missing = next((name for name in names if not getattr(source, name)), None)
    if missing and layout and root and not layout.separate_sets:
        missing = "image_set"   # the folders follow from the root
    if missing:
        choice = "" if root is None or missing == "image_set" else f"--{key} or "
        needed = f"{prefix}{missing} is needed{' for run_eval' if prefix else ''}"
        division = ", or --val_ratio=0.2 to keep a part of the training set for it" if prefix else ""
        raise InputError(f"{needed}: give {choice}--{prefix}{missing}{division}")


def _conversion_folder(config: Config, source: Source, train: bool) -> Path:
    """Where a set's MindRecord lies: under mindrecord_dir, or just there where it holds a conversion of this set."""
    # A model without masks may use the same set beside this one.
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
        raise InputError("utils/mindrecord is not there: it stands beside the model's folder; copy both") from error
