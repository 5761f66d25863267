"""The cache of published weights, which a server of this machine fills: fetched once, checked, converted, used."""
import contextlib
import hashlib
import importlib
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import faster_rcnn
import mask_rcnn
from faster_rcnn.src.model_utils.config import load_config
from faster_rcnn.src.model_utils.weights import cache
from faster_rcnn.src.model_utils.weights.cache import checkpoint_of, converted_file
from faster_rcnn.src.model_utils.weights.named import check_pretrained, pretrained_file
from faster_rcnn.src.model_utils.weights.published import own_weights
from faster_rcnn.src.model_utils.weights.reader import read_checkpoint
from tests.http_files import Fault

# Three processes that want one file, with a converter that copies.
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from faster_rcnn.src.model_utils.weights import cache, download
from faster_rcnn.src.model_utils.weights.published import own_weights

def run_converter(options):
    source, target = (option.partition("=")[2] for option in options)
    open(target, "wb").write(open(source, "rb").read())
    return 0, ""

cache.run_converter, download.PAUSE = run_converter, 0.01
try:
    print(cache.checkpoint_of(own_weights()["R-50"], "pre_trained"))
except ValueError as error:
    print(error)
"""


def test_a_file_is_fetched_and_converted_once(mirror, copied, tmp_path, capsys):
    mirror.files["R-50.pkl"] = b"r50"
    entry = own_weights()["R-50"]
    first = checkpoint_of(entry, "pre_trained")
    assert first.read_bytes() == b"r50" and first.name == "R-50.ckpt" and first.with_suffix(".yaml").is_file()
    assert f"R-50: fetching {mirror.url}/mirror/R-50.pkl to {tmp_path / 'cache'}" in capsys.readouterr().err
    assert checkpoint_of(entry, "pre_trained") == first and len(mirror.requests) == len(copied) == 1
    first.unlink()
    assert checkpoint_of(entry, "pre_trained") == first and len(mirror.requests) == 1 and len(copied) == 2
    assert not [path for path in (tmp_path / "cache").rglob("*") if ".part" in path.name]


def test_what_a_user_puts_there_is_checked_and_used(mirror, copied, tmp_path, monkeypatch, message):
    data = b"whole file"
    entry = own_weights()["resnet50"]._replace(digits=hashlib.sha256(data).hexdigest()[:8], size=None)
    place = tmp_path / "cache" / entry.file
    mirror.faults = [Fault(status=404)]
    told = message(checkpoint_of, entry, "pre_trained")
    assert told == (f"pre_trained: resnet50: {mirror.url}/mirror/{entry.file} cannot be fetched: the server answers 404 Not Found; "
                    f"fetch {entry.url} elsewhere and save it as {place}")
    place.write_bytes(data[:5])
    told = message(checkpoint_of, entry, "pre_trained")
    assert told.startswith(f"pre_trained: resnet50: {place} is not the published file: its sha256 begins with "
                           f"{hashlib.sha256(data[:5]).hexdigest()[:8]}, expected {entry.digits}; fetch ")
    assert place.read_bytes() == data[:5]
    place.write_bytes(data)
    assert checkpoint_of(entry, "pre_trained").read_bytes() == data and len(mirror.requests) == 1


def test_a_cache_that_cannot_be_written_is_one_line(mirror, copied, tmp_path, monkeypatch, message):
    mirror.files["R-50.pkl"] = b"r50"
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "cache"
    monkeypatch.setenv("ZOO_WEIGHTS", str(folder))
    told = message(checkpoint_of, own_weights()["R-50"], "pre_trained")
    assert told.startswith(f"pre_trained: R-50: {folder} cannot be written: Not a directory; set ZOO_WEIGHTS to ")
    assert told.endswith(f"or fetch {own_weights()['R-50'].url} elsewhere and save it as {folder / 'R-50.pkl'}")
    monkeypatch.setenv("ZOO_WEIGHTS", str(tmp_path / "cache"))
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1 << 20}))
    told = message(checkpoint_of, own_weights()["resnet50"], "pre_trained")
    assert "no room for the file of 98 MiB and a converted file of the same size; set ZOO_WEIGHTS" in told and mirror.requests == []


def test_a_file_that_cannot_be_converted_is_one_line(mirror, tmp_path, monkeypatch, message):
    mirror.files["R-50.pkl"] = b"r50"
    monkeypatch.setattr(cache, "run_converter", lambda options: (2, "reading\nconvert_checkpoint.py: error: R-50.pkl: no pickle\n"))
    told = message(checkpoint_of, own_weights()["R-50"], "pre_trained")
    assert told == (f"pre_trained: {tmp_path / 'cache' / 'R-50.pkl'} cannot be converted: convert_checkpoint.py: error: R-50.pkl: "
                    "no pickle")
    assert not converted_file(own_weights()["R-50"]).parent.exists()


@pytest.mark.parametrize("there", [True, False])
def test_one_of_several_processes_fetches(there, mirror, repo_dir):
    """Here with an answer of half a second; without the file all give the same message, and nobody asks again."""
    if there:
        mirror.files["R-50.pkl"], mirror.faults = b"r50" * 10, [Fault(pause=0.02)]
    command = [sys.executable, "-c", PROGRAM, str(repo_dir)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    told = {process.communicate(timeout=60)[0].strip() for process in processes}
    if there:
        assert told == {str(converted_file(own_weights()["R-50"]))} and len(mirror.requests) == 1
    else:
        assert len(told) == 1 and "the server answers 404 Not Found" in told.pop() and 1 <= len(mirror.requests) <= 3


# The conversions themselves, of narrow networks

def serve_narrow(mirror, folder, monkeypatch) -> tuple:
    """Let a detector's name stand for a fixture's file, of which the first answer breaks off; (its entry, the file's bytes)."""
    settings = json.loads((folder / "config.json").read_text())
    model = "mask_rcnn" if settings.get("mask_head") else "faster_rcnn"
    weights = importlib.import_module(f"{model}.src.model_utils.weights.published")
    data = (folder / settings["checkpoint"]).read_bytes()
    entry = next(entry for entry in weights.own_weights().values() if entry.source == settings["framework"] and entry.is_detector)
    digits = hashlib.new(entry.digest, data).hexdigest()[:len(entry.digits)]
    monkeypatch.setitem(weights.read_table(), entry.name, entry._replace(digits=digits, size=len(data) / (1 << 20)))
    mirror.files[entry.file], mirror.faults = data, [Fault(cut=len(data) // 3)]
    return entry, data


def check_detector(detector, entry, model):
    """It has the configuration that the weights were trained with."""
    for key, value in entry.models[model].items():
        assert detector.config[key] == value
    assert Path(detector.config.checkpoint_path).parent.name == entry.name


def test_torchvision_by_name_parity(mirror, monkeypatch, parity_dir):
    """Fetched in two parts, converted by the command in a process of its own, opened, and taken to train from."""
    from faster_rcnn.src.FasterRcnn.faster_rcnn import build_network
    from faster_rcnn.src.model_utils.weights.loading import load_pretrained

    folder = parity_dir / "torchvision_fasterrcnn_resnet50_fpn"
    entry, data = serve_narrow(mirror, folder, monkeypatch)
    detector = faster_rcnn.Detector(entry.name, device_target="CPU", backend="mindspore", img_height=64, img_width=64)
    check_detector(detector, entry, "faster_rcnn")
    assert Path(detector.config.checkpoint_path).stat().st_mode == (cache.cache_folder() / entry.file).stat().st_mode
    assert [asked for _, asked in mirror.requests] == [None, f"bytes={len(data) // 3}-"]
    config = load_config(Path(detector.config.checkpoint_path).with_suffix(".yaml"), {"pre_trained": entry.name})
    check_pretrained(config)
    net = build_network(config)
    assert load_pretrained(net, pretrained_file(config)) == [] and len(mirror.requests) == 2
    filled = {param.name: param.asnumpy() for param in net.get_parameters()}
    arrays = read_checkpoint(folder / "model.pth").arrays
    for ours, theirs in (("backbone.conv1", "backbone.body.conv1"), ("rpn.conv", "rpn.head.conv.0.0")):
        np.testing.assert_array_equal(filled[f"{ours}.weight"], arrays[f"{theirs}.weight"])


def test_detectron2_masks_by_name_parity(mirror, monkeypatch, parity_dir):
    def run(options):
        with contextlib.redirect_stdout(io.StringIO()) as shown:
            return convert_checkpoint.main(options), shown.getvalue()

    convert_checkpoint = importlib.import_module("mask_rcnn.src.convert_checkpoint")
    monkeypatch.setattr("mask_rcnn.src.model_utils.weights.cache.run_converter", run)
    folder = parity_dir / "detectron2_mask_rcnn_R101_FPN"
    entry, _ = serve_narrow(mirror, folder, monkeypatch)
    detector = mask_rcnn.Detector(entry.name, device_target="CPU", backend="mindspore", img_height=64, img_width=64)
    entry = entry._replace(models={"mask_rcnn": {"backbone": "resnet_v1_101", "convention": "detectron2"}})   # of this depth
    check_detector(detector, entry, "mask_rcnn")
