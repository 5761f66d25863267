"""Malicious or malformed text: numbers in other notations, endless values, input that is slow to parse."""
import json
import re

import numpy as np
import pytest
from pycocotools import mask as mask_utils

from faster_rcnn.src.model_utils.config import InputError, load_config, parse_config
from faster_rcnn.src.model_utils.evaluation.coco_inputs import MOST_CATEGORIES, clean_ground_truth, read_results
from faster_rcnn.src.model_utils.evaluation.coco_scores import coco_ap
from faster_rcnn.src.model_utils.evaluation.program import read_results as read_program
from faster_rcnn.src.model_utils.yaml_text import TextLoader, YamlError, read_mapping, read_value, shown
from faster_rcnn.src.split_data import main as split_main
from tests.unit.mindrecord_samples import annotation, coco_set, draw, txt_set, voc_set
from tests.unit.test_format_yolo import yolo_set
from utils.mindrecord import DataError, convert, read_annotations, read_ground_truth
from utils.mindrecord.cli import check_main
from utils.mindrecord.formats._shapes import MOST_POINTS, circle_points
from utils.mindrecord.formats.coco import read_content
from utils.mindrecord.values import number, short, whole_number

DEEP = "[" * 900 + "]" * 900
FULL_WIDTH = "\uff11\uff10"     # 10 to int() and float()
WRONG = ("1_0", FULL_WIDTH, "\u0661", "0x10", "1e", "\u00a010", "1 0", "--1", "")
BOMB = "x0: &x0 [a, a, a, a, a, a, a, a, a]\n" + "".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]\n" for n in range(1, 10))

# --------------------------------------------------------------------------------------------------------------- numbers


def test_other_notations_are_not_numbers():
    assert [number(text) for text in WRONG] == [whole_number(text) for text in WRONG] == [None] * len(WRONG)
    assert [number(text) for text in ("10", " 1e1\n", "+.5", "1.", "-Infinity")] == [10, 10, 0.5, 1, -np.inf]
    assert number(np.float32(1.5)) == 1.5 and number(b"1") is None


@pytest.mark.parametrize("text", ["1_0", FULL_WIDTH])
def test_formats_refuse_other_notations_and_name_the_place(tmp_path, message, text):
    for folder in "txt", "voc", "yolo", "coco":
        (tmp_path / folder).mkdir()
    paths = txt_set(tmp_path / "txt", f"a.jpg 1,1,9,9,1\nb.jpg 1,1,{text},9,1\n")
    assert message(read_annotations, "other", *paths).startswith(f"{paths[1]}:2: box 1 '1,1,{text},9,1' has {text!r}")
    paths = voc_set(tmp_path / "voc", {"a": [("cat", 1, 1, 9, 9)], "b": [("cat", 1, 1, text, 9)]})
    (problem,) = read_annotations("voc", *paths)[2]
    assert str(problem) == f"{paths[1]}/b.xml: object 1: xmax {text!r} is not a number"
    path = yolo_set(tmp_path / "yolo", {"train": {"a": ["0 .5 .5 .2 .2", f"0 {text} .5 .2 .2"]}})
    (problem,) = read_annotations("yolo", "", path, image_set="train")[2]
    assert re.fullmatch(rf".*/a\.txt: line 2: {text!r} is not a number", str(problem))
    paths = coco_set(tmp_path / "coco", [annotation(1, 1, [1, 1, 5, 5]), annotation(2, 1, [1, 1, text, 5])])
    (problem,) = read_annotations("coco", *paths)[2]
    assert str(problem).startswith(f"{paths[1]}: annotation 2: bbox ")


