"""docs/tutorial.ipynb: its cells run on fewer images, with a toy network in place of the detector."""
import json
import re

import cv2
import pytest

# Replacements that shorten the run.
FEWER = {'IMAGES = {"train": 200, "val": 40}': 'IMAGES = {"train": 8, "val": 4}', "EPOCHS = 10": "EPOCHS = 1",
         'sys.path.append("..")': "pass"}


@pytest.fixture(scope="module")
def notebook(repo_dir):
    return json.loads((repo_dir / "docs" / "tutorial.ipynb").read_text(encoding="utf-8"))


def test_its_cells_run(notebook, toy_interface, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    text = "\n".join(cells)
    for old, new in FEWER.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    exec(compile(text.replace("score_thr=0.5", "score_thr=0"), "tutorial.ipynb", "exec"), {"__name__": "__main__"})
    output = tmp_path / "tutorial_output"
    assert {path.name for path in (output / "drawn").iterdir()} == {f"{i}.png" for i in range(1, 5)}
    assert cv2.imread(str(output / "drawn" / "1.png")).shape == (128, 128, 3)
    assert (output / "shapes.onnx").is_file() and (output / "scores" / "metrics.json").is_file()
    printed = capsys.readouterr().out
    assert "{'train': 8, 'val': 4}" in printed and re.search(r"^AP \d\.\d{3}; weights: best\.ckpt$", printed, re.M)


def test_its_outputs_are_those_of_a_whole_run(notebook):
    """The cells ran in order without an error and show images of curves and detections. The file is small."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not any(output["output_type"] == "error" for output in outputs)
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert len(json.dumps(notebook)) < 500_000
    assert (notebook["nbformat"], notebook["metadata"]["kernelspec"]["name"]) == (4, "python3")
