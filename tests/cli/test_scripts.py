"""The shell scripts beyond test_scripts_documented.py: usage, faults, environment, folders."""
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.script_calls import DISTRIBUTE, EVAL, KNOWN, MODELS, ROOT, STANDALONE, on_the_cpu, split

PROGRAMS = [(model, path.name) for model in MODELS for path in sorted((ROOT / model / "scripts").glob("*.sh"))
            if path.name.startswith(("run_standa", "run_distribute", "run_eval"))]
PROGRAMS += [(model, f"test/{path.name}") for model in MODELS for path in sorted((ROOT / model / "test").glob("*.sh"))]
of_every_model = pytest.mark.parametrize("model", MODELS)


def flags_of(caller) -> dict:
    """Return the flags of the only program that was started."""
    (words,) = caller.started()
    return split(words)[-1]


def fault(done, script: str) -> str:
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"{script}: error: "), line
    return line


# ---------------------------------------------------------------------------------------------------- usage


@pytest.mark.parametrize(("model", "name"), PROGRAMS, ids=[f"{model}: {name}" for model, name in PROGRAMS])
def test_usage(caller, model, name):
    done = caller.call(model, f"bash {name}")
    assert (done.returncode, done.stdout, caller.started()) == (2, "", [])
    first, second = done.stderr.splitlines()[:2]
    assert first and not first.startswith(("#", "usage", "Same"))
    called = second.split()[2]
    assert second.startswith(f"usage: bash {called} ")
    path = ROOT / model / (name if "/" in name else f"scripts/{name}")
    assert os.access(path, os.X_OK)
    assert called == path.name or (is_alias(path) and called in path.read_text(encoding="utf-8"))
    assert "DRY_RUN=1" in done.stderr
    helped = caller.call(model, f"bash {name} --help")
    assert (helped.returncode, helped.stdout, helped.stderr) == (0, done.stderr, "")


def is_alias(path: Path) -> bool:
    """Return whether the script only calls another script."""
    return len(path.read_text(encoding="utf-8").splitlines()) == 2


@of_every_model
def test_every_script_has_a_reason(model):
    """The old READMEs or our documentation name each script, or another script sources it. No new script is an alias."""
    paths = {path.relative_to(ROOT / model).as_posix(): path for folder in ("scripts", "test")
             for path in (ROOT / model / folder).glob("*")}
    assert KNOWN[model] <= set(paths)
    texts = "".join(path.read_text(encoding="utf-8") for path in paths.values())
    pages = "".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("scripts.md", "export.md"))
    for name in set(paths) - KNOWN[model]:
        if f'/{paths[name].name}"\n' in texts:
            continue
        assert not is_alias(paths[name]), name
        in_braces = re.sub(r"_(gpu|cpu)\.sh$", r"_{(\\w+,)*\1(,\\w+)*}\\.sh", paths[name].name)    # run_eval_{gpu,cpu}.sh
        assert Path(name).name in pages or re.search(in_braces, pages), name


@of_every_model
def test_every_kind_of_script_is_there(model):
    for command in (STANDALONE[model], DISTRIBUTE[model], EVAL[model]):
        for script in (command.split()[0], on_the_cpu(command).split()[0]):
            assert (model, script) in PROGRAMS


@pytest.mark.parametrize(("model", "more"), [
    ("faster_rcnn", "3 {MR} more"), ("faster_rcnn", "{MR} 3"), ("mask_rcnn", "3 {MR} more"), ("mask_rcnn", "{MR} 3"),
    ("refinedet", "0 more")])
def test_too_many_arguments_or_in_another_order(caller, model, more):
    done = caller.call(model, f"bash {STANDALONE[model]} {more}")
    assert done.returncode == 2
    assert f"usage: bash {STANDALONE[model].split()[0]}" in done.stderr
    assert caller.started() == []


# ----------------------------------------------------------------------------------- faults of the arguments


