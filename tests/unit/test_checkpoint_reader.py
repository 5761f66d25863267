"""Checkpoints are read exactly: compared with literals, the container's bytes and Python's unpickler."""
import pickle
import zipfile

import numpy as np
import pytest

from faster_rcnn.src.model_utils.config import InputError
from faster_rcnn.src.model_utils.weights.reader import read_checkpoint
from faster_rcnn.src.model_utils.weights.state_dicts import WRAPPERS
from tests.checkpoint_files import (
    NUMBERS,
    Code,
    build,
    call,
    encode,
    name,
    new,
    ordered,
    pickled,
    storage,
    tensor,
    write_numbers,
    write_stream,
    write_zip,
)

both = pytest.mark.parametrize("container", ["zip", "stream"])


@both
def test_tensors_that_share_a_storage(container, tmp_path):
    path = write_numbers(container, tmp_path, lambda block: ordered({
        "whole": tensor(block, 0, (3, 4), (4, 1)), "transposed": tensor(block, 0, (4, 3), (1, 4)),
        "part": tensor(block, 5, (2, 2), (4, 2)), "expanded": tensor(block, 2, (3, 2), (0, 1)),
        "scalar": tensor(block, 11, (), ()), "empty": tensor(block, 12, (0, 3), (3, 1)),
        "odd stride of a size 1": tensor(block, 0, (1, 2), (2 ** 60, 1))}))
    arrays = read_checkpoint(path).arrays
    whole = NUMBERS.reshape(3, 4)
    expected = {"whole": whole, "transposed": whole.T, "part": whole[1:, 1::2], "expanded": [[0.25, 0.375]] * 3,
                "scalar": 11 / 8, "empty": np.zeros((0, 3)), "odd stride of a size 1": [[0, 0.125]]}
    assert list(arrays) == list(expected)
    for key, value in expected.items():
        np.testing.assert_array_equal(arrays[key], np.asarray(value, np.float32), strict=True)
        assert not arrays[key].flags.writeable or not arrays[key].size


@both
@pytest.mark.parametrize("kind, dtype", [
    ("DoubleStorage", "f8"), ("FloatStorage", "f4"), ("HalfStorage", "f2"), ("LongStorage", "i8"), ("IntStorage", "i4"),
    ("ShortStorage", "i2"), ("CharStorage", "i1"), ("ByteStorage", "u1"), ("BoolStorage", "?")])
def test_element_types(container, kind, dtype, tmp_path):
    values = np.array([1, 0, 3]).astype(dtype)
    path = write_numbers(container, tmp_path, lambda block: {"x": tensor(block, 0, (3,), (1,))}, kind,
                         values.tobytes(), 3)
    np.testing.assert_array_equal(read_checkpoint(path).arrays["x"], values, strict=True)


@both
def test_bfloat16_becomes_float32(container, tmp_path):
    raw = np.array([0x3F80, 0xC020, 0x7F7F, 0x0001], "<u2").tobytes()  # 1, -2.5, the largest, the smallest denormal
    path = write_numbers(container, tmp_path, lambda block: {"x": tensor(block, 0, (2, 2), (1, 2))}, "BFloat16Storage",
                         raw, 4)
    expected = np.array([[1, 2.0 ** 128 - 2.0 ** 120], [-2.5, 2.0 ** -133]], np.float32)
    np.testing.assert_array_equal(read_checkpoint(path).arrays["x"], expected, strict=True)


def test_big_endian_zip(tmp_path):
    tree = {"x": tensor(storage("FloatStorage", "0", 12), 0, (12,), (1,))}
    path = write_zip(tmp_path / "m.pth", tree, {"0": NUMBERS.astype(">f4").tobytes()}, byteorder="big")
    np.testing.assert_array_equal(read_checkpoint(path).arrays["x"], NUMBERS)


def test_view_of_a_block_in_the_old_container(tmp_path):
    view = storage("FloatStorage", "0", 12, ("1", 4, 6))
    path = write_stream(tmp_path / "m.pth", {"x": tensor(view, 1, (5,), (1,))}, {"0": (12, NUMBERS.tobytes())})
    np.testing.assert_array_equal(read_checkpoint(path).arrays["x"], NUMBERS[5:10])


@both
def test_parameters_of_old_and_new_versions(container, tmp_path):
    parameter = name("torch.nn.parameter", "Parameter")

    def tree(block):
        data = call(name("torch._utils", "_rebuild_tensor"), block, 0, (2,), (1,))
        return ordered({
            "2016": build(new(parameter), (data, None, None, True, False)),
            "2017": build(call(parameter, data), (True, False, ordered({}))),
            "2019": call(name("torch._utils", "_rebuild_parameter"), data, True, ordered({})),
            "2022": call(name("torch._utils", "_rebuild_parameter_with_state"), data, True, ordered({}), {"tag": 1})})

    arrays = read_checkpoint(write_numbers(container, tmp_path, tree)).arrays
    assert len(arrays) == 4
    for value in arrays.values():
        np.testing.assert_array_equal(value, NUMBERS[:2])


