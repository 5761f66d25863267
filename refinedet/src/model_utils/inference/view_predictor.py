# Same as faster_rcnn/src/model_utils/inference/view_predictor.py
"""Detection in several views of an image (tta, tile): each goes through the network, then what is found is merged.

As in detectron2's GeneralizedRCNNWithTTA the boxes of all views, in pixels of the image, go through one NMS of each class, and the
best test_max_per_img stay. The mask of a box is the mean over the views that show the whole box, each computed for the merged box.
That takes a second pass, and a network that takes boxes: a checkpoint's in MindSpore. If there is none, a box keeps the mask that
came with it.

Shapes: N views of a batch, D detections of an image, S = test_max_per_img slots, m side of a mask.
"""
import contextlib
import functools
import itertools
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ...model import OUTPUTS
from ..config import Config, InputError
from ..configuration.view_keys import Augmentation, read_tile, read_tta
from ..data.preprocess import build_preprocess
from ..data.transforms import NetworkInput, image_info
from .backend import open_predictor
from .media import read_ahead
from .merging import merge
from .predictors import Outputs, Predict, find_model
from .views import View, cut_off, to_image, to_view, views_of, within

ONE_VIEW = Augmentation(flip=False, scales=(1.0,))


class Feed(NamedTuple):
    """What makes the input of `open_detection` of an image, and how many of these it takes at once."""

    preprocess: Callable[[np.ndarray], NetworkInput]
    batch_size: int


def feed_of(config: Config) -> Feed:
    """Return the feed of what `open_detection` gives for the same configuration."""
    return Feed(whole_image, 1) if _has_views(config) else Feed(build_preprocess(config), config.test_batch_size)


def open_detection(config: Config, device: str | None = None) -> Predict:
    """Return predict(image, image_info): the network's, or with tta or tile a ViewPredictor. device: as of `open_predictor`."""
    if not _has_views(config):
        return open_predictor(config, device)
    key, _ = find_model(config)
    augmentation = read_tta(config.tta)
    if key != "checkpoint_path" and max(augmentation.scales) > 1:
        raise InputError(f"tta: a scale of {max(augmentation.scales):g} needs a larger input than the network of {key} takes: give "
                         "checkpoint_path, or scales up to 1")
    config = _with_mean_masks(config, key, device)
    at_most_one = open_predictor(config, device) if min(augmentation.scales) <= 1 else None
    networks = {}
    for scale in augmentation.scales:
        sized = config if scale <= 1 else enlarged(config, scale)
        predictor = at_most_one if scale <= 1 and at_most_one else open_predictor(sized, device)
        preprocess = functools.partial(build_preprocess(sized), factor=min(scale, 1.0))
        networks[scale] = ViewNetwork(predictor, preprocess, predictor.masks)
    find_views = functools.partial(views_of, augmentation=augmentation, tile=read_tile(config.tile), overlap=config.overlap)
    return ViewPredictor(find_views, networks, iou_thr=config.test_iou_thr, most=config.test_max_per_img,
                         batch_size=config.test_batch_size, offset=config.get("box_offset", 0),     # not every model's
                         keep_empty=config.get("keep_empty_boxes", False))


def _has_views(config: Config) -> bool:
    return read_tile(config.tile) is not None or read_tta(config.tta) != ONE_VIEW


def _with_mean_masks(config: Config, key: str, device: str | None) -> Config:
    """Return the configuration with the backend that averages masks, unless another is asked for."""
    if "masks" not in OUTPUTS or key != "checkpoint_path" or config.backend != "auto" or device not in (None, "CPU"):
        return config
    print("backend: mindspore, because it averages the masks of the views (tta, tile)", file=sys.stderr, flush=True)
    return Config({**config.to_dict(), "backend": "mindspore"})


def enlarged(config: Config, scale: float) -> Config:
    """Return the configuration of a network whose input is so many times as large, rounded up to what the network takes."""
    stride = config.anchor_strides[3]       # that of the last stage
    sides = {name: round(config[name] * scale) for name in ("img_height", "img_width")}

    def fitting(side: float) -> int:
        return math.ceil(side / stride) * stride

    if config.pad_to == "fixed":
        sides = {name: fitting(side) for name, side in sides.items()}
        return Config({**config.to_dict(), **sides})
    if config.pad_to == "divisor":
        return Config({**config.to_dict(), **sides})
    height, width = (fitting(round(int(side) * scale)) for side in config.pad_to.split("x"))
    return Config({**config.to_dict(), **sides, "pad_to": f"{height}x{width}"})


def whole_image(image: np.ndarray) -> NetworkInput:
    """Return the image (H, W, 3) uint8 itself, and its image_info at the scale 1: views are made of it later."""
    height, width = image.shape[:2]
    return NetworkInput(image, image_info(image.shape, (height, width), (height, width)))


class ViewNetwork(NamedTuple):
    """The network that sees the views of a scale.

    masks: masks(image (N, 3, H, W), boxes (N, S, 4), labels (N, S)) -> (N, S, m, m), the masks of given boxes; or None.
    """

    predict: Predict
    preprocess: Callable[[np.ndarray], NetworkInput]
    masks: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None


