"""Files for other frameworks: PyTorch's zip container, opcode by opcode, and pickles."""
import pickle
import pickletools
import zipfile

import numpy as np
import pytest

from faster_rcnn.src.FasterRcnn.conversion.torch_writer import write_pickle, write_torch
from faster_rcnn.src.model_utils.config import InputError
from faster_rcnn.src.model_utils.weights.reader import read_checkpoint

ARRAYS = {
    "a.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4), "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "part": np.arange(9, dtype=np.float32)[2:5], "count": np.array(0, np.int64), "half": np.arange(3, dtype=np.float16),
    "big end": np.arange(3, dtype=">f8"), "empty": np.zeros((0, 3), np.float32)}
# What torch.load(weights_only=True) accepts.
GLOBALS = {"collections OrderedDict", "torch FloatStorage", "torch LongStorage", "torch HalfStorage", "torch DoubleStorage",
           "torch._utils _rebuild_tensor_v2"}
OPCODES = {"PROTO", "GLOBAL", "REDUCE", "MARK", "TUPLE", "EMPTY_TUPLE", "EMPTY_DICT", "EMPTY_LIST", "SETITEMS", "APPENDS",
           "BINPERSID", "NEWFALSE", "NEWTRUE", "LONG1", "BINUNICODE", "STOP"}


def test_zip_is_read_back(tmp_path):
    path = tmp_path / "m.pth"
    write_torch({"meta": {"names": ["cat", "dog\u00e9"], "one": (1, -300, True)}, "state_dict": ARRAYS}, path)
    checkpoint = read_checkpoint(path)
    assert (checkpoint.container, checkpoint.extras) == ("PyTorch zip", ("meta",))
    assert checkpoint.meta == {"names": ["cat", "dog\u00e9"], "one": (1, -300, True)}
    assert list(checkpoint.arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(checkpoint.arrays[name], array.astype(array.dtype.newbyteorder("<")), name, strict=True)


def test_zip_has_pytorchs_layout(tmp_path):
    path = tmp_path / "m.pth"
    write_torch(ARRAYS, path)
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
        content = archive.read("archive/data.pkl")
        assert {"archive/data.pkl", "archive/byteorder", "archive/version"} < members.keys()
        assert archive.read("archive/version") == b"3\n" and archive.read("archive/byteorder") == b"little"
        assert archive.read("archive/data/1") == np.arange(6, dtype="<f4").reshape(2, 3).T.tobytes()
    assert all(member.compress_type == zipfile.ZIP_STORED for member in members.values())
    found = list(pickletools.genops(content))
    assert {code.name for code, _, _ in found} <= OPCODES
    assert {argument for code, argument, _ in found if code.name == "GLOBAL"} <= GLOBALS
    before = path.read_bytes()
    write_torch(ARRAYS, path)
    assert path.read_bytes() == before


def test_other_objects_are_refused(tmp_path):
    with pytest.raises(TypeError, match="object cannot be written to a checkpoint"):
        write_torch({"x": object()}, tmp_path / "m.pth")
    assert not list(tmp_path.iterdir())


def test_pickle(tmp_path):
    path = tmp_path / "m.pkl"
    write_pickle({"model": ARRAYS, "__author__": "somebody"}, path)
    for found in (pickle.loads(path.read_bytes(), encoding="latin1")["model"], read_checkpoint(path).arrays):
        assert all(np.array_equal(found[name], array) for name, array in ARRAYS.items())


def test_failed_write_keeps_the_old_file(tmp_path):
    folder = tmp_path / "m.pth"
    folder.mkdir()
    with pytest.raises(InputError, match="--output_file: .*m.pth cannot be written: "):
        write_torch(ARRAYS, folder)
    assert list(tmp_path.iterdir()) == [folder]
