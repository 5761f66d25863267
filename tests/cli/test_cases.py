"""Commands on data sets as tools and people write them, one folder each in $CASES_DIR."""
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOUR = "objects: 4, and 0 crowd regions"
FINE = "problems: none"

# check.py: case -> (source, texts that it prints).
CHECKS = {
    "iscrowd_string": ("coco", FOUR, FINE),
    "area_string": ("coco", FOUR, "annotation 2: area \"abc\" is not a valid area; the box's area is used"),
    "ids_string": ("coco", FOUR, FINE),
    "ids_float": ("coco", FOUR, FINE),
    "cat_string_all": ("coco", FOUR, FINE),
    "size_string": ("coco", FOUR, FINE),
    "size_zero": ("coco", FOUR, FINE),
    "size_missing": ("coco", FOUR, FINE),
    "size_swapped": ("coco", FOUR, "1.jpg: annotated as 64x96, the image has 96x64"),
    "bom": ("coco", FOUR, FINE),
    "nan_neg": ("coco", "objects: 2, and", "annotation 3: box (30, 30, 10, 10) is upside down"),
    "one_no_bbox": ("coco", "objects: 3, and", "annotation 1: has no bbox"),
    "roboflow_dup_name": ("coco", FOUR, FINE),
    "backslash": ("coco", FOUR, FINE),
    "txt_dup": ("other", "images: 2 usable of 2", FINE),
    "txt_space_num": ("other", "images: 2 usable of 2", FOUR, FINE),
    "voc_space": ("voc", "images: 2 usable of 2", FOUR, FINE),
    "voc_stale_filename": ("voc", "images: 3 usable of 3", FOUR,
                           "000001.xml: filename: is '000000.jpg', but the image is 000001.jpg"),
}
ANNOTATIONS = {"coco": "a.json", "other": "a.txt", "voc": "ann"}


@pytest.mark.parametrize("name", CHECKS)
def test_check(case_file, run_command, name):
    source, *expected = CHECKS[name]
    more = ["--image_set=train"] if name == "voc_space" else []
    run = run_command(["python", ROOT / "utils" / "mindrecord" / "check.py", f"--source={source}", *more,
                       f"--image_dir={case_file(name) / 'images'}", f"--anno_path={case_file(name) / ANNOTATIONS[source]}"])
    assert run.returncode == (FINE not in expected) and not run.stderr, run.stdout + run.stderr
    assert [text for text in expected if text not in run.stdout] == [], run.stdout


@pytest.fixture
def train(case_file, run_command, tmp_path):
    """train(model, case, *flags) -> a run of a toy network that trains on `base` and evaluates on the case."""
    def start(model, name, *flags, on="base"):
        config = tmp_path / "toy.yaml"
        config.write_text("num_classes: 3\ncoco_classes: [background, red, blue]\nimg_width: 128\nimg_height: 64\nnum_gts: 4\n"
                          "batch_size: 2\ntest_batch_size: 1\nepoch_size: 1\nlog_interval: 1\nwarmup_step: 0\n"
                          "num_parallel_workers: 1\neval_start_epoch: 1\ndevice_target: CPU\n")
        return run_command(
            [sys.executable, ROOT / "tests" / "toy_train.py", f"--toy_model={model}", f"--config_path={config}",
             f"--image_dir={case_file(on) / 'images'}", f"--anno_path={case_file(on) / 'a.json'}",
             f"--val_image_dir={case_file(name) / 'images'}", f"--val_anno_path={case_file(name) / 'a.json'}",
             f"--output_path={tmp_path / 'out'}", *flags])

    return start


@pytest.mark.parametrize("model, name, objects", [
    ("faster_rcnn", "area_string", 4), ("faster_rcnn", "bom", 4), ("refinedet", "nan_neg", 2), ("refinedet", "one_no_bbox", 3),
    ("mask_rcnn", "size_missing", 4), ("mask_rcnn", "size_swapped", 4), ("mask_rcnn", "size_zero", 4),
    ("faster_rcnn", "cat_string_all", 4), ("refinedet", "ids_float", 4), ("mask_rcnn", "ids_string", 4),
])
def test_evaluation_in_training_reads_what_the_conversion_reads(train, tmp_path, model, name, objects):
    run = train(model, name)
    assert run.returncode == 0, run.stdout + run.stderr
    manifest = json.loads((tmp_path / "out" / "mindrecord" / "eval" / "manifest.json").read_text())
    assert manifest["objects"] == objects and manifest["count"] == 2
    rows = map(json.loads, (tmp_path / "out" / "metrics.jsonl").read_text().splitlines())
    evaluated = [row for row in rows if row["kind"] == "eval"]
    assert len(evaluated) == 1 and evaluated[0]["images"] == 2 and evaluated[0]["AP50"] >= 0


