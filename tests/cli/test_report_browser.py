"""report.html, curves.html and the page of check.py in a browser: no errors, and each control changes what is drawn."""
import json
import re
import shutil

import numpy as np
import pytest

FACES = ["mask_weared_incorrect", "with_mask", "without_mask"]
CHROMIUM = shutil.which("chromium")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")]
HOSTILE = ["</script><script>document.title='run'</script>", "\"'><img src=x onerror=document.title='run'>", "lone \udc80",
           "esc \x1b[2J\x00", "{{ 7 * 7 }}", "猫 \u2028 <!-- & ${1}"]


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def show(browser):
    """show(path, width=1280, scheme="light") -> the page. At teardown, no page may have logged, failed or used the network."""
    problems, pages = [], []

    def show(path, width: int = 1280, scheme: str = "light"):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.set_default_timeout(10_000)
        pages.append(page)
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: request.url.startswith(("file:", "data:")) or problems.append(request.url))
        page.goto(path.as_uri())
        return page

    yield show
    for page in pages:
        page.close()
    assert problems == []


def near(coco: dict, masks: bool) -> list:
    """Return detections near the objects of COCO ground truth: most right, some of another class, moved, repeated or missing."""
    from pycocotools import mask as mask_utils

    rng, results = np.random.default_rng(3), []
    categories = [item["id"] for item in coco["categories"]]
    for item in coco["annotations"]:
        for _ in range(int(rng.choice([0, 1, 1, 2]))):
            x, y, width, height = item["bbox"]
            move = rng.normal(0, rng.choice([0.02, 0.3]), 2) * (width, height)
            category = item["category_id"] if rng.random() < 0.8 else int(rng.choice(categories))
            result = {"image_id": item["image_id"], "category_id": category, "score": round(float(rng.random()), 3),
                      "bbox": [x + move[0], y + move[1], width, height]}
            if masks:
                mask = mask_utils.decode(item["segmentation"])
                shifted = np.asfortranarray(np.roll(mask, tuple(move.astype(int).tolist()), (1, 0)))
                result["segmentation"] = {**mask_utils.encode(shifted), "counts": mask_utils.encode(shifted)["counts"].decode()}
            results.append(result)
    return results


@pytest.fixture(scope="module")
def pages(tmp_path_factory, data_dir, repo_dir):
    """{model: report.html of eval.py} for two validation sets: FaceMask from XML files, Penn-Fudan with masks."""
    from tests.commands import run
    from utils.mindrecord import read_ground_truth

    face, people = data_dir / "facemask", data_dir / "pennfudan"
    coco = json.loads((people / "annotations" / "instances_val2017.json").read_text())
    val = str(face / "ImageSets" / "Main" / "val.txt")
    faces = read_ground_truth("voc", face / "images", face / "annotations", ["background", *FACES], val)
    sets = {"mask_rcnn": (near(coco, True), [f"--coco_root={people}", "--num_classes=2", "--coco_classes=[background, person]"]),
            "faster_rcnn": (near(faces, False), [
                "--dataset=voc", f"--image_dir={face / 'images'}", f"--anno_path={face / 'annotations'}", f"--image_set={val}",
                "--num_classes=4", f"--coco_classes=[background, {', '.join(FACES)}]"])}
    written = {}
    for model, (results, flags) in sets.items():
        folder = tmp_path_factory.mktemp(f"{model} report")
        (folder / "found.json").write_text(json.dumps(results))
        result = run(["python", repo_dir / model / "eval.py", f"--detections={folder / 'found.json'}", f"--output_path={folder}",
                      *flags], cwd=folder)
        assert result.returncode == 0, result.stderr
        assert "not drawn" not in result.stderr
        written[model] = folder / "report.html"
    return written


def column(page, number: int) -> list:
    return page.eval_on_selector_all(f"#classes tbody td:nth-child({number})", "cells => cells.map(cell => cell.textContent)")