class ViewPredictor:
    """predict(image (1, H, W, 3) uint8, image_info) -> OUTPUTS of model.py, boxes in pixels of the image.

    Args:
        views: views(height, width) -> the views of an image of this size.
        networks: of each scale.
        iou_thr: of the NMS of each class.
        most: detections that stay.
        batch_size: views that go through the network at once.
        offset: see views.to_image.
        keep_empty: boxes stay that clipping left without width or height.
    """

    def __init__(self, views: Callable[[int, int], list[View]], networks: Mapping[float, ViewNetwork], *, iou_thr: float, most: int,
                 batch_size: int = 1, offset: float = 0.0, keep_empty: bool = False):
        self.views, self.networks, self.iou_thr, self.most, self.batch_size = views, networks, iou_thr, most, batch_size
        self.offset, self.keep_empty = offset, keep_empty
        self.averages = all(network.masks for network in networks.values())

    def __call__(self, image: np.ndarray, image_info: np.ndarray) -> Outputs:
        if len(image) != 1:
            raise ValueError(f"expected one image, got {len(image)}")
        views = self.views(*image.shape[1:3])
        columns = self._found(image[0], views)
        rows = merge(columns["boxes"], columns["scores"], columns["labels"], self.iou_thr, self.most)
        merged = {name: column[rows] for name, column in columns.items()}
        if self.averages and "masks" in merged and len(rows):
            merged["masks"] = self._mean_masks(image[0], views, merged["boxes"], merged["labels"])
        return tuple({**merged, "valid": np.ones(len(rows), bool)}[name][None] for name in OUTPUTS)

    def _found(self, image: np.ndarray, views: Sequence[View]) -> dict[str, np.ndarray]:
        """Return what all views find, but for what their borders cut: columns by name."""
        height, width = image.shape[:2]
        parts = []
        for some, images, infos in self._batches(image, views):
            outputs = dict(zip(OUTPUTS, self.networks[some[0].scale].predict(images, infos)))
            for i, view in enumerate(some):
                found = {name: output[i] for name, output in outputs.items()}
                found["boxes"] = to_image(found["boxes"], infos[i], view, self.offset)
                sides = found["boxes"][:, 2:] - found["boxes"][:, :2]
                solid = (sides >= 0 if self.keep_empty else sides > 0).all(-1)      # written so that a NaN is left out too
                keep = found.pop("valid").astype(bool) & solid & ~cut_off(found["boxes"], view.window, height, width)
                if "masks" in found:
                    found["masks"] = _turned(found["masks"], view)
                parts.append({name: column[keep] for name, column in found.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _mean_masks(self, image: np.ndarray, views: Sequence[View], boxes: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return the masks (D, m, m) of boxes (D, 4) in pixels of the image; the first view shows all of them."""
        total, counts = None, np.zeros(len(boxes))
        for some, images, infos in self._batches(image, [view for view in views if within(boxes, view.window).any()]):
            rows = [np.flatnonzero(within(boxes, view.window)) for view in some]
            slots, classes = np.zeros((len(images), self.most, 4), np.float32), np.ones((len(images), self.most), np.int32)
            for i, (view, here) in enumerate(zip(some, rows)):
                slots[i, :len(here)] = to_view(boxes[here], infos[i], view, self.offset)
                classes[i, :len(here)] = labels[here]
            compute = self.networks[some[0].scale].masks
            if compute is None:
                raise ValueError("the network takes no boxes")
            masks = compute(images, slots, classes)
            total = np.zeros((len(boxes), *masks.shape[2:]), np.float32) if total is None else total
            for i, (view, here) in enumerate(zip(some, rows)):
                total[here] += _turned(masks[i, :len(here)], view)
                counts[here] += 1
        if total is None:
            raise ValueError("no view shows a box")
        return total / counts[:, None, None].astype(np.float32)

    def _batches(self, image: np.ndarray, views: Sequence[View]) -> Iterator[tuple[list[View], np.ndarray, np.ndarray]]:
        """Yield views of one scale whose inputs have one size, and these inputs: (N, 3, H, W) and (N, 6). Rows beyond the views
        repeat the last one, as networks take batches of one size."""

        def load(view: View) -> tuple[View, NetworkInput]:
            return view, self.networks[view.scale].preprocess(view.show(image))

        with contextlib.closing(read_ahead(views, load, 2 * self.batch_size)) as loaded:
            for _, same in itertools.groupby(loaded, lambda item: (item[0].scale, item[1].image.shape)):
                while some := list(itertools.islice(same, self.batch_size)):
                    inputs = [inputs for _, inputs in some]
                    inputs += inputs[-1:] * (self.batch_size - len(some))
                    images, infos = map(np.stack, zip(*inputs))
                    yield [view for view, _ in some], images, infos


def _turned(masks: np.ndarray, view: View) -> np.ndarray:
    """Return masks (..., m, m) of a view as they are in the image."""
    return masks[..., ::-1] if view.flip else masks
