"""Our MindRecord files against files of MindSpore's FileWriter. A change of the format fails here."""
import json
import sqlite3
import struct

import mindspore.dataset as ds
import numpy as np
import pytest
from mindspore.mindrecord import FileWriter

from utils.mindrecord.shard import (
    BLOB_FIELDS,
    DESCRIPTION,
    INDEX_FIELD,
    MAX_IMAGE,
    SCHEMA,
    Layout,
    ShardWriter,
    plan_layout,
    row_size,
)


def random_rows(count: int, seed: int = 0, largest: int = 9000, masks: bool = False) -> list:
    """Return rows with large ids, long and non-ASCII names, negative labels, and zero bytes at the end."""
    rng = np.random.default_rng(seed)
    rows = []
    for index in range(count):
        objects = int(rng.integers(1, 12))
        rows.append({
            "image": rng.bytes(int(rng.integers(1, largest))) + b"\0\0", "image_id": [3, 2**62, -5][index % 3],
            "file_name": ["a b.jpg", "图" * 30, "x" * 400][index % 3], "index": index, "height": 480, "width": 70000,
            "boxes": rng.normal(0, 1000, (objects, 4)).astype(np.float32),
            "labels": rng.integers(-2**31, 2**31, objects).astype(np.int32),
            "crowds": rng.integers(0, 2, objects).astype(np.int32), "count": objects})
        if masks:
            rows[-1]["masks"] = b"[%s]" % rng.bytes(int(rng.integers(0, 3000)))
    return rows


def write_ours(path, rows, layout) -> None:
    writer = ShardWriter(path, layout, masks="masks" in rows[0])
    for row in rows:
        writer.add(row["image"], row["boxes"], row["labels"], row["crowds"], row.get("masks", b""))
    blobs = [*BLOB_FIELDS, "masks"]
    writer.finish([{name: value for name, value in row.items() if name not in blobs} for row in rows])


def write_theirs(path, rows, layout) -> None:
    writer = FileWriter(str(path), 1)
    writer.set_header_size(layout.header_size)
    writer.set_page_size(layout.page_size)
    writer.add_schema({**SCHEMA, "masks": {"type": "bytes"}} if "masks" in rows[0] else SCHEMA, DESCRIPTION)
    writer.add_index([INDEX_FIELD])
    writer.write_raw_data(rows)
    writer.commit()


def header_of(path) -> dict:
    data = path.read_bytes()
    return json.loads(data[8:8 + struct.unpack("<Q", data[:8])[0]])


def read(paths, columns=None) -> list:
    data = ds.MindDataset([str(path) for path in paths], columns, shuffle=False)
    return list(data.create_dict_iterator(num_epochs=1, output_numpy=True))


def assert_same_rows(got, want) -> None:
    assert len(got) == len(want)
    for ours, row in zip(got, want):
        for name, value in row.items():
            if isinstance(value, bytes):
                assert ours[name].tobytes() == value
            elif isinstance(value, np.ndarray):
                assert ours[name].dtype == value.dtype
                np.testing.assert_array_equal(ours[name], value)
            else:
                assert ours[name].item() == value, name


@pytest.mark.parametrize("count, page, masks", [(1, 1 << 16, False), (40, 1 << 15, True), (400, 1 << 15, False)])
def test_rows_read_back_as_from_file_writer(tmp_path, count, page, masks):
    """One page, several pages of bytes, and several pages of numbers and names."""
    rows, layout = random_rows(count, masks=masks), Layout(page, 1 << 18)
    write_ours(tmp_path / "ours.mindrecord", rows, layout)
    write_theirs(tmp_path / "theirs.mindrecord", [dict(row) for row in rows], layout)
    for name in ("ours", "theirs"):
        assert_same_rows(read([tmp_path / f"{name}.mindrecord"]), rows)
    pages = header_of(tmp_path / "ours.mindrecord")["page"]
    kinds = [page["page_type"] for page in pages]
    assert (kinds.count("BLOB_DATA") > 1, kinds.count("RAW_DATA") > 1) == (count > 1, count == 400)


