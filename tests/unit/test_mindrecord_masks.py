"""Conversion with masks: masks read back as their source. Invalid masks are dropped, counted and reported."""
import json
import logging

import numpy as np
import pytest
from pycocotools import mask as mask_utils

from tests.unit.mindrecord_samples import annotation, coco_set, draw, read_back, txt_set
from utils.mindrecord import convert, ensure, load_manifest
from utils.mindrecord.cli import check_main, convert_main
from utils.mindrecord.doctor import diagnose
from utils.mindrecord.masks import encode_masks, most_bytes, run_lengths, usable_mask

SQUARE = [1, 1, 9, 1, 9, 9, 1, 9]
LEFT_HALF = {"size": [30, 40], "counts": [0, 600, 600]}     # columns of 30 pixels, as in the images of coco_set


def with_masks(paths, output, **more) -> dict:
    return convert("coco", *paths, output, progress=False, masks=True, **more)


def masked(number, segmentation, image_id=1, **more) -> dict:
    return annotation(number, image_id, [1, 1, 8, 8], segmentation=segmentation, **more)


def masks_of(row) -> list:
    return json.loads(row["masks"].tobytes())


def compressed(dense) -> str:
    return mask_utils.encode(np.asfortranarray(dense, np.uint8))["counts"].decode()


# ------------------------------------------------------------------------------------------- valid masks


def test_coco_masks_read_back_as_in_the_json(data_dir, tmp_path):
    image_dir = data_dir / "coco_mini" / "train2017"
    path = data_dir / "coco_mini" / "annotations" / "instances_train2017.json"
    manifest = with_masks((image_dir, path), tmp_path / "o", keep_empty=True, shards=3)
    content = json.loads(path.read_text())
    assert manifest["options"]["masks"] is True and manifest["dropped"] == {}
    kinds = set()
    for row in read_back(tmp_path / "o", masks=True):
        found = [item for item in content["annotations"] if item["image_id"] == row["image_id"]]
        masks = masks_of(row)
        assert row["count"] == len(found) == len(masks)
        for item, mask in zip(found, masks):
            kinds.add((type(item["segmentation"]), item["iscrowd"]))
            if item["iscrowd"]:     # run lengths as a list
                want = mask_utils.frPyObjects(item["segmentation"], int(row["height"]), int(row["width"]))
                assert mask == {"size": want["size"], "counts": want["counts"].decode()}
            else:
                assert mask == item["segmentation"]
    assert kinds == {(list, 0), (dict, 1)}


def test_compressed_run_lengths_are_stored_unchanged(data_dir, tmp_path):
    folder = data_dir / "pennfudan"
    path = folder / "annotations" / "instances_val2017.json"
    manifest = with_masks((folder / "val2017", path), tmp_path / "o")
    assert (manifest["count"], manifest["objects"], manifest["dropped"]) == (34, 84, {})
    wanted = {}
    for item in json.loads(path.read_text())["annotations"]:
        wanted.setdefault(item["image_id"], []).append(item["segmentation"])
    assert {int(row["image_id"]): masks_of(row) for row in read_back(tmp_path / "o", masks=True)} == wanted


def test_an_image_without_objects_has_no_mask(tmp_path):
    paths = coco_set(tmp_path, [masked(1, [SQUARE])], images=2)
    with_masks(paths, tmp_path / "o", keep_empty=True)
    rows = read_back(tmp_path / "o", masks=True)
    assert [(int(row["count"]), masks_of(row)) for row in rows] == [(1, [[SQUARE]]), (0, [])]


def test_boxes_and_masks_stay_paired(tmp_path):
    """Of five objects, one has a bad box, one has no mask, and one box is clipped."""
    boxes = [[1, 2, 3, 4], [50, 1, 5, 5], [30, 2, 30, 4], [2, 3, 4, 5], [5, 6, 7, 8]]
    masks = [[[*SQUARE[:-1], 5 + k]] for k in range(5)]
    masks[3] = None
    paths = coco_set(tmp_path, [annotation(k, 1, boxes[k], segmentation=masks[k]) for k in range(5)])
    manifest = with_masks(paths, tmp_path / "o")
    (row,) = read_back(tmp_path / "o", masks=True)
    assert row["boxes"].tolist() == [[1, 2, 4, 6], [30, 2, 40, 6], [5, 6, 12, 14]] and row["count"] == 3
    assert masks_of(row) == [masks[0], masks[2], masks[4]] and len(row["labels"]) == len(row["crowds"]) == 3
    assert manifest["dropped"] == {"box outside the image": 1, "object without segmentation": 1}


