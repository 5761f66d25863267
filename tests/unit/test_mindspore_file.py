"""Reading MindSpore's checkpoints without MindSpore, compared with ms.load_checkpoint."""
import mindspore as ms
import numpy as np
import pytest

from faster_rcnn.src.model_utils.weights.mindspore_file import read_mindspore, read_texts
from faster_rcnn.src.model_utils.weights.protobuf import bytes_field, int_field, read_fields

TENSORS = {"weight": np.arange(6, dtype=np.float32).reshape(2, 3), "half": np.array([[0.5]], np.float16), "scalar": np.float32(3),
           "steps": np.array([7, -1], np.int32), "moments.weight": np.ones((2, 3), np.float32)}
NAMES = '["background", "chat", "犬"]'


@pytest.mark.parametrize("crc", [False, True])
def test_values_match_load_checkpoint(tmp_path, crc):
    path = tmp_path / "a b.ckpt"
    tensors = [{"name": name, "data": ms.Tensor(value)} for name, value in TENSORS.items()]
    ms.save_checkpoint(tensors, str(path), append_dict={"class_names": NAMES, "epoch": 3}, crc_check=crc)
    found, wanted = read_mindspore(path), ms.load_checkpoint(str(path))
    assert list(found) == list(wanted) and found.pop("class_names") == wanted["class_names"] == NAMES
    for name, value in found.items():
        np.testing.assert_array_equal(value, wanted[name].asnumpy(), name, strict=True)
        assert value.flags.aligned
    assert read_texts(path) == {"class_names": NAMES}


def test_a_tensor_in_parts(tmp_path):
    """MindSpore writes tensors of more than 512 MB in parts."""
    def part(values):
        tensor = int_field(1, 2) + int_field(1, 300) + bytes_field(2, b"Float32") + bytes_field(3, values.tobytes())
        return bytes_field(1, bytes_field(1, b"large") + bytes_field(2, tensor))

    values = np.arange(600, dtype=np.float32)
    (tmp_path / "parts.ckpt").write_bytes(part(values[:500]) + part(values[500:]))
    found, wanted = read_mindspore(tmp_path / "parts.ckpt"), ms.load_checkpoint(str(tmp_path / "parts.ckpt"))
    np.testing.assert_array_equal(found["large"], values.reshape(2, 300))
    np.testing.assert_array_equal(found["large"], wanted["large"].asnumpy())


def test_other_files_are_left_to_mindspore(tmp_path):
    path = tmp_path / "net.ckpt"
    ms.save_checkpoint([{"name": "w", "data": ms.Tensor(TENSORS["weight"])}], str(path))
    whole = path.read_bytes()
    path.unlink()
    for content in (b"", b"PK\3\4 zip", whole[:-1], whole[:9], b"\xff" * 40, whole.replace(b"Float32", b"Float19"), b"\x12\1a"):
        path.write_bytes(content)
        assert read_mindspore(path) is None, content
    assert read_mindspore(tmp_path / "absent.ckpt") is None and read_texts(tmp_path) is None


def test_fields_come_back():
    data = int_field(1, 2 ** 40) + bytes_field(300, b"x" * 200) + b"\x15abcd" + b"\x19abcdefgh"
    fields = list(read_fields(data))
    assert [field.number for field in fields] == [1, 300, 2, 3] and fields[0].value == 2 ** 40
    assert data[fields[1].value:fields[1].end] == b"x" * 200 and fields[-1].end == len(data)