@pytest.mark.parametrize("masks", [False, True])
def test_header_and_index_are_those_of_file_writer(tmp_path, masks):
    rows, layout = random_rows(30, masks=masks), Layout(1 << 20, 1 << 15)      # one page of each kind, so the layouts agree
    for name, write in (("ours", write_ours), ("theirs", write_theirs)):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "a.mindrecord", [dict(row) for row in rows], layout)
    ours, theirs = (header_of(tmp_path / name / "a.mindrecord") for name in ("ours", "theirs"))
    # FileWriter packs integers more tightly.
    for header in (ours, theirs):
        assert header.pop("compression_size") >= 0
        for page in header["page"]:
            page.pop("page_size")
    assert ours == theirs
    tables = []
    for name in ("ours", "theirs"):
        with sqlite3.connect(tmp_path / name / "a.mindrecord.db") as connection:
            queries = ("PRAGMA table_info(INDEXES)", "PRAGMA table_info(SHARD_NAME)", "SELECT * FROM SHARD_NAME",
                       "SELECT ROW_ID, ROW_GROUP_ID, PAGE_ID_RAW, PAGE_ID_BLOB, INC_0, index_0 FROM INDEXES")
            tables.append([connection.execute(query).fetchall() for query in queries])
    assert tables[0] == tables[1]


def test_shards_read_in_order_also_in_a_renamed_folder(tmp_path):
    rows = random_rows(50, seed=1)
    layout = Layout(1 << 15, 1 << 15)
    (tmp_path / "a b").mkdir()
    for shard in range(3):
        write_ours(tmp_path / "a b" / f"s{shard}.mindrecord", rows[shard * 20:shard * 20 + 20], layout)
    (tmp_path / "a b").rename(tmp_path / "名")
    paths = [tmp_path / "名" / f"s{shard}.mindrecord" for shard in range(3)]
    assert_same_rows(read(paths), rows)
    assert [row["index"].item() for row in read(paths, ["index"])] == list(range(50))
    parts = [ds.MindDataset([str(path) for path in paths], ["index"], num_shards=2, shard_id=part) for part in (0, 1)]
    seen = [row["index"].item() for part in parts for row in part.create_dict_iterator(num_epochs=1, output_numpy=True)]
    assert sorted(seen) == list(range(50))


def test_a_renamed_shard_does_not_read(tmp_path):
    """This is why shards are written under their final names."""
    write_ours(tmp_path / "a.mindrecord", random_rows(2), Layout(1 << 15, 1 << 15))
    for ending in ("", ".db"):
        (tmp_path / f"a.mindrecord{ending}").rename(tmp_path / f"b.mindrecord{ending}")
    with pytest.raises(RuntimeError):
        read([tmp_path / "b.mindrecord"])


def test_a_shard_without_its_end_does_not_read(tmp_path):
    writer = ShardWriter(tmp_path / "a.mindrecord", Layout(1 << 15, 1 << 15))
    for row in random_rows(9):
        writer.add(row["image"], row["boxes"], row["labels"], row["crowds"])
    writer.close()
    with pytest.raises(RuntimeError):
        read([tmp_path / "a.mindrecord"])


def test_a_row_that_is_larger_than_planned_is_refused(tmp_path):
    row, writer = random_rows(1)[0], ShardWriter(tmp_path / "a.mindrecord", Layout(1 << 15, 1 << 15))
    with pytest.raises(OSError, match="grew while it was converted"):
        writer.add(bytes(1 << 15), row["boxes"], row["labels"], row["crowds"])
    writer.close()


@pytest.mark.parametrize("sizes", [[[1]], [[100] * 80, [10**6] * 80], [[10**5] * 118000], [[MAX_IMAGE, 5]],
                                   [[3 * 2**20] * 999]])
def test_layout_has_room_for_every_row_and_the_header(sizes):
    sizes = [[row_size(size, 900) for size in shard] for shard in sizes]
    layout = plan_layout(sizes)
    assert max(map(max, sizes)) <= layout.page_size <= 256 << 20 and layout.page_size % 4 == 0
    for shard in sizes:
        pages, used = 1, 0
        for size in shard:
            pages, used = (pages, used + size) if used + size <= layout.page_size else (pages + 1, size)
        # A page takes less than 190 bytes of the header, a row group 50 more, and the fields 1,200.
        assert layout.header_size >= 1300 + 240 * (pages + 120 * len(shard) // layout.page_size + 1)
