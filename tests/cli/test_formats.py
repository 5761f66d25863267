"""Train, evaluate and infer with each model on a folder in YOLO's and one in LabelMe's format, with three commands.

Toy networks find the quarters of an image, as labels 1, 2, 3, 1, with the left halves as masks. The annotations are just these.
"""
import json

import cv2
import numpy as np
import pytest

from tests.toy_data import SIZES, export_toy, quarters

NAMES = ("cat", "dog", "bird", "cat")       # per quarter
LABELME_NAMES = ("ant", "bee", "cow", "ant")     # sorted, because a LabelMe set numbers its classes by name
HEIGHTS = {"faster_rcnn": 96, "mask_rcnn": 96, "refinedet": 128}


def outline(x, y, width, height) -> list:
    """Return the left half of a box, plus a sliver to its right side that makes the whole box the bounding box."""
    return [[x, y], [x + width, y], [x + width / 2, y + 1], [x + width / 2, y + height], [x, y + height]]


def write_images(folder, count: int):
    """Write noise images; return [(path, height, width)]."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        height, width = SIZES[number % len(SIZES)]
        found.append((folder / f"image {number}.png", height, width))
        cv2.imwrite(str(found[-1][0]), rng.integers(0, 255, (height, width, 3), np.uint8))
    return found


@pytest.fixture(scope="session")
def yolo(tmp_path_factory):
    """(flags, images to infer on, class names, number of images to evaluate)."""
    root = tmp_path_factory.mktemp("a yolo set")
    for name in ("train", "val"):
        (root / "labels" / name).mkdir(parents=True)
        for path, height, width in write_images(root / "images" / name, 3):
            lines = [f"{('cat', 'dog', 'bird').index(label)} " + " ".join(f"{x / width} {y / height}" for x, y in outline(*box))
                     for label, box in zip(NAMES, quarters(height, width))]
            (root / "labels" / name / f"{path.stem}.txt").write_text("\n".join(lines))
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: {0: cat, 1: dog, 2: bird}\n")
    return ["--dataset=yolo", f"--anno_path={root / 'data.yaml'}"], root / "images" / "val", ["cat", "dog", "bird"], 3


@pytest.fixture(scope="session")
def labelme(tmp_path_factory):
    """The same as `yolo` in LabelMe's format."""
    root = tmp_path_factory.mktemp("a labelme set") / "set"
    for path, height, width in write_images(root, 6):
        shapes = [{"label": label, "points": outline(*box), "group_id": None, "shape_type": "polygon"}
                  for label, box in zip(LABELME_NAMES, quarters(height, width))]
        path.with_suffix(".json").write_text(json.dumps({
            "version": "5.5.0", "shapes": shapes, "imagePath": path.name, "imageData": None, "imageHeight": height,
            "imageWidth": width}))
    return ["--dataset=labelme", f"--anno_path={root}", "--val_ratio=0.4"], root, ["ant", "bee", "cow"], 2


@pytest.fixture(scope="module", params=HEIGHTS)
def model(request, tmp_path_factory):
    """(model name, folder with toy.mindir)."""
    from tests import toy_network

    kinds = {"faster_rcnn": "ToyDetector", "mask_rcnn": "ToyMaskDetector", "refinedet": "ToyOneStage"}
    net = getattr(toy_network, kinds[request.param])(4)
    return request.param, export_toy(net, tmp_path_factory.mktemp("export"), tmp_path_factory.mktemp("toy net"),
                                     HEIGHTS[request.param])


@pytest.mark.parametrize("kind", ["yolo", "labelme"])
def test_three_commands(request, model, kind, run_command, repo_dir, tmp_path):
    flags, images, classes, count = request.getfixturevalue(kind)
    name, export = model
    out = tmp_path / "out put"

    def call(script, *more):
        done = run_command(["python", repo_dir / script, *more], cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    trained = call("tests/toy_train.py", f"--toy_model={name}", *flags, f"--img_height={HEIGHTS[name]}", "--img_width=128",
                   "--num_gts=8", "--batch_size=2", "--epoch_size=1", "--num_parallel_workers=1", "--device_target=CPU",
                   "--eval_start_epoch=1", f"--output_path={out}")
    assert f"classes of the data: {', '.join(classes)}" in trained.stderr
    assert "warmup_step: 500 is more than a tenth of the run's 2 steps: shortened to 0" in trained.stderr
    row = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()][-1]
    assert row["kind"] == "eval" and row["images"] == count and row["AP"] == pytest.approx(1)

    more = [f"--config_path={out / 'config.yaml'}", f"--mindir_path={export / 'toy.mindir'}"]
    call(f"{name}/eval.py", *more, f"--output_path={tmp_path / 'eval'}")
    metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert metrics["bbox"]["AP"] == pytest.approx(1) and list(metrics["per_class"]) == classes
    if name == "mask_rcnn":
        assert metrics["segm"]["AP50"] == pytest.approx(1) and row["segm"]["AP50"] == pytest.approx(1)

    done = call(f"{name}/infer.py", *more, f"--input={images}", f"--output_path={tmp_path / 'infer'}", "--score_thr=0",
                "--draw=False")
    found = json.loads((tmp_path / "infer" / "detections.json").read_text())
    total = len(list(images.glob("*.png")))
    assert len(found) == 4 * total and f"{2 * total} {classes[0]}" in done.stdout
    assert ("segmentation" in found[0]) == (name == "mask_rcnn")
