"""Damaged images and files that are not images: check.py lists them, a conversion drops them, nothing blocks on them."""
import importlib
import io
import json
import os
import signal
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from faster_rcnn.src.model_utils.inference.media import open_input
from tests.cpp_program import smooth_picture
from tests.unit.mindrecord_samples import annotation
from utils.mindrecord import Split, convert, read_annotations
from utils.mindrecord.detection import find_data
from utils.mindrecord.doctor import diagnose
from utils.mindrecord.errors import DataError

END = b"\xff\xd9"
LOST = "a JPEG whose last part is lost: its data ends before the last pixel"


def encoded(kind: str, mode: str = "RGB", **more) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(smooth_picture(120, 160)).convert(mode).save(stream, kind, **more)
    return stream.getvalue()


def png(data: bytes, width: int = 160, height: int = 120) -> bytes:
    """Return a PNG with correct checksums; without `data` it has no IDAT chunk."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + (chunk(b"IDAT", data) if data else b"") + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


JPEGS = {"plain": encoded("JPEG"), "progressive": encoded("JPEG", progressive=True), "grey": encoded("JPEG", "L"),
         "restarts": encoded("JPEG", restart_marker_rows=1), "cmyk": encoded("JPEG", "CMYK")}
PLAIN = JPEGS["plain"]
THUMBNAIL = b"Exif\0\0MM\0*\0\0\0\x08" + bytes(6) + encoded("JPEG", "L", quality=1)     # as cameras embed it
JPEGS["thumbnail"] = PLAIN[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(THUMBNAIL)) + THUMBNAIL + PLAIN[2:]
PNG = encoded("PNG")
BMP = encoded("BMP")
WHOLE = {**{f"{name}.jpg": data for name, data in JPEGS.items()}, "zeros.jpg": PLAIN + bytes(1000), "two.jpg": PLAIN + PLAIN,
         "metadata.jpg": encoded("JPEG", comment=bytes(5000)), "whole.png": PNG, "whole.bmp": BMP,
         "size_field.bmp": BMP[:2] + bytes(4) + BMP[6:]}
# Damage that a conversion does not notice, because it does not decode the usual formats.
LIKE_WHOLE = {**{f"half_{name}.jpg": data[:len(data) // 2] + END for name, data in JPEGS.items()},
              "no_pixels.jpg": PLAIN[:PLAIN.index(b"\xff\xda") + 20] + END, "compression.png": png(PNG[60:2000])}
DAMAGED = {
    **{f"cut_{name}.jpg": data[:len(data) // 2] for name, data in JPEGS.items()},
    "hole.jpg": PLAIN[:len(PLAIN) // 2] + bytes(4000) + END, "bytes.png": PNG[:900] + bytes(40) + PNG[940:],
    "half.png": PNG[:len(PNG) // 2] + PNG[-12:], "no_data.png": png(b""),
    "bomb.png": png(zlib.compress(bytes(10**6)), 60000, 60000), "large.pgm": b"P5\n60000 60000\n255\n",
    "header.bmp": BMP[:54], "header_only.bmp": BMP[:2] + struct.pack("<I", 54) + BMP[6:54], "half.bmp": BMP[:len(BMP) // 2],
    "broken.exr": b"\x76\x2f\x31\x01" + bytes(200), "exr.png": b"\x76\x2f\x31\x01" + bytes(200), "text.jpg": b"hello",
    "empty.png": b""}


@pytest.fixture
def in_time():
    """Fail a test that blocks for 60 seconds."""
    def stop(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def write_set(folder, files):
    (folder / "images").mkdir()
    for name, data in files.items():
        (folder / "images" / name).write_bytes(data)
    return folder / "images", describe(folder, files)


def describe(folder, names):
    images = [{"id": number, "file_name": name} for number, name in enumerate(names, 1)]
    content = {"images": images, "annotations": [annotation(item["id"], item["id"], [1, 1, 50, 50]) for item in images],
               "categories": [{"id": 1, "name": "cat"}]}
    (folder / "anno.json").write_text(json.dumps(content))
    return folder / "anno.json"


def test_check_lists_damaged_images_and_a_conversion_drops_them(tmp_path, caplog):
    paths = write_set(tmp_path, {**WHOLE, **LIKE_WHOLE, **DAMAGED})
    found = diagnose("coco", *paths, progress=False)
    listed = {os.path.basename(problem.file): problem.what for problem in found.problems}
    assert set(listed) == {*LIKE_WHOLE, *DAMAGED} and found.usable == len(WHOLE)
    assert {name for name, what in listed.items() if what == LOST} == {"hole.jpg", "no_pixels.jpg", *(
        f"half_{name}.jpg" for name in JPEGS)}
    assert "60000x60000 pixels" in listed["bomb.png"] and "truncated" in listed["header.bmp"]
    manifest = convert("coco", *paths, tmp_path / "out", progress=False)
    assert manifest["count"] == len(WHOLE) + len(LIKE_WHOLE) and sum(manifest["dropped"].values()) == len(DAMAGED)
    assert all(any(f"/{name}: " in line for line in caplog.messages) for name in DAMAGED)


def test_only_regular_files_are_opened(in_time, tmp_path):
    images, anno = write_set(tmp_path, {"a.jpg": PLAIN, "b.jpg": JPEGS["grey"], "c.jpg": JPEGS["progressive"]})
    os.mkfifo(images / "fifo.jpg")
    (images / "folder.jpg").mkdir()
    (images / "device.jpg").symlink_to("/dev/zero")
    others = ["fifo.jpg", "folder.jpg", "device.jpg"]
    describe(tmp_path, ["a.jpg", "b.jpg", "c.jpg", *others])
    found = diagnose("coco", images, anno, progress=False)
    assert [str(problem) for problem in found.problems] == [f"{images / name}: not a regular file" for name in others]
    manifest = convert("coco", images, anno, tmp_path / "out", progress=False, split=Split(0.5, "val"))
    assert manifest["dropped"].get("unreadable image", 0) <= 3 and manifest["count"] >= 1
    assert [file.name for file in open_input(images, tmp_path / "drawn").files] == ["a.jpg", "b.jpg", "c.jpg"]


def test_only_regular_annotation_files_are_opened(in_time, tmp_path):
    for name in ("data.json", "list.txt", "a.xml"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="no annotations found"):
        find_data(tmp_path)
    for source, name in (("coco", "data.json"), ("other", "list.txt")):
        with pytest.raises(DataError, match="is not a file"):
            read_annotations(source, tmp_path, tmp_path / name)
    with pytest.raises(DataError, match="not a regular file"):
        read_annotations("coco_files", tmp_path, tmp_path)
    with pytest.raises(DataError, match="holds no XML file"):
        read_annotations("voc", tmp_path, tmp_path)
    (tmp_path / "labels").mkdir()
    (tmp_path / "images").mkdir()
    for name in ("a", "b"):
        (tmp_path / "images" / f"{name}.jpg").write_bytes(PLAIN)
    os.mkfifo(tmp_path / "labels" / "a.txt")
    (tmp_path / "labels" / "b.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    assert [len(record.labels) for record in read_annotations("yolo", "", tmp_path)[0]] == [0, 1]


@pytest.mark.parametrize("model", ["faster_rcnn", "refinedet"])
def test_split_and_xml2coco_open_regular_files_only(in_time, tmp_path, model, capsys):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "images").mkdir()
    for number, name in enumerate(("a", "b", "c")):
        cv2.imwrite(str(tmp_path / "images" / f"{name}.png"), np.full((30, 40, 3), number, np.uint8))
        (tmp_path / "annotations" / f"{name}.xml").write_text(
            f"<annotation><filename>{name}.png</filename><object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax>"
            "<ymax>9</ymax></bndbox></object></annotation>")
    os.mkfifo(tmp_path / "images" / "fifo.png")
    fifo = (tmp_path / "annotations" / "a.xml").read_text().replace("a.png", "fifo.png")
    (tmp_path / "annotations" / "fifo.xml").write_text(fifo)
    os.mkfifo(tmp_path / "annotations" / "pipe.xml")
    xml2coco, split_data = (importlib.import_module(f"{model}.src.{name}") for name in ("xml2coco", "split_data"))
    assert xml2coco.main([f"--data_path={tmp_path}", f"--save_path={tmp_path / 'out.json'}"]) == 0
    assert [item["file_name"] for item in json.loads((tmp_path / "out.json").read_text())["images"]] == ["a.png", "b.png", "c.png"]
    assert split_data.main([f"--data_path={tmp_path}"]) == 0
    assert "fifo.xml: left out" in capsys.readouterr().err
