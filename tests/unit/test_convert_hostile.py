"""Hostile and damaged detectors give one line and status 2; nothing is written or run. Zip bombs are refused."""
import json
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from faster_rcnn.src import convert_checkpoint
from faster_rcnn.src.FasterRcnn.conversion.detector_weights import detector_shapes, to_framework
from faster_rcnn.src.FasterRcnn.conversion.torch_writer import write_pickle, write_torch
from faster_rcnn.src.model_utils.config import InputError, run_main
from faster_rcnn.src.model_utils.weights.reader import read_checkpoint
from tests.checkpoint_files import NUMBERS, call, name, pickled, storage, tensor, write_zip
from tests.narrow_network import narrow_config

BOMB = 2 ** 25


@pytest.fixture(scope="module")
def arrays() -> dict:
    rng = np.random.default_rng(0)
    ours = {key: rng.random(shape, np.float32) for key, shape in detector_shapes(narrow_config()).items()}
    return to_framework(ours, "torchvision")


@pytest.fixture
def fault(tmp_path, capsys):
    """Return a function: path -> the line on stderr. It asserts that the conversion fails and leaves only `path`."""
    def run(path, *flags) -> str:
        argv = [f"--ckpt_file={path}", f"--output_file={tmp_path / 'o.ckpt'}", *flags]
        with pytest.raises(SystemExit) as caught:
            run_main(lambda: convert_checkpoint.main(argv))
        out, err = capsys.readouterr()
        assert caught.value.code == 2 and out == "" and err.count("\n") == 1, out + err
        assert [found for found in tmp_path.iterdir() if found != path] == []
        return err

    return run


def as_safetensors(tree: dict, path):
    header, data = {}, b""
    for key, array in tree.items():
        header[key] = {"dtype": "F32", "shape": array.shape, "data_offsets": [len(data), len(data) + array.nbytes]}
        data += array.tobytes()
    raw = json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)


WRITERS = {".pth": write_torch, ".pkl": write_pickle, ".safetensors": as_safetensors}


@pytest.mark.parametrize("suffix", WRITERS)
def test_containers_and_truncation(suffix, arrays, tmp_path, fault):
    path = tmp_path / f"m{suffix}"
    WRITERS[suffix](arrays, path)
    raw = path.read_bytes()
    for part in (8, len(raw) // 3, len(raw) - 4):
        path.write_bytes(raw[:part])
        assert f"{path}: " in fault(path)
    path.write_bytes(raw)
    assert convert_checkpoint.main([f"--ckpt_file={path}", f"--output_file={tmp_path / 'o.ckpt'}"]) == 0
    found = read_checkpoint(tmp_path / "o.ckpt").arrays
    np.testing.assert_array_equal(found["rpn.conv.weight"], arrays["rpn.head.conv.0.0.weight"], strict=True)


@pytest.mark.parametrize("place", ["in the weights", "beside them", "in the meta data"])
@pytest.mark.parametrize("container", ["zip", "pickle"])
def test_pickle_that_calls_the_shell(place, container, tmp_path, fault):
    marker = tmp_path / "was here"
    code = call(name("os", "system"), f"touch '{marker}'")
    block = tensor(storage("FloatStorage", "0", 12), 0, (12,), (1,)) if container == "zip" else 1
    weights = {"backbone.body.conv1.weight": code if place == "in the weights" else block}
    tree = {"model": weights, "optimizer": code if place == "beside them" else 1}
    if place == "in the meta data":
        tree = {"meta": {"CLASSES": code}, "state_dict": weights}
    path = tmp_path / "m.pth"
    if container == "zip":
        write_zip(path, tree, {"0": NUMBERS.tobytes()})
    else:
        path.write_bytes(pickled(tree))
    assert "refused: its pickle asks for os.system" in fault(path)
    assert not marker.exists()


@pytest.mark.parametrize("names", [["features.0.weight"], ["encoder.layers.0.linear1.bias"], ["backbone.0.body.weight"]])
def test_another_network(names, tmp_path, fault):
    write_torch({key: np.zeros(2, np.float32) for key in names}, tmp_path / "m.pth")
    assert f"the names are those of no known backbone or detector; the first are {names[0]}" in fault(tmp_path / "m.pth")


def test_one_number_for_a_whole_layer(tmp_path, fault):
    """With strides of 0, four bytes make a tensor of any size."""
    huge = tensor(storage("FloatStorage", "0", 12), 0, (2 ** 18, 2 ** 17), (0, 0))
    write_zip(tmp_path / "m.pth", {"roi_heads.box_head.fc6.weight": huge}, {"0": NUMBERS.tobytes()})
    assert f"bytes declare tensors of {2 ** 37}" in fault(tmp_path / "m.pth")


def zip_with(path, members: dict):
    """Write a compressed zip with the tensor conv1.weight in storage "0", and `members`."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickled({"conv1.weight": tensor(storage("FloatStorage", "0", 12), 0, (12,), (1,))}))
        for member, raw in members.items():
            archive.writestr(f"a/{member}", raw)
    return path


def test_zip_bombs(tmp_path):
    path = tmp_path / "m.pth"
    for members in ({"data/0": bytes(BOMB)}, {"data/0": NUMBERS.tobytes(), "data/1": bytes(BOMB)}):
        with pytest.raises(InputError, match=r"m.pth: refused: a zip file of \d+ bytes that would unpack to 335"):
            read_checkpoint(zip_with(path, members))
    with pytest.raises(InputError, match="damaged: data/0 has more than the 48 bytes of its storage"):
        read_checkpoint(zip_with(path, {"data/0": bytes(49)}))
    np.savez_compressed(tmp_path / "m.npz", x=np.zeros(BOMB // 4, np.float32))
    with pytest.raises(InputError, match="m.npz: refused: a zip file"):
        read_checkpoint(tmp_path / "m.npz")
    assert read_checkpoint(zip_with(path, {"data/0": NUMBERS.tobytes()})).arrays["conv1.weight"].tolist() == NUMBERS.tolist()


def test_zip_bomb_that_understates_its_size(tmp_path):
    """The zip directory understates the size. No more than that is unpacked."""
    path = zip_with(tmp_path / "m.pth", {"data/0": bytes(BOMB)})
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", BOMB), struct.pack("<I", 48)))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="damaged: data/0: "):
            read_checkpoint(path)
        assert tracemalloc.get_traced_memory()[1] < BOMB // 8
    finally:
        tracemalloc.stop()