# ------------------------------------------------------------------------------------------- choice of the conversion


def test_a_conversion_without_masks_is_repeated_for_masks(tmp_path, caplog):
    paths = coco_set(tmp_path, [masked(1, [SQUARE]), masked(2, None)])
    plain = convert("coco", *paths, tmp_path / "o", progress=False)
    assert "masks" not in plain["options"] and plain["objects"] == 2
    assert len(read_back(tmp_path / "o")) == 1       # the usual columns
    with caplog.at_level(logging.WARNING):
        made = ensure("coco", *paths, tmp_path / "o", progress=False, masks=True)
    assert "it was made with other options" in caplog.text and made["objects"] == 1
    assert masks_of(*read_back(tmp_path / "o", masks=True)) == [[SQUARE]]
    assert ensure("coco", *paths, tmp_path / "o", progress=False, masks=True) == made == load_manifest(tmp_path / "o")
    assert ensure("coco", *paths, tmp_path / "o", progress=False) == load_manifest(tmp_path / "o") != made


def test_other_sources_have_no_masks(tmp_path, message):
    paths = txt_set(tmp_path, "a.jpg 1,1,5,5,1\n")
    for call in (convert, ensure):
        error = message(call, "other", *paths, tmp_path / "o", masks=True)
        assert error == "masks: other has boxes only; coco, coco_files, labelme, yolo have masks"
    assert not (tmp_path / "o").exists()


def test_the_commands_take_masks(tmp_path, capsys):
    image_dir, path = coco_set(tmp_path, [masked(1, [SQUARE]), masked(2, None)])
    options = ["--source=coco", f"--image_dir={image_dir}", f"--anno_path={path}"]
    assert check_main(options) == 0
    capsys.readouterr()
    assert check_main([*options, "--masks"]) == 1
    output = capsys.readouterr().out.splitlines()
    assert output[0] == f"{path}: annotation 2: segmentation is null or missing (1.png)"
    assert output[-2:] == ["problems: 1", "           1  object without segmentation"]
    assert convert_main([*options, "--masks", f"--output_dir={tmp_path / 'o'}"]) == 0
    output = capsys.readouterr().out
    assert "1 image, 1 object, 2 classes, masks, " in output and "dropped: 1 x object without segmentation" in output
    assert convert_main(["--source=voc", "--masks", *options[1:], f"--output_dir={tmp_path / 'p'}"]) == 2
    assert "coco, coco_files, labelme, yolo have masks" in capsys.readouterr().err


def test_a_polygon_without_the_list_around_it(tmp_path):
    """The VGG Image Annotator exports polygons like this."""
    paths = coco_set(tmp_path, [masked(1, SQUARE)])
    assert convert("coco", *paths, tmp_path / "o", masks=True, progress=False)["dropped"] == {}
    row, = read_back(tmp_path / "o", masks=True)
    assert json.loads(row["masks"].tobytes()) == [[SQUARE]]


@pytest.mark.parametrize("segmentation", [[list(map(str, SQUARE))], [f" {value}.0" for value in SQUARE]])
def test_coordinates_as_text(tmp_path, segmentation):
    paths = coco_set(tmp_path, [masked(1, segmentation)])
    assert convert("coco", *paths, tmp_path / "o", masks=True, progress=False)["dropped"] == {}
    row, = read_back(tmp_path / "o", masks=True)
    assert json.loads(row["masks"].tobytes()) == [[SQUARE]]


def test_run_lengths_in_any_notation():
    assert usable_mask({"size": ["30", 40.0], "counts": ["0", 600.0, 600]}, 30, 40) == usable_mask(
        {"size": [30, 40], "counts": [0, 600, 600]}, 30, 40)


# ------------------------------------------------------------------------------------------- invalid masks

