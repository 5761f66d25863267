"""The ten-line example of the READMEs as a user's program, run outside the repository with weight files."""
import json
from pathlib import Path

import numpy as np
from pycocotools import mask as mask_utils

SCORE = 0.35
CODE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from {model} import Detector
from pycocotools import mask as mask_utils

for weights in sys.argv[3:]:
    detector = Detector(weights)
    results = []
    for found in detector(sys.argv[2], score_thr={score}):
        print(found.name, found.names, found.scores, found.boxes)
        found.draw().save("drawn/")
        items = [{{"file_name": found.name, "name": name, "score": score, "box": box}} for name, score, box in
                 zip(found.names, found.scores.tolist(), found.boxes.tolist())]
        if "{model}" == "mask_rcnn":
            assert found.masks.dtype == bool and found.masks.shape == (len(found), *found.image.shape[:2])
            for item, mask in zip(items, found.masks):
                rle = mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))
                item["segmentation"] = {{"size": rle["size"], "counts": rle["counts"].decode()}}
        results += items
    print("RESULTS " + json.dumps(results))
"""


def run_ten_lines(run_command, model: str, folder: Path, images: Path, files: list) -> list:
    """Return the detections with each weight file. Check that each image has a drawing in `folder`."""
    code = CODE.format(model=model, score=SCORE)
    root = Path(__file__).resolve().parents[1]
    done = run_command(["python", "-c", code, root, images, *files], cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "export" not in done.stderr      # the kept graph was found
    assert {path.name for path in (folder / "drawn").iterdir()} == {path.name for path in images.iterdir()}
    return [json.loads(line.removeprefix("RESULTS ")) for line in done.stdout.splitlines() if line.startswith("RESULTS ")]


def assert_same(found: list, results: list, names: list) -> None:
    """Check that `found` equals what infer.py wrote. names: of the classes, background first."""
    assert len(found) == len(results) > 5
    for got, want in zip(found, results):
        x, y, width, height = want["bbox"]
        assert (got["file_name"], got["name"]) == (want["file_name"], names[want["category_id"]])
        np.testing.assert_allclose(got["box"], [x, y, x + width, y + height], atol=0.02)
        np.testing.assert_allclose(got["score"], want["score"], atol=1e-4)
        assert ("segmentation" in got) == ("segmentation" in want)
        if "segmentation" in want:
            masks = [mask_utils.decode(item["segmentation"]) for item in (got, want)]
            assert (masks[0] != masks[1]).mean() < 1e-3
