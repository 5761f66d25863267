"""The FaceMask recipe: split a folder, then turn each side's XML files into COCO JSON."""
import hashlib
import json
import os
import shutil
import signal
import xml.etree.ElementTree as ElementTree

import pytest
from pycocotools.coco import COCO

from faster_rcnn.src import split_data, xml2coco
from tests.unit.mindrecord_samples import cut, draw, voc_xml
from utils.mindrecord.file_names import EXTENSIONS


@pytest.fixture
def mask_set(tmp_path):
    """A folder laid out like FaceMaskDetection: 12 images, of which 3, 4 and 5 are equal."""
    folder = tmp_path / "the data"
    (folder / "annotations").mkdir(parents=True)
    for number in range(12):
        draw(folder / "images" / f"mask {number}.png", channels=4, seed=3 if number in (4, 5) else number)
        objects = [("with_mask", 1, 2, 11, 22), ("no_mask" if number % 2 else "with_mask", 5, 5, 6, 6)]
        (folder / "annotations" / f"mask {number}.xml").write_text(voc_xml(f"mask {number}.png", objects))
    return folder


def stems(folder) -> list:
    return sorted(path.stem for path in folder.iterdir())


def hashes(folder) -> set:
    return {hashlib.sha256(path.read_bytes()).digest() for path in folder.iterdir()}


@pytest.mark.parametrize("ratio", [0.05, 0.2, 0.5, 0.95])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_split(mask_set, ratio, seed, capsys):
    before = stems(mask_set / "images")
    assert split_data.main([f"--data_path={mask_set}", f"--val_ratio={ratio}", f"--seed={seed}"]) == 0
    train, val = (stems(mask_set / side / "images") for side in ("train", "val"))
    assert sorted(train + val) == before == stems(mask_set / "images") and train and val
    assert abs(len(val) - 12 * ratio) <= 2.5
    assert not hashes(mask_set / "train" / "images") & hashes(mask_set / "val" / "images")
    for side, names in (("train", train), ("val", val)):
        assert stems(mask_set / side / "annotations") == names
        for name in names:
            for kind, ending in (("images", "png"), ("annotations", "xml")):
                file = f"{kind}/{name}.{ending}"
                assert (mask_set / side / file).read_bytes() == (mask_set / file).read_bytes()
    wanted = [f"{mask_set / side}: {len(names)} image{'s' * (len(names) != 1)}" for side, names in (("train", train), ("val", val))]
    assert capsys.readouterr().out.splitlines() == wanted


def test_split_depends_only_on_the_seed(mask_set):
    pairs, _ = split_data.find_pairs(mask_set)
    sides = [split_data.split_pairs(pairs, 0.3, seed)["val"] for seed in (1, 1, 2, 3)]
    assert sides[0] == sides[1] and (sides[0] != sides[2] or sides[0] != sides[3])


def test_split_of_the_whole_set(data_dir):
    pairs, warnings = split_data.find_pairs(data_dir / "facemask")
    sides = split_data.split_pairs(pairs, 0.2, 1)
    assert len(pairs) == 853 and not warnings and len(sides["val"]) == 171
    found = [{hashlib.sha256(image.read_bytes()).digest() for image, _ in side} for side in sides.values()]
    assert not found[0] & found[1]


def test_split_leaves_out_unpaired_files(mask_set, capsys):
    (mask_set / "annotations" / "mask 1.xml").unlink()
    (mask_set / "images" / "mask 2.png").unlink()
    shutil.copy(mask_set / "images" / "mask 6.png", mask_set / "images" / "mask 6.jpg")
    (mask_set / "images" / "Thumbs.db").write_text("")
    assert split_data.main([f"--data_path={mask_set}"]) == 0
    told = capsys.readouterr().err.splitlines()
    assert told == ["mask 6.jpg: left out, mask 6.png has the same annotation file",
                    "mask 1.png: left out, it has no XML file", "mask 2.xml: left out, it has no image"]
    assert len(stems(mask_set / "train" / "images") + stems(mask_set / "val" / "images")) == 10


