"""The keys tta and tile: what they may say, and the networks that they ask for."""
import numpy as np

from faster_rcnn.src.FasterRcnn.faster_rcnn import build_network
from faster_rcnn.src.model_utils.config import load_config
from faster_rcnn.src.model_utils.configuration.view_keys import read_tile, read_tta
from faster_rcnn.src.model_utils.inference import view_predictor
from faster_rcnn.src.model_utils.inference.view_predictor import ViewNetwork
from tests import narrow_refinedet
from tests.narrow_network import narrow_config


def test_values_of_the_keys(message):
    for text, wanted in {"": (False, (1.0,)), "flip": (True, (1.0,)), " flip , scales=2": (True, (2.0,)),
                         "scales=0.75,1.0,1.5": (False, (0.75, 1.0, 1.5)), "scales=.5;1;2.,flip": (True, (0.5, 1.0, 2.0))}.items():
        assert read_tta(text) == wanted, text
    assert (read_tile(""), read_tile("640x320")) == (None, (640, 320))
    expected = "expected flip, scales=NUMBER,... or both, such as flip,scales=0.75,1.0,1.5, got "
    faults = {
        ("tta", "flop"): expected + "'flop'", ("tta", "flip,0.5"): expected + "'0.5' in 'flip,0.5'",
        ("tta", "scales=1e0"): expected + "'1e0' in 'scales=1e0'", ("tta", "scales="): expected + "'' in 'scales='",
        ("tta", "flip,flip"): "flip: given twice", ("tta", "scales=1,scales=2"): "scales: given twice",
        ("tta", "scales=1,1.0"): "scales: given twice, got 1", ("tta", "scales=0"): "scales: expected 0.1 to 4, got 0",
        ("tile", "640"): "expected HEIGHTxWIDTH in pixels, both 32 or more, such as 640x640, got '640'",
        ("tile", "640x31"): "expected HEIGHTxWIDTH in pixels, both 32 or more, such as 640x640, got '640x31'",
        ("overlap", 0.95): "expected 0 to 0.9, got 0.95"}
    for (name, value), told in faults.items():
        assert message(load_config, overrides={name: value}) == f"{name}: {told}"


def test_networks_of_scales(monkeypatch, message, tmp_path, capsys):
    opened = []

    class Network:
        masks = None

        def __init__(self, config, device):
            opened.append((config.img_height, config.img_width, config.pad_to, config.backend))

    monkeypatch.setattr(view_predictor, "open_predictor", Network)
    for name in ("net.ckpt", "net.onnx"):
        (tmp_path / name).touch()

    def networks(**keys):
        opened.clear()
        config = load_config(overrides={"checkpoint_path": str(tmp_path / "net.ckpt"), "img_height": 96, "img_width": 160, **keys})
        predict = view_predictor.open_detection(config)
        image = np.zeros((50, 100, 3), np.uint8)
        made = predict.networks.items() if hasattr(predict, "networks") else [(1.0, view_predictor.feed_of(config))]
        return opened, {scale: (*network.preprocess(image).image.shape[1:], *network.preprocess(image).info[:2].tolist())
                        for scale, network in made}

    assert networks() == ([(96, 160, "fixed", "auto")], {1.0: (96, 160, 80, 160)})
    # Up to 1 in the network's own input, beyond in one that is larger; sides are multiples of 32.
    assert networks(tta="scales=0.5,1,1.5") == (
        [(96, 160, "fixed", "auto"), (160, 256, "fixed", "auto")],
        {0.5: (96, 160, 40, 80), 1.0: (96, 160, 80, 160), 1.5: (160, 256, 128, 256)})
    assert networks(tta="scales=2", pad_to="divisor") == ([(192, 320, "divisor", "auto")], {2.0: (160, 320, 160, 320)})
    assert networks(tta="scales=1.1", pad_to="96x160") == ([(106, 176, "128x192", "auto")], {1.1: (128, 192, 88, 176)})
    onnx = {"checkpoint_path": "", "onnx_path": str(tmp_path / "net.onnx")}
    assert networks(tta="flip,scales=0.5,1", tile="64x64", **onnx)[0] == [(96, 160, "fixed", "auto")]
    assert message(networks, tta="scales=1,1.5", **onnx) == (
        "tta: a scale of 1.5 needs a larger input than the network of onnx_path takes: pass checkpoint_path, or use scales up to 1")
    assert capsys.readouterr().err == ""


def test_a_checkpoint_fits_the_network_of_a_larger_scale():
    """Whose input is larger: every weight has the same name and shape."""
    from refinedet.src.refinedet import build_network as build_one_stage

    for config, build in ((narrow_config(), build_network), (narrow_refinedet.narrow_config(), build_one_stage)):
        larger = view_predictor.enlarged(config, 1.4)
        assert larger.img_height > config.img_height and larger.img_height % config.anchor_strides[3] == 0
        first, second = ({param.name: param.shape for param in build(item).get_parameters()} for item in (config, larger))
        assert first == second


def test_masks_are_averaged_by_mindspore(monkeypatch, tmp_path, capsys):
    from mask_rcnn.src.model_utils.config import load_config as load_mask_config
    from mask_rcnn.src.model_utils.inference import view_predictor as of_masks

    opened = []
    monkeypatch.setattr(of_masks, "open_predictor", lambda config, device: opened.append(config.backend) or ViewNetwork(None, None))
    (tmp_path / "net.ckpt").touch()
    line = "backend: mindspore, because it averages the masks of the views (tta, tile)\n"
    for keys, backend, told in (({"tta": "flip"}, "mindspore", line), ({}, "auto", ""),
                                ({"tta": "flip", "backend": "onnxruntime"}, "onnxruntime", "")):
        of_masks.open_detection(load_mask_config(overrides={"checkpoint_path": str(tmp_path / "net.ckpt"), **keys}))
        assert (opened.pop(), capsys.readouterr().err) == (backend, told), keys
