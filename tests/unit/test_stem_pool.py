"""Weights that need the stem's pool to pad only at the end: what conversion reports and writes, and what training warns about."""
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import yaml

from faster_rcnn.src import convert_checkpoint
from faster_rcnn.src.FasterRcnn.init_params import compare_pools
from faster_rcnn.src.model_utils.config import load_config
from faster_rcnn.src.model_utils.weights.reader import Checkpoint
from faster_rcnn.src.model_utils.weights.resnet_names import pads_behind, translate
from refinedet.src.conversion import resnet as of_refinedet
from tests.unit.test_convert_checkpoint import some

BEHIND = ("MindSpore ResNet", "mindcv", "old zoo")


def converted(folder: Path, style: str) -> Path:
    np.savez(folder / "own.npz", **some(style=style))
    output = folder / f"{style}.ckpt"
    assert convert_checkpoint.main([f"--ckpt_file={folder / 'own.npz'}", f"--output_file={output}"]) == 0
    return output


@pytest.mark.parametrize("style", ["torchvision", "data parallel", *BEHIND])
def test_conversion_of_a_backbone_writes_its_pool_padding(style, tmp_path, capsys):
    yaml_file = converted(tmp_path, style).with_suffix(".yaml")
    output = capsys.readouterr().out
    assert yaml_file.exists() == ("--stem_pool_padding=same" in output) == (style in BEHIND)
    if style in BEHIND:
        assert yaml.safe_load(yaml_file.read_text()) == {"backbone": "resnet_v1.5_50", "stem_pool_padding": "same"}
        assert load_config(yaml_file) == load_config(overrides={"stem_pool_padding": "same"})
        assert output.endswith(f"wrote {yaml_file.with_suffix('.ckpt')} and {yaml_file}\n")


def test_names_reveal_the_padding():
    assert pads_behind(["fc.weight", "bn1.gamma"]) and not pads_behind(["bn1.weight", "stem.conv1.norm.weight", "conv1_w"])
    assert not pads_behind(["features.gamma"])      # not a ResNet


@pytest.mark.parametrize("wanted, padding, warned", [("same", "both", True), ("same", "same", False), ("both", "same", True),
                                                     (None, "same", False)])
def test_training_warns_if_the_weights_need_another_pool(wanted, padding, warned, tmp_path, caplog):
    if wanted:
        (tmp_path / "own.yaml").write_text(f"stem_pool_padding: {wanted}\n")
    with caplog.at_level(logging.WARNING):
        compare_pools(load_config(overrides={"pre_trained": str(tmp_path / "own.ckpt"), "stem_pool_padding": padding}))
    warning = f"the weights of pre_trained need {wanted}, according to {tmp_path / 'own.yaml'}"
    assert [warning in text for text in caplog.messages] == ([True] if warned else [])


def test_refinedet_conversion_reports_the_pool():
    for style, pool in (("torchvision", "padded"), ("mindcv", "ceil")):
        checkpoint = Checkpoint(Path("f"), "kind", some(style=style), ())
        conversion = of_refinedet.convert_resnet(checkpoint.arrays, of_refinedet.WHOLE, "f")
        assert f"stem_pool: {pool}," in of_refinedet.report(checkpoint, conversion, of_refinedet.WHOLE)[-1]


def test_names_of_mindcv_parity(parity_file):
    """All names of its ResNet-50 except the classifier's are translated, and reveal the padding."""
    names = json.loads(parity_file("mslab_names.json").read_text())["mindcv_resnet50"]
    assert pads_behind(names) and [name for name in names if translate(name) is None] == ["classifier.weight", "classifier.bias"]
    assert len({translate(name) for name in names}) == len(names) - 1