def test_split_finds_images_as_the_conversion_does(mask_set, capsys):
    """Every extension, a stale <filename>, and an image that only its <filename> names."""
    assert split_data.EXTENSIONS == EXTENSIONS
    annotations = mask_set / "annotations"
    for number, extension in enumerate((".webp", ".tif", ".JPG", ".tiff")):
        (mask_set / "images" / f"mask {number}.png").unlink()
        draw(mask_set / "images" / f"mask {number}{extension}", seed=number)
    (annotations / "mask 7.xml").write_text(voc_xml("mask 8.png", [("no_mask", 1, 1, 5, 5)]))
    (annotations / "mask 9.xml").rename(annotations / "other.xml")
    assert split_data.main([f"--data_path={mask_set}"]) == 0
    assert capsys.readouterr().err.splitlines() == ["mask 7.xml: its image is mask 7.png, but its <filename> is mask 8.png"]
    images, xmls = (sorted(path.name for side in ("train", "val") for path in (mask_set / side / kind).iterdir())
                      for kind in ("images", "annotations"))
    assert len(images) == len(xmls) == 12 and {"mask 0.webp", "mask 9.png"} < set(images) and "other.xml" in xmls
    for side in ("train", "val"):
        found = xml2coco.convert(mask_set / side)["images"]
        assert sorted(image["file_name"] for image in found) == sorted(path.name for path in (mask_set / side / "images").iterdir())


@pytest.mark.parametrize("prepare, options, told", [
    (lambda folder: (folder / "train").mkdir(), [], "train already exists; remove"),
    (lambda folder: (folder / "val").mkdir(), [], "val already exists"),
    (lambda folder: shutil.rmtree(folder / "images"), [], "--data_path: no such folder: "),
    (lambda folder: None, ["--val_ratio=1"], "--val_ratio: expected a number between 0 and 1, got 1"),
    (lambda folder: [path.unlink() for path in (folder / "annotations").iterdir()], [], "0 images have an XML file"),
])
def test_split_refuses(mask_set, prepare, options, told, capsys):
    prepare(mask_set)
    before = sorted(mask_set.rglob("*"))
    assert split_data.main([f"--data_path={mask_set}", *options]) == 2
    captured = capsys.readouterr()
    assert told in captured.err and captured.err.count("\n") == 1 and not captured.out
    assert sorted(mask_set.rglob("*")) == before


def test_split_that_fails_half_way_leaves_nothing(mask_set, monkeypatch, capsys):
    copied = []

    def copy(source, target):
        copied.append(source)
        if len(copied) == 9:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(split_data.shutil, "copy", copy)
    before = sorted(mask_set.rglob("*"))
    assert split_data.main([f"--data_path={mask_set}"]) == 2
    assert "No space left on device" in capsys.readouterr().err and sorted(mask_set.rglob("*")) == before


def test_a_split_removes_leftovers_only_of_dead_processes(mask_set, capsys):
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        split_data.partial_folder(mask_set).mkdir()
        os.write(told, b"1")
        signal.pause()
    os.read(ready, 1)
    try:
        assert split_data.main([f"--data_path={mask_set}"]) == 0
        [left] = mask_set.glob(".split_data*")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    foreign = left.with_name(f".split_data.another-1.{child}.partial")      # from another machine
    foreign.mkdir()
    split_data.partial_folder(mask_set)
    assert list(mask_set.glob(".split_data*")) == [foreign]


def test_the_faster_of_two_concurrent_splits_stays(mask_set, monkeypatch, capsys):
    def copy(source, target):
        for side in split_data.SIDES:
            (mask_set / side).mkdir(exist_ok=True)

    monkeypatch.setattr(split_data.shutil, "copy", copy)
    assert split_data.main([f"--data_path={mask_set}"]) == 2
    assert "train already exists" in capsys.readouterr().err
    assert sorted(path.name for path in mask_set.iterdir()) == ["annotations", "images", "train", "val"]
    assert list((mask_set / "train").iterdir()) == []


