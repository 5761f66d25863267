"""Run the shell scripts on the CPU: each model trains for two steps with a narrow network, and its weights are scored.

On two devices the scripts train a toy network; test_ranks.py checks what ranks compute.
"""
import json
import sys

import pytest
import yaml

from tests import commands
from tests.narrow_network import SMALL, WIDTHS
from tests.narrow_refinedet import NARROW

DATA = {"num_classes": 4, "coco_classes": ["background", "thing 1", "thing 2", "thing 3"]}
RUN = {"batch_size": 2, "epoch_size": 1, "max_steps": 2, "run_eval": False, "num_parallel_workers": 1, "log_interval": 1,
       "warmup_step": 2, **DATA}
SIDE = {"img_height": 64, "img_width": 64}
# As in detectron2: bounds of the short and the long side, and a box that fits both orientations.
BOUNDS = {"img_height": 64, "img_width": 80, "pad_to": "96x96"}
MODELS = {
    "faster_rcnn": ({**WIDTHS, **SMALL, **BOUNDS}, "run_standalone_train_ascend.sh none resnet_v1.5_50 {coco}",
                    "run_eval_gpu.sh {json} {ckpt} resnet_v1.5_50 {coco} 0"),
    "mask_rcnn": ({**WIDTHS, **SMALL, **SIDE, "rcnn_mask_out_channels": 16, "max_mask_edges": 16},
                  "run_standalone_train.sh none", "run_eval.sh {json} {ckpt}"),
    "refinedet": ({**NARROW, **SIDE}, "run_standardalone_train_gpu.sh 0 1 0.0001 coco", "run_eval_gpu.sh coco {ckpt} 0"),
}


@pytest.mark.parametrize("model", MODELS)
def test_training_and_evaluation(run_command, repo_dir, tmp_path, coco, model):
    """The scripts are for Ascend and GPU; DEVICE_TARGET=CPU makes them run here."""
    config, train, score = MODELS[model]
    folder = tmp_path / "a caller"
    folder.mkdir()
    (folder / "narrow config.yaml").write_text(yaml.safe_dump({**config, **RUN}), encoding="utf-8")
    output = "LOG0" if model == "refinedet" else "train"
    words = {"coco": coco, "json": coco / "annotations" / "instances_val2017.json", "ckpt": f"{output}/checkpoint/last.ckpt"}

    def call(command):
        script, *rest = (word.format(**words) for word in command.split())
        return run_command(["bash", repo_dir / model / "scripts" / script, *rest, "--config_path=narrow config.yaml",
                            f"--coco_root={coco}"], cwd=folder, env={"DEVICE_TARGET": "CPU", "PYTHON": commands.PRELOADED.python})

    done = call(train)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / output / "loss_0.log").read_text().count("epoch: 1 step: ") == 2
    for name in ("eval", "eval_2") if model == "refinedet" else ("eval",):
        done = call(score)
        assert done.returncode == 0, done.stdout + done.stderr
        assert " Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = " in done.stdout
        assert json.loads((folder / name / "metrics.json").read_text())["images"] == 3
    assert not (folder / name / "mindrecord").exists() or name == "eval"


def test_two_processes(run_command, repo_dir, tmp_path, coco):
    """Two ranks train a toy network. Scripts of all models start this launcher: test_scripts_launch.py checks its
    arguments, test_ranks.py user errors."""
    (tmp_path / "toy config.yaml").write_text(yaml.safe_dump({**SIDE, "num_gts": 4, **RUN}), encoding="utf-8")
    environment = {"DEVICE_TARGET": "CPU", "PYTHON": repo_dir / "tests" / "toy_python", "TOY_PYTHON": sys.executable}
    done = run_command(["bash", repo_dir / "refinedet" / "scripts" / "run_distribute_train.sh", "2", "1", "0.0001", "coco", "none",
                        "--config_path=toy config.yaml", "--max_steps=1", f"--coco_root={coco}", "--output_path=an out"],
                       cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "an out" / "loss_0.log").read_text().count("epoch: 1 step: ") == 1
    assert (tmp_path / "an out" / "checkpoint" / "last.ckpt").is_file()
    assert sorted(path.name for path in (tmp_path / "an out" / "log").glob("worker_*.log")) == ["worker_0.log", "worker_1.log"]