@pytest.mark.parametrize(("model", "command", "message"), [
    ("faster_rcnn", "run_standalone_train_ascend.sh gone.ckpt resnet_v1.5_50 {COCO}", "PRETRAINED_MODEL: no such file: gone.ckpt"),
    ("faster_rcnn", "run_standalone_train_ascend.sh {PRE} resnet_v1.5_50 'no where'", "COCO_ROOT: no such folder: no where"),
    ("faster_rcnn", "run_standalone_train_ascend.sh {PRE} resnet50 {COCO}", "BACKBONE: expected one of resnet_v1.5_50, "),
    ("faster_rcnn", "run_distribute_train_gpu.sh gone.json none resnet_v1.5_50 {COCO}",
     "expected a rank table or a number of devices; no such file: gone.json"),
    ("faster_rcnn", "run_eval_gpu.sh gone.json {CKPT} resnet_v1.5_50 {COCO}", "VALIDATION_JSON_FILE: no such file: gone.json"),
    ("faster_rcnn", "run_eval_gpu.sh {JSON} gone.ckpt resnet_v1.5_50 {COCO}", "CHECKPOINT_PATH: no such file: gone.ckpt"),
    ("mask_rcnn", "run_standalone_train.sh gone.ckpt", "PRETRAINED_CKPT: no such file: gone.ckpt"),
    ("mask_rcnn", "run_standalone_train.sh {PRE} nowhere", "COCO_ROOT: no such folder: nowhere"),
    ("refinedet", "run_standardalone_train.sh 0 5 0.02 coco gone.ckpt", "PRE_TRAINED: no such file: gone.ckpt"),
    ("refinedet", "run_standardalone_train.sh 0 5 0.02 cocoa",
     "DATASET: expected coco, voc, coco_files, labelme, other or yolo, got 'cocoa'"),
    ("refinedet", "run_standardalone_train.sh 0 0.02 5 coco", "EPOCH_SIZE: expected a number, got '0.02'"),
    ("refinedet", "run_standardalone_train.sh 0 5 coco coco", "LR: expected a number, got 'coco'"),
    ("refinedet", "run_standardalone_train.sh 0 5 0.1 coco {PRE} 5", "PRE_TRAINED_EPOCH_SIZE: 5 of 5 epochs leaves nothing"),
    ("refinedet", "run_standardalone_train.sh 0 010 0.1 coco {PRE} 08",
     "EPOCH_SIZE: expected a number below 1000000000 without leading zeros, got '010'"),
    ("refinedet", "run_standardalone_train.sh 0 10 0.1 coco {PRE} 08", "PRE_TRAINED_EPOCH_SIZE: expected a number below"),
    ("refinedet", "run_distribute_train_gpu.sh 0 5 0.1 coco", "DEVICE_NUM: expected at least 1, got 0"),
    ("refinedet", "run_distribute_train.sh 0 5 0.1 coco none", "DEVICE_NUM: expected at least 1, got 0"),
    ("faster_rcnn", "run_distribute_train_gpu.sh 0 none resnet_v1.5_50 {COCO}", "DEVICE_NUM: expected at least 1, got 0"),
    ("mask_rcnn", "run_distribute_train_gpu.sh 08", "DEVICE_NUM: expected a number below"),
    ("mask_rcnn", "run_standalone_train_gpu.sh none 08", "DEVICE_ID: expected a number below"),
    ("mask_rcnn", "test/train_full_1p.sh --data_path={DATA} --batch_size=99999999999999999999",
     "--batch_size: expected a number below"),
    ("mask_rcnn", "test/train_full_1p.sh --data_path={DATA} --batch_size=08", "--batch_size: expected a number below"),
    ("mask_rcnn", "test/train_full_8p.sh --data_path={DATA} --nnodes=2 --master_addr=a --node_rank=08",
     "--node_rank: expected a number below"),
    ("refinedet", "run_distribute_train.sh 8 5 0.1 coco {TABLE}", "DEVICE_NUM: 8, but my files/rank table.json has 2 devices"),
    ("refinedet", "run_eval.sh coco gone.ckpt 0", "CHECKPOINT_PATH: no such file: gone.ckpt"),
    ("refinedet", "run_eval.sh coco {CKPT} --using_mode=vgg",
     "--using_mode: expected refinedet_{vgg16,resnet101}_{320,512}, got 'vgg'"),
    ("mask_rcnn", "test/train_full_1p.sh --data_path={DATA} MODEL.DEVICE tpu:1",
     "MODEL.DEVICE: expected npu, cuda or cpu, or npu:3, got 'tpu:1'"),
    ("mask_rcnn", "test/train_full_1p.sh --data_path={DATA} SOLVER.MAX_ITER", "SOLVER.MAX_ITER: expected a value after it"),
    ("mask_rcnn", "test/train_full_1p.sh --data_path=nowhere", "--data_path: no such folder: nowhere"),
    ("mask_rcnn", "test/train_full_1p.sh --batch_size=2", "--data_path is required"),
    ("mask_rcnn", "test/train_full_1p.sh --data_path {DATA}", "--data_path: expected --data_path=VALUE"),
    ("mask_rcnn", "test/train_full_1p.sh --data_path={DATA}",
     "no R-101.pkl beside a coco/: put it there, give --pre_trained=FILE"),
    ("mask_rcnn", "test/train_full_1p.sh --data_path={DATA} --pre_trained=gone.pkl", "--pre_trained: no such file: gone.pkl"),
    ("mask_rcnn", "test/train_performance_8p.sh --data_path={DATA} --batch_size=12",
     "--batch_size: 12 images over all devices are not divisible by 8 devices"),
    ("faster_rcnn", "test/train_faster_rcnn_performance_multinodes.sh --data_path={DATA}", "--batch_size is required"),
    ("faster_rcnn", "test/train_faster_rcnn_performance_multinodes.sh --data_path={DATA} --batch_size=32 --nnodes=2 --node_rank=2 "
     "--local_addr=a --master_addr=b", "--node_rank: expected 0 to 1 for --nnodes=2, got 2"),
])
def test_a_fault_is_one_line(caller, model, command, message):
    done = caller.call(model, f"bash {command}")
    name = Path(command.split()[0]).name
    assert fault(done, name).startswith(f"{name}: error: {message}")
    assert caller.started() == []