@pytest.mark.parametrize("text", ["1_0", FULL_WIDTH, " 10", "010_"])
def test_commands_refuse_other_notations(tmp_path, message, capsys, text):
    path = tmp_path / "variant.yaml"
    path.write_text(f'batch_size: "{text}"\n', encoding="utf-8")
    assert message(load_config, path).startswith(f"{path}:1: batch_size: expected a whole number")
    for key in ("batch_size", "base_lr"):
        assert message(parse_config, [f"--{key}={text}"]).startswith(f"--{key}: expected a ")
    with pytest.raises(SystemExit):
        check_main(["--source=coco", "--anno_path=x", f"--workers={text}_"])
    with pytest.raises(SystemExit):
        split_main([f"--data_path={tmp_path}", f"--val_ratio={text}"])
    assert "expected a positive integer" in (output := capsys.readouterr().err) and "is not a number" in output


@pytest.mark.parametrize("text", ["1_0", "010", "1:30", "0x10", "9" * 30])
def test_numbers_in_yaml_are_decimal(tmp_path, message, text):
    path = tmp_path / "variant.yaml"
    path.write_text(f"# a comment\nbatch_size: {text}\n")
    assert message(load_config, path).startswith(f"{path}:2: batch_size: expected a whole number, got ")
    path.write_text("output_path: 2026-11-31\nbase_lr: 1e-3\nanchor_scales: [8]\nseed: -0\n".replace("-0", "0"))
    config = load_config(path)
    assert (config.output_path, config.base_lr, config.anchor_scales) == ("2026-11-31", 0.001, (8,))


# ------------------------------------------------------------------------------------------------------------------ YAML


@pytest.mark.parametrize(("text", "line", "expected"), [
    ("a: " + "[" * 200_000, 0, "nested more than"), ("a: 1\nb:\n " + "- " * 50_000, 0, "nested more than"),
    ("a:\n" + "".join(" " * n + "-\n" for n in range(1, 800)), 0, "nested more than"),
    ("".join(" " * n + "a:\n" for n in range(800)), 101, "nested more than"), (BOMB, 6, "more than 200000 values"),
    ("a: &a [*a]", 1, "an alias refers to a value that contains it"), ("a: [" + "1," * 300_000 + "]", 0, "more than 200000"),
    ("# " + "x" * (5 << 20), 0, "more than 4194304 characters"), ("? [1, 2]\n: 3", 1, "expected lines of `key: value`"),
    ("b: 1\na: !!timestamp x", 2, "not valid YAML: a: "), ("a: !!int x", 1, "not valid YAML: a: "),
    ("a: !!float x", 1, "not valid YAML: a: "), ("a: !!binary \u00e9", 1, "not valid YAML: a: "),
    ("a: {[1]: 2}", 1, "not valid YAML: a: "), ("a: " + "9" * 5000, 1, "not valid YAML: a: "), ("a: \0", 0, "not valid YAML: ")])
def test_hostile_yaml_is_one_line(text, line, expected):
    with pytest.raises(YamlError) as caught:
        read_mapping(text)
    assert caught.value.line == line and str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_hostile_yaml_in_commands_and_data_sets(tmp_path, message):
    path = tmp_path / "variant.yaml"
    path.write_text(BOMB)
    assert message(load_config, path).startswith(f"{path}:6: more than 200000 values")
    error = message(parse_config, ["--anchor_scales=&a [*a]"])
    assert error.startswith("--anchor_scales: not a valid YAML value: '[&a [*a]]'")
    assert message(parse_config, [f"--anchor_scales=[{'[' * 5000}"]).endswith("nested more than 100 levels deep")
    assert message(parse_config, [f"--roi_layer=dict(a={'(' * 5000}1)"]).startswith("--roi_layer: ")
    path.write_text("epoch_size: " + "9" * 4000)
    assert len(message(load_config, path)) < 300
    path = yolo_set(tmp_path, {"train": {"a": ["0 .5 .5 .2 .2"]}})
    path.write_text(f"train: images/train\n{BOMB}names: [*x7]\n")
    assert message(read_annotations, "yolo", "", path).startswith(f"{path}:7: more than 200000 values")
    path.write_text(f"train: images/train\n{BOMB.split('x4')[0]}names: [*x3, [1], b]\n")
    assert [item["name"] for item in read_annotations("yolo", "", path, image_set="train")[1]][1:] == ["['1']", "b"]
    assert read_mapping("no: 010", TextLoader)[0][0][:2] == ("no", "010") and read_value("[1, 1_0, .5]") == [1, "1_0", 0.5]


