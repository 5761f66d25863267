"""The safetensors reader: every type, metadata, and hostile or damaged files."""
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from faster_rcnn.src.model_utils.config import InputError
from faster_rcnn.src.model_utils.weights.reader import read_checkpoint

NUMBERS = np.arange(6, dtype=np.float32) / 8


def write(path, header, data=b"", length=None):
    """`header` is an object or raw bytes; `length` replaces its true length."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(raw) if length is None else length).to_bytes(8, "little") + raw + data)
    return path


def entry(dtype="F32", shape=(6,), begin=0, end=24) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize(("dtype", "numpy"), [
    ("F64", "<f8"), ("F32", "<f4"), ("F16", "<f2"), ("I64", "<i8"), ("I32", "<i4"), ("I16", "<i2"), ("I8", "i1"), ("U8", "u1"),
    ("U16", "<u2"), ("U32", "<u4"), ("U64", "<u8"), ("BOOL", "?")])
def test_types(dtype, numpy, tmp_path):
    values = np.array([[1, 0, 3], [4, 5, 100]]).astype(numpy)
    header = {"x": entry(dtype, (2, 3), 0, values.nbytes), "empty": entry(dtype, (0, 3), values.nbytes, values.nbytes),
              "number": entry(dtype, (), values.nbytes, values.nbytes + values.itemsize), "__metadata__": {"format": "pt"}}
    checkpoint = read_checkpoint(write(tmp_path / "m.safetensors", header, values.tobytes() + values[1, 2].tobytes()))
    assert (checkpoint.container, checkpoint.extras) == ("safetensors", ("__metadata__",))
    np.testing.assert_array_equal(checkpoint.arrays["x"], values, strict=True)
    assert checkpoint.arrays["empty"].shape == (0, 3) and checkpoint.arrays["number"] == values[1, 2]
    assert list(checkpoint.arrays) == ["x", "empty", "number"]


def test_bfloat16(tmp_path):
    values = np.array([1, -2.5, 3e38], np.float32)
    raw = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    array = read_checkpoint(write(tmp_path / "m.safetensors", {"x": entry("BF16", (3,), 0, 6)}, raw)).arrays["x"]
    np.testing.assert_array_equal(array, (values.view(np.uint32) >> 16 << 16).view(np.float32), strict=True)


def test_files_of_the_library(tmp_path):
    arrays = {"b": NUMBERS.reshape(2, 3), "a": NUMBERS.astype(np.float16), "c": np.array(7, np.int64)}
    save_file(arrays, tmp_path / "m.safetensors", {"format": "np"})
    found = read_checkpoint(tmp_path / "m.safetensors").arrays
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def test_the_header_reveals_the_format(tmp_path):
    path = write(tmp_path / "model.bin", {"x": entry()}, NUMBERS.tobytes())
    np.testing.assert_array_equal(read_checkpoint(path).arrays["x"], NUMBERS, strict=True)


HOSTILE = {
    "header longer than the file": ({"x": entry()}, NUMBERS.tobytes(), 10 ** 6, "a header of 1000000 bytes"),
    "header of all bytes there are": ({"x": entry()}, NUMBERS.tobytes(), 2 ** 64 - 1, "a header of 18446744073709551615 bytes"),
    "no JSON": (b'{"x": nope', b"", None, "Expecting value"),
    "no text": (b'{"\xff": 1}', b"", None, "utf-8"),
    "a list": (b"[1, 2]  ", b"", None, "a header that is not a JSON object"),
    "deep": (b'{"x": ' + b"[" * 10 ** 5, b"", None, "recursion"),
    "a name twice": (b'{"x": 1, "x": 2}', b"", None, "a name that occurs twice"),
    "no entry": ({"x": 3}, b"", None, "x: 3"),
    "no offsets": ({"x": {"dtype": "F32", "shape": [6]}}, NUMBERS.tobytes(), None, "x: {"),
    "unknown type": ({"x": entry("F8_E4M3", (6,), 0, 6)}, bytes(6), None, "x: type F8_E4M3 is not supported"),
    "type of another kind": ({"x": entry(["F32"])}, NUMBERS.tobytes(), None, "is not supported"),
    "negative size": ({"x": entry(shape=(-6,))}, NUMBERS.tobytes(), None, "shape of x"),
    "sizes that are no numbers": ({"x": entry(shape=(True, 6.0))}, NUMBERS.tobytes(), None, "shape of x"),
    "larger than its bytes": ({"x": entry(shape=(7,))}, NUMBERS.tobytes(), None, "x: 28 bytes by its shape"),
    "larger than anything": ({"x": entry(shape=(2 ** 40, 2 ** 40))}, NUMBERS.tobytes(), None, "bytes by its shape"),
    "backwards": ({"x": entry(begin=24, end=0)}, NUMBERS.tobytes(), None, "at (24, 0)"),
    "past the end": ({"x": entry(begin=24, end=48)}, NUMBERS.tobytes(), None, "x begins at 24, the tensor before it ends at 0"),
    "one over another": ({"x": entry(), "y": entry()}, NUMBERS.tobytes(), None, "y begins at 0, the tensor before it ends at 24"),
    "bytes of nobody": ({"x": entry()}, NUMBERS.tobytes() + b"more", None, "tensors of 24 bytes, and 28 in the file"),
    "metadata that is none": ({"x": entry(), "__metadata__": 1}, NUMBERS.tobytes(), None, "__metadata__ 1"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files(case, tmp_path):
    header, data, length, said = HOSTILE[case]
    path = write(tmp_path / "m.safetensors", header, data, length)
    with pytest.raises(InputError) as caught:
        read_checkpoint(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: not a safetensors file, or a damaged one: ") and said in text
    assert "\n" not in text and len(text) < len(str(path)) + 150


def test_every_truncation_and_damaged_byte(tmp_path):
    """A truncated file raises InputError; a damaged one raises InputError or gives arrays, nothing else."""
    path = write(tmp_path / "m.safetensors", {"x": entry(shape=(2, 3))}, NUMBERS.tobytes())
    raw = path.read_bytes()
    for size in range(len(raw)):
        path.write_bytes(raw[:size])
        with pytest.raises(InputError):
            read_checkpoint(path)
    for place in range(len(raw)):
        for flip in (0x01, 0x80, 0xFF):
            path.write_bytes(raw[:place] + bytes([raw[place] ^ flip]) + raw[place + 1:])
            try:
                arrays = read_checkpoint(path).arrays
            except InputError:
                continue
            assert place >= 8 and all(array.nbytes == 24 for array in arrays.values())