@pytest.mark.parametrize(("environment", "message"), [
    ({"DEVICE_TARGET": "TPU"}, "DEVICE_TARGET: expected Ascend, GPU or CPU, got 'TPU'"),
    ({"LAUNCHER": "slurm"}, "LAUNCHER: expected msrun or mpirun, got 'slurm'"),
    ({"LAUNCHER": "mpirun", "DEVICE_TARGET": "CPU"}, "LAUNCHER: mpirun works on GPUs only; use msrun on CPU"),
    ({"PYTHON": "no python"}, "no python is not on the PATH: activate the environment"),
])
def test_faults_of_the_environment(caller, environment, message):
    done = caller.call("faster_rcnn", f"bash {DISTRIBUTE['faster_rcnn']}", **environment)
    assert message in fault(done, "run_distribute_train_gpu.sh")
    assert caller.started() == []


def test_weights_by_name(caller):
    """A word without slash and dot is passed on: train.py knows the names of published weights."""
    done = caller.call("faster_rcnn", "bash run_standalone_train_cpu.sh resnet50 resnet_v1.5_50 {COCO}")
    assert done.returncode == 0, done.stderr
    assert any("--pre_trained=resnet50" in call for call in caller.started())


@pytest.mark.parametrize("environment", [{}, {"DRY_RUN": "1"}, {"DEVICE_TARGET": "CPU"}])
def test_a_rank_table_needs_python(caller, environment):
    done = caller.call("mask_rcnn", "bash run_distribute_train.sh {TABLE} none", PYTHON="nopython", **environment)
    assert "nopython is not on the PATH: activate the environment" in fault(done, "run_distribute_train.sh")


def test_a_number_of_devices_in_the_environment(caller):
    """On a CPU or GPU, it replaces the rank table."""
    for number, message in (("many", "DEVICE_NUM: expected a number, got 'many'"), ("0", "DEVICE_NUM: expected at least 1, got 0")):
        done = caller.call("mask_rcnn", "bash run_distribute_train.sh {TABLE}", DEVICE_TARGET="CPU", DEVICE_NUM=number)
        assert message in fault(done, "run_distribute_train.sh")


def test_missing_utils_are_named(caller, tmp_path):
    """Without utils/, a model's folder still starts on one device."""
    shutil.copytree(ROOT / "mask_rcnn" / "scripts", tmp_path / "lonely" / "scripts")
    caller.checkout = tmp_path
    assert caller.call("lonely", "bash run_standalone_train_gpu.sh none", DRY_RUN="1").returncode == 0
    done = caller.call("lonely", "bash run_distribute_train_gpu.sh 2", DRY_RUN="1")
    assert "utils/launch/run.py not found: utils/ must be beside the model directory; copy both" in fault(
        done, "run_distribute_train_gpu.sh")


# ------------------------------------------------------------------------------ environment, own flags, folders


