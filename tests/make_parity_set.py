"""Make a parity set of other sizes from an existing one, so that the parity tests can run on it.

The images of SOURCE are cropped and get new names and ids. The checkpoints stay. Our own network computes all arrays that tests
read and all detections; they are stored in the layout of SOURCE, with each framework's names and orders of classes. The set
therefore shows that the tests take sizes, images, counts and names from the folder. It does not show that the network is right:
only a set that the frameworks computed shows that. Two more differences:

- grad_norms and grad_norms_float64 are equal: float32 norms of the network with its activations settled (tests/relu_sides.py).
- Our network lacks what torchvision computes for the background (box deltas, mask logits). These entries mean nothing.

op_fixtures.npz, zoo_names and refinedet320_vgg16 are copied unchanged.

usage: python -m tests.make_parity_set SOURCE OUTPUT
"""
import argparse
import json
import shutil
import tempfile
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops
from pycocotools import mask as coco_mask

from faster_rcnn.src.FasterRcnn.bbox_assign_sample import match_anchors
from faster_rcnn.src.FasterRcnn.bbox_assign_sample_stage2 import match_rois
from tests.crop_images import crop_images
from tests.numpy_layers import roi_align
from tests.parity_models import LEVELS, ParityModel, fixture_folders, rows_of_pictures
from tests.parity_step import settled_step
from tests.unit.test_mask_targets import SIZE, rasterise
from tests.unit.test_network_parity import STEPS, Stages, detections_of_stored, stages_of

CROPS = {7: (160, 224), 12: (128, 256)}     # id of the new image -> height and width
DIVISOR = 32                                # images and the batch are padded to multiples of it
COPIED = ("op_fixtures.npz", "zoo_names", "refinedet320_vgg16")
FIX_STEPS = {"fix/box_feat": 3, "fix/mask_feat": 12}    # one RoI in so many is stored


# ------------------------------------------------------------------------------------- classes in a framework's order

def their_labels(model, ours):
    """Map classes from ours to theirs, the inverse of ParityModel.labels."""
    return np.where(ours == 0, model.classes, ours - 1) if model.background_last else ours


def their_classes(model, rows):
    """Map rows of class logits from ours to theirs, the inverse of ParityModel.class_rows."""
    return np.roll(rows, -1, 0) if model.background_last else rows


def their_boxes(model, rows):
    """Map rows of box deltas from ours to theirs, the inverse of ParityModel.box_rows."""
    return rows if model.framework != "torchvision" else np.concatenate([np.zeros_like(rows[:4]), rows])


def their_masks(model, rows):
    """Map rows of mask logits from ours to theirs, the inverse of ParityModel.mask_rows."""
    return rows if model.framework != "torchvision" else np.concatenate([np.zeros_like(rows[:1]), rows])


# ------------------------------------------------------------------------------------------------- arrays of a network

