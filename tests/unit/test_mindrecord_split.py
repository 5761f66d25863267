"""val_ratio splits one data set into training and validation, without lists or copies."""
import shutil
from pathlib import Path

import pytest

from faster_rcnn.src import split_data
from tests.unit.mindrecord_samples import annotation, coco_set, draw, read_back, txt_set, voc_set
from utils.mindrecord import Split, convert, ensure, read_annotations, read_ground_truth
from utils.mindrecord.cli import check_main, convert_main


def sides(source, paths, ratio=0.2):
    """{side: file names}."""
    return {side: [record.file_name for record in read_annotations(source, *paths, split=Split(ratio, side))[0]]
            for side in ("train", "val")}


def voc(tmp_path, count=12):
    """Write a VOC set whose images 3, 5 and 8 are identical; return (image_dir, XML folder)."""
    paths = voc_set(tmp_path, {str(number): [("nut", 1, 1, 9, 9)] for number in range(count)})
    for number in (5, 8):
        shutil.copy(paths[0] / "3.jpg", paths[0] / f"{number}.jpg")
    return paths


@pytest.mark.parametrize("ratio", [0.05, 0.2, 0.5, 0.9])
def test_the_split_matches_split_data(tmp_path, ratio):
    paths = voc(tmp_path)
    for folder, name in zip(paths, ("images", "annotations")):
        shutil.copytree(folder, tmp_path / "copy" / name)
    pairs, _ = split_data.find_pairs(tmp_path / "copy")
    expected = {side: sorted(image.name for image, _ in rows)
                for side, rows in split_data.split_pairs(pairs, ratio, seed=1).items()}
    found = sides("voc", paths, ratio)
    assert {side: sorted(names) for side, names in found.items()} == expected
    equal = {"3.jpg", "5.jpg", "8.jpg"}
    assert equal <= set(found["train"]) or equal <= set(found["val"])


def test_all_formats_split_alike(tmp_path):
    """The split depends on the images, not on the format or the order of the annotations."""
    paths = voc(tmp_path)
    lines = [f"{number}.jpg 1,1,9,9,1" for number in (7, *range(7), *range(8, 12))]
    (tmp_path / "anno.txt").write_text("\n".join(lines))
    by_txt, by_voc = sides("other", (paths[0], tmp_path / "anno.txt")), sides("voc", paths)
    assert {side: set(names) for side, names in by_txt.items()} == {side: set(names) for side, names in by_voc.items()}
    assert (by_txt["train"] + by_txt["val"]).index("7.jpg") in (0, len(by_txt["train"]))     # line order is kept


def test_ids_and_ground_truth_match_the_whole_set(tmp_path):
    image_dir, path = coco_set(tmp_path, [annotation(number, number, [1, 1, 5, 5]) for number in (1, 2, 3)])
    whole = read_ground_truth("coco", image_dir, path)
    parts = [read_ground_truth("coco", image_dir, path, split=Split(0.3, side)) for side in ("train", "val")]
    assert [len(part["images"]) for part in parts] == [2, 1]
    ids = sorted(image["id"] for part in parts for image in part["images"])
    assert ids == sorted(image["id"] for image in whole["images"])
    for part in parts:
        assert [item["image_id"] for item in part["annotations"]] == [image["id"] for image in part["images"]]
        assert part["categories"] == [{"id": 1, "name": "cat"}, {"id": 3, "name": "dog"}]


def test_conversions_of_both_sides(tmp_path):
    paths = voc(tmp_path)
    counts = {}
    for side in ("train", "val"):
        manifest = ensure("voc", *paths, tmp_path / side, split=Split(0.25, side), progress=False)
        counts[side] = manifest["count"]
        assert manifest["options"]["split"] == {"val_ratio": 0.25, "side": side}
        assert ensure("voc", *paths, tmp_path / side, split=Split(0.25, side), progress=False) == manifest
    names = [str(row["file_name"]) for side in counts for row in read_back(tmp_path / side)]
    assert counts == {"train": 9, "val": 3} and len(set(names)) == 12
    # Another ratio needs another conversion.
    assert ensure("voc", *paths, tmp_path / "val", split=Split(0.5, "val"), progress=False)["count"] == 6


def test_classes_by_name_reuse_the_conversion(tmp_path):
    """A conversion of all classes serves the same classes by name, but not in another order."""
    paths = voc_set(tmp_path, {"a": [("nut", 1, 1, 9, 9), ("bolt", 1, 1, 5, 5)]})
    made = convert("voc", *paths, tmp_path / "o", progress=False)
    same = ensure("voc", *paths, tmp_path / "o", classes=["background", "bolt", "nut"], progress=False)
    assert same == made and made["options"]["classes"] is None
    other = ensure("voc", *paths, tmp_path / "o", classes=["background", "nut", "bolt"], progress=False)
    assert other["files"] != made["files"]


def test_sets_that_cannot_be_split(tmp_path, message):
    paths = txt_set(tmp_path, "a.jpg 1,1,5,5,1\n")
    error = message(read_annotations, "other", *paths, split=Split(0.2, "val"))
    assert error == f"val_ratio: {paths[0]}: the only image cannot be split"
    paths = txt_set(tmp_path, "a.jpg 1,1,5,5,1\nb.jpg 1,1,5,5,1\n")
    shutil.copy(paths[0] / "a.jpg", paths[0] / "b.jpg")
    error = message(read_annotations, "other", *paths, split=Split(0.2, "val"))
    assert error == f"val_ratio: {paths[0]}: all 2 images are identical"


def test_changed_images_are_noticed(tmp_path):
    """The split is cached until an image changes."""
    paths = voc(tmp_path, 9)
    before = sides("voc", paths)
    assert sides("voc", paths) == before
    draw(Path(paths[0]) / "8.jpg", seed=99)     # no longer identical to 3 and 5
    names = [f"{number}.jpg" for number in range(9)]
    after = sides("voc", paths)
    assert sorted(after["train"] + after["val"]) == names and len(after["val"]) == 2


def test_the_commands(tmp_path, capsys):
    paths = voc(tmp_path)
    options = ["--source=voc", f"--image_dir={paths[0]}", f"--anno_path={paths[1]}", "--val_ratio=0.25"]
    assert check_main(options) == 0 and "images: 9 usable of 9" in capsys.readouterr().out
    assert convert_main([*options, "--side=val", f"--output_dir={tmp_path / 'o'}"]) == 0
    assert "3 images, 3 objects" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        check_main([*options, "--val_ratio=1"])
    assert "expected a number from 0 to below 1, got '1'" in capsys.readouterr().err