@of_every_model
def test_the_same_commands_on_the_cpu(caller, model):
    for command in (STANDALONE[model], EVAL[model]):
        assert caller.call(model, f"bash {command}", DEVICE_TARGET="CPU").returncode == 0
        assert flags_of(caller)["--device_target"] == "CPU"
        assert caller.call(model, f"bash {on_the_cpu(command)}").returncode == 0
        assert flags_of(caller)["--device_target"] == "CPU"
    for command, environment in ((DISTRIBUTE[model], {"DEVICE_TARGET": "CPU"}), (on_the_cpu(DISTRIBUTE[model]), {})):
        assert caller.call(model, f"bash {command}", **environment).returncode == 0
        (words,) = caller.started()
        _, python, _, launcher, options, _, flags = split(words)
        assert options == {"--worker_num": "2", "--log_dir": f"./{'LOG' if model == 'refinedet' else 'train_parallel'}/log",
                           "--device_target": "CPU"}
        assert flags["--distribute"] == "True"


@pytest.mark.parametrize(("model", "command"), [
    ("faster_rcnn", "run_distribute_train_ascend.sh gone.json none resnet_v1.5_50 {COCO}"),
    ("mask_rcnn", "run_distribute_train.sh gone.json"),
])
def test_a_rank_table_is_not_needed_off_ascend(caller, model, command):
    assert caller.call(model, f"bash {command}", DEVICE_TARGET="CPU", DEVICE_NUM="3").returncode == 0
    assert split(caller.started()[0])[:1] + [split(caller.started()[0])[4]["--worker_num"]] == [{}, "3"]
    command = command.replace("gone.json", "{TABLE}")
    assert caller.call(model, f"bash {command}", DEVICE_TARGET="CPU").returncode == 0
    assert split(caller.started()[0])[:1] + [split(caller.started()[0])[4]["--worker_num"]] == [{}, "2"]


@of_every_model
def test_mpirun_on_request(caller, model):
    done = caller.call(model, f"bash {DISTRIBUTE[model]}", LAUNCHER="mpirun")
    assert done.returncode == 0, done.stderr
    (words,) = caller.started()
    assert words[:2] == ["RANK_SIZE=2", "mpirun"]
    assert (words[2:4], words[4], words[6:9]) == (["-n", "2"], "--output-filename", [
        "--merge-stderr-to-stdout", "python", str(caller.checkout / model / "train.py")])
    assert {"--device_target": "GPU", "--distribute": "True"}.items() <= split(words[9:])[0].items()


@of_every_model
def test_own_flags_go_last(caller, model):
    mine = "--config_path='my config.yaml' --output_path='an out' --device_id=5 --img_height=128"
    wanted = {"--config_path": "my config.yaml", "--output_path": "an out", "--device_id": "5", "--img_height": "128"}
    assert caller.call(model, f"bash {STANDALONE[model]} {mine}").returncode == 0
    assert wanted.items() <= flags_of(caller).items()
    assert caller.call(model, f"bash {DISTRIBUTE[model]} {mine}").returncode == 0
    (words,) = caller.started()
    assert split(words)[4]["--log_dir"] == "an out/log"
    assert split(words)[-1]["--output_path"] == "an out"


@of_every_model
def test_typed_with_sh(caller, model):
    """Some users type sh, which may be dash."""
    for command in (STANDALONE[model], DISTRIBUTE[model], EVAL[model]):
        assert caller.call(model, f"sh {command}").returncode == 0
        assert len(caller.started()) == 1


@of_every_model
def test_no_pretrained_model_can_be_said(caller, model):
    for word in ("none", "None", "''"):
        assert caller.call(model, f"bash {STANDALONE[model].replace('{PRE}', word)}").returncode == 0
        assert flags_of(caller)["--pre_trained"] == ""


def test_device_from_the_environment(caller):
    caller.call("mask_rcnn", "bash run_standalone_train_gpu.sh none", DEVICE_ID="6")
    assert flags_of(caller)["--device_id"] == "6"
    caller.call("mask_rcnn", "bash run_standalone_train_gpu.sh none {COCO} 2 {MR}", DEVICE_ID="6")
    assert {"--device_id": "2", "--coco_root": "a coco", "--mindrecord_dir": "a mindrecord"}.items() <= flags_of(caller).items()