BAD = {
    "null": (None, "object without segmentation", "segmentation is null or missing"),
    "empty": ([], "empty segmentation", "segmentation is empty"),
    "text": ("polygon", "segmentation not usable", 'segmentation is neither polygons nor RLE: "polygon"'),
    "2 points": ([[1, 1, 9, 9]], "polygon of fewer than 3 points", "polygon 1 of 1 has 2 points, expected at least 3"),
    "no point": ([[]], "polygon of fewer than 3 points", "polygon 1 of 1 has 0 points, expected at least 3"),
    "odd": ([SQUARE[:7]], "polygon with an odd number of coordinates", "polygon 1 of 1 has 7 coordinates, an odd number"),
    "words": ([[1, 1, 9, 1, 9, "9 px"]], "polygon with a value that is not a number",
              'polygon 1 of 1 is not a list of numbers: [1, 1, 9, 1, 9, "9 px"]'),
    "nulls": ([[1, 1, 9, 1, 9, None]], "polygon with a value that is not a number",
              "polygon 1 of 1 is not a list of numbers: [1, 1, 9, 1, 9, null]"),
    "nan": ([[1, 1, float("nan"), 1, 9, 9]], "polygon with a value that is not a number",
            "polygon 1 of 1 has a number that is not finite or beyond 1e+09"),
    "huge": ([[1, 1, 9, 1, 9, 10**400]], "polygon with a value that is not a number",
             "polygon 1 of 1 has a number that is not finite or beyond 1e+09"),
    "outside": ([[40, 1, 50, 1, 50, 9]], "polygon outside the image", "polygon 1 of 1 lies outside the image of 40x30"),
    "above": ([[1, -9, 9, -9, 9, 0]], "polygon outside the image", "polygon 1 of 1 lies outside the image of 40x30"),
    "line": ([[1, 5, 9, 5, 20, 5]], "polygon without area", "polygon 1 of 1 has no area"),
    "no size": ({"counts": "abc"}, "broken RLE", "RLE size null is not [height, width]"),
    "other size": ({"size": [40, 30], "counts": [0, 600, 600]}, "RLE size differs from the image",
                   "RLE size is 30x40, but the image is 40x30"),
    "no counts": ({"size": [30, 40]}, "broken RLE", "RLE counts are neither a list nor a string: null"),
    "short": ({"size": [30, 40], "counts": [0, 600, 599]}, "broken RLE", "RLE counts cover 1199 of 1200 pixels"),
    "negative": ({"size": [30, 40], "counts": [0, 1300, -100]}, "broken RLE", "RLE counts have an entry that is not a run length"),
    "cut off": ({"size": [30, 40], "counts": "0Pc"}, "broken RLE",
                "RLE counts are a string that is truncated or not written by pycocotools"),
    "foreign": ({"size": [30, 40], "counts": "0 1"}, "broken RLE",
                "RLE counts are a string that is truncated or not written by pycocotools"),
    "long": ({"size": [30, 40], "counts": "0" + "o" * 30 + "0"}, "broken RLE",
             "RLE counts have a number with too many digits"),
    "wrong": ({"size": [30, 40], "counts": "O1"}, "broken RLE",
              "RLE counts have a run that is negative or longer than the image"),
    "no string": ({"size": [30, 40], "counts": ""}, "broken RLE", "RLE counts are an empty string"),
    "no pixel": ({"size": [30, 40], "counts": [1200]}, "empty segmentation", "RLE counts contain no foreground pixel"),
}
PARTS = [name for name, (segmentation, _, _) in BAD.items() if type(segmentation) is list and segmentation
         and type(segmentation[0]) is list]


@pytest.mark.parametrize("name", BAD)
def test_an_object_without_a_usable_mask_is_dropped(tmp_path, caplog, name):
    segmentation, kind, what = BAD[name]
    paths = coco_set(tmp_path, [masked(7, segmentation), masked(8, LEFT_HALF)])
    with caplog.at_level(logging.WARNING):
        manifest = with_masks(paths, tmp_path / "o")
    (row,) = read_back(tmp_path / "o", masks=True)
    dense = np.arange(40) < np.full((30, 1), 20)
    assert masks_of(row) == [{"size": [30, 40], "counts": compressed(dense)}] and row["count"] == 1
    expected = {kind: 1}
    if name in PARTS:
        expected["segmentation not usable"] = 1
        assert f"    {paths[1]}: annotation 7: none of its polygons is usable (1.png)" in caplog.messages
    assert manifest["dropped"] == expected and manifest["objects"] == 1
    assert f"1 x {kind}: dropped" in caplog.messages
    assert f"    {paths[1]}: annotation 7: {what} (1.png)" in caplog.messages
    found = diagnose("coco", *paths, progress=False, masks=True)
    assert {problem.kind for problem in found.problems} == set(expected) and len(found.boxes) == 1


