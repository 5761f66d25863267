"""Image files from public bug reports, in $CASES_DIR: check.py, conversion, training, evaluation and inference agree on them."""
import json

import numpy as np
import pytest

from faster_rcnn.src.model_utils.data.augmentation import Augmenter
from faster_rcnn.src.model_utils.data.loading import EvalBatches, TrainTransform, create_dataset, iterate
from faster_rcnn.src.model_utils.data.transforms import InputSize, Preprocess
from faster_rcnn.src.model_utils.inference.media import open_input
from utils.mindrecord import convert, mindrecord_files

PLAIN = Preprocess(InputSize(96, 96), (0,) * 3, (1,) * 3)
# Case -> (exit status of check.py, texts in its output).
KINDS = {
    "fmt_gif": (0, ["problems: none"]), "fmt_avif": (0, ["problems: none"]), "fmt_tga": (0, ["problems: none"]),
    "fmt_pcx": (0, ["problems: none"]), "exif6": (0, ["a.jpg: EXIF orientation 6", "that of the turned image", "problems: none"]),
    "fmt_huge": (1, ["annotated as 96x64, the image has 16000x12000", "problems: 1"]),
    "fmt_png16": (1, ["uses only 12 bits", "multiply the values of all images by 16", "problems: 1"]),
}


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.slow) if name == "fmt_huge" else name for name in KINDS])
def case(request, case_file):
    """(name, image folder, annotation file)"""
    folder = case_file(request.param)
    return request.param, folder / "images", folder / "a.json"


def test_check_says_what_a_user_needs(case, run_command, repo_dir):
    name, image_dir, path = case
    status, texts = KINDS[name]
    run = run_command(["python", repo_dir / "utils" / "mindrecord" / "check.py", "--source=coco", f"--image_dir={image_dir}",
                       f"--anno_path={path}"])
    assert run.returncode == status and "Traceback" not in run.stderr
    for text in texts:
        assert text in run.stdout
    assert "images: 1 usable of 1" in run.stdout and "objects: 2," in run.stdout


def test_training_evaluation_and_inference_read_it(case, tmp_path):
    """All of them read the same pixels in the same orientation."""
    _, image_dir, path = case
    convert("coco", image_dir, path, tmp_path / "out", progress=False)
    files = mindrecord_files(tmp_path / "out")
    (evaluated,) = EvalBatches(files, 1, PLAIN)
    transform = TrainTransform(PLAIN, Augmenter(), num_gts=4, seed=1)
    ((trained, _, boxes, _, valid, _),) = iterate(create_dataset(files, 1, transform, 1, epoch=1), output_numpy=True)
    (frame,) = open_input(image_dir, tmp_path)
    inferred = PLAIN(frame.image)
    for image in (evaluated.image[0], trained[0]):
        np.testing.assert_array_equal(image, inferred.image)
    np.testing.assert_array_equal(evaluated.image_info[0], inferred.info)
    assert valid.sum() == 2 and (boxes[0, :2, 2:] > boxes[0, :2, :2]).all()


def test_boxes_of_a_phone_image_lie_on_its_objects(case_file, tmp_path):
    """The boxes lie on the red and the blue square."""
    folder = case_file("exif6")
    (frame,) = open_input(folder / "images", tmp_path)
    assert frame.image.shape[:2] == (96, 64)
    annotations = json.loads((folder / "a.json").read_text())["annotations"]
    for colour, annotation in zip((2, 0), annotations):     # channels are blue, green, red
        x, y, width, height = annotation["bbox"]
        inside = frame.image[y + 3:y + height - 3, x + 3:x + width - 3].reshape(-1, 3).mean(0)
        assert inside.argmax() == colour and inside[colour] > 128
