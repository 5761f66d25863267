"""The detectors of default_config.yaml at an eighth of their widths, for small images, and inputs for them."""
import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

from faster_rcnn.src.FasterRcnn.faster_rcnn import build_network
from faster_rcnn.src.FasterRcnn.resnet import calibrate_norms
from faster_rcnn.src.model_utils.config import load_config
from mask_rcnn.src.MaskRcnn import mask_rcnn
from mask_rcnn.src.model_utils.config import load_config as load_mask_config

WIDTHS = {
    "resnet_in_channels": [8, 32, 64, 128], "resnet_out_channels": [32, 64, 128, 256],
    "fpn_in_channels": [32, 64, 128, 256], "fpn_out_channels": 32, "rpn_in_channels": 32, "rpn_feat_channels": 32,
    "roi_align_out_channels": 32, "rcnn_in_channels": 32, "rcnn_fc_out_channels": 64,
}
SMALL = {
    "resnet_block": [1, 1, 1, 1], "frozen_stages": 0, "train_norm": True, "img_height": 128, "img_width": 192, "num_gts": 4,
    "num_classes": 4, "coco_classes": ["background", "disc", "box", "bar"],
    "num_expected_neg": 64, "num_expected_pos": 32, "num_expected_total_stage2": 64, "num_expected_pos_stage2": 16,
    "num_expected_neg_stage2": 64, "rpn_proposal_nms_pre": 100, "rpn_proposal_nms_post": 100, "rpn_proposal_max_num": 100,
    "rpn_nms_pre": 100, "rpn_nms_post": 100, "rpn_max_num": 100, "test_max_per_img": 20, "device_target": "CPU",
}


def narrow_backbone(name: str) -> dict:
    """Return overrides for a narrow and shallow backbone of this name: `narrow_config(**narrow_backbone(name))`."""
    if name == "inception_resnet_v2":
        resnet_keys = {"resnet_block": [3, 4, 6, 3], "resnet_in_channels": [64, 256, 512, 1024],
                      "resnet_out_channels": [256, 512, 1024, 2048]}
        return {"backbone": name, **resnet_keys, "inception_block": [1, 1, 1], "inception_width": 1 / 16,
                "fpn_in_channels": [12, 20, 68, 96]}
    blocks = {"resnet_v1_101": [1, 1, 2, 1], "resnet_v1_152": [1, 2, 2, 1]}
    return {"backbone": name, "resnet_block": blocks.get(name, [1, 1, 1, 1])}


def narrow_config(**overrides):
    """Return default_config.yaml with the overrides above, then these."""
    return load_config(overrides={**WIDTHS, **SMALL, **overrides})


def narrow_mask_config(**overrides):
    """Return the same for Mask R-CNN."""
    return load_mask_config(overrides={**WIDTHS, **SMALL, "rcnn_mask_out_channels": 16, "max_mask_edges": 16, **overrides})


def narrow_network(config, seed: int = 0, fast: bool = False):
    """Return a network with random weights. Its norms are calibrated to noise, so that activations are of the order of 1."""
    ms.set_seed(seed)
    net = (mask_rcnn.build_network if "mask_shape" in config else build_network)(config, fast)
    images, _ = pictures(config, 2, seed)
    calibrate_norms(net.backbone, images, [param.name for param in net.get_parameters()])
    return net


def spread_heads(net, scale: float = 20.0):
    """Scale up heads that start near 0, so that an untrained network predicts boxes and classes of all kinds."""
    for layer in (net.rpn.cls, net.rpn.reg, net.rcnn.cls_score, net.rcnn.bbox_pred):
        layer.weight.set_data(Tensor(layer.weight.asnumpy() * scale))


def pictures(config, n: int, seed: int = 0):
    """Return smooth noise (n, 3, H, W) and image_info (n, 6). Each image fills less of the padded input than the last."""
    rng = np.random.default_rng(seed)
    height, width = config.img_height, config.img_width
    images = np.zeros((n, 3, height, width), np.float32)
    infos = []
    for i in range(n):
        h, w = height - 16 * i, width - 24 * i
        images[i, :, :h, :w] = np.kron(rng.standard_normal((3, -(-h // 8), -(-w // 8))), np.ones((8, 8)))[:, :h, :w]
        images[i, :, :h, :w] += 0.3 * rng.standard_normal((3, h, w))
        infos.append([h, w, 1, 1, h, w])
    return Tensor(images), Tensor(np.array(infos, np.float32))


def objects(config, boxes_of_images):
    """Return gt_boxes, gt_labels and gt_valid of [[(label, x1, y1, x2, y2), ...], ...]."""
    n, g = len(boxes_of_images), config.num_gts
    boxes, labels = np.zeros((n, g, 4), np.float32), np.zeros((n, g), np.int32)
    for i, rows in enumerate(boxes_of_images):
        for j, (label, *box) in enumerate(rows):
            boxes[i, j], labels[i, j] = box, label
    return Tensor(boxes), Tensor(labels), Tensor(labels > 0)


def polygons(boxes_of_images):
    """Return the corners (P, 2) of two polygons per object: a hexagon and a triangle that reaches out of it."""
    six = np.array([[0, 0.5], [0.3, 0], [0.8, 0.1], [0.9, 0.6], [0.6, 1], [0.1, 0.8]])
    three = np.array([[0.7, 0.3], [1, 0.5], [0.8, 0.7]])
    return [[[np.array(box[:2]) + part * (np.array(box[2:]) - box[:2]) for part in (six, three)] for _, *box in rows]
            for rows in boxes_of_images]


def outlines(config, boxes_of_images):
    """Return gt_edges of these polygons."""
    edges = np.zeros((len(boxes_of_images), config.num_gts, config.max_mask_edges, 5), np.float32)
    for i, objects_of_image in enumerate(polygons(boxes_of_images)):
        for j, parts in enumerate(objects_of_image):
            rows = [[*a, *b, part] for part, points in enumerate(parts) for a, b in zip(points, np.roll(points, -1, 0))]
            edges[i, j, :len(rows)] = rows
    return Tensor(edges)


def noise(net, n: int, seed: int = 0):
    """Return rpn_noise and roi_noise, which decide the sampling."""
    rng = np.random.default_rng([seed, 1])
    return [Tensor(rng.random(shape, np.float32)) for shape in net.noise_shapes(n).values()]


def predictions(net):
    """Return a function: image, image_info -> arrays of the inference network's outputs, computed operator by operator."""
    net.set_train(False)
    return lambda *inputs: [part.asnumpy() for part in net(*inputs)]


def losses_and_gradients(net, params):
    """Return a graph: the network's arguments -> losses, gradients of their sum with respect to `params`."""
    def forward(*inputs):
        losses = ops.stack(net(*inputs))
        return losses.sum(), losses

    value_and_grad = ms.value_and_grad(forward, None, ms.ParameterTuple(params), has_aux=True)

    @ms.jit
    def compiled(*inputs):
        (_, losses), grads = value_and_grad(*inputs)
        return losses, grads

    return compiled
