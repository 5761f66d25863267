"""A RefineDet with few channels, and random weights that give scores of all sizes."""
import mindspore as ms
import numpy as np

from refinedet.src.model_utils.config import load_config
from refinedet.src.refinedet import build_network

NARROW = {
    "vgg_channels": [8, 8, 16, 16, 16], "fc_channels": 32, "extra_channels": [8, 16], "tcb_channels": 16, "num_classes": 4,
    "coco_classes": ["background", "cat", "dog", "bird"], "img_height": 64, "img_width": 128, "image_std": [50.0, 50.0, 50.0],
    "test_score_thr": 0.05, "test_nms_pre": 40, "test_nms_total": 90, "test_max_per_img": 25, "device_target": "CPU",
    "num_parallel_workers": 1,
}
# Another trunk: as many stages, with one more block in the third.
NARROW_RESNET = {
    "backbone": "resnet101", "resnet_block": [1, 1, 2, 1], "resnet_in_channels": [8, 16, 16, 24],
    "resnet_out_channels": [16, 16, 24, 32], "resnet_extra_channels": 16, "resnet_head_channels": 24,
}
HEADS = tuple(f"{head}.{kind}." for head in ("arm", "odm") for kind in ("loc", "conf"))


def narrow_config(**overrides):
    return load_config(overrides={**NARROW, **overrides})


def narrow_network(config, seed: int = 0):
    """Return the network with weights of He's variance, smaller in the heads, and a low objectness for some anchors."""
    rng = np.random.default_rng(seed)
    net = build_network(config)
    for param in net.get_parameters():
        if param.name.endswith(".weight"):
            scale = np.sqrt(2 / np.prod(param.shape[1:])) * (0.3 if param.name.startswith(HEADS) else 1)
            param.set_data(ms.Tensor(rng.normal(0, scale, param.shape).astype(np.float32)))
    for level in range(4):
        bias = net.parameters_dict()[f"arm.conf.{level}.bias"]
        bias.set_data(ms.Tensor(np.array([2, -3, 0, 0, 0, 0], np.float32)))
    return net
