"""Write MindRecord files (format version 3.0) without MindSpore.

`mindspore.mindrecord.FileWriter` copies each image several times in memory while it holds the GIL, and importing MindSpore takes
seconds: two such processes need about five times as long as copying the files. This writer needs one read and one write per image,
and its threads run in parallel.

A file is a header (8 bytes length, JSON, zero padding up to `header_size`) followed by pages of `page_size`. A BLOB_DATA page holds
one row group; each row is its length (8 bytes, little-endian), then the bytes and array fields in alphabetical order, each preceded
by its length (8 bytes, big-endian). RAW_DATA pages hold the other fields: length, then MessagePack. Integer arrays are packed
(`_packed_integers`). FILE.db is an SQLite index of the rows' offsets, relative to the page and including the lengths. The reader
checks the file's name against FILE.db, so a folder of shards may be renamed, but not a shard.
"""
import errno
import json
import os
import sqlite3
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

import numpy as np

SCHEMA = {
    "image": {"type": "bytes"},
    "image_id": {"type": "int64"},
    "file_name": {"type": "string"},
    "index": {"type": "int64"},
    "height": {"type": "int32"},
    "width": {"type": "int32"},
    "boxes": {"type": "float32", "shape": [-1, 4]},
    "labels": {"type": "int32", "shape": [-1]},
    "crowds": {"type": "int32", "shape": [-1]},
    "count": {"type": "int32"},
}
BLOB_FIELDS = ["boxes", "crowds", "image", "labels"]    # in storage order
MASKS = "masks"             # optional blob field of bytes
DESCRIPTION = "detection: one row an image"
INDEX_FIELD = "index"
MAX_IMAGE = 192 << 20       # a row must fit into a page, and MindSpore's largest page is 256 MB
MIN_PAGE, USUAL_PAGE = 1 << 20, 32 << 20

_TABLE = """CREATE TABLE INDEXES(
    ROW_ID INT NOT NULL,
    PAGE_ID_RAW INT NOT NULL, PAGE_OFFSET_RAW INT NOT NULL, PAGE_OFFSET_RAW_END INT NOT NULL,
    ROW_GROUP_ID INT NOT NULL,
    PAGE_ID_BLOB INT NOT NULL, PAGE_OFFSET_BLOB INT NOT NULL, PAGE_OFFSET_BLOB_END INT NOT NULL,
    INC_0 INT, index_0 INTEGER, PRIMARY KEY(ROW_ID, INC_0))"""


@dataclass(frozen=True)
class Layout:
    """Sizes in bytes that all shards of a conversion share."""

    page_size: int
    header_size: int


def plan_layout(shard_rows: Sequence[Sequence[int]]) -> Layout:
    """Return the layout. shard_rows: for each shard, upper bounds of the sizes of its rows in bytes (see `row_size`)."""
    largest = max(max(sizes) for sizes in shard_rows)
    total = max(sum(sizes) for sizes in shard_rows)
    page_size = MIN_PAGE
    # Images leave the end of a page unused; small pages keep these gaps in the file small.
    while page_size < largest or (page_size < USUAL_PAGE and page_size * 8 < total):
        page_size *= 2
    pages = 2 * total // page_size + 4      # two adjacent pages hold at least one page of data; raw pages are few
    return Layout(page_size, 16384 + 512 * pages)


def row_size(image_size: int, objects: int, mask_size: int = 0) -> int:
    """Return an upper bound of the bytes that a row takes on a blob page."""
    return image_size + 64 + 32 * max(objects, 1) + mask_size