def set_input(model, data: dict) -> None:
    """Set the input and the ground truth of the images of instances.json."""
    arrays, sizes = model.arrays, np.array([[image["height"], image["width"]] for image in data["images"]])
    padded = -(-sizes // DIVISOR) * DIVISOR
    arrays["input/image_sizes"] = sizes
    if model.framework == "mmdet":
        arrays["input/pad_shapes"] = padded
    arrays["input/images"] = np.zeros((len(sizes), 3, *padded.max(0)), np.float32)
    preprocess = model.module("model_utils.data.loading").build_preprocess(model.config())
    decode = model.module("model_utils.data.transforms").decode_image
    order = {item["id"]: label for label, item in enumerate(data["categories"], 1)}
    for i, (image, path) in enumerate(zip(data["images"], model.images)):
        arrays["input/images"][i], _ = preprocess(decode(path.read_bytes()))
        objects = [item for item in data["annotations"] if item["image_id"] == image["id"]]
        boxes = np.array([item["bbox"] for item in objects], np.float32)
        boxes[:, 2:] += boxes[:, :2]
        arrays[f"train/gt_boxes{i}"] = boxes
        arrays[f"train/gt_classes{i}"] = their_labels(model, np.array([order[item["category_id"]] for item in objects]))
        if model.masks:
            arrays[f"train/gt_polygons{i}"] = np.array([item["segmentation"][0] for item in objects])


def set_fixed_rois(model, source: dict, corners: list) -> None:
    """Set the RoIs of SOURCE in pixels of the crops. Their sizes, which decide the level, do not change."""
    rois = source["fix/rois"].copy()
    rois[:, 1:] -= np.tile(corners, 2)[rois[:, 0].astype(int)]
    model.arrays["fix/rois"] = rois
    model.arrays.update({key: source[key] for key in ("fix/levels", "fix/mask_channel") if key in source})


def checksum(array):
    """Return sum, sum of absolute values, sum of squares, minimum, maximum and count, in float64."""
    wide = array.astype(np.float64)
    return np.array([wide.sum(), np.abs(wide).sum(), (wide ** 2).sum(), wide.min(), wide.max(), wide.size])


def set_stages(model, net, source: dict) -> dict:
    """Set the arrays of features, RPN, anchors and fixed RoIs. Return {name: whole array}."""
    got, _ = stages_of(model, Stages(net, model.masks))
    columns = {"fix/cls_logits": their_classes, "fix/deltas": their_boxes}
    for name, array in got.items():
        if f"{name}_checksum" in source:
            model.arrays[f"{name}_checksum"] = checksum(array)
        if f"{name}_shape" in source:
            model.arrays[f"{name}_shape"] = np.array(array.shape)
        step = STEPS.get(name, 1)
        if name in columns:
            stored = columns[name](model, array.T).T
        elif name.startswith("fix/"):
            stored = array[::FIX_STEPS.get(name, 1)]
        else:
            stored = array[:, :, ::step, ::step]
        model.arrays[name] = stored
    generator, strides = model.anchors()
    for level, anchors in zip(LEVELS, generator.levels(model.shapes, strides)):
        model.arrays.update({f"anchors/{level}_first50": anchors[:50], f"anchors/{level}_last50": anchors[-50:],
                             f"anchors/{level}_checksum": checksum(anchors)})
    return got


def proposals_of(model, generator, net) -> tuple:
    """Return boxes (N, P, 4), scores (N, P) and valid flags (N, P): the proposals that `generator` makes of the stored arrays."""
    logits, deltas = ([Tensor(model.arrays[f"rpn/{kind}_{level}"]) for level in LEVELS] for kind in ("logits", "deltas"))
    sizes = Tensor(model.arrays["input/image_sizes"].astype(np.float32))
    anchors = net.anchors(model.shapes, model.arrays["input/images"].shape[2:])
    return tuple(part.asnumpy() for part in generator(logits, deltas, sizes, anchors))


def set_detections(model, net, features) -> None:
    """Set the proposals, the box head's output on them, and the detections. Write expected_detections.json."""
    arrays, rows = model.arrays, []
    boxes, scores, valid = proposals_of(model, net.test_proposals, net)
    logits, deltas = (x.asnumpy()[valid.ravel()] for x in net.rcnn(net.roi_align(features, Tensor(boxes))))
    arrays["prop/cls_logits"], arrays["prop/deltas"] = their_classes(model, logits.T).T, their_boxes(model, deltas.T).T
    if model.framework != "detectron2":
        scores = 1 / (1 + np.exp(-scores))
    for i, own in enumerate(valid):
        arrays[f"proposals/boxes{i}"], arrays[f"proposals/scores{i}"] = boxes[i, own], scores[i, own]
    found = detections_of_stored(model, net.detector)
    if model.masks:
        boxes, _, labels = (rows_of_pictures(column)[0] for column in zip(*found))
        probabilities = ops.sigmoid(net.mask_logits(net.roi_align.table_of(features), Tensor(boxes), Tensor(labels))).asnumpy()
        paste = model.module("model").mask_encoder(model.config())
    for i, (boxes, scores, labels) in enumerate(found):
        labels = their_labels(model, labels).astype(np.int64)
        arrays.update({f"det/boxes{i}": boxes, f"det/scores{i}": scores, f"det/labels{i}": labels})
        results = [{"image_id": model.image_ids[i], "category_id": label, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
                   for (x1, y1, x2, y2), score, label in zip(boxes.tolist(), scores.tolist(), labels.tolist())]
        if model.masks:
            arrays[f"det/mask_prob{i}"] = probabilities[i, :min(12, len(boxes))]
            rles = paste(probabilities[i, :len(boxes)], boxes, *arrays["input/image_sizes"][i].tolist())
            for result, rle in zip(results, rles):
                counts = rle["counts"]
                result["segmentation"] = {**rle, "counts": counts.decode() if isinstance(counts, bytes) else counts}
        rows += results
    (model.folder / "expected_detections.json").write_text(json.dumps(rows))


# ------------------------------------------------------------------------------------------------------- training step

def encode(boxes, gt, weights):
    """Return the box deltas (M, 4) that lead from boxes to gt, times the weights."""
    (low, high), (gt_low, gt_high) = (np.split(np.asarray(x, np.float64), 2, 1) for x in (boxes, gt))
    size, gt_size = high - low, gt_high - gt_low
    shift = (gt_low + gt_high - low - high) / 2 / size
    return (np.concatenate([shift, np.log(gt_size / size)], 1) * weights).astype(np.float32)


def draw(rng, positive, negative, settings: dict) -> tuple:
    """Return the indices of random positive samples, and of negative ones that fill up the batch."""
    positive, negative = (rng.permutation(np.flatnonzero(mask)) for mask in (positive, negative))
    positive = np.sort(positive[:int(settings["batch"] * settings["pos_fraction"])])
    return positive, np.sort(negative[:settings["batch"] - len(positive)])


def mask_targets(model, i, boxes, matched):
    """Return the mask targets (R, 28, 28) of foreground RoIs of image i. torchvision pools bitmaps, the others draw polygons."""
    polygons = model.arrays[f"train/gt_polygons{i}"]
    if model.framework != "torchvision":
        return np.stack([rasterise([(0, polygons[k].reshape(-1, 2))], box) for k, box in zip(matched, boxes)]).astype(np.float32)
    height, width = model.arrays["input/image_sizes"][i].tolist()
    bitmaps = coco_mask.decode(coco_mask.frPyObjects(polygons.tolist(), height, width)).transpose(2, 0, 1)
    # roi_align assumes that its first map has a stride of 4.
    pooled = roi_align([bitmaps[matched][:, None].astype(np.float64)], 4 * boxes[:, None], SIZE, False, 0, np.zeros_like)
    return pooled.reshape(-1, SIZE, SIZE).astype(np.float32)


def set_samples(model, net) -> None:
    """Set the random samples of a training step: anchors, RoIs and their targets."""
    arrays, settings, rng = model.arrays, model.settings, np.random.default_rng(0)
    weights = settings["box_coder"]
    gt, there = rows_of_pictures([arrays[f"train/gt_boxes{i}"] for i in range(model.count)])
    shape = arrays["input/images"].shape
    anchors = ops.cat(net.anchors(model.shapes, shape[2:]))
    sizes = arrays["input/image_sizes"].astype(np.float32)
    own = net.valid_anchors(model.shapes, np.zeros(shape, np.float32), Tensor(sizes))
    labels, matched = (x.asnumpy() for x in match_anchors(anchors, Tensor(gt), Tensor(there), anchor_valid=own, **net.matching))
    before = labels if own is None else np.where(own.asnumpy(), labels, -2)
    for i in range(model.count):
        positive, negative = draw(rng, labels[i] == 1, labels[i] == 0, settings["rpn_train"])
        drawn = np.full(labels[i].shape, -1, np.int8)
        drawn[positive], drawn[negative] = 1, 0
        objects = gt[i, matched[i, positive]]
        arrays.update({f"train/rpn_labels_presample{i}": before[i].astype(np.int8), f"train/rpn_labels{i}": drawn,
                       f"train/rpn_pos_idx{i}": positive, f"train/rpn_pos_gt{i}": objects,
                       f"train/rpn_pos_targets{i}": encode(anchors.asnumpy()[positive], objects, weights["rpn_weights"])})
    proposals, _, valid = proposals_of(model, net.train_proposals, net)
    rule = {name: net.roi_sampling[name] for name in ("low_quality", "min_pos_iou", "offset")}
    for i in range(model.count):
        objects, classes = arrays[f"train/gt_boxes{i}"], model.labels(arrays[f"train/gt_classes{i}"])
        arrays[f"train/proposals{i}"] = proposals[i, valid[i]]
        boxes = np.concatenate([proposals[i, valid[i]], objects])
        inputs = boxes[None], np.ones((1, len(boxes)), bool), objects[None], np.ones((1, len(objects)), bool)
        iou, matched = (x.asnumpy()[0] for x in match_rois(*map(Tensor, inputs), **rule))
        foreground = iou >= settings["roi_train"]["fg_iou"]
        chosen = np.concatenate(draw(rng, foreground, ~foreground, settings["roi_train"]))
        if model.framework == "torchvision":
            chosen.sort()
        boxes, matched, foreground = boxes[chosen], matched[chosen], foreground[chosen]
        targets = encode(boxes, objects[matched], weights["roi_weights"])
        arrays.update({f"train/roi_boxes{i}": boxes, f"train/roi_gt{i}": objects[matched] * foreground[:, None],
                       f"train/roi_classes{i}": their_labels(model, classes[matched] * foreground),
                       f"train/roi_targets{i}": targets * foreground[:, None]})
        if model.masks:
            masks = mask_targets(model, i, boxes[foreground], matched[foreground])
            if model.framework == "torchvision":
                arrays[f"train/mask_targets{i}"] = masks
            else:
                arrays[f"train/mask_targets{i}_packbits"] = np.packbits(masks.astype(np.uint8))
                arrays[f"train/mask_targets{i}_shape"] = np.array(masks.shape)


def set_gradients(model, source: dict) -> None:
    """Set the losses and gradients of our network on the samples, with its activations settled."""
    _, _, step = settled_step(model)
    losses, gradients = step()
    losses = dict(zip([*model.loss_names, "loss_mask"], losses.astype(np.float64)))
    gradients = {model.theirs(name): (name, gradient) for name, gradient in gradients.items()}
    norms = np.array([np.linalg.norm(gradients[name][1].astype(np.float64)) for name in source["train/grad_names"]])
    model.arrays.update({"train/loss_names": source["train/loss_names"], "train/grad_names": source["train/grad_names"],
                         "train/losses": np.array([losses[name] for name in source["train/loss_names"]]),
                         "train/grad_norms": norms, "train/grad_norms_float64": norms})
    orders = {"rcnn.cls_score": their_classes, "rcnn.bbox_pred": their_boxes, "rcnn_mask.logits": their_masks}
    for key in (key for key in source if key.startswith("train/grad/")):
        ours, gradient = gradients[key[len("train/grad/"):]]
        order = orders.get(ours.rpartition(".")[0], lambda _, rows: rows)
        model.arrays[key] = order(model, gradient).reshape(source[key].shape)


def make_fixture(source: Path, folder: Path, data: dict, corners: list) -> None:
    """Write the folder of a two-stage detector."""
    folder.mkdir()
    for file in [*source.glob("model*"), source / "tolerances.json"]:
        shutil.copyfile(file, folder / file.name)
    settings, sides = json.loads((source / "config.json").read_text()), np.array(list(CROPS.values()))
    settings.update(test_min_size=int(sides.min(1).max()), test_max_size=int(sides.max()))
    (folder / "config.json").write_text(json.dumps(settings, indent=1))
    (folder / "expected_detections.json").write_text("[]")
    theirs = dict(np.load(source / "expected.npz"))
    with tempfile.TemporaryDirectory() as work:
        model = ParityModel(folder, work)
        model.arrays = {}
        set_input(model, data)
        set_fixed_rois(model, theirs, corners)
        net = model.network()
        got = set_stages(model, net, theirs)
        set_detections(model, net, tuple(Tensor(got[f"fpn/{level}"]) for level in LEVELS[:4]))
        set_samples(model, net)
        set_gradients(model, theirs)
    np.savez_compressed(folder / "expected.npz", **model.arrays)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", type=Path, help="folder of the existing set")
    parser.add_argument("output", type=Path, help="folder of the new set, which must not exist")
    args = parser.parse_args()
    if not (args.source / "instances.json").is_file():
        parser.error(f"{args.source}: no instances.json; name the folder of a parity set")
    if args.output.exists():
        parser.error(f"{args.output} exists; name a folder that does not")
    ms.set_device("CPU")
    ms.runtime.launch_blocking()    # or operators' threads wait for each other by spinning
    args.output.mkdir(parents=True)
    data, corners = crop_images(args.source, args.output, CROPS)
    for path in (args.source / name for name in COPIED):
        if path.is_dir():
            shutil.copytree(path, args.output / path.name)
            (args.output / path.name).chmod(0o755)      # SOURCE may be read-only
        elif path.is_file():
            shutil.copyfile(path, args.output / path.name)
    for folder in fixture_folders(parity_dir=args.source):
        print(args.output / folder.name, flush=True)
        make_fixture(folder, args.output / folder.name, data, corners)
        ms.ms_memory_recycle()


if __name__ == "__main__":
    main()