@pytest.mark.parametrize("key", WRAPPERS)
def test_state_dict_within_a_dictionary(key, tmp_path):
    def tree(block):
        return {"epoch": 3, key: {"x": tensor(block, 0, (2,), (1,)), "note": "text"}}

    checkpoint = read_checkpoint(write_numbers("zip", tmp_path, tree))
    assert list(checkpoint.arrays) == ["x"] and set(checkpoint.extras) == {"epoch", "note"}


SETTINGS = {
    "argparse.Namespace": build(new(name("argparse", "Namespace")), {"lr": 1, "device": "cuda"}),
    "nested": build(new(name("argparse", "Namespace")), {"dir": call(name("pathlib", "PosixPath"), "/", "a"),
                                                         "device": call(name("torch", "device"), "cuda", 0),
                                                         "type": name("torch", "float16")}),
    "AttributeDict": Code(new(name("lightning_fabric.utilities.data", "AttributeDict")) + encode({"lr": 1})[1:]),
    "defaultdict": Code(call(name("collections", "defaultdict"), name("builtins", "list")) + encode({"x": [1]})[1:]),
}


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("container", ["zip", "stream"])
def test_training_settings_are_skipped(kind, container, tmp_path):
    checkpoint = read_checkpoint(write_numbers(container, tmp_path, lambda block: {
        "model": {"x": tensor(block, 0, (2,), (1,))}, "args": SETTINGS[kind]}))
    assert checkpoint.arrays["x"].tolist() == NUMBERS[:2].tolist() and checkpoint.extras == ("args",)


def test_averaged_weights_are_offered(tmp_path):
    def tree(block):
        weights = {"x": tensor(block, 0, (2,), (1,)), "y": tensor(block, 2, (1,), (1,))}
        averaged = {"n_averaged": tensor(block, 8, (), ()), "module.x": tensor(block, 4, (2,), (1,)), "module.y": weights["y"]}
        return {"model": weights, "model_ema": averaged, "optimizer": {"state": {0: {"momentum_buffer": weights["x"]}}},
                "best": {"module": {**weights}}, "loss": {"weight": weights["y"]}}

    path = write_numbers("zip", tmp_path, tree)
    checkpoint = read_checkpoint(path)
    assert checkpoint.arrays["x"].tolist() == NUMBERS[:2].tolist() and checkpoint.extras == ("optimizer",)
    assert checkpoint.notes == ("weights: model; --weights=model_ema takes the averaged ones; "
                                "--weights=best takes those of that name",)
    averaged = read_checkpoint(path, "model_ema")
    assert {name: value.tolist() for name, value in averaged.arrays.items()} == {
        "x": NUMBERS[4:6].tolist(), "y": NUMBERS[2:3].tolist()}
    assert averaged.notes == ("weights: model_ema, chosen by --weights", "names: prefix 'module.' removed")
    assert list(read_checkpoint(path, "best").arrays) == ["x", "y"]
    with pytest.raises(InputError, match="--weights: no dictionary of tensors called optimizer; it has model, model_ema, best"):
        read_checkpoint(path, "optimizer")


def test_averaged_weights_are_taken_if_there_are_no_others(tmp_path):
    checkpoint = read_checkpoint(write_numbers("zip", tmp_path, lambda block: {
        "epoch": 3, "model_ema": {"x": tensor(block, 0, (2,), (1,))}}))
    assert list(checkpoint.arrays) == ["x"] and checkpoint.notes == ("weights: model_ema",)


