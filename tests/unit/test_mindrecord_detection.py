"""check.py detects the format of a folder, names exports that are not supported, and draws."""
import shlex

import cv2
import numpy as np
import pytest

from tests.unit.format_samples import labelme_set, shape, yolo_line, yolo_set
from tests.unit.mindrecord_samples import annotation, coco_set, draw, txt_set, voc_set
from utils.mindrecord.cli import check_main
from utils.mindrecord.detection import find_data
from utils.mindrecord.doctor import diagnose
from utils.mindrecord.drawing import Drawing, colour_of, draw_objects

BOX = yolo_line(0, 2, 3, 10, 12)


def detected(folder):
    return [(item.entry.name, *(str(part.relative_to(folder)) for part in item.place[:2]), item.place.image_set)
            for item in find_data(folder)]


def test_coco(tmp_path):
    image_dir, path = coco_set(tmp_path, [annotation(1, 1, [1, 1, 5, 5])])
    assert detected(tmp_path) == [("coco", "pictures", "anno.json", None)]
    (tmp_path / "annotations").mkdir()
    path.rename(tmp_path / "annotations" / "instances_train.json")
    (tmp_path / "annotations" / "other.json").write_text("[1]")
    assert detected(tmp_path) == [("coco", "pictures", "annotations/instances_train.json", None)]
    path = image_dir / "_annotations.coco.json"     # where Roboflow puts it
    (tmp_path / "annotations" / "instances_train.json").rename(path)
    assert detected(tmp_path) == [("coco", "pictures", "pictures/_annotations.coco.json", None)]


def test_voc(tmp_path):
    voc_set(tmp_path / "a", {"1": [("nut", 1, 1, 9, 9)]})
    assert detected(tmp_path / "a") == [("voc", "JPEGImages", "Annotations", None)]
    image_dir, xml = voc_set(tmp_path / "b", {"1": [("nut", 1, 1, 9, 9)]})
    (xml / "1.xml").rename(image_dir / "1.xml")
    xml.rmdir()
    assert detected(image_dir) == [("voc", ".", ".", None)]


def test_txt(tmp_path):
    txt_set(tmp_path, "# boxes\na.jpg 1,1,5,5,1 2,2,9,9,2\nb.jpg\n")
    assert detected(tmp_path) == [("other", "pictures", "anno.txt", None)]


def test_yolo(tmp_path):
    path = yolo_set(tmp_path, {"train": {"a": [BOX]}, "val": {"b": [BOX]}})
    assert detected(tmp_path) == [("yolo", f"images/{name}", "data.yaml", name) for name in ("train", "val")]
    path.unlink()
    assert detected(tmp_path) == [("yolo", "images", ".", None)]
    draw(tmp_path / "beside" / "a.png")
    (tmp_path / "beside" / "a.txt").write_text(BOX)
    assert detected(tmp_path / "beside") == [("yolo", ".", ".", None)]


def test_labelme(tmp_path):
    labelme_set(tmp_path, {"x/a": [shape("dog", [[1, 1], [9, 9]], "rectangle")]})
    assert detected(tmp_path) == [("labelme", ".", ".", None)]


@pytest.mark.parametrize(("name", "text", "what"), [
    ("annotations.xml", '<?xml version="1.0"?><annotations><image id="0"/></annotations>', 'annotations.xml is "CVAT for images"'),
    ("via.json", '{"a.jpg123": {"filename": "a.jpg", "regions": []}}', "via.json is a project of the VGG Image Annotator"),
    ("via.json", '{"_via_img_metadata": {"a.jpg123": {"regions": []}}}', "via.json is a project of the VGG Image Annotator"),
    ("project.json", '[{"id": 1, "annotations": [], "data": {}}]', "project.json is Label Studio JSON"),
    ("notes.txt", "some words", "no annotations found (known formats: COCO JSON, "),
])
def test_unsupported_exports_are_named(tmp_path, message, name, text, what):
    (tmp_path / name).write_text(text)
    assert message(find_data, tmp_path).startswith(f"{tmp_path}: {what}")


