"""Helpers for tests of the shell scripts: a copy of the checkout, stand-ins for what the scripts start, a folder to call from.

The stand-ins for python and mpirun are on the PATH and record how they were called. All paths contain a space.
"""
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODELS = ("faster_rcnn", "mask_rcnn", "refinedet")
VARIABLES = ("RANK_TABLE_FILE", "ASCEND_RT_VISIBLE_DEVICES", "RANK_SIZE", "HCCL_IF_IP")
STAND_IN = f"""#!/bin/bash
case ${{1-}} in */rank_table.py | */backbone_table.py) exec {shlex.quote(sys.executable)} "$@" ;; esac
number=$(find "$CALLS" -type f | wc -l)
{{
  for name in {' '.join(VARIABLES)}; do [[ -z ${{!name-}} ]] || printf '%s=%s\\0' "$name" "${{!name}}"; done
  printf '%s\\0' "${{0##*/}}" "$@"
}} > "$CALLS/$number"
if [[ -n ${{STAND_IN_WAITS-}} ]]; then
  trap 'exit 143' TERM
  trap 'exit 130' INT
  touch "$CALLS.started"
  for _ in {{1..600}}; do sleep 0.1; done
fi
exit "${{STAND_IN_STATUS:-0}}"
"""
TABLE = """{"version": "1.0", "server_count": "1", "status": "completed", "server_list": [{"server_id": "10.0.0.1", "device": [
  {"device_id": "0", "device_ip": "192.1.0.6", "rank_id": "0"}, {"device_id": "1", "device_ip": "192.1.0.7", "rank_id": "1"}]}]}"""

# Names in braces in a command, and their paths below the folder that the commands are called from.
PLACES = {"PRE": "my files/resnet50.ckpt", "CKPT": "my files/detector.ckpt", "COCO": "a coco",
          "JSON": "a coco/annotations/val.json", "TABLE": "my files/rank table.json", "DATA": "a coco/"}
MR = "a mindrecord"
# One command per model.
STANDALONE = {"faster_rcnn": "run_standalone_train_ascend.sh {PRE} resnet_v1.5_50 {COCO}",
              "mask_rcnn": "run_standalone_train.sh {PRE} {COCO}",
              "refinedet": "run_standardalone_train.sh 0 5 0.02 coco {PRE}"}
DISTRIBUTE = {"faster_rcnn": "run_distribute_train_gpu.sh 2 {PRE} resnet_v1.5_50 {COCO}",
              "mask_rcnn": "run_distribute_train_gpu.sh 2 {PRE} {COCO}",
              "refinedet": "run_distribute_train_gpu.sh 2 5 0.02 coco {PRE}"}
EVAL = {"faster_rcnn": "run_eval_ascend.sh {JSON} {CKPT} resnet_v1.5_50 {COCO}",
        "mask_rcnn": "run_eval.sh {JSON} {CKPT} {COCO}",
        "refinedet": "run_eval.sh coco {CKPT}"}
# Scripts that users know from the old READMEs. Those in test/ come from detectron2 on Ascend, where train_*.sh is Mask R-CNN's.
KNOWN = {
    "faster_rcnn": {
        *(f"scripts/run_{what}_{target}.sh" for what in ("standalone_train", "distribute_train", "eval")
          for target in ("ascend", "gpu")),
        *(f"scripts/{name}.sh" for name in ("run_infer_310", "run_infer_cpp", "docker_start")),
        *(f"test/train_faster_rcnn_{name}.sh" for name in (
            "full_1p", "full_8p", "performance_1p", "performance_8p", "performance_multinodes")),
        *(f"test/train_{name}.sh" for name in ("full_8p", "performance_1p", "performance_8p", "performance_multinodes"))},
    "mask_rcnn": {
        *(f"scripts/{name}.sh" for name in (
            "run_standalone_train", "run_distribute_train", "run_eval", "run_infer_310", "docker_start")),
        *(f"test/train_{name}.sh" for name in ("full_8p", "performance_1p", "performance_8p", "performance_multinodes"))},
    "refinedet": {
        *(f"scripts/run_{name}.sh" for name in (
            "standardalone_train", "standardalone_train_gpu", "distribute_train", "distribute_train_gpu", "eval", "eval_gpu",
            "infer_310"))},
}


