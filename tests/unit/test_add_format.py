"""A data format is added by one module in utils/mindrecord/formats/ and its name in a model's YAML.

The example is CSV, in tests/examples/csv_format.py.
"""
import filecmp
import json
import shutil
import sys
from pathlib import Path

import pytest

import faster_rcnn.src.dataset as faster_data
import refinedet.src.dataset as refinedet_data
from faster_rcnn.src.model_utils.config import load_config as load_faster
from refinedet.src.model_utils.config import load_config as load_refinedet
from tests.unit.mindrecord_samples import draw, read_back
from utils.mindrecord import all_formats, find_format, formats, read_annotations

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
CHOICES = "{coco|voc|coco_files|labelme|other|yolo}", "{coco|voc|coco_files|csv|labelme|other|yolo}"
GOOD = "a.jpg,2,3,30,25,cat\nb.jpg,5,5,20.5,20,dog\na.jpg,1,1,9,9,dog\n"
CLASSES = ["background", "cat", "dog"]


@pytest.fixture
def csv_format(monkeypatch, tmp_path_factory):
    """Folder of the module, which the package treats as part of formats/."""
    folder = tmp_path_factory.mktemp("formats")
    shutil.copy(EXAMPLES / "csv_format.py", folder)
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(folder)])
    return folder


@pytest.fixture(scope="module")
def checkout(repo_dir, tmp_path_factory):
    """A copy of the repository. Only the module, and the format in the choices of two models, are added."""
    root = tmp_path_factory.mktemp("check out")
    for name in ("utils", "faster_rcnn", "refinedet"):
        shutil.copytree(repo_dir / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "output", "train*/", "eval*/"))
    shutil.copy(EXAMPLES / "csv_format.py", root / "utils" / "mindrecord" / "formats")
    for model in ("faster_rcnn", "refinedet"):
        extend_choices(root / model / "default_config.yaml", root / model / "default_config.yaml")
    return root


def extend_choices(source: Path, target: Path) -> Path:
    text = source.read_text(encoding="utf-8")
    assert text.count(CHOICES[0]) == 1
    target.write_text(text.replace(*CHOICES), encoding="utf-8")
    return target


def csv_set(folder: Path, rows: str = GOOD) -> tuple:
    """Return (image_dir, CSV file) with the images a.jpg and b.jpg of 40 x 30."""
    for number, name in enumerate(("a.jpg", "b.jpg")):
        draw(folder / "images" / name, seed=number)
    path = folder / "boxes.csv"
    path.write_text(f"image,x1,y1,x2,y2,class\n{rows}", encoding="utf-8")
    return folder / "images", path


def options(paths, *more) -> list:
    return ["--source=csv", f"--image_dir={paths[0]}", f"--anno_path={paths[1]}", *more]


# ----------------------------------------------------------------------------------------------- the commands


def test_commands_find_the_module(checkout, repo_dir, run_command, tmp_path):
    same = filecmp.dircmp(repo_dir / "utils" / "mindrecord" / "formats", checkout / "utils" / "mindrecord" / "formats")
    assert (same.right_only, same.diff_files) == (["csv_format.py"], [])
    tools = checkout / "utils" / "mindrecord"
    shown = run_command(["python", tools / "convert.py", "--help"], env={"COLUMNS": "1000"}).stdout
    assert "{coco,voc,coco_files,csv,labelme,other,yolo}" in shown and "csv: CSV file" in shown
    assert "Pascal VOC XML, COCO JSON, several files, CSV, LabelMe" in shown

    paths = csv_set(tmp_path)
    checked = run_command(["python", tools / "check.py", *options(paths)])
    assert checked.returncode == 0 and "images: 2 usable of 2" in checked.stdout and "problems: none" in checked.stdout
    for found in ("2 images, 3 objects", "2 images, 4 objects"):
        converted = run_command(["python", tools / "convert.py", *options(paths, f"--output_dir={tmp_path / 'o'}")])
        assert converted.returncode == 0 and f"{found}, 2 classes" in converted.stdout, converted.stderr
        csv_set(tmp_path, f"{GOOD}b.jpg,1,2,3,4,cat\n")     # changed annotations are converted again
    rows = read_back(tmp_path / "o")
    assert [str(row["file_name"]) for row in rows] == ["a.jpg", "b.jpg"] and rows[0]["labels"].tolist() == [1, 2]
    assert rows[1]["boxes"].tolist() == [[5, 5, 20.5, 20], [1, 2, 3, 4]] and rows[1]["labels"].tolist() == [2, 1]
    assert json.loads((tmp_path / "o" / "manifest.json").read_text())["source"] == "csv"