def test_values_are_shown_on_one_line():
    for value in (json.loads(DEEP), 10**5000, "x" * 10**6, list(range(10**6)), {10**5000: 1}, "a\nb", [[["a"] * 99] * 99] * 99):
        assert len(shown(value)) <= 90 and "\n" not in shown(value) and len(short(value)) <= 200
    assert (short([1, "a", None]), shown("a"), shown([1])) == ('[1, "a", null]', "a", "[1]")


# ------------------------------------------------------------------------------------------------------------------ JSON


def content(**lists):
    return {"images": [{"id": 1, "file_name": "1.png", "height": 30, "width": 40}],
            "annotations": [annotation(1, 1, [1, 1, 5, 5])], "categories": [{"id": 1, "name": "cat"}], **lists}


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"images": ' + "9" * 5000 + "}", '{"images": 1e999}', "[]",
                                  "\0"])
def test_hostile_json_is_one_line(tmp_path, message, text):
    draw(tmp_path / "1.png")
    path = tmp_path / "a.json"
    path.write_text(text)
    assert message(read_annotations, "coco", tmp_path, path).startswith(f"{path}")
    assert message(read_annotations, "labelme", tmp_path, tmp_path).startswith(f"{tmp_path}: holds no LabelMe file: {path}: ")
    for call in (lambda: clean_ground_truth(path), *[lambda: read_results(path, "bbox")] * (text != "[]")):
        with pytest.raises(InputError) as caught:
            call()
        assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("value", ["@DEEP", "@LONG"])
def test_each_value_may_be_nested_or_long(tmp_path, value):
    """No value makes a check, a conversion or scoring end in a traceback, and messages stay short."""
    image, item = content()["images"][0], content()["annotations"][0]
    paths = coco_set(tmp_path, [], images=1)
    cases = [*({"images": [image, {**image, "id": 2, "file_name": "x", key: value}]} for key in image),
             *({"annotations": [item, {**item, key: value}]} for key in (*item, "segmentation", "area", "difficult")),
             {"annotations": [item, {**item, "bbox": [1, value, 5, 5]}]}, {"annotations": [item, value]},
             *({"categories": [content()["categories"][0], {"id": 2, "name": "x", key: value}]} for key in ("id", "name"))]
    for case in cases:
        paths[1].write_text(json.dumps(content(**case)).replace('"@DEEP"', DEEP).replace('"@LONG"', "9" * 4000))
        for masks in (False, True):
            try:
                problems = read_annotations("coco", *paths)[2]
                convert("coco", *paths, tmp_path / "out", progress=False, masks=masks)
                ground_truth = read_ground_truth("coco", *paths)
                coco_ap(ground_truth, [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "score": 0.5}])
            except (DataError, InputError) as error:
                problems = [error]
            assert all(len(str(problem)) < 600 + len(str(tmp_path)) for problem in problems), case


def test_many_categories_and_long_names_are_fast(tmp_path):
    """This takes a second. It once took minutes, or all the memory."""
    categories = [{"id": number, "name": f"c{number // 2}"} for number in range(100_000)]
    found = read_content("x", content(categories=categories, annotations=[]))
    assert len(found.categories) == 50_000
    with pytest.raises(InputError, match=f"has 50000 categories, but at most {MOST_CATEGORIES} can be scored"):
        clean_ground_truth(content(categories=categories, annotations=[]))
    classes = ["background", *(f"c{number}" for number in range(100_000))]
    with pytest.raises(DataError, match="'c7' is given twice"):
        read_annotations("coco", ".", __file__, [*classes, "c7"])
    names = [{"id": 1, "name": "cat"}, {"id": 2, "name": "x" * 10**6}]
    annotations = [annotation(number, 1, [1, 1, 5, 5], 1 + (number > 0)) for number in range(5000)]
    paths = coco_set(tmp_path, [], images=1)
    paths[1].write_text(json.dumps(content(categories=names, annotations=annotations)))
    problems = read_annotations("coco", *paths, ["background", "cat"])[2]
    assert len(problems) == 4999 and max(len(problem.what) + len(problem.kind) for problem in problems) < 500
    assert len(circle_points((0, 0), 1e9)) == MOST_POINTS