def test_the_selection_is_drawn(show, pages):
    page = show(pages["faster_rcnn"])
    found, shown = page.locator("#examples .found"), page.locator("#examples article")
    assert found.count() and page.locator("#examples image").first.get_attribute("href").startswith("data:image/jpeg;base64,")
    slider = page.get_by_role("slider", name="Score from")
    slider.focus()
    page.keyboard.press("End")
    few, at_score = found.count(), page.locator("#at-score").text_content()
    assert page.locator("#score-shown").text_content() == "0.95"
    page.keyboard.press("Home")
    assert page.locator("#score-shown").text_content() == "0.00" and found.count() > few
    assert page.locator("#at-score").text_content() != at_score
    # Only examples with the selected class and error type are shown.
    for kind in ("class", "location", "duplicate", "missed"):
        page.get_by_label("Error type").select_option(kind)
        assert 0 < shown.count() <= 6
    page.get_by_label("Error type").select_option("")
    page.get_by_label("Class", exact=True).select_option("without_mask")
    assert page.locator("#pr-title").text_content() == "without_mask"
    assert all("without_mask" in text for text in shown.all_text_contents())
    page.get_by_role("button", name="Show more").click()
    assert shown.count() > 6


def test_tables(show, pages):
    page = show(pages["faster_rcnn"])
    heads = page.locator("#classes thead button")
    heads.nth(6).focus()
    page.keyboard.press("Enter")
    assert page.locator("#classes thead th").nth(6).get_attribute("aria-sort") == "descending"
    assert [int(text) for text in column(page, 7)] == sorted(map(int, column(page, 7)), reverse=True)
    page.keyboard.press("Enter")        # the button keeps the focus
    assert [int(text) for text in column(page, 7)] == sorted(map(int, column(page, 7)))
    heads.nth(0).click()
    assert column(page, 1) == sorted(column(page, 1)) == ["mask_weared_incorrect", "with_mask", "without_mask"]
    page.get_by_role("button", name="with_mask", exact=True).click()
    assert page.get_by_label("Class", exact=True).input_value() != "-1"
    matrix = page.locator("#confusion tbody td").all_text_contents()
    assert len(matrix) == 16
    page.get_by_label("IoU", exact=True).select_option("0.90")
    assert page.locator("#confusion tbody td").all_text_contents() != matrix
    kinds = page.locator("#tide .bar").all_text_contents()
    assert len(kinds) == 6 and all(re.search(r"\+\d+\.\d", text) for text in kinds)
    page.locator("#tide .bar").nth(0).click()
    assert page.get_by_label("Error type").input_value() == "class"


def test_masks_are_drawn_as_outlines(show, pages):
    page = show(pages["mask_rcnn"])
    assert page.locator("#examples .object path").count() == 0 < page.locator("#examples .object rect").count()
    boxes = page.locator("#figures").text_content()
    page.get_by_label("Masks").check()
    assert page.locator("#examples .object path").count() and page.locator("#examples .found path").count()
    assert page.locator("#figures").text_content() != boxes


def grounds(show, path) -> set:
    """Check that a page, narrow and wide, light and dark, does not scroll sideways; return its background colours."""
    colours = set()
    for width, scheme in ((390, "light"), (1280, "dark"), (1280, "light")):
        page = show(path, width, scheme)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        colours.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    return colours


def test_narrow_and_wide_light_and_dark(show, pages):
    for path in pages.values():
        assert len(grounds(show, path)) == 2


def test_everything_is_reached_by_keys(show, pages):
    page, seen = show(pages["mask_rcnn"]), []
    for _ in range(24):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.className || document.activeElement.name"
                                  " || document.activeElement.textContent"))
    assert {"skip", "kind", "score", "class", "error", "bar", "AP50", "iou"} <= set(seen)


def test_hostile_names_are_text(show, tmp_path):
    from tests.unit.test_report_errors import ground_truth, result, scored
    from utils.report.evaluation import write_evaluation

    coco = ground_truth([(1, 4, [10, 10, 40, 40], 0), (2, 9, [10, 10, 40, 40], 0)], classes=(4, 9, 2, 5, 6, 7))
    for item, name in zip(coco["categories"], HOSTILE):
        item["name"] = name
    for item, name in zip(coco["images"], HOSTILE):
        item["file_name"] = name
    path = tmp_path / "a #?% page.html"
    found = scored(coco, [result(1, 4, [10, 10, 40, 40], 0.9)])
    write_evaluation(path, HOSTILE[0], [found], {"file": HOSTILE[1]}, HOSTILE, tmp_path)
    page = show(path)
    assert page.title() == HOSTILE[0] == page.locator("h1").text_content()
    shown = [name.replace("\udc80", r"\udc80").replace("\x1b", r"\x1b").replace("\x00", r"\x00").replace("\u2028", r"\u2028")
             for name in HOSTILE]
    assert sorted(column(page, 1)) == sorted(shown)
    assert page.locator("#examples h3").all_text_contents()[0].startswith(shown[1])
    assert page.locator(".notes li").all_text_contents() == shown
    assert page.locator("img").count() == 0 == page.evaluate("document.querySelectorAll('main script').length")