class ShardWriter:
    """Writes one file: `add` for each image, then `finish` with the fields that are known only after all shards.

    masks: whether rows have the column `masks`.
    """

    def __init__(self, path: Union[str, os.PathLike[str]], layout: Layout, masks: bool = False):
        self.path, self.layout, self.masks = Path(path), layout, masks
        self.rows: list[tuple[int, int, int]] = []      # (group, start, end) on the blob pages
        self._groups = [0]      # first row of each group; a group is a blob page
        self._end = 0           # end of the last row on its page
        self._fd: Any = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o644)
        os.lseek(self._fd, layout.header_size, os.SEEK_SET)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def add(self, image: bytes, boxes: Any, labels: Any, crowds: Any, masks: bytes = b"") -> None:
        """Append a row. boxes: (n, 4); labels, crowds: (n,); n >= 1."""
        boxes = np.ascontiguousarray(boxes, "<f4").tobytes()
        crowds, labels = _packed_integers(crowds), _packed_integers(labels)
        after = struct.pack(">Q", len(labels)) + labels
        if self.masks:
            after += struct.pack(">Q", len(masks)) + masks
        length = 3 * 8 + len(boxes) + len(crowds) + len(image) + len(after)
        if 8 + length > self.layout.page_size:      # larger than the planned bound
            raise OSError(errno.EFBIG, "an image grew while it was converted", str(self.path))
        start, group = self._end, len(self._groups) - 1
        if start + 8 + length > self.layout.page_size:
            group, start = group + 1, 0
            self._groups.append(len(self.rows))
            os.lseek(self._fd, self.layout.header_size + group * self.layout.page_size, os.SEEK_SET)
        before = b"".join((struct.pack("<Q", length), struct.pack(">Q", len(boxes)), boxes,
                           struct.pack(">Q", len(crowds)), crowds, struct.pack(">Q", len(image))))
        _write(self._fd, before, image, after)
        self._end = start + 8 + length
        self.rows.append((group, start, self._end))

    def finish(self, fields: list[dict[str, Any]]) -> None:
        """Write the other fields, the header and the index. fields: {image_id, file_name, index, height, width, count} per row."""
        places, pages = self._write_raw(fields)
        header = json.dumps(self._header(pages), separators=(",", ":"), ensure_ascii=False).encode()
        if len(header) + 8 > self.layout.header_size:
            planned = self.layout.header_size
            raise RuntimeError(f"{self.path}: the header takes {len(header)} bytes, but only {planned} were planned")
        self._write_index(fields, places)
        os.lseek(self._fd, 0, os.SEEK_SET)      # written last: without its header a file cannot be read
        _write(self._fd, struct.pack("<Q", len(header)) + header)
        self.close()

    def _write_raw(self, fields: list[dict[str, Any]]) -> tuple[list[tuple[int, int, int]], list[list[Any]]]:
        """Write the raw pages; return [(page, start, end)] of the rows and [(page, size, [{id, offset} of groups])]."""
        first_row = {row: group for group, row in enumerate(self._groups)}
        places: list[tuple[int, int, int]] = []
        pages: list[list[Any]] = []
        parts: list[bytes] = []
        size = 0
        for row, values in enumerate(fields):
            packed = _packed_map(values)
            packed = struct.pack("<Q", len(packed)) + packed
            if not pages or size + len(packed) > self.layout.page_size:
                self._write_page(pages, parts, size)
                parts, size = [], 0
                pages.append([len(self._groups) + len(pages), 0, []])
            if row in first_row:
                pages[-1][2].append({"id": first_row[row], "offset": size})
            places.append((pages[-1][0], size, size + len(packed)))
            parts.append(packed)
            size += len(packed)
        self._write_page(pages, parts, size)
        return places, pages

    def _write_page(self, pages: list[list[Any]], parts: list[bytes], size: int) -> None:
        if parts:
            os.lseek(self._fd, self.layout.header_size + pages[-1][0] * self.layout.page_size, os.SEEK_SET)
            _write(self._fd, b"".join(parts))
            pages[-1][1] = size

    def _header(self, raw_pages: list[list[Any]]) -> dict[str, Any]:
        pages = []
        ends = self._groups[1:] + [len(self.rows)]
        for group, (start, end) in enumerate(zip(self._groups, ends)):
            pages.append({
                "end_row_id": end, "page_id": group, "page_size": self.rows[end - 1][2], "page_type": "BLOB_DATA",
                "page_type_id": group, "row_group_ids": [{"id": 0, "offset": 0}], "shard_id": 0, "start_row_id": start})
        for number, (page, size, groups) in enumerate(raw_pages):
            pages.append({
                "end_row_id": 0, "page_id": page, "page_size": size, "page_type": "RAW_DATA", "page_type_id": number,
                "row_group_ids": groups, "shard_id": 0, "start_row_id": 0})
        schema, blobs = dict(sorted(SCHEMA.items())), BLOB_FIELDS
        if self.masks:
            schema, blobs = dict(sorted({**schema, MASKS: {"type": "bytes"}}.items())), [*blobs, MASKS]
        return {
            "header_size": self.layout.header_size, "index_fields": [{"index_field": INDEX_FIELD, "schema_id": 0}],
            "page": pages, "page_size": self.layout.page_size, "compression_size": 0,
            "schema": [{"blob_fields": blobs, "desc": DESCRIPTION, "schema": schema}],
            "shard_addresses": [self.path.name], "shard_id": 0, "statistics": None, "version": "3.0",
        }

    def _write_index(self, fields: list[dict[str, Any]], places: list[tuple[int, int, int]]) -> None:
        rows = [(row, *place, group, group, start, end, 0, values[INDEX_FIELD])
                for row, (place, (group, start, end), values) in enumerate(zip(places, self.rows, fields))]
        connection = sqlite3.connect(f"{self.path}.db", isolation_level=None)
        try:
            # A failure discards the whole folder, so neither journal nor fsync is needed.
            connection.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; BEGIN;")
            connection.execute(_TABLE)
            connection.execute("CREATE TABLE SHARD_NAME(NAME TEXT NOT NULL)")
            connection.execute("INSERT INTO SHARD_NAME VALUES (?)", (self.path.name,))
            connection.executemany("INSERT INTO INDEXES VALUES (?,?,?,?,?,?,?,?,?,?)", rows)
            connection.execute("COMMIT")
        finally:
            connection.close()


def _packed_integers(values: Any) -> bytes:
    """Pack an int32 array as the format does: count (4 bytes, big-endian), 2 bits per number for its width, the numbers.

    All numbers get width code 2 (four bytes): slightly larger than the minimum, but without a loop over the numbers.
    """
    values = np.ascontiguousarray(values, "<i4")
    return struct.pack(">I", values.size) + b"\xaa" * ((values.size + 3) // 4) + values.tobytes()


def _packed_map(values: dict[str, Any]) -> bytes:
    """Return the MessagePack encoding of a small map of strings to integers and strings."""
    parts = [bytes([0x80 | len(values)])]
    for name, value in sorted(values.items()):
        parts.append(_packed_text(name))
        parts.append(_packed_text(value) if isinstance(value, str) else _packed_integer(value))
    return b"".join(parts)


def _packed_integer(value: int) -> bytes:
    return bytes([value]) if 0 <= value < 128 else struct.pack(">Bq", 0xD3, value)


def _packed_text(text: str) -> bytes:
    data = text.encode("utf-8", "replace")      # file names may not be UTF-8
    return (bytes([0xA0 | len(data)]) if len(data) < 32 else struct.pack(">BH", 0xDA, len(data))) + data


def _write(fd: int, *parts: bytes) -> None:
    done = os.writev(fd, parts) if hasattr(os, "writev") else 0     # avoids concatenating the parts
    if done < sum(map(len, parts)):
        rest = memoryview(b"".join(parts))[done:]
        while rest:
            rest = rest[os.write(fd, rest):]