# --------------------------------------------------------------------------------------------------------------- results


RLE = {"size": [30, 40], "counts": mask_utils.encode(np.zeros((30, 40), np.uint8, order="F"))["counts"].decode()}


@pytest.mark.parametrize(("rle", "expected"), [
    ({"size": [0, 0], "counts": "0"}, "size: expected [height, width]"),
    ({"size": "ab", "counts": "0"}, "size: expected [height, width]"),
    ({"size": [30, 2**40], "counts": "0"}, "size: expected [height, width]"), ({**RLE, "counts": "oooo"}, "truncated"),
    ({**RLE, "counts": "\u00e9"}, "not written by pycocotools"), ({**RLE, "counts": ""}, "empty"),
    ({**RLE, "counts": "oooo0"}, "do not fit into 40x30 pixels")])
def test_masks_of_results_are_checked_before_they_are_decoded(rle, expected):
    """pycocotools divides by a height of 0, and reads past the end of truncated counts."""
    for kind in ("bbox", "segm"):
        with pytest.raises(InputError, match="detections: result 1: segmentation: ") as caught:
            read_results([{"image_id": 1, "category_id": 1, "score": 0.5, "segmentation": item} for item in (RLE, rle)], kind)
        assert expected in str(caught.value)


LINE = {"file_name": "a.jpg", "image_info": [64, 64, 1, 1, 64, 64], "boxes": [[1, 1, 9, 9]], "scores": [0.5], "labels": [1]}


@pytest.mark.parametrize(("change", "expected"), [
    ({"labels": [1.5]}, "labels: expected integers, got [1.5]"), ({"labels": [True]}, "labels: expected integers"),
    ({"labels": ["1"]}, "labels: expected integers"), ({"labels": [7]}, "label 7"), ({"labels": [2**70]}, "OverflowError"),
    ({"labels": []}, "differ in length"), ({"scores": ["0.5"]}, "scores: expected 1 finite numbers"),
    ({"boxes": [[1, 1, 9]]}, "boxes: expected 4"), ({"boxes": [[1, 1, 9, float("nan")]]}, "boxes: expected 4"),
    ({"image_info": [0] * 6}, "image_info: expected positive sizes"), ({"image_info": [1] * 5}, "image_info: expected 6"),
    ({"masks": [5]}, "masks: expected a list of strings"), ({"masks": []}, "differ in length"),
    ({"file_name": ["a.jpg"]}, "TypeError"),
    ({"file_name": "b.jpg"}, "b.jpg is given twice, first in line 1"), ({"scores": 5}, "TypeError")])
def test_postprocess_refuses_malformed_lines(tmp_path, change, expected):
    path = tmp_path / "results.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in ({**LINE, "file_name": "b.jpg"}, {**LINE, **change})))
    categories = [{"id": 5, "name": "cat", "label": 1}]
    with pytest.raises(InputError) as caught:
        read_program(path, categories, {"a.jpg": 1, "b.jpg": 2})
    assert str(caught.value).startswith(f"{path}: line 2: not a line of the program's results (") and expected in str(caught.value)
    path.write_text("\n".join([json.dumps(LINE), "[" * 100_000]))
    with pytest.raises(InputError, match="line 2: not a line of the program's results .RecursionError"):
        read_program(path, categories, {"a.jpg": 1})
    path.write_text(json.dumps(LINE))
    assert len(read_program(path, categories, {"a.jpg": 1})) == 1