def test_xml2coco(data_dir, tmp_path, caplog):
    """pycocotools reads the file, and its content equals what ElementTree reads."""
    folder, path = data_dir / "facemask_png_sample", tmp_path / "new folder" / "instances.json"
    classes = ["with_mask", "without_mask", "mask_weared_incorrect"]
    assert xml2coco.main([f"--data_path={folder}/", f"--save_path={path}", f"--classes={','.join(classes)}"]) == 0
    coco = COCO(path)
    assert [coco.cats[number]["name"] for number in (1, 2, 3)] == classes and len(coco.imgs) == 16
    for image_id, image in coco.imgs.items():
        root = ElementTree.parse(folder / "annotations" / image["file_name"].replace(".png", ".xml")).getroot()
        assert [image["width"], image["height"]] == [int(root.findtext(f"size/{side}")) for side in ("width", "height")]
        got = [(classes[item["category_id"] - 1], item["bbox"], item["area"], item["iscrowd"])
               for item in coco.loadAnns(coco.getAnnIds([image_id]))]
        want = []
        for node in root.iter("object"):
            x1, y1, x2, y2 = (float(node.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax"))
            want.append((node.findtext("name"), [x1, y1, x2 - x1, y2 - y1], (x2 - x1) * (y2 - y1), 0))
        assert got == want
    assert not caplog.messages


def test_xml2coco_sorts_classes_and_drops_broken_files(mask_set, tmp_path, capsys, caplog):
    (mask_set / "annotations" / "mask 1.xml").write_text("<annotation>")
    cut(mask_set / "images" / "mask 2.png", 0.5)
    path = tmp_path / "a.json"
    assert xml2coco.main([f"--data_path={mask_set}", f"--save_path={path}"]) == 0
    content = json.loads(path.read_text())
    assert [(item["id"], item["name"]) for item in content["categories"]] == [(1, "no_mask"), (2, "with_mask")]
    assert len(content["images"]) == 10 and len(content["annotations"]) == 20
    assert "1 x XML not usable: dropped" in caplog.messages and "1 x truncated image: dropped" in caplog.messages
    assert capsys.readouterr().out == f"{path}: 10 images, 20 objects, classes no_mask, with_mask\n"


def test_xml2coco_refuses(mask_set, tmp_path, capsys):
    for options, told in (([f"--data_path={tmp_path}"], "image_dir: no such folder: "),
                          ([f"--data_path={mask_set}", "--classes=dog"], "none of the classes (dog)")):
        assert xml2coco.main([*options, f"--save_path={tmp_path / 'a.json'}"]) == 2
        captured = capsys.readouterr()
        assert told in captured.err and captured.err.count("\n") == 1
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize("how", ["file", "module", "copied"])
def test_the_recipe_as_commands(mask_set, run_command, repo_dir, tmp_path, how):
    """python src/split_data.py, python -m src.split_data, and a copy of split_data.py."""
    model = repo_dir / "faster_rcnn"
    if how == "copied":
        for name in ("split_data.py", "xml2coco.py"):
            shutil.copy(model / "src" / name, tmp_path)
    starts = {name: {"file": [model / "src" / f"{name}.py"], "module": ["-m", f"src.{name}"],
                     "copied": [tmp_path / f"{name}.py"]}[how] for name in ("split_data", "xml2coco")}
    cwd = model if how == "module" else mask_set
    run = run_command(["python", *starts["split_data"], "--data_path", mask_set, "--val_ratio", 0.25], cwd=cwd)
    assert run.returncode == 0, run.stderr
    path = mask_set / "face_detection" / "annotations" / "instances_train2017.json"
    command = ["python", *starts["xml2coco"], "--data_path", f"{mask_set}/train/", "--save_path", path]
    run = run_command(command, cwd=cwd)
    if how == "copied":     # outside the repository it names what is missing
        assert run.returncode == 2 and "utils/mindrecord is missing" in run.stderr
    else:
        assert run.returncode == 0, run.stderr
        assert len(json.loads(path.read_text())["images"]) == 9