def test_split_order(train, case_file, tmp_path):
    """If the two files give the classes different ids, labels follow the training set."""
    annotations = case_file("split_order")
    run = train("faster_rcnn", "split_order", "--coco_classes=[]", f"--val_anno_path={annotations / 'val.json'}", on="split_order")
    assert run.returncode == 0, run.stdout + run.stderr
    manifests = [json.loads((tmp_path / "out" / "mindrecord" / side / "manifest.json").read_text()) for side in ("train", "eval")]
    assert [[(item["name"], item["label"], item["id"]) for item in manifest["categories"]] for manifest in manifests] == [
        [("red", 1, 1), ("blue", 2, 2)], [("red", 1, 2), ("blue", 2, 1)]]
    assert yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())["coco_classes"] == ["background", "red", "blue"]
    other = json.loads((annotations / "val.json").read_text())
    other["categories"][0]["name"] = "green"
    (tmp_path / "green.json").write_text(json.dumps(other))
    run = train("faster_rcnn", "split_order", "--coco_classes=[]", f"--val_anno_path={tmp_path / 'green.json'}", on="split_order")
    assert run.returncode == 2 and len(run.stderr.splitlines()) == 1, run.stderr
    assert re.search(r"coco_classes: the classes to train and to evaluate on differ: \w+ is only in .*a\.json and green is only in "
                     r".*green\.json", run.stderr)


def evaluate(run_command, model, tmp_path, *flags):
    """Score a file of detections of the classes red and blue; return (stdout, metrics)."""
    run = run_command(["python", ROOT / model / "eval.py", "--num_classes=3", "--coco_classes=[background, red, blue]", *flags,
                       f"--output_path={tmp_path}"])
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout, json.loads((tmp_path / "metrics.json").read_text())


@pytest.mark.parametrize("name, note", [
    ("good", ""), ("bom", ""), ("strings", ""), ("leading_zero", ""),
    ("neg", "note: 1 detection with a negative width or height, matching nothing; the first: result 4"),
])
def test_results(case_file, run_command, tmp_path, name, note):
    text, metrics = evaluate(run_command, "faster_rcnn", tmp_path, f"--detections={case_file('results') / f'{name}.json'}",
                             f"--anno_path={case_file('base') / 'a.json'}")
    assert metrics["bbox"]["AP"] == pytest.approx(1) and note in text and bool(note) == ("note:" in text)


def test_many(case_file, run_command, tmp_path):
    files = f"--detections={case_file('many') / 'perfect.json'}", f"--anno_path={case_file('many') / 'a.json'}"
    text, metrics = evaluate(run_command, "refinedet", tmp_path, *files)
    assert metrics["bbox"]["AP"] < 0.7 and "note: 1 image with more than 100 objects of a class (image 1: 600 x red)" in text
    text, metrics = evaluate(run_command, "refinedet", tmp_path, *files, "--max_dets=600")
    assert metrics["bbox"]["AP"] == metrics["bbox"]["AR600"] == pytest.approx(1) and "note:" not in text


@pytest.mark.parametrize("name", ["size_swapped", "size_missing"])
def test_masks_of_images_whose_size_is_wrong(case_file, run_command, tmp_path, name):
    text, metrics = evaluate(run_command, "mask_rcnn", tmp_path, f"--detections={case_file('size_swapped') / 'perfect_masks.json'}",
                             f"--anno_path={case_file(name) / 'a.json'}")
    assert metrics["segm"]["AP"] == metrics["bbox"]["AP"] == pytest.approx(1)
    assert "note: 2 images of the ground truth with" in text


def test_stale_file_names_in_xml2coco(case_file, run_command, tmp_path):
    run = run_command(["python", ROOT / "faster_rcnn" / "src" / "xml2coco.py", "--data_path", case_file("voc_stale_filename"),
                       "--save_path", tmp_path / "a.json"])
    assert run.returncode == 0 and "000001.xml: filename: is '000000.jpg'" in run.stderr
    content = json.loads((tmp_path / "a.json").read_text())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    kinds = {item["id"]: item["name"] for item in content["categories"]}
    assert [(names[item["image_id"]], kinds[item["category_id"]]) for item in content["annotations"]] == [
        ("000001.jpg", "red"), ("000002.jpg", "blue"), ("000003.jpg", "red"), ("000003.jpg", "blue")]


def test_split(case_file, run_command, tmp_path):
    shutil.copytree(case_file("split"), tmp_path / "data", copy_function=shutil.copyfile)
    run = run_command(["python", ROOT / "refinedet" / "src" / "split_data.py", "--data_path", tmp_path / "data"])
    assert run.returncode == 0 and not run.stderr, run.stderr
    found = sorted(path.name for side in ("train", "val") for path in (tmp_path / "data" / side / "images").iterdir())
    assert found == ["a b.JPG", "c.jpg", "d.webp", "e.jpg", "f.png"]
