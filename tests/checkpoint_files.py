"""PyTorch checkpoint files, assembled opcode by opcode: the tests need no PyTorch.

`pickled(value)` is a pickle of protocol 2. A `Code` in the value stands for the opcodes that build it, so a test can write what
no pickler would: a call of any function, a tensor that reaches past its storage.
"""
import struct
import zipfile

import numpy as np

NUMBERS = np.arange(12, dtype="<f4") / 8
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class Code(bytes):
    """Opcodes that leave one object on the unpickler's stack."""


def encode(value) -> Code:
    if isinstance(value, Code):
        return value
    if value is None:
        return Code(b"N")
    if isinstance(value, bool):
        return Code(b"\x88" if value else b"\x89")
    if isinstance(value, int):
        raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return Code(b"\x8a" + bytes([len(raw)]) + raw)
    if isinstance(value, str):
        raw = value.encode()
        return Code(b"X" + struct.pack("<I", len(raw)) + raw)
    if isinstance(value, bytes):  # newer than protocol 2, but unpicklers accept it
        return Code(b"B" + struct.pack("<I", len(value)) + value)
    if isinstance(value, (tuple, list)):
        return Code(b"(" + b"".join(map(encode, value)) + (b"t" if isinstance(value, tuple) else b"l"))
    if isinstance(value, dict):
        return Code(b"}(" + b"".join(encode(key) + encode(item) for key, item in value.items()) + b"u")
    raise TypeError(value)


def pickled(value) -> bytes:
    return b"\x80\x02" + encode(value) + b"."


def name(module: str, attribute: str) -> Code:
    return Code(f"c{module}\n{attribute}\n".encode())


def call(function: Code, *arguments) -> Code:
    return Code(function + encode(arguments) + b"R")


def new(kind: Code, *arguments) -> Code:
    return Code(kind + encode(arguments) + b"\x81")


def build(value, state) -> Code:
    return Code(encode(value) + encode(state) + b"b")


def ordered(items: dict) -> Code:
    """Return an OrderedDict with the _metadata attribute of a state dict."""
    filled = call(name("collections", "OrderedDict")) + encode(items)[1:]
    return build(Code(filled), {"_metadata": {"": {"version": 1}}})


def storage(kind: str, key: str, count: int, *view) -> Code:
    """Return a storage's persistent id. view: nothing in a zip; None or (key, start, count) in a stream."""
    return Code(encode(("storage", name("torch", kind), key, "cpu", count, *view)) + b"Q")


def tensor(block: Code, offset: int, size, stride) -> Code:
    return call(name("torch._utils", "_rebuild_tensor_v2"), block, offset, size, stride, False, ordered({}))


def write_zip(path, tree, blocks: dict, byteorder="little", folder="archive/"):
    """Write a zip checkpoint. blocks: storage key -> bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(folder + "data.pkl", pickled(tree))
        if byteorder:
            archive.writestr(folder + "byteorder", byteorder)
        for key, raw in blocks.items():
            archive.writestr(f"{folder}data/{key}", raw)
        archive.writestr(folder + "version", "3\n")
    return path


def write_stream(path, tree, blocks: dict, magic=MAGIC, protocol=PROTOCOL):
    """Write a legacy stream checkpoint. blocks: storage key -> (element count, bytes)."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    raw = b"".join(map(pickled, (magic, protocol, system, tree, list(blocks))))
    path.write_bytes(raw + b"".join(struct.pack("<q", count) + data for count, data in blocks.values()))
    return path


def write_numbers(container: str, folder, tree_of, kind="FloatStorage", raw=None, count=None):
    """Write a file with one storage "0", by default NUMBERS; `tree_of(storage)` returns the object to pickle."""
    raw = NUMBERS.tobytes() if raw is None else raw
    count = len(NUMBERS) if count is None else count
    if container == "zip":
        return write_zip(folder / "m.pth", tree_of(storage(kind, "0", count)), {"0": raw})
    return write_stream(folder / "m.pth", tree_of(storage(kind, "0", count, None)), {"0": (count, raw)})