def test_a_page_of_many_images_stays_small(tmp_path):
    """The page holds only the images that it shows."""
    from tests.unit.test_report_errors import random_set, scored
    from utils.report.evaluation import write_evaluation

    coco, results = random_set(0)
    coco["images"] += [{"id": i, "height": 400, "width": 400, "file_name": f"{i}.jpg"} for i in range(10, 3000)]
    write_evaluation(tmp_path / "page.html", "many", [scored(coco, results)], {})
    page = (tmp_path / "page.html").read_text()
    assert len(page) < 200_000 and "2999.jpg" not in page


def test_curves_of_a_run(show, tmp_path):
    from mask_rcnn.src.model_utils.evaluation.html_report import write_training

    rows = [{"kind": "train", "step": step, "epoch": 1 + step // 500, "lr": 0.01, "rpn_loss": 9, "rpn_cls_loss": 1 / step,
             "total_loss": 2 / step, "images_per_s": None if step == 1 else 3.5} for step in range(1, 1001)]
    rows += [{"kind": "eval", "step": step, "epoch": step // 500, "AP": step / 2000, "AP50": 0.5, "segm": {"AP": 1 / step},
              "val_total_loss": 1.5, "seconds": 4} for step in (500, 1000)]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows) + '{"kind": "tra')
    path = tmp_path / "curves.html"
    write_training(tmp_path / "metrics.jsonl", path, running=True)
    assert '<meta http-equiv="refresh" content="30">' in path.read_text() and path.stat().st_size < 100_000
    write_training(tmp_path / "metrics.jsonl", path, running=False)
    assert len(grounds(show, path)) == 2
    page = show(path)
    assert page.locator("h2").all_text_contents() == [
        "Losses", "Average precision", "Learning rate", "Images per second", "Evaluations"]
    keys = page.locator("#charts section").first.locator(".keys li").all_text_contents()
    assert keys == ["total loss0.002", "val total loss1.5", "rpn cls loss0.001"]        # rpn_loss is a sum, so it is omitted
    assert page.locator("#charts path").count() == 8
    cards = page.locator(".card").all_text_contents()
    assert {"total loss0.002", "validation loss1.5", "AP0.5", "mask AP0.001", "best mask AP0.002"} <= set(cards)
    assert page.locator("tbody tr").all_text_contents() == ["210000.5000.5000.001", "15000.2500.5000.002"]
    page.get_by_role("button", name="step").click()
    assert page.locator("tbody tr").first.text_content().startswith("1500")


def test_page_of_a_data_set(show, tmp_path, monkeypatch, capsys):
    import cv2

    from tests.unit.mindrecord_samples import annotation, coco_set
    from utils.mindrecord.cli import check_main

    boxes = [annotation(1, 1, [2, 3, 20, 11]), annotation(2, 2, [2, 3, 8, 11], 3), annotation(3, 1, [5, 5, 0, 4], 3)]
    images, annotations = coco_set(tmp_path / "set", boxes)
    content = json.loads(annotations.read_text())
    content["categories"][0]["name"] = HOSTILE[0]       # label 2
    annotations.write_text(json.dumps(content))
    path = tmp_path / "new folder" / "check.html"
    monkeypatch.setattr(cv2, "setLogLevel", lambda level: None)
    assert check_main(["--source=coco", f"--image_dir={images}", f"--anno_path={annotations}", f"--report={path}"]) == 1
    assert f"written: {path}\n" in capsys.readouterr().out
    assert len(grounds(show, path)) == 2
    page = show(path)
    drawn = page.locator("#images .object")
    assert drawn.count() == 2 and page.locator("#images image").first.get_attribute("href").startswith("data:image/jpeg;base64,")
    assert page.title() == "Data set" and page.locator("tbody tr").count() == len(content["categories"])
    page.get_by_label("Class", exact=True).select_option("1")
    assert drawn.count() == 1 and HOSTILE[0] in drawn.first.text_content()
    page.get_by_label("Kind of problem").select_option("box without area")
    (listed,) = page.locator("#problems li").all_text_contents()
    assert listed.startswith(str(annotations)) and "annotation 3: " in listed
