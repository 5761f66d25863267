"""Checksums of checkpoints: changed files are reported as damaged, and non-finite weights are refused."""
import importlib
import json
import logging

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor

from faster_rcnn.src.model_utils.config import DamagedError
from faster_rcnn.src.model_utils.inference.backend import OnnxCheckpoint
from faster_rcnn.src.model_utils.training.checkpoint import CheckpointFolder, open_state, write_checkpoint
from faster_rcnn.src.model_utils.weights.checksum import load_checked, require_finite, require_sound, save_checked
from faster_rcnn.src.model_utils.weights.loading import load_checkpoint_into, load_pretrained, read_weights
from faster_rcnn.src.model_utils.weights.reader import read_checkpoint
from faster_rcnn.src.model_utils.weights.writer import write_weights
from tests.toy_network import ToyDetector
from tests.toy_run import ToyRun, Wish, equal

MODELS = ("faster_rcnn", "mask_rcnn", "refinedet")
pytestmark = pytest.mark.usefixtures("eager")


def damaged_copies(whole: bytes, seed: int = 0) -> list:
    """Return truncated copies and copies with one changed byte, at both ends and at random places."""
    rng = np.random.default_rng(seed)
    cuts = [whole[:n] for n in (0, 1, len(whole) - 1, *rng.integers(0, len(whole), 10))]
    places = (0, len(whole) - 1, *rng.integers(0, len(whole), 20))
    return cuts + [whole[:place] + bytes([whole[place] ^ int(rng.integers(1, 256))]) + whole[place + 1:] for place in places]


def test_every_written_checkpoint_has_a_checksum(tmp_path):
    run = ToyRun(tmp_path, aps=(0.1, 0.2), epoch_size=2, coco_classes=["background", "a", "b", "c"], num_classes=4).run()
    write_weights({"a": np.zeros(3, np.float32)}, tmp_path / "checkpoint" / "converted.ckpt")
    for path in (tmp_path / "checkpoint").iterdir():
        assert path.read_bytes()[-17:-10] == b"crc_num", path
        assert ms.load_checkpoint(str(path), crc_check=True)      # MindSpore verifies it too
    assert read_weights(tmp_path / "checkpoint" / "last.ckpt").keys() == run.train_step.weights().keys()


def test_mutated_and_truncated_checkpoints_are_damaged(tmp_path):
    """Every reader that the commands call reports the damage."""
    net = ToyDetector()
    path = tmp_path / "w.ckpt"
    write_checkpoint(path, {param.name: param for param in net.get_parameters()}, {"class_names": json.dumps(["b", "a"])})
    readers = {"load_checkpoint_into": lambda: load_checkpoint_into(net, path), "read_checkpoint": lambda: read_checkpoint(path),
               "load_pretrained": lambda: load_pretrained(net, path)}
    for read in readers.values():
        read()
    silent = []
    for number, content in enumerate(damaged_copies(path.read_bytes())):
        path.write_bytes(content)
        for name, read in readers.items():
            try:
                read()
                silent.append((number, name))
            except DamagedError as error:
                assert "damaged" in str(error) and f"{path}" in str(error) and "\n" not in str(error) and error.status == 1
            except ValueError as error:     # the first bytes look like another format
                assert error.user_error and str(path) in str(error), (number, name)
    assert silent == []


def test_checkpoints_without_a_checksum_are_read(tmp_path):
    path = tmp_path / "old.ckpt"
    ms.save_checkpoint([{"name": "a", "data": Tensor(np.ones(3, np.float32))}], str(path))
    require_sound(path)
    assert load_checked(path)["a"].shape == (3,) and list(read_checkpoint(path).arrays) == ["a"]


def test_a_folder_is_not_reported_as_damaged(tmp_path):
    with pytest.raises(IsADirectoryError):
        load_checked(tmp_path)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_non_finite_weights_are_refused(tmp_path, value):
    net, path = ToyDetector(), tmp_path / "w.ckpt"
    params = {param.name: param.asnumpy().copy() for param in net.get_parameters()}
    params["backbone.gamma"][2] = value
    write_weights({**params, "learning_rate": np.full(1, np.nan, np.float32)}, path)
    expected = f"{path}: backbone.gamma: 1 of 5 values are not finite"
    reads = [lambda: load_checkpoint_into(net, path), lambda: load_pretrained(net, path), lambda: read_checkpoint(path)]
    for read in reads:
        with pytest.raises(DamagedError) as caught:
            read()
        assert str(caught.value).startswith(expected) or "learning_rate" in str(caught.value)