def test_the_command_checks_every_set_that_it_finds(tmp_path, capsys):
    yolo_set(tmp_path, {"train": {"a": [BOX], "b": [BOX]}, "val": {"c": [BOX, "0 1 2"]}})
    assert check_main([str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    first = f"YOLO text: --source=yolo --image_dir={tmp_path}/images/train --anno_path={tmp_path}/data.yaml --image_set=train"
    assert lines[0] == first and lines[1].startswith("images: 2 usable of 2")
    assert f"{tmp_path}/labels/val/c.txt: line 2: has 3 values" in "\n".join(lines)
    assert check_main([str(tmp_path), "--image_set=train"]) == 0
    assert check_main([str(tmp_path / "no")]) == 2
    assert capsys.readouterr().err == f"check.py: error: {tmp_path / 'no'}: no such folder\n"


def test_the_flags_that_the_command_prints_are_accepted(tmp_path, capsys):
    folder = labelme_set(tmp_path / "my set", {"a": [shape("dog", [[1, 1], [9, 9]], "rectangle")]})
    assert check_main(["--masks", str(folder)]) == 0        # options before FOLDER work too
    first, *lines = capsys.readouterr().out.splitlines()
    assert check_main(["--masks", *shlex.split(first.partition(": ")[2])]) == 0
    assert capsys.readouterr().out.splitlines() == lines and lines[0].startswith("images: 1 usable of 1")
    assert check_main(["--masks", "no", str(folder)]) == 0


@pytest.mark.parametrize(("options", "what"), [
    ([], "give FOLDER, or --source and --anno_path"), (["--source=voc"], "give FOLDER, or --source and --anno_path"),
    (["x", "--source=voc"], "not both"), (["x", "--config_path=a.yaml"], "--config_path requires --draw"),
])
def test_wrong_usage(capsys, options, what):
    with pytest.raises(SystemExit) as left:
        check_main(options)
    assert left.value.code == 2 and what in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ drawings

def test_a_drawing_shows_boxes_and_masks():
    image = np.zeros((300, 400, 3), np.uint8)
    mask = [[100, 100, 200, 100, 200, 200, 100, 200]]
    drawn = draw_objects(image, np.array([[100, 100, 200, 200], [300, 50, 350, 90]]), ["猫", "dog"], [1, 2], [mask, mask])
    assert drawn.shape == (300, 400, 3)
    np.testing.assert_array_equal(drawn[150, 100], colour_of(1))
    np.testing.assert_array_equal(drawn[89, 320], colour_of(2))
    assert drawn[150, 150].any() and not drawn[250, 50].any() and not drawn[70, 320].any()
    small = draw_objects(image[:30, :40], np.array([[10, 10, 20, 20]]), ["dog"], [1])
    assert small.shape == (240, 320, 3)
    np.testing.assert_array_equal(small[120, 80], colour_of(1))


def test_check_draws(tmp_path, capsys):
    folder = labelme_set(tmp_path / "in", {name: [shape("dog", [[10, 10], [30, 20]], "rectangle")] for name in "abcde"})
    options = [str(folder), "--masks", f"--draw={tmp_path / 'out'}"]
    assert check_main(options) == 0
    assert f"drawn: 5 images in {tmp_path / 'out'}" in capsys.readouterr().out.splitlines()
    names = [path.name for path in sorted((tmp_path / "out").iterdir())]
    assert names == [f"{number:04d}_{name}.jpg" for number, name in enumerate("abcde")]
    image = cv2.imread(str(tmp_path / "out" / "0000_a.jpg"))
    assert image.shape == (240, 320, 3)
    tint = image[100:150, 100:220].reshape(-1, 3).mean(0) - image[180:, :].reshape(-1, 3).mean(0)
    assert np.argmax(tint) == np.argmax(colour_of(1))
    drawing = Drawing(tmp_path / "few", 2)
    diagnose("labelme", "", folder, progress=False, drawings=[drawing])
    assert sorted(path.name for path in (tmp_path / "few").iterdir()) == ["0000_a.jpg", "0001_e.jpg"] and drawing.drawn == 2


def test_check_draws_batches_of_a_model(run_command, repo_dir, tmp_path):
    folder = labelme_set(tmp_path / "in", {name: [shape("dog", [[10, 10], [30, 20]], "rectangle")] for name in "abc"})
    config = tmp_path / "mine.yaml"
    config.write_text("img_height: 64\nimg_width: 64\nbatch_size: 2\nnum_parallel_workers: 1\n")
    options = [repo_dir / "utils" / "mindrecord" / "check.py", folder, f"--draw={tmp_path / 'out'}", f"--config_path={config}"]
    done = run_command(["python", *options, f"--model={repo_dir / 'refinedet'}", "--draw_count=4"], cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"drawn: 4 augmented images in {tmp_path / 'out' / 'batches'}" in done.stdout
    names = sorted(path.name for path in (tmp_path / "out" / "batches").iterdir())
    assert len(names) == 4 and cv2.imread(str(tmp_path / "out" / "batches" / names[0])).shape == (64, 64, 3)
    done = run_command(["python", *options], cwd=tmp_path)
    assert done.returncode == 2 and f"--model: {tmp_path} is not a model directory" in done.stderr
    config.unlink()
    done = run_command(["python", *options, f"--model={repo_dir / 'refinedet'}"], cwd=tmp_path)
    assert done.returncode == 2 and f"--config_path: no such file: {config}" in done.stderr
