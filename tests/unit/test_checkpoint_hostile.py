"""Hostile or damaged checkpoint files: none of their code runs, and each gives a one-line error that names the file."""
import collections
import pickle
import re
import warnings
import zipfile

import numpy as np
import pytest

from faster_rcnn.src.model_utils.config import InputError
from faster_rcnn.src.model_utils.weights.reader import read_checkpoint
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


def error_of(path) -> str:
    with pytest.raises(InputError) as caught:
        read_checkpoint(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and "\n" not in text and len(text) < len(str(path)) + 250
    return text


def attribute(module: str, path: str) -> Code:
    """Return code for a dotted name, which pickle protocol 4 looks up step by step."""
    return Code(encode(module) + encode(path) + b"\x93")


HOSTILE = {
    "os.system": lambda marker: call(name("os", "system"), f"touch '{marker}'"),
    "posix.system": lambda marker: call(name("posix", "system"), f"touch '{marker}'"),
    "builtins.eval": lambda marker: call(name("builtins", "eval"), f"open({str(marker)!r}, 'w')"),
    "__builtin__.eval": lambda marker: call(name("__builtin__", "eval"), f"open({str(marker)!r}, 'w')"),
    "builtins.open": lambda marker: call(name("builtins", "open"), str(marker), "w"),
    "builtins.getattr": lambda marker: call(name("builtins", "getattr"), "text", "upper"),
    "__builtin__.getattr": lambda marker: call(name("__builtin__", "getattr"), name("collections", "OrderedDict"), "update"),
    "pathlib.Path.touch": lambda marker: call(attribute("pathlib", "Path.touch"), str(marker)),
    "collections.OrderedDict.__init__": lambda marker: attribute("collections", "OrderedDict.__init__"),
    "torch.storage._load_from_bytes": lambda marker: call(name("torch.storage", "_load_from_bytes"), b"\x80\x02N."),
    "numpy.load": lambda marker: call(name("numpy", "load"), str(marker)),
}


@pytest.mark.parametrize("asked", HOSTILE)
@pytest.mark.parametrize("place", ["alone", "entry", "nested", "state"])
@pytest.mark.parametrize("container", ["zip", "stream", "head of stream", "keys of stream", "pickle"])
def test_hostile_pickle_runs_nothing(asked, place, container, tmp_path):
    marker = tmp_path / "was here"
    code = HOSTILE[asked](marker)
    tree = {"alone": code, "entry": {"x": code},
            "nested": {"x": call(name("torch._utils", "_rebuild_parameter"), code, True)},
            "state": build(call(name("collections", "OrderedDict")), {"_metadata": code})}[place]
    path = tmp_path / "m.pth"
    if container == "zip":
        write_zip(path, tree, {})
    elif container == "stream":
        write_stream(path, tree, {})
    elif container == "head of stream":
        write_stream(path, {}, {}, protocol=tree)
    elif container == "keys of stream":
        path.write_bytes(write_stream(path, {}, {}).read_bytes()[:-len(pickled([]))] + pickled(tree))
    else:
        path.write_bytes(pickled(tree))
    text = error_of(path)
    refused = "torch._utils._rebuild_parameter" if place == "nested" and container not in ("zip", "stream") else asked
    assert f"asks for {refused};" in text
    assert not marker.exists()


def test_training_history_of_mmdetection_is_skipped(tmp_path):
    """It has buffers with numbers and with methods of their class."""
    buffers = name("mmengine.logging.history_buffer", "HistoryBuffer")
    method = call(name("__builtin__", "getattr"), buffers, "mean")
    buffer = build(new(buffers), {"_log_history": [1, 2], "statistics_methods": {"mean": method}})
    for container in ("zip", "stream"):
        checkpoint = read_checkpoint(write_numbers(container, tmp_path, lambda block: {
            "state_dict": {"x": tensor(block, 0, (2,), (1,))}, "message_hub": {"log_scalars": {"train/loss": buffer}}}))
        assert list(checkpoint.arrays) == ["x"] and checkpoint.arrays["x"].tolist() == NUMBERS[:2].tolist()
        assert "message_hub" in checkpoint.extras


@pytest.mark.parametrize("asked", ["os.system", "builtins.eval", "builtins.open"])
def test_hostile_pickles_are_hostile(asked, tmp_path):
    """Python's own unpickler runs this code, so the test above can fail."""
    marker = tmp_path / "was here"
    pickle.loads(pickled({"x": HOSTILE[asked](marker)}))
    assert marker.exists()


def test_npz_with_objects_is_refused(tmp_path):
    path = tmp_path / "m.npz"
    np.savez(path, x=np.array([print], dtype=object))
    assert "Python objects" in error_of(path)


def test_pickle_cannot_change_what_was_checked(tmp_path):
    """BUILD with (None, {attribute: value}) writes attributes: a tensor could grow past its storage after the check."""
    def grown(block):
        return {"x": build(tensor(block, 0, (2,), (1,)), (None, {"size": (10 ** 6,)}))}

    assert "sets a state on a tensor" in error_of(write_numbers("zip", tmp_path, grown))
    grown_block = build(storage("FloatStorage", "0", 2), (None, {"count": 10 ** 6}))
    path = write_zip(tmp_path / "m.pth", {"x": tensor(grown_block, 0, (10 ** 6,), (1,))}, {"0": bytes(8)})
    assert "sets a state on a storage" in error_of(path)
    for shared in ("collections Counter", "collections OrderedDict", "torch.nn.parameter Parameter"):
        spoil = build(name(*shared.split()), (None, {"spoilt": 1, "update": 1}))
        error_of(write_zip(tmp_path / "m.pth", spoil, {}))
    assert not hasattr(collections.Counter, "spoilt") and not hasattr(collections.OrderedDict, "spoilt")


@both
@pytest.mark.parametrize("offset, size, stride", [
    (0, (13,), (1,)), (12, (1,), (1,)), (10 ** 30, (1,), (1,)), (0, (4, 4), (4, 1)), (0, (2,), (12,)),
    (0, (2 ** 40,), (0,)), (-1, (1,), (1,)), (0, (-1,), (1,)), (3, (2,), (-1,)), (0, (2, 2), (1,)), (0, ("a",), (1,)),
    (0, (0, 2 ** 70), (1, 1)), (0, (1,) * 60, (1,) * 60)])
def test_tensor_that_does_not_fit_its_storage(container, offset, size, stride, tmp_path):
    text = error_of(write_numbers(container, tmp_path, lambda block: {"x": tensor(block, offset, size, stride)}))
    assert "of a tensor" in text or "a tensor of size" in text


@both
def test_storage_shorter_than_it_says(container, tmp_path):
    def tree(block):
        return {"x": tensor(block, 0, (12,), (1,))}

    assert "damaged" in error_of(write_numbers(container, tmp_path, tree, raw=NUMBERS.tobytes()[:-1]))


def test_storage_missing_or_given_twice(tmp_path):
    path = write_zip(tmp_path / "m.pth", {"x": tensor(storage("FloatStorage", "7", 1), 0, (1,), (1,))}, {})
    assert "data/7 is missing" in error_of(path)
    block = storage("FloatStorage", "7", 1, None)
    assert "7 has no data" in error_of(write_stream(path, {"x": tensor(block, 0, (1,), (1,))}, {}))
    assert "which no tensor uses" in error_of(write_stream(path, {"x": tensor(block, 0, (1,), (1,))}, {"8": (0, b"")}))
    other = storage("DoubleStorage", "7", 1, None)
    tree = {"x": tensor(block, 0, (1,), (1,)), "y": tensor(other, 0, (1,), (1,))}
    assert "two types" in error_of(write_stream(path, tree, {"7": (1, bytes(8))}))
    beyond = storage("FloatStorage", "7", 4, ("8", 3, 2))
    tree = {"x": tensor(beyond, 0, (1,), (1,))}
    assert "a view of 2 elements" in error_of(write_stream(path, tree, {"7": (4, bytes(16))}))


def test_wrong_magic_or_protocol(tmp_path):
    path = tmp_path / "m.pth"
    assert "not a PyTorch stream of protocol 1001" in error_of(write_stream(path, {}, {}, protocol=1000))
    assert "not a dictionary" in error_of(write_stream(path, {}, {}, magic=1234567890123456789012))
    assert "data.pkl" in error_of(write_zip(path, {}, {}, folder="a/b/"))
    assert "byte order" in error_of(write_zip(path, {}, {}, byteorder="middle"))


@pytest.mark.parametrize("content, said", [
    (b"", "empty"), (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"), (b"<!DOCTYPE html>", "web page"),
    (b"PK\x03\x04 and no more", "zip"), (b"\x89HDF\r\n", "HDF5"), (b"\x1f\x8b\x08", "gzip"),
    (b"hello", "not a known kind"), (b"\x80\x02", "not a whole pickle"), (pickled([1]), "holds a list"),
    (pickled({"a": 1}), "no tensors found; it holds a"), (pickled({"\n\x1b[2J" * 99: 1}), "no tensors found"),
    (b"\x80\x02r\xff\xff\xff\x7f.", "not a whole pickle")])
def test_other_files(content, said, tmp_path):
    path = tmp_path / "m.pth"
    path.write_bytes(content)
    assert said in error_of(path)


def test_no_such_file(tmp_path):
    assert "no such file" in error_of(tmp_path / "absent.pth")
    assert "no such file" in error_of(tmp_path)


@pytest.mark.parametrize("content, state", [
    ("O8", (3, "|", None, None, None, -1, -1, 63)), ("V8", (3, "|", None, ("a",), {"a": 1}, 8, 1, 16)),
    ("f4", (3, "x", None, None, None, -1, -1, 0)), ("f4", (3, "<", ("f4", (2,)), None, None, -1, -1, 0)),
    ("f99", (3, "<"))])
def test_array_types_that_are_not_numbers(content, state, tmp_path):
    path = tmp_path / "m.pkl"
    path.write_bytes(pickled({"x": call(name("numpy.core.multiarray", "scalar"),
                                        build(call(name("numpy", "dtype"), content, 0, 1), state), bytes(8))}))
    assert "not a whole pickle, or a damaged one" in error_of(path)


@pytest.mark.parametrize("shape, raw", [
    ((3,), bytes(8)), ((2 ** 62,), bytes(8)), ((-2,), bytes(8)), ((2,), [1, 2]), (("a",), bytes(8))])
def test_arrays_that_contradict_themselves(shape, raw, tmp_path):
    dtype = build(call(name("numpy", "dtype"), "f4", 0, 1), (3, "<", None, None, None, -1, -1, 0))
    empty = call(name("numpy.core.multiarray", "_reconstruct"), name("numpy", "ndarray"), (0,), "b")
    path = tmp_path / "m.pkl"
    path.write_bytes(pickled({"x": build(empty, (1, shape, dtype, False, raw))}))
    assert "an array" in error_of(path)


def small_file(kind: str, folder):
    if kind == "pickle":
        path = folder / "m.pkl"
        path.write_bytes(pickle.dumps({"model": {"x": NUMBERS, "y": NUMBERS[:2].astype("f8")}}, 3))
    elif kind == "npz":
        path = folder / "m.npz"
        np.savez(path, x=NUMBERS)
    else:
        path = write_numbers(kind, folder, lambda block: ordered({"x": tensor(block, 0, (3, 4), (4, 1))}))
    return path


@pytest.mark.parametrize("kind", ["zip", "stream", "pickle", "npz"])
def test_every_truncation_is_reported(kind, tmp_path):
    path = small_file(kind, tmp_path)
    raw = path.read_bytes()
    read_checkpoint(path)
    for size in range(len(raw)):
        path.write_bytes(raw[:size])
        error_of(path)


@pytest.mark.parametrize("kind", ["zip", "stream", "pickle", "npz"])
def test_damaged_bytes_give_an_input_error_or_arrays(kind, tmp_path):
    """There is no other exception, no crash and no unbounded memory."""
    path = small_file(kind, tmp_path)
    raw = path.read_bytes()
    refused = 0
    for place in range(len(raw)):
        for flip in (0x01, 0x80, 0xFF):
            path.write_bytes(raw[:place] + bytes([raw[place] ^ flip]) + raw[place + 1:])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # zipfile and NumPy warn of odd headers
                try:
                    arrays = read_checkpoint(path).arrays
                except InputError:
                    refused += 1
                else:
                    assert all(isinstance(value, np.ndarray) for value in arrays.values())
    assert refused > len(raw) // 4


NESTED = b")q\x00" + b"h\x00h\x00\x86q\x00" * 40     # t = (t, t), 40 times over: 2 ** 40 tuples to hash or to print
SLOW = {
    "key": NESTED + b"}h\x00K\x01s.", "keys": NESTED + b"}(h\x00K\x01u.", "dictionary": NESTED + b"(h\x00K\x01d.",
    "frozen set": NESTED + b"(h\x00\x91.", "set": NESTED + b"\x8f(h\x00\x90.", "message": NESTED + b"Q.",
    "call": NESTED + b"cbuiltins\nset\n](h\x00e\x85R.", "pairs": NESTED + b"ccollections\nOrderedDict\n](h\x00K\x01\x86e\x85R.",
    "counter": NESTED + b"ccollections\nCounter\n](h\x00K\x01\x86e\x85R.", "array type": NESTED + b"cnumpy\ndtype\nh\x00\x85R.",
    "state": NESTED + b"cnumpy\ndtype\nX\x02\0\0\0f4\x85Rh\x00b.", "integer": b"}\x8b\xb8\x0b\0\0" + b"\1" * 3000 + b"K\1s.",
    "copies": b"c_codecs\nencode\nq\1X\0\0\4\0" + b"a" * 2**18 + b"q\2](" + b"h\1h\2\x85R" * 10_000 + b"e."}


@pytest.mark.parametrize("kind", SLOW)
def test_a_small_pickle_takes_little_time_and_memory(kind, tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x04" + SLOW[kind])
    assert "not a whole pickle, or a damaged one: " in error_of(path)


def test_names_that_are_long_integers_are_shown(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x04}\x8b\xe8\3\0\0" + b"\1" * 1000 + b"K\1s.")
    assert "no tensors found; it holds " in error_of(path)


def test_pickles_and_tensors_that_are_larger_than_their_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"\x80\2](" + b"K\1" * 2_000_000 + b"e.")
    assert re.search(r"refused: x/data\.pkl of \d+ bytes would unpack to 4000006", error_of(tmp_path / "a.pth"))
    wide = tensor(storage("FloatStorage", "0", 1), 0, (65536, 65536), (0, 0))
    path = write_zip(tmp_path / "b.pth", {"a": wide}, {"0": bytes(4)})
    assert "bytes declare tensors of 17179869184" in error_of(path)
