"""The examples of CONTRIBUTING.md: the text shows the tested code; the backbone and the loss train in a copy of the repository.

test_add_format.py tests the data format, test_add_augmentation.py the augmentation.
"""
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from tests.narrow_network import SMALL, WIDTHS
from tests.toy_data import write_noise

EXAMPLES = ("plain_convnet.py", "plain_convnet.yaml", "csv_format.py", "vertical_flip.py", "logit_loss.patch")
NARROW = {"fpn_in_channels": [8, 16, 32, 64], "img_height": 64, "img_width": 128}


def shown(text: str) -> str:
    """Return the part of an example that CONTRIBUTING.md shows: without the head that only the tests need."""
    return text[text.index("@augmentation"):] if "\n@augmentation" in text else text


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_are_shown_as_they_are_tested(repo_dir, name):
    text = shown((repo_dir / "tests" / "examples" / name).read_text(encoding="utf-8"))
    blocks = re.findall(r"^```\w+\n(.*?)^```$", (repo_dir / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.M | re.S)
    assert text in blocks, f"tests/examples/{name} is not a code block of CONTRIBUTING.md"


@pytest.fixture(scope="module")
def checkout(repo_dir, tmp_path_factory):
    """A copy of the repository with the example backbone and loss added, each as one Python and one YAML file."""
    root = tmp_path_factory.mktemp("check out")
    for name in ("utils", "faster_rcnn"):
        shutil.copytree(repo_dir / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "output", "*.ckpt"))
    examples, network = repo_dir / "tests" / "examples", root / "faster_rcnn" / "src" / "FasterRcnn"
    shutil.copy(examples / "plain_convnet.py", network)
    with open(network / "backbones.yaml", "a", encoding="utf-8") as table:
        table.write((examples / "plain_convnet.yaml").read_text(encoding="utf-8"))
    patch = examples / "logit_loss.patch"
    changed = [line.removeprefix("+++ b/") for line in patch.read_text().splitlines() if line.startswith("+++ ")]
    assert sorted(name.rpartition(".")[2] for name in changed) == ["py", "yaml"]
    # git must find no enclosing repository: it would resolve the paths from its root.
    outside = {**os.environ, "GIT_CEILING_DIRECTORIES": str(root.parent)}
    subprocess.run(["git", "apply", "--whitespace=error", patch], cwd=root, check=True, env=outside)
    return root


def test_a_new_backbone_and_a_new_loss_train(checkout, run_command, tmp_path):
    """train.py logs the new loss and saves the new backbone."""
    of_resnets = ("resnet_in_channels", "resnet_out_channels", "resnet_block")
    keys = {key: value for key, value in {**WIDTHS, **SMALL, **NARROW}.items() if key not in of_resnets}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"backbone": "plain_convnet", **keys, "coco_classes": []}))
    run = run_command(["python", checkout / "faster_rcnn" / "train.py", f"--config_path={tmp_path / 'own.yaml'}", "--max_steps=2",
                       f"--coco_root={write_noise(tmp_path)}", f"--output_path={tmp_path / 'out'}", "--log_interval=1",
                       "--run_eval=False", "--rpn_loss_logit_weight=10"], env={"MS_JIT": "0"})
    assert run.returncode == 0, run.stderr
    line = (tmp_path / "out" / "loss_0.log").read_text().splitlines()[-1]
    losses = {name: float(value) for name, value in re.findall(r"(\w+): (-?[\d.]+)", line)}
    assert losses["rpn_logit_loss"] > 0
    assert losses["rpn_loss"] == pytest.approx(sum(losses[f"rpn_{name}_loss"] for name in ("cls", "reg", "logit")), abs=2e-5)
    config = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert (config["backbone"], config["rpn_loss_logit_weight"], config["frozen_stages"]) == ("plain_convnet", 10.0, 0)
    row = json.loads((tmp_path / "out" / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["rpn_logit_loss"] > 0
    inspect = run_command(["python", "-c", "import sys, mindspore; print(*mindspore.load_checkpoint(sys.argv[1]))",
                           tmp_path / "out" / "checkpoint" / "last.ckpt"])
    assert "backbone.refining.3.weight" in inspect.stdout and "backbone.layer1" not in inspect.stdout


def test_scripts_and_messages_know_the_new_backbone(checkout, run_command):
    script = checkout / "faster_rcnn" / "scripts" / "run_standalone_train_cpu.sh"
    run = run_command(["bash", script, "none", "plain_convnet", checkout], env={"DRY_RUN": 1, "PYTHON": sys.executable})
    assert run.returncode == 0 and "default_config.yaml --backbone=plain_convnet" in run.stdout, run.stderr
    train = ["python", checkout / "faster_rcnn" / "train.py"]
    run = run_command([*train, "--backbone=plain_convnt"])
    assert run.returncode == 2 and ", plain_convnet, got 'plain_convnt', did you mean plain_convnet?" in run.stderr
    run = run_command([*train, "--backbone=plain_convnet", "--resnet_block=[1, 1, 1, 1]"])
    assert run.returncode == 2 and "resnet_block: plain_convnet does not read it: it has no keys of its own" in run.stderr