@pytest.mark.parametrize(("mode", "config"), [
    ("refinedet_vgg16_320", "default_config.yaml"), ("refinedet_vgg16_512", "default_config_512.yaml"),
    ("refinedet_resnet101_320", "default_config_resnet101.yaml"), ("refinedet_resnet101_512", "default_config_resnet101_512.yaml")])
def test_networks_of_refinedet(caller, mode, config):
    for command in (STANDALONE, DISTRIBUTE, EVAL):
        assert caller.call("refinedet", f"bash {command['refinedet']} --using_mode={mode} --num_gts=9").returncode == 0
        flags = flags_of(caller)
        assert (flags["--config_path"], flags["--num_gts"]) == (str(caller.checkout / "refinedet" / config), "9")
        assert "--using_mode" not in flags


@of_every_model
def test_an_evaluation_leaves_the_earlier_ones(caller, model):
    assert caller.call(model, f"bash {EVAL[model]}").returncode == 0
    assert flags_of(caller)["--output_path"] == "./eval"
    for name in ("eval", "eval_2"):
        (caller.folder / name).mkdir()
        (caller.folder / name / "metrics.json").touch()
    assert caller.call(model, f"bash {EVAL[model]}").returncode == 0
    assert flags_of(caller)["--output_path"] == "./eval_3"
    assert flags_of(caller)["--mindrecord_dir"] == "./eval/mindrecord"


def test_masks_are_scored_on_the_images_beside_the_annotations(caller):
    (caller.folder / "other.json").touch()
    assert caller.call("mask_rcnn", "bash run_eval.sh other.json {CKPT}").returncode == 0
    assert "--coco_root" not in flags_of(caller)
    for json in ("val.json", "./val.json"):     # called from its folder
        words = ["bash", str(caller.checkout / "mask_rcnn" / "scripts" / "run_eval.sh"), json, "../../my files/detector.ckpt"]
        caller.forget()
        done = subprocess.run(words, cwd=caller.folder / "a coco" / "annotations", env=caller.environment(), check=False)
        assert done.returncode == 0
        assert flags_of(caller)["--coco_root"] == ".."


@pytest.mark.parametrize("model", ["faster_rcnn", "mask_rcnn"])
def test_a_container_is_started_by_the_one_script(caller, model):
    assert caller.call(model, "bash docker_start.sh fasterrcnn:20.1.0 {DATA} 'a model'").returncode == 0
    assert caller.started() == [["docker_start.sh", "fasterrcnn:20.1.0", "a coco/", "a model"]]


def test_called_from_its_own_folder(caller):
    words = ["bash", "run_standalone_train.sh", str(caller.folder / "my files" / "resnet50.ckpt")]
    done = subprocess.run(words, cwd=caller.checkout / "mask_rcnn" / "scripts", env=caller.environment(CDPATH="/"), check=False)
    assert done.returncode == 0
    (words,) = caller.started()
    assert words[1] == str(caller.checkout / "mask_rcnn" / "train.py")


@pytest.mark.parametrize(("name", "arguments"), [
    ("scripts/run_standalone_train_ascend.sh", ["none", "resnet_v1.5_50", "a coco"]),
    ("test/train_faster_rcnn_performance_1p.sh", ["--data_path=a coco"]), ("test/train_performance_1p.sh", ["--data_path=a coco"])])
def test_called_through_links(caller, name, arguments):
    """A link to a link works, from folders without the files beside the script."""
    first, second = caller.folder / "my files" / "first.sh", caller.folder / "second.sh"
    first.symlink_to(caller.checkout / "faster_rcnn" / name)
    second.symlink_to("my files/first.sh")
    done = subprocess.run(["bash", "second.sh", *arguments], cwd=caller.folder, env=caller.environment(), check=False)
    assert done.returncode == 0
    (words,) = caller.started()
    assert words[1] == str(caller.checkout / "faster_rcnn" / "train.py")


def test_dry_run_quotes(caller):
    command = "bash run_standalone_train_gpu.sh {PRE} {COCO} --coco_classes='[background, a \"b\"]'"
    done = caller.call("mask_rcnn", command, DRY_RUN="1")
    assert caller.started() == []
    again = subprocess.run(["bash", "-c", done.stdout], cwd=caller.folder, env=caller.environment(), check=False)
    assert again.returncode == 0
    assert flags_of(caller)["--coco_classes"] == '[background, a "b"]'
    assert shlex.split(done.stdout) == caller.started()[0]