@pytest.mark.parametrize(("names", "bare"), [
    (["model.a.w", "model.b.w", "loss.w"], ["a.w", "b.w", "loss.w"]),
    (["_orig_mod.a.w", "_orig_mod.b.w"], ["a.w", "b.w"]),
    (["detector.a.w", "detector.b.w"], ["a.w", "b.w"]),
    (["model._orig_mod.module.a.w", "model._orig_mod.module.b.w"], ["a.w", "b.w"]),
    (["net.backbone.a", "net.rpn.b", "net.c", "loss.w"], ["backbone.a", "rpn.b", "c", "loss.w"]),
    (["model.my_vgg.features.0.w", "model.my_vgg.features.2.w"], ["features.0.w", "features.2.w"]),
    (["student.backbone.a", "teacher.backbone.a"], ["student.backbone.a", "teacher.backbone.a"]),
    (["backbone.features.a", "backbone.features.b"], ["backbone.features.a", "backbone.features.b"]),
    (["a.w", "b.w", "model.c"], ["a.w", "b.w", "model.c"]),             # "model" is also a layer
    (["model.a.w", "model.b.w", "a.w"], ["model.a.w", "model.b.w", "a.w"]),     # two names would become one
])
def test_prefixes_of_wrapped_networks(names, bare, tmp_path):
    checkpoint = read_checkpoint(write_numbers("zip", tmp_path, lambda block: dict.fromkeys(names, tensor(block, 0, (2,), (1,)))))
    assert list(checkpoint.arrays) == bare


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_of_numpy_arrays(protocol, tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"a": rng.normal(size=(3, 4)).astype("f4"), "fortran": np.asfortranarray(rng.normal(size=(3, 4))),
              "big": np.arange(4, dtype=">i4"), "bool": np.array([True]), "scalar": np.float32(3),
              "empty": np.zeros((0, 3)), "text": np.array(["ab", "c"]), "half": np.arange(3, dtype="f2"),
              "strided": np.arange(12.0)[::2]}
    path = tmp_path / "m.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "someone"}, protocol))
    checkpoint = read_checkpoint(path)
    assert checkpoint.extras == ("__author__",) and list(checkpoint.arrays) == list(arrays)
    for key, value in arrays.items():
        np.testing.assert_array_equal(checkpoint.arrays[key], value)
        assert checkpoint.arrays[key].dtype == np.asarray(value).dtype


def test_pickle_of_python_2_and_of_numpy_2(tmp_path):
    """Python 2 wrote bytes as text strings (opcode U). NumPy 2 renamed its modules."""
    raw = NUMBERS[:2].tobytes()
    for core in ("numpy.core", "numpy._core"):
        dtype = build(call(name("numpy", "dtype"), "f4", 0, 1), (3, "<", None, None, None, -1, -1, 0))
        empty = call(name(core + ".multiarray", "_reconstruct"), name("numpy", "ndarray"), (0,), "b")
        array = build(empty, (1, (2,), dtype, False, Code(b"U" + bytes([len(raw)]) + raw)))
        path = tmp_path / "m.pkl"
        path.write_bytes(pickled({"blobs": {"conv1_w": array}}))
        np.testing.assert_array_equal(read_checkpoint(path).arrays["conv1_w"], NUMBERS[:2])


def test_npz(tmp_path):
    path = tmp_path / "my weights.npz"
    np.savez(path, x=NUMBERS)
    np.testing.assert_array_equal(read_checkpoint(path).arrays["x"], NUMBERS)


@pytest.mark.parametrize("model", [
    "torchvision_fasterrcnn_resnet50_fpn", "torchvision_maskrcnn_resnet50_fpn",
    "mmdet_faster_rcnn_r50_fpn", "mmdet_mask_rcnn_r50_fpn"])
def test_parity_zip_files_hold_their_storages_in_order(model, parity_file):
    """In these files storage n holds exactly tensor n, contiguous, so its bytes equal those of the zip member."""
    path = parity_file(f"{model}/model.pth")
    checkpoint = read_checkpoint(path)
    assert len(checkpoint.arrays) > 290
    with zipfile.ZipFile(path) as archive:
        for number, array in enumerate(checkpoint.arrays.values()):
            assert array.tobytes() == archive.read(f"model/data/{number}")
    assert ("meta" in checkpoint.extras) == model.startswith("mmdet")
    counters = [array.dtype for key, array in checkpoint.arrays.items() if key.endswith("num_batches_tracked")]
    assert set(counters) == ({np.dtype("i8")} if model.startswith("mmdet") else set())


def test_parity_old_container_equals_the_new(parity_file):
    folder = parity_file("torchvision_fasterrcnn_resnet50_fpn")
    new_file, old_file = read_checkpoint(folder / "model.pth"), read_checkpoint(folder / "model_2019names.pth")
    assert (new_file.container, old_file.container) == ("PyTorch zip", "PyTorch stream")
    assert len(new_file.arrays) == len(old_file.arrays)
    same = [key for key in new_file.arrays if key in old_file.arrays]
    assert len(same) > 260
    for key in same:
        np.testing.assert_array_equal(new_file.arrays[key], old_file.arrays[key], strict=True)
    contents = [sorted(array.tobytes() for array in file.arrays.values()) for file in (new_file, old_file)]
    assert contents[0] == contents[1]


@pytest.mark.parametrize("model", ["detectron2_faster_rcnn_R50_FPN", "detectron2_mask_rcnn_R101_FPN"])
def test_parity_pickles_equal_python_unpickling(model, parity_file):
    path = parity_file(f"{model}/model.pkl")
    with open(path, "rb") as file:
        expected = pickle.load(file)["model"]
    checkpoint = read_checkpoint(path)
    assert list(checkpoint.arrays) == list(expected) and checkpoint.extras == ("__author__",)
    for key, value in expected.items():
        np.testing.assert_array_equal(checkpoint.arrays[key], value, strict=True)
