"""A new augmentation takes a function in one file and its name in one list. The example is tests/examples/vertical_flip.py."""
import functools
import importlib
import re
import shutil

import numpy as np
import pytest

from tests.example_records import batches, make_row

OVERRIDES = {"img_height": 64, "img_width": 128, "num_gts": 4, "seed": 3, "photo_ratio": 0.5, "expand_ratio": 1.0,
             "expand_factor": 2.0}
NAME = "vertical_flip"


@pytest.fixture(params=["faster_rcnn", "mask_rcnn", "refinedet"])
def trees(request, repo_dir, tmp_path, monkeypatch):
    """[importer of the model, importer of a copy with the function]. Each takes a module's path below src."""
    copy = tmp_path / f"extended_{request.param}"
    shutil.copytree(repo_dir / request.param, copy, ignore=shutil.ignore_patterns("__pycache__", "*.ckpt"))
    text = (repo_dir / "tests" / "examples" / f"{NAME}.py").read_text(encoding="utf-8")
    function = text[text.index("@augmentation"):]
    assert function.count("\n") <= 15
    with open(copy / "src" / "model_utils" / "data" / "augmentation.py", "a", encoding="utf-8") as file:
        file.write(f"\n\n{function}")
    settings = copy / "default_config.yaml"
    changed, count = re.subn(r"^(augmentations: \[.*)\]$", rf"\1, {NAME}]", settings.read_text(encoding="utf-8"), flags=re.M)
    assert count == 1
    settings.write_text(changed, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    return [lambda path, name=name: importlib.import_module(f"{name}.src.{path}") for name in (request.param, copy.name)]


def transforms(trees) -> list:
    """Return the model's TrainTransform without and with the function."""
    return [tree("dataset").build_train_transform(tree("model_utils.config").load_config(overrides=OVERRIDES)) for tree in trees]


def test_new_augmentation_is_known_and_does_not_change_other_draws(trees):
    before, after = transforms(trees)
    assert [*after.augmenter.steps] == [*before.augmenter.steps, NAME]
    upside_down = []
    for index in range(40):
        stream = functools.partial(trees[0]("model_utils.data.augmentation").random_stream, 3, 1, index)
        boxes = make_row(0)["boxes"]
        plan, extended = (vars(one.augmenter.plan((30, 52), boxes, stream)) for one in (before, after))
        upside_down.append(extended.pop("flip_y"))
        assert not plan.pop("flip_y")
        plan["recolour"], extended["recolour"] = ([change.keywords for change in drawn["recolour"]] for drawn in (plan, extended))
        np.testing.assert_array_equal(plan.pop("boxes"), extended.pop("boxes"))
        assert plan == extended
    assert 8 < sum(upside_down) < 32


def test_images_boxes_and_outlines_are_mirrored(trees):
    """The rows equal those of the original model, mirrored by hand."""
    before, after = transforms(trees)
    outline, mirrored = np.array([[3.0, 4.0], [20.0, 9.0]]), 0
    for index in range(20):
        row = make_row(index, objects=3)
        record = [np.array([row["image"]]), *(row[name] for name in before.RECORD[1:7])]
        (columns, chosen, placed), (new_columns, new_chosen, new_placed) = (one.load(1, *record) for one in (before, after))
        image, info, boxes, labels, valid = columns
        height, width = info[:2].astype(int)
        points = placed.points(outline)
        if not np.array_equal(image, new_columns[0]):
            image[:, :height] = image[:, :height][:, ::-1]
            boxes[valid] = (boxes[valid] * (1, -1, 1, -1) + (0, height, 0, height))[:, [0, 3, 2, 1]]
            points = points * (1, -1) + (0, height)
            mirrored += 1
        np.testing.assert_array_equal(new_columns[0], image)
        np.testing.assert_allclose(new_columns[2], boxes, atol=1e-4)
        np.testing.assert_allclose(new_placed.points(outline), points, atol=1e-9)
        for column, same in zip((*new_columns[1:2], *new_columns[3:], new_chosen), (info, labels, valid, chosen)):
            np.testing.assert_array_equal(column, same)
    assert 4 < mirrored < 16


def test_batches_hold_mirrored_images(trees, files):
    """Loader threads read the batches from MindRecord files, which have no masks here."""
    before, after = transforms(trees)
    loading = trees[0]("model_utils.data.loading")
    old, new = (batches(files, loading.TrainTransform(before.preprocess, one.augmenter, 4, 3)) for one in (before, after))
    changed = [not np.array_equal(image, other) for batch, other_batch in zip(old, new)
               for image, other in zip(batch[0], other_batch[0])]
    assert any(changed) and not all(changed)
    assert [batch[-1].tolist() for batch in old] == [batch[-1].tolist() for batch in new]


def test_it_can_be_named_and_left_out_on_the_command_line(trees, message):
    configs = [tree("model_utils.config") for tree in trees]
    assert configs[1].parse_config([f"--augmentations=flip,{NAME}"]).augmentations == ("flip", NAME)
    assert NAME not in configs[1].parse_config(["--augmentations=flip"]).augmentations
    assert f"got '{NAME}'" in message(configs[0].load_config, overrides={"augmentations": [NAME]})
    assert message(configs[1].load_config, overrides={"augmentations": ["vertical-flip"]}).endswith(f"did you mean {NAME}?")