@pytest.mark.parametrize("model", MODELS)
def test_onnxruntime_refuses_non_finite_weights(model, tmp_path):
    write_weights({"backbone.conv1.weight": np.full((2, 2), np.inf, np.float32)}, tmp_path / "w.ckpt")
    config = importlib.import_module(f"{model}.src.model_utils.config")
    backend = importlib.import_module(f"{model}.src.model_utils.inference.backend")
    with pytest.raises(config.DamagedError, match=r"w\.ckpt: backbone\.conv1\.weight: 4 of 4 values are not finite"):
        backend.OnnxCheckpoint(config.load_config(), tmp_path / "w.ckpt", "CPU")


def test_class_names_that_are_not_json(tmp_path):
    save_checked(tmp_path / "w.ckpt", {"a": Tensor(np.ones(3, np.float32))}, {"class_names": '["background", '})
    from faster_rcnn.src.model_utils.config import load_config

    with pytest.raises(DamagedError, match="class_names is not JSON"):
        OnnxCheckpoint(load_config(), tmp_path / "w.ckpt", "CPU")


# ---- resuming

def break_file(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_state_falls_back_to_the_previous_one(tmp_path, caplog):
    whole = ToyRun(tmp_path / "whole").run()
    parts = tmp_path / "parts"
    ToyRun(parts).stopped(Wish(step=10))        # states after steps 4, 8 and 10
    state, before = (parts / "checkpoint" / name for name in ("state.ckpt", "state_before.ckpt"))
    assert [open_state(str(path), parts)[0].values["step"] for path in (state, before)] == [10, 8]
    break_file(state)
    with pytest.raises(DamagedError, match=r"resume: .*state\.ckpt: damaged"):
        open_state(str(state), parts)
    caplog.set_level(logging.WARNING)
    (found, path) = open_state("auto", parts)
    assert (found.values["step"], path) == (8, before)
    assert f"{state}: damaged" in caplog.text and f"resuming from the previous state, {before}" in caplog.text
    again = ToyRun(parts)
    again.loop.load_state(*found, path)
    assert not again.folder.sound           # so the damaged state does not replace the previous one
    again.run()
    assert equal(again.weights(), whole.weights())
    break_file(before)
    break_file(state)
    with pytest.raises(DamagedError, match=r"resume: .*state_before\.ckpt: damaged"):
        open_state("auto", parts)


def test_a_damaged_state_does_not_replace_the_previous_one(tmp_path):
    ToyRun(tmp_path).stopped(Wish(step=6))
    break_file(tmp_path / "checkpoint" / "state.ckpt")
    before = (tmp_path / "checkpoint" / "state_before.ckpt").read_bytes()
    run = ToyRun(tmp_path)
    CheckpointFolder(tmp_path, "toy", 5).save_state(run.train_step, run.loop.state())
    run.log.close()
    assert (tmp_path / "checkpoint" / "state_before.ckpt").read_bytes() == before


def test_a_non_finite_state_is_refused(tmp_path):
    run = ToyRun(tmp_path)
    run.train_step.params[0].set_data(Tensor(np.full((5, 3), np.nan, np.float32)))
    run.folder.save_state(run.train_step, run.loop.state())
    run.log.close()
    with pytest.raises(DamagedError, match=r"resume: .*state\.ckpt: network\.backbone\.weight: 15 of 15 values are not finite"):
        open_state("auto", tmp_path)


def test_bfloat16_and_scalar_parameters(tmp_path):
    path = tmp_path / "n.ckpt"
    save_checked(path, {"half": Parameter(Tensor(np.ones(2), ms.bfloat16)), "whole": Parameter(Tensor(3, ms.int32))})
    assert list(read_checkpoint(path).arrays) == ["half", "whole"]
    require_finite({"half": Tensor(np.ones(2), ms.bfloat16)}, path)
    with pytest.raises(DamagedError, match="half: 1 of 2 values are not finite"):
        require_finite({"half": Tensor([np.nan, 1], ms.bfloat16)}, path)