def test_problems_name_file_and_line(checkout, run_command, tmp_path):
    tools = checkout / "utils" / "mindrecord"
    paths = csv_set(tmp_path, f"{GOOD}a.jpg,9,9,9,20,cat\nb.jpg,50,40,60,45,dog\nb.jpg,1,1,9,9,tree\n")
    checked = run_command(["python", tools / "check.py", *options(paths, "--classes=cat,dog")])
    assert checked.returncode == 1
    assert checked.stdout.splitlines()[:3] == [
        f"{paths[1]}: line 5: box (9, 9, 9, 20) has no area", f"{paths[1]}: line 7: category 'tree' is not one of the classes",
        f"{paths[1]}: line 6: box (50, 40, 60, 45) lies outside the image b.jpg of 40x30"]
    paths = csv_set(tmp_path, f"{GOOD}a.jpg,1,2,x,9,cat\n")
    converted = run_command(["python", tools / "convert.py", *options(paths, f"--output_dir={tmp_path / 'o'}")])
    assert converted.returncode == 2 and converted.stderr == (
        f"convert.py: error: {paths[1]}: line 5: 'a.jpg,1,2,x,9,cat' is not image,x1,y1,x2,y2,class: "
        "could not convert string to float: 'x'\n")


def test_evaluation_reads_it(checkout, run_command, tmp_path):
    image_dir, path = csv_set(tmp_path)
    results = tmp_path / "results.json"
    results.write_text(json.dumps([{"image_id": 1, "category_id": 1, "bbox": [2, 3, 28, 22], "score": 0.5}]))
    run = run_command(["python", checkout / "faster_rcnn" / "eval.py", f"--detections={results}", "--dataset=csv",
                       f"--image_dir={image_dir}", f"--anno_path={path}", f"--output_path={tmp_path / 'out'}", "--num_classes=3",
                       "--coco_classes=[background, cat, dog]"])
    assert run.returncode == 0, run.stderr
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["bbox"]["AP50"] == pytest.approx(0.5)


def test_scripts_take_it(checkout, run_command):
    scripts, options = checkout / "refinedet" / "scripts", {"DRY_RUN": 1, "PYTHON": sys.executable}
    run = run_command(["bash", scripts / "run_standalone_train_cpu.sh", 0, 5, 0.02, "csv"], env=options)
    assert run.returncode == 0 and "--dataset=csv" in run.stdout, run.stderr
    run = run_command(["bash", scripts / "run_standalone_train_cpu.sh", 0, 5, 0.02, "cvs"], env=options)
    assert run.returncode == 2 and "DATASET: expected coco, voc, coco_files, csv, labelme, other or yolo, got 'cvs'" in run.stderr


# ---------------------------------------------------------------------------------------------- models and readers


@pytest.mark.parametrize(("model", "data", "load_config"), [("faster_rcnn", faster_data, load_faster),
                                                            ("refinedet", refinedet_data, load_refinedet)],
                         ids=["faster_rcnn", "refinedet"])
def test_models_read_it(csv_format, repo_dir, tmp_path, message, model, data, load_config):
    defaults = extend_choices(repo_dir / model / "default_config.yaml", tmp_path / "default_config.yaml")
    image_dir, path = csv_set(tmp_path)
    keys = {"dataset": "csv", "image_dir": str(image_dir), "anno_path": str(path), "output_path": str(tmp_path / "out"),
            "num_classes": 3, "coco_classes": CLASSES, "img_height": 64, "img_width": 64}

    def prepare(**more):
        return data.prepare_data(load_config(defaults, {**keys, **more}, defaults), train=True)

    info = prepare()
    assert info.count == 2 and info.class_names == CLASSES
    content = info.ground_truth()
    assert [image["file_name"] for image in content["images"]] == ["a.jpg", "b.jpg"]
    assert [item["bbox"] for item in content["annotations"]] == [[2, 3, 28, 22], [1, 1, 8, 8], [5, 5, 15.5, 15]]
    new = str(tmp_path / "new")
    assert message(prepare, anno_path="", output_path=new) == "anno_path is required: give --anno_path"
    error = message(prepare, image_set="val", output_path=new)
    assert error == "image_set: csv has no image sets; only voc, coco_files, labelme, yolo have them"
    path.write_text("a.jpg,1,2,3,4,cat\n")
    assert message(prepare) == f"{path}: line 1: expected the header image,x1,y1,x2,y2,class"


@pytest.mark.parametrize(("rows", "error"), [
    ("a.jpg,1,2,3,cat\n", "line 2: 'a.jpg,1,2,3,cat' is not image,x1,y1,x2,y2,class: not enough values"),
    ('\n"a.jpg,1,2,3,4,cat\n', "line 3: unexpected end of data"),
    ("a.jpg,1,2,3,4,tree\n", "none of the classes (cat, dog) is among its categories (tree)"),
])
def test_errors_name_file_and_line(csv_format, tmp_path, message, rows, error):
    paths = csv_set(tmp_path, rows)
    assert message(read_annotations, "csv", *paths, CLASSES).startswith(f"{paths[1]}: {error}")


def test_without_the_module_the_format_is_unknown(message):
    assert list(all_formats()) == ["coco", "voc", "coco_files", "labelme", "other", "yolo"]
    assert message(find_format, "csv") == "source: 'csv' is not one of coco, voc, coco_files, labelme, other, yolo"


def test_a_name_is_given_once(csv_format):
    shutil.copy(csv_format / "csv_format.py", csv_format / "second_csv_format.py")
    with pytest.raises(RuntimeError, match="two modules define the format 'csv'"):
        all_formats()
