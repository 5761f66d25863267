# Same as faster_rcnn/src/model_utils/inference/view_predictor.py
"""Run the network on several views of an image (tta, tile) and merge the detections.

As in detectron2's GeneralizedRCNNWithTTA, the boxes of all views are mapped to the image and merged by class-wise NMS, which keeps
the best test_max_per_img. A box's mask is the mean of the masks predicted for the merged box in every view that shows the whole
box. This needs a second pass with given boxes, which only a checkpoint in MindSpore supports. Otherwise each box keeps the mask it
was detected with.

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
    """The preprocessing and the batch size for the predictor of `open_detection`."""

    preprocess: Callable[[np.ndarray], NetworkInput]
    batch_size: int


def feed_of(config: Config) -> Feed:
    """Return the preprocessing and batch size that match `open_detection` for the same configuration."""
    return Feed(whole_image, 1) if _has_views(config) else Feed(build_preprocess(config), config.test_batch_size)


def open_detection(config: Config, device: str | None = None) -> Predict:
    """Return predict(image, image_info) for the configuration: a ViewPredictor with tta or tile, else the network's predictor.

    Args:
        config: the configuration.
        device: the result of setup_device, or None, see `open_predictor`.

    Raises:
        InputError: the network's file is not usable, or an exported network is too small for a scale of tta.
    """
    if not _has_views(config):
        return open_predictor(config, device)
    key, _ = find_model(config)
    augmentation = read_tta(config.tta)
    if key != "checkpoint_path" and max(augmentation.scales) > 1:
        raise InputError(f"tta: a scale of {max(augmentation.scales):g} needs a larger input than the network of {key} takes: pass "
                         "checkpoint_path, or use scales up to 1")
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
                         batch_size=config.test_batch_size, offset=config.get("box_offset", 0),     # not every model has the key
                         keep_empty=config.get("keep_empty_boxes", False))


def _has_views(config: Config) -> bool:
    return read_tile(config.tile) is not None or read_tta(config.tta) != ONE_VIEW


def _with_mean_masks(config: Config, key: str, device: str | None) -> Config:
    """Set backend to mindspore, which can average masks, if the network has masks and backend is auto."""
    if "masks" not in OUTPUTS or key != "checkpoint_path" or config.backend != "auto" or device not in (None, "CPU"):
        return config
    print("backend: mindspore, because it averages the masks of the views (tta, tile)", file=sys.stderr, flush=True)
    return Config({**config.to_dict(), "backend": "mindspore"})


def enlarged(config: Config, scale: float) -> Config:
    """Scale the configured input size, rounded up to a multiple of the stride, and return the new configuration."""
    stride = config.anchor_strides[3]       # of the backbone's last stage
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
    """Return an image (H, W, 3) uint8 unchanged, with image_info at scale 1; ViewPredictor preprocesses each view."""
    height, width = image.shape[:2]
    return NetworkInput(image, image_info(image.shape, (height, width), (height, width)))


class ViewNetwork(NamedTuple):
    """The network and preprocessing for the views of one scale.

    Attributes:
        predict: predict(image, image_info) returns OUTPUTS of model.py.
        preprocess: turns the pixels (h, w, 3) of a view into the network's input.
        masks: masks(image (N, 3, H, W), boxes (N, S, 4), labels (N, S)) predicts masks (N, S, m, m) for given boxes; or None.
    """

    predict: Predict
    preprocess: Callable[[np.ndarray], NetworkInput]
    masks: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None


class ViewPredictor:
    """Detection in the views of an image.

    predict(image (1, H, W, 3) uint8, image_info) returns OUTPUTS of model.py, with boxes in pixels of the image.

    Args:
        views: views(height, width) returns the views of an image of this size.
        networks: the network for each scale.
        iou_thr: IoU threshold of the class-wise NMS, 0 to 1.
        most: the maximum number of detections.
        batch_size: the number of views in a batch.
        offset: see views.to_image.
        keep_empty: keep boxes that clipping has left without width or height.

    Raises:
        ValueError: on a call with more than one image.
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
        """Return {output name: array} with the detections of all views, without boxes that a tile border may have cut."""
        height, width = image.shape[:2]
        parts = []
        for some, images, infos in self._batches(image, views):
            outputs = dict(zip(OUTPUTS, self.networks[some[0].scale].predict(images, infos)))
            for i, view in enumerate(some):
                found = {name: output[i] for name, output in outputs.items()}
                found["boxes"] = to_image(found["boxes"], infos[i], view, self.offset)
                sides = found["boxes"][:, 2:] - found["boxes"][:, :2]
                solid = (sides >= 0 if self.keep_empty else sides > 0).all(-1)      # false for NaN boxes, which are dropped
                keep = found.pop("valid").astype(bool) & solid & ~cut_off(found["boxes"], view.window, height, width)
                if "masks" in found:
                    found["masks"] = _turned(found["masks"], view)
                parts.append({name: column[keep] for name, column in found.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _mean_masks(self, image: np.ndarray, views: Sequence[View], boxes: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return masks (D, m, m) float32 for boxes (D, 4) in pixels of the image.

        Every box has at least one mask, since the first view is the whole image.
        """
        total, counts = None, np.zeros(len(boxes))
        for some, images, infos in self._batches(image, [view for view in views if within(boxes, view.window).any()]):
            rows = [np.flatnonzero(within(boxes, view.window)) for view in some]
            slots, classes = np.zeros((len(images), self.most, 4), np.float32), np.ones((len(images), self.most), np.int32)
            for i, (view, here) in enumerate(zip(some, rows)):
                slots[i, :len(here)] = to_view(boxes[here], infos[i], view, self.offset)
                classes[i, :len(here)] = labels[here]
            compute = self.networks[some[0].scale].masks
            if compute is None:
                raise ValueError("the network cannot predict masks for given boxes; pass masks to every ViewNetwork")
            masks = compute(images, slots, classes)
            total = np.zeros((len(boxes), *masks.shape[2:]), np.float32) if total is None else total
            for i, (view, here) in enumerate(zip(some, rows)):
                total[here] += _turned(masks[i, :len(here)], view)
                counts[here] += 1
        if total is None:
            raise ValueError("expected a view of the whole image, but no view shows a box completely")
        return total / counts[:, None, None].astype(np.float32)

    def _batches(self, image: np.ndarray, views: Sequence[View]) -> Iterator[tuple[list[View], np.ndarray, np.ndarray]]:
        """Yield batches of views with one scale and input size: the views, images (N, 3, H, W) and image_info (N, 6).

        The last view is repeated to fill the batch, since the network has a fixed batch size.
        """

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
    """Undo the mirroring of a view in its masks (..., m, m)."""
    return masks[..., ::-1] if view.flip else masks