def on_the_cpu(command: str) -> str:
    """Return the command with the script that runs it on the CPU."""
    return re.sub(r"^(\w+?)(?:_ascend|_gpu)?\.sh", r"\1_cpu.sh", command).replace("standardalone", "standalone")


def copy_checkout(root: Path) -> Path:
    """Copy the scripts and the configuration that they read to `root`, and write the stand-ins to bin/. Return `root`."""
    for model in MODELS:
        for name in ("scripts", "test"):
            if (ROOT / model / name).is_dir():
                shutil.copytree(ROOT / model / name, root / model / name)
        for name in ("default_config.yaml", "detectron2_config_101.yaml"):
            if (ROOT / model / name).is_file():
                shutil.copy(ROOT / model / name, root / model)
    for name in ("model_utils/layers/backbone_table.py", "FasterRcnn/backbones.yaml"):      # where BACKBONE is looked up
        (root / "faster_rcnn" / "src" / name).parent.mkdir(parents=True)
        shutil.copy(ROOT / "faster_rcnn" / "src" / name, root / "faster_rcnn" / "src" / name)
    (root / "utils" / "launch").mkdir(parents=True)
    for name in ("__init__.py", "files.py", "launch/__init__.py", "launch/rank_table.py"):
        shutil.copy(ROOT / "utils" / name, root / "utils" / name)
    (root / "utils" / "launch" / "run.py").touch()
    for name in ("bin/python", "bin/mpirun", "docker/docker_start.sh"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(STAND_IN)
        (root / name).chmod(0o755)
    return root


class Caller:
    """A folder to call commands from, with the files that they name, and a record of what they started."""

    def __init__(self, checkout, tmp_path):
        self.checkout, self.folder, self.calls = checkout, tmp_path / "a caller", tmp_path / "calls"
        self.calls.mkdir()
        (self.folder / "a coco" / "annotations").mkdir(parents=True)
        files = [self.folder / place for name, place in PLACES.items() if name not in ("COCO", "DATA")]
        files += [self.folder / "ckpt" / "refinedet.ckpt", tmp_path / "ckpt" / "ckpt_0" / "refinedet-500_458.ckpt"]
        for path in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        (self.folder / PLACES["TABLE"]).write_text(TABLE)

    def environment(self, **more):
        own = (*VARIABLES, "DEVICE_TARGET", "DEVICE_NUM", "DEVICE_ID", "DRY_RUN", "LAUNCHER", "PYTHON", "NODE_RANK")
        kept = {name: value for name, value in os.environ.items() if name not in own}
        return {**kept, "PATH": f"{self.checkout / 'bin'}:{os.environ['PATH']}", "CALLS": str(self.calls), **more}

    def words(self, model, command):
        shell, script, *rest = shlex.split(self.fill(model, command))
        folder = self.checkout / model / ("" if Path(script).parent.name else "scripts")
        return [shell, str(folder / script), *rest]

    def fill(self, model, text):
        """Replace the names in braces by quoted paths."""
        names = {**PLACES, "MR": MR, "M": self.checkout / model, "RUN": self.checkout / "utils" / "launch" / "run.py",
                 "TABLE_PATH": self.folder / PLACES["TABLE"]}
        for name, value in names.items():
            text = text.replace(f"{{{name}}}", str(value).replace(" ", "\\ "))
        return text

    def call(self, model, command, **environment):
        """Run a command such as "bash run_eval.sh {JSON} {CKPT}" from the folder. Return the CompletedProcess. The script is in the
        model's scripts/, unless the command gives a folder: "bash ./test/train_full_1p.sh ..."."""
        self.forget()
        return subprocess.run(self.words(model, command), cwd=self.folder, env=self.environment(**environment), text=True,
                              capture_output=True, stdin=subprocess.DEVNULL, timeout=60, check=False)

    def forget(self):
        for old in self.calls.iterdir():
            old.unlink()

    def started(self) -> list:
        """Return the recorded calls: variables, program, arguments."""
        paths = sorted(self.calls.iterdir(), key=lambda path: int(path.name))
        return [path.read_text().split("\0")[:-1] for path in paths]


def split(words) -> list:
    """Return [{variables}, program, {flags}, program, {flags} ...]. The last flag of a name counts."""
    parts = [{}]
    for word in words:
        name, equals, value = word.partition("=")
        if name.startswith("--") or (len(parts) == 1 and equals):
            parts[-1][name] = value
        else:
            parts += [word, {}]
    return parts
