"""Inputs from public bug reports, in $CASES_DIR: checkpoints as trainings save them, and another `utils` on the path."""
from pathlib import Path

import numpy as np
import pytest

from faster_rcnn.src.model_utils.weights.reader import read_checkpoint

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def converted(run_command, case_file, tmp_path):
    """converted(name, *options) -> (stdout of convert_checkpoint, arrays of the file that it wrote)."""
    def convert(name, *options):
        output = tmp_path / "o.ckpt"
        done = run_command(["python", "-m", "src.convert_checkpoint", f"--ckpt_file={case_file('ckpt') / name}",
                            f"--output_file={output}", *options], cwd=ROOT / "faster_rcnn")
        assert done.returncode == 0, done.stderr
        assert output.with_suffix(".yaml").is_file()
        return done.stdout, read_checkpoint(output).arrays

    return convert


@pytest.mark.parametrize(("name", "line"), [
    ("tv_references.pth", "left out: entries that are not tensors (optimizer, lr_scheduler, args and 1 more)"),
    ("tv_lightning.ckpt", "names: prefix 'model.' removed"),
    ("tv_references_ema.pth", "weights: model; --weights=model_ema takes the averaged ones"),
])
def test_checkpoints_of_trainings(converted, case_file, name, line):
    output, arrays = converted(name)
    assert line in output.splitlines() and "used: 295 parameters" in output
    theirs = read_checkpoint(case_file("ckpt") / name).arrays
    np.testing.assert_array_equal(arrays["rcnn.fcs.0.weight"], theirs["roi_heads.box_head.fc6.weight"])


def test_averaged_weights_can_be_chosen(converted, case_file):
    output, averaged = converted("tv_references_ema.pth", "--weights=model_ema")
    assert "weights: model_ema, chosen by --weights" in output and "unknown to this network" not in output
    theirs = read_checkpoint(case_file("ckpt") / "tv_references_ema.pth", "model_ema").arrays
    np.testing.assert_array_equal(averaged["rcnn.fcs.0.weight"], theirs["roi_heads.box_head.fc6.weight"])


@pytest.mark.parametrize("model", ["faster_rcnn", "mask_rcnn", "refinedet"])
def test_another_utils_on_the_path(run_command, case_file, tmp_path, one_line, model):
    """The run converts the data, with utils/, before it finds the wrong key."""
    done = run_command(["python", "train.py", "--num_classes=3", "--coco_classes=[background, red, blue]",
                        f"--image_dir={case_file('base') / 'images'}", f"--anno_path={case_file('base') / 'a.json'}",
                        "--val_anno_path=nowhere", f"--output_path={tmp_path}"],
                       cwd=ROOT / model, env={"PYTHONPATH": case_file("pythonpath")})
    assert "anno_path: no such file: nowhere" in one_line(done, "train.py")
    assert (tmp_path / "mindrecord" / f"train{'_masks' if model == 'mask_rcnn' else ''}" / "manifest.json").is_file()