@pytest.mark.parametrize("name", PARTS)
def test_a_polygon_that_is_not_usable_is_dropped_from_its_object(tmp_path, name):
    (polygon,), kind, what = BAD[name]
    paths = coco_set(tmp_path, [masked(7, [SQUARE, polygon, SQUARE[::-1]])])
    manifest = with_masks(paths, tmp_path / "o")
    assert masks_of(*read_back(tmp_path / "o", masks=True)) == [[SQUARE, SQUARE[::-1]]]
    assert manifest["dropped"] == {kind: 1} and manifest["objects"] == 1
    (problem,) = diagnose("coco", *paths, progress=False, masks=True).problems
    assert problem.what == f"{what.replace('1 of 1', '2 of 3')} (1.png)"


def test_all_masks_are_invalid(tmp_path, message):
    paths = coco_set(tmp_path, [masked(1, None), masked(2, [[1, 2]])])
    error = message(with_masks, paths, tmp_path / "o")
    assert error == (f"{paths[1]}: no usable image: {paths[1]}: annotation 1: segmentation is null or missing (1.png) "
                    "(and 2 more problems)")
    assert with_masks(paths, tmp_path / "o", keep_empty=True)["objects"] == 0


def test_the_size_of_the_image_file_counts(tmp_path):
    """The JSON says 400x300, but the run lengths match the image file."""
    image_dir, path = coco_set(tmp_path, [masked(1, LEFT_HALF), masked(2, [[50, 1, 60, 1, 60, 9]])])
    content = json.loads(path.read_text())
    content["images"][0].update(width=400, height=300)
    path.write_text(json.dumps(content))
    manifest = with_masks((image_dir, path), tmp_path / "o")
    assert manifest["objects"] == 1 and manifest["dropped"]["polygon outside the image"] == 1


# ------------------------------------------------------------------------------------------- run lengths


def test_run_lengths_are_those_of_pycocotools():
    """Long and short runs, and runs whose difference from the run before the previous one is negative."""
    rng = np.random.default_rng(0)
    for density in (0.001, 0.1, 0.5, 0.97):
        for shape in ((1, 1), (300, 500), (7, 900), (1500, 1100)):
            dense = rng.random(shape) < density
            flat = dense.ravel("F").astype(np.int8)
            changes = np.flatnonzero(np.diff(np.concatenate([[0], flat]))).tolist()
            lengths = np.diff([0, *changes, flat.size])
            np.testing.assert_array_equal(run_lengths(compressed(dense)), lengths)
            if dense.any():
                by_list = {"size": list(shape), "counts": lengths.tolist()}
                assert usable_mask(by_list, *shape) == ({"size": list(shape), "counts": compressed(dense)}, [])


def test_most_bytes_bounds_the_size_of_a_row():
    """Numbers of all lengths, run lengths with many characters that JSON escapes, and values that are no masks."""
    rng = np.random.default_rng(1)
    polygons = [[float(value) for value in rng.normal(0, 1, 40) * 10.0 ** rng.integers(-300, 9, 40)] for _ in range(3)]
    lengths = rng.integers(0, 2**20, 99).tolist()
    total = int(np.sum(lengths))
    runs = {"size": [1, total], "counts": lengths}
    taken = [usable_mask(polygons, 10**9, 10**9)[0], usable_mask(runs, 1, total)[0], [SQUARE] * 9]
    assert None not in taken
    assert len(encode_masks(taken)) <= most_bytes([polygons, runs, [SQUARE] * 9])
    escaped = {"size": [30, 40], "counts": "\\" * 200}
    assert len(encode_masks([escaped])) <= most_bytes([escaped])
    for odd in (None, "x", 5, [None, [], {}, [[]]], {}, {"counts": None}):
        assert most_bytes([odd]) > 0


def test_long_masks_get_larger_pages(tmp_path):
    """The masks do not fit into the smallest page beside images of a few kilobytes."""
    long = np.stack([np.linspace(1, 9, 30000), 5 + 3 * np.sin(np.arange(30000))], 1).ravel().tolist()
    image_dir, path = coco_set(tmp_path, [masked(k, [long], image_id=1 + k % 2) for k in range(4)], images=2)
    draw(image_dir / "1.png", seed=9)
    with_masks((image_dir, path), tmp_path / "o", shards=1)
    assert [masks_of(row) for row in read_back(tmp_path / "o", masks=True)] == [[[long]] * 2] * 2
