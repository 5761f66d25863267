"""The shell scripts: every command line documented in the old zoo starts the right program with the right arguments."""
import importlib
import json
import re
import shlex
from pathlib import Path

import pytest

from tests.script_calls import MODELS, ROOT, split

# (model, documented command with its arguments filled in, what it starts). The last has variables, the program of the launcher or
# of one device, and flags. {M} is the model's folder, {RUN} the checkout's utils/launch/run.py.
FASTER = "python {M}/train.py --config_path={M}/default_config.yaml --pre_trained={PRE} --coco_root={COCO} --device_target=%s"
FASTER_EVAL = ("python {M}/eval.py --config_path={M}/default_config.yaml --anno_path={JSON} --val_anno_path={JSON} "
               "--checkpoint_path={CKPT} --coco_root={COCO} --device_target=%s --output_path=./eval")
FASTER_MANY = ("python {RUN} --worker_num=2 --log_dir=./train_parallel/log --device_target=%s {M}/train.py --distribute=True "
               "--config_path={M}/default_config.yaml --pre_trained={PRE} --coco_root={COCO} --output_path=./train_parallel")
TABLE_SET = "RANK_TABLE_FILE={TABLE_PATH} "
MASK = "python {M}/train.py --pre_trained={PRE} --device_target=Ascend --device_id=0 --output_path=./train"
MASK_MANY = ("python {RUN} --worker_num=2 --log_dir=./train_parallel/log --device_target=Ascend {M}/train.py --distribute=True "
             "--output_path=./train_parallel")
MASK_EVAL = ("python {M}/eval.py --anno_path={JSON} --val_anno_path={JSON} --checkpoint_path={CKPT} --coco_root={COCO} "
             "--device_target=Ascend --device_id=0 --output_path=./eval --mindrecord_dir=./eval/mindrecord")
RATE = "--lr_reference_batch=0 --lr_schedule=cosine"
REFINEDET = ("python {M}/train.py --dataset=coco --epoch_size=%s --base_lr=%s --device_target=%s --device_id=0 "
             f"--output_path=./LOG0 {RATE}")
REFINEDET_MANY = ("python {RUN} --worker_num=%s --log_dir=./LOG/log --device_target=%s {M}/train.py --distribute=True "
                  f"--dataset=coco --epoch_size=500 --base_lr=0.05 {RATE} --output_path=./LOG")
REFINEDET_EVAL = ("python {M}/eval.py --dataset=coco --checkpoint_path=%s --device_target=%s --device_id=0 --output_path=./eval "
                  "--mindrecord_dir=./eval/mindrecord")
PERFORMANCE = "--perf_steps=400"
CONVERTED = "--pre_trained=./%s/backbone_R-101.ckpt --output_path=./%s"


RECIPE = "MODEL.RPN.NMS_THRESH 0.8 MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO 2"
EIGHTFOLD = f'{RECIPE} SOLVER.MAX_ITER 90000 SOLVER.STEPS "(60000, 80000)"'
MASK_EIGHTFOLD = f'{RECIPE} SOLVER.MAX_ITER 82000 SOLVER.STEPS "(54667, 72889)"'


def d2(out: str, more: str) -> str:
    return f"--config_path={{M}}/detectron2_config_101.yaml --coco_root={{DATA}} {CONVERTED % (out, out)} {more}"


def d2_one(out: str, more: str, recipe: str = RECIPE) -> str:
    return f"python {{M}}/train.py {recipe} --device_target=Ascend --device_id=0 {d2(out, more)}"


def d2_many(out: str, more: str, launcher: str = "--worker_num=8") -> str:
    return (f"python {{RUN}} {launcher} --log_dir=./{out}/log --device_target=Ascend {{M}}/train.py {RECIPE} --distribute=True "
            f"{d2(out, more)}")


NODES = "--data_path={DATA} --batch_size=32 --nnodes=2 --node_rank=1 --local_addr=10.0.0.2 --master_addr=10.0.0.1"


def d2_nodes(out: str) -> str:
    launcher = "--worker_num=16 --local_worker_num=8 --node_rank=1 --master_addr=10.0.0.1"
    return "HCCL_IF_IP=10.0.0.2 " + d2_many(out, f"{PERFORMANCE} --batch_size=2", launcher)


DOCUMENTED = [
    # Faster R-CNN, the newer README: a device before the MindRecord folder.
    ("faster_rcnn", "bash run_standalone_train_ascend.sh {PRE} resnet_v1.5_50 {COCO} 3",
     FASTER % "Ascend" + " --device_id=3 --output_path=./train"),
    ("faster_rcnn", "bash run_standalone_train_ascend.sh {PRE} resnet_v1.5_50 {COCO} 3 {MR}",
     FASTER % "Ascend" + " --device_id=3 --output_path=./train --mindrecord_dir={MR}"),
    ("faster_rcnn", "bash run_standalone_train_gpu.sh {PRE} resnet_v1.5_50 {COCO} 1",
     FASTER % "GPU" + " --device_id=1 --output_path=./train"),
    ("faster_rcnn", "bash run_standalone_train_gpu.sh {PRE} resnet_v1.5_50 {COCO} 1 {MR}",
     FASTER % "GPU" + " --device_id=1 --output_path=./train --mindrecord_dir={MR}"),
    ("faster_rcnn", "bash run_distribute_train_ascend.sh {TABLE} {PRE} resnet_v1.5_50 {COCO}", TABLE_SET + FASTER_MANY % "Ascend"),
    ("faster_rcnn", "bash run_distribute_train_ascend.sh {TABLE} {PRE} resnet_v1.5_50 {COCO} {MR}",
     TABLE_SET + FASTER_MANY % "Ascend" + " --mindrecord_dir={MR}"),
    ("faster_rcnn", "bash run_distribute_train_gpu.sh 2 {PRE} resnet_v1.5_50 {COCO}", FASTER_MANY % "GPU"),
    ("faster_rcnn", "bash run_distribute_train_gpu.sh 2 {PRE} resnet_v1.5_50 {COCO} {MR}",
     FASTER_MANY % "GPU" + " --mindrecord_dir={MR}"),
    ("faster_rcnn", "bash run_eval_ascend.sh {JSON} {CKPT} resnet_v1.5_50 {COCO} 2",
     FASTER_EVAL % "Ascend" + " --device_id=2 --mindrecord_dir=./eval/mindrecord"),
    ("faster_rcnn", "bash run_eval_ascend.sh {JSON} {CKPT} resnet_v1.5_50 {COCO} 2 {MR}",
     FASTER_EVAL % "Ascend" + " --device_id=2 --mindrecord_dir={MR}"),
    ("faster_rcnn", "bash run_eval_gpu.sh {JSON} {CKPT} resnet_v1.5_50 {COCO} 2",
     FASTER_EVAL % "GPU" + " --device_id=2 --mindrecord_dir=./eval/mindrecord"),
    ("faster_rcnn", "bash run_eval_gpu.sh {JSON} {CKPT} resnet_v1.5_50 {COCO} 2 {MR}",
     FASTER_EVAL % "GPU" + " --device_id=2 --mindrecord_dir={MR}"),
    # Faster R-CNN's backbones.
    ("faster_rcnn", "bash run_standalone_train_ascend.sh {PRE} resnet_v1_50 {COCO} 0",
     FASTER % "Ascend" + " --device_id=0 --output_path=./train --backbone=resnet_v1_50"),
    ("faster_rcnn", "bash run_standalone_train_ascend.sh {PRE} resnet_v1_101 {COCO} 0", (FASTER % "Ascend").replace(
        "default_config", "default_config_101") + " --device_id=0 --output_path=./train"),
    ("faster_rcnn", "bash run_standalone_train_ascend.sh {PRE} resnet_v1_152 {COCO} 0", (FASTER % "Ascend").replace(
        "default_config", "default_config_152") + " --device_id=0 --output_path=./train"),
    ("faster_rcnn", "bash run_standalone_train_ascend.sh {PRE} inception_resnet_v2 {COCO} 0", (FASTER % "Ascend").replace(
        "default_config", "default_config_InceptionResnetV2") + " --device_id=0 --output_path=./train"),
    # The older README: no device.
    ("faster_rcnn", "bash run_standalone_train_ascend.sh {PRE} resnet_v1.5_50 {COCO}",
     FASTER % "Ascend" + " --device_id=0 --output_path=./train"),
    ("faster_rcnn", "bash run_standalone_train_ascend.sh {PRE} resnet_v1.5_50 {COCO} {MR}",
     FASTER % "Ascend" + " --device_id=0 --output_path=./train --mindrecord_dir={MR}"),
    ("faster_rcnn", "bash run_standalone_train_gpu.sh {PRE} resnet_v1.5_50 {COCO} {MR}",
     FASTER % "GPU" + " --device_id=0 --output_path=./train --mindrecord_dir={MR}"),
    ("faster_rcnn", "bash run_eval_ascend.sh {JSON} {CKPT} resnet_v1.5_50 {COCO} {MR}",
     FASTER_EVAL % "Ascend" + " --device_id=0 --mindrecord_dir={MR}"),
    ("faster_rcnn", "bash run_eval_gpu.sh {JSON} {CKPT} resnet_v1.5_50 {COCO} {MR}",
     FASTER_EVAL % "GPU" + " --device_id=0 --mindrecord_dir={MR}"),
    # Mask R-CNN: some commands use sh.
    ("mask_rcnn", "sh run_standalone_train.sh {PRE}", MASK),
    ("mask_rcnn", "bash run_standalone_train.sh {PRE}", MASK),
    ("mask_rcnn", "sh run_standalone_train.sh ''", MASK.replace("{PRE}", "")),
    ("mask_rcnn", "sh run_distribute_train.sh {TABLE} {PRE}", TABLE_SET + MASK_MANY + " --pre_trained={PRE}"),
    ("mask_rcnn", "bash run_distribute_train.sh {TABLE} {PRE}", TABLE_SET + MASK_MANY + " --pre_trained={PRE}"),
    ("mask_rcnn", "bash run_distribute_train.sh {TABLE}", TABLE_SET + MASK_MANY),
    ("mask_rcnn", "sh run_eval.sh {JSON} {CKPT}", MASK_EVAL),
    ("mask_rcnn", "bash run_eval.sh {JSON} {CKPT}", MASK_EVAL),
    # RefineDet.
    ("refinedet", "bash run_standardalone_train.sh 0 500 0.05 coco", REFINEDET % (500, 0.05, "Ascend")),
    ("refinedet", "bash run_standardalone_train_gpu.sh 0 500 0.05 coco", REFINEDET % (500, 0.05, "GPU")),
    ("refinedet", "bash ./run_standardalone_train_gpu.sh 0 5 0.02 coco", REFINEDET % (5, 0.02, "GPU")),
    ("refinedet", "bash run_distribute_train.sh 2 500 0.05 coco {TABLE}", TABLE_SET + REFINEDET_MANY % (2, "Ascend")),
    ("refinedet", "bash run_distribute_train.sh 2 500 0.05 coco {TABLE} {PRE} 0",
     TABLE_SET + REFINEDET_MANY % (2, "Ascend") + " --pre_trained={PRE}"),
    ("refinedet", "bash run_distribute_train.sh 2 500 0.05 coco {TABLE} {PRE} 250",
     TABLE_SET + (REFINEDET_MANY % (2, "Ascend")).replace("=500", "=250").replace("=0.05", "=0.025") + " --pre_trained={PRE}"),
    ("refinedet", "bash ./run_distribute_train_gpu.sh 8 500 0.05 coco", REFINEDET_MANY % (8, "GPU")),
    ("refinedet", "bash run_distribute_train_gpu.sh 8 500 0.05 coco {PRE} 0", REFINEDET_MANY % (8, "GPU") + " --pre_trained={PRE}"),
    ("refinedet", "bash run_eval.sh coco  ./ckpt/refinedet.ckpt 0", REFINEDET_EVAL % ("./ckpt/refinedet.ckpt", "Ascend")),
    ("refinedet", "bash run_eval_gpu.sh coco ../ckpt/ckpt_0/refinedet-500_458.ckpt 0",
     REFINEDET_EVAL % ("../ckpt/ckpt_0/refinedet-500_458.ckpt", "GPU")),
    # detectron2's recipes of Faster and Mask R-CNN, in test/. The first program converts R-101.pkl, which lies beside the data.
    ("mask_rcnn", "bash ./test/train_full_1p.sh --data_path={DATA}",
     d2_one("train_full_1p", "--run_eval=False", MASK_EIGHTFOLD)),
    ("mask_rcnn", "bash ./test/train_performance_1p.sh --data_path={DATA}", d2_one("train_performance_1p", PERFORMANCE)),
    ("mask_rcnn", "bash ./test/train_full_8p.sh --data_path={DATA}",
     d2_many("train_full_8p", "--run_eval=False")),
    ("mask_rcnn", "bash ./test/train_performance_8p.sh --data_path={DATA}",
     d2_many("train_performance_8p", PERFORMANCE)),
    ("mask_rcnn", "bash ./test/train_performance_multinodes.sh " + NODES, d2_nodes("train_performance_multinodes")),
    ("faster_rcnn", "bash ./test/train_faster_rcnn_full_1p.sh --data_path={DATA}",
     d2_one("train_faster_rcnn_full_1p", "--run_eval=False", EIGHTFOLD)),
    ("faster_rcnn", "bash ./test/train_faster_rcnn_performance_1p.sh --data_path={DATA}",
     d2_one("train_faster_rcnn_performance_1p", PERFORMANCE)),
    ("faster_rcnn", "bash ./test/train_faster_rcnn_full_8p.sh --data_path={DATA}",
     d2_many("train_faster_rcnn_full_8p", "--run_eval=False")),
    ("faster_rcnn", "bash ./test/train_faster_rcnn_performance_8p.sh --data_path={DATA}",
     d2_many("train_faster_rcnn_performance_8p", PERFORMANCE)),
    ("faster_rcnn", "bash ./test/train_faster_rcnn_performance_multinodes.sh " + NODES,
     d2_nodes("train_faster_rcnn_performance_multinodes")),
    # Mask R-CNN's script names train the directory's model.
    ("faster_rcnn", "bash ./test/train_performance_1p.sh --data_path={DATA}",
     d2_one("train_faster_rcnn_performance_1p", PERFORMANCE)),
    ("faster_rcnn", "bash ./test/train_full_8p.sh --data_path={DATA}", d2_many("train_faster_rcnn_full_8p", "--run_eval=False")),
    ("faster_rcnn", "bash ./test/train_performance_8p.sh --data_path={DATA}",
     d2_many("train_faster_rcnn_performance_8p", PERFORMANCE)),
    ("faster_rcnn", "bash ./test/train_performance_multinodes.sh " + NODES, d2_nodes("train_faster_rcnn_performance_multinodes")),
]


@pytest.mark.parametrize(("model", "command", "wanted"), DOCUMENTED, ids=[" ".join(case[:2]) for case in DOCUMENTED])
def test_documented_command(caller, model, command, wanted):
    if "{DATA}" in command:
        (caller.folder / "R-101.pkl").touch()
    done = caller.call(model, command)
    assert done.returncode == 0, done.stderr
    started = caller.started()
    wanted = split(shlex.split(caller.fill(model, wanted)))
    dry = caller.call(model, command, DRY_RUN="1")
    assert (dry.returncode, caller.started()) == (0, [])
    assert [shlex.split(line) for line in dry.stdout.splitlines()] == started
    if "{DATA}" in command:
        assert_converted(caller, model, started.pop(0), wanted[-1]["--output_path"])
        if "_full_" in command:
            assert_scored(caller, model, started.pop(), wanted[-1]["--output_path"])
    assert [split(words) for words in started] == [wanted]


def assert_converted(caller, model, words, output):
    assert words == ["python", str(caller.checkout / model / "src" / "convert_checkpoint.py"),
                     "--ckpt_file=./R-101.pkl", f"--output_file={output}/backbone_R-101.ckpt"]


def assert_scored(caller, model, words, output):
    assert split(words) == [{}, "python", {}, str(caller.checkout / model / "eval.py"), {
        "--config_path": f"{output}/config.yaml", "--checkpoint_path": f"{output}/checkpoint/last.ckpt", "--distribute": "False",
        "--mindrecord_dir": f"{output}/mindrecord", "--device_target": "Ascend", "--device_id": "0",
        "--output_path": f"{output}/eval"}]


# ------------------------------------------------------------------------------- programs understand what they get


@pytest.mark.parametrize(("model", "command", "wanted"), DOCUMENTED, ids=[" ".join(case[:2]) for case in DOCUMENTED])
def test_the_program_takes_the_flags(caller, model, command, wanted):
    """The flags are keys of the model's configuration, with valid values."""
    flags = split(shlex.split(caller.fill(model, wanted)))[-1]
    config = ROOT / model / Path(flags.pop("--config_path", "default_config.yaml")).name
    parse_config = importlib.import_module(f"{model}.src.model_utils.config").parse_config
    parse_config([f"--config_path={config}", *(f"{name}={value}" for name, value in flags.items())])


@pytest.mark.parametrize(("model", "flags"), [
    ("faster_rcnn", "--config_path=demo_config_cpu.yaml --pre_trained=x.ckpt --coco_root=x"),
    ("faster_rcnn", "--anno_path=x.json --checkpoint_path=x.ckpt --coco_root=x --config_path=demo_config_cpu.yaml"),
    ("faster_rcnn", "--config_path default_config.yaml --ckpt_file x.ckpt --device_target Ascend --file_format MINDIR "
                    "--backbone resnet_v1.5_50"),
    ("mask_rcnn", "--ckpt_file x.ckpt --device_target Ascend --file_format ONNX"),
    ("refinedet", "--device_id=0 --epoch_size=500 --dataset=coco"),
    ("refinedet", "--run_online=True --data_url=obs://xxx/coco2017 --train_url=obs://xxx/train_output --distribute=True "
                  "--epoch_size=500 --dataset=coco"),
    ("refinedet", "--dataset=coco --device_id=0 --checkpoint_path=./ckpt/refinedet.ckpt"),
    ("refinedet", "--ckpt_file x.ckpt --file_name refinedet --file_format AIR"),
])
def test_documented_python_command(model, flags):
    config = importlib.import_module(f"{model}.src.model_utils.config").parse_config(flags.split())
    if "--run_online" in flags:
        assert config.enable_modelarts and config.distribute
        assert (config.data_url, config.train_url) == ("obs://xxx/coco2017", "obs://xxx/train_output")


@pytest.mark.parametrize(("command", "status", "message"), [
    ("convert_checkpoint.py --ckpt_file=gone.ckpt", 2, "convert_checkpoint.py: error: gone.ckpt: no such file"),
    ("split_data.py --help", 0, "(/data)"),
    ("split_data.py --data_path gone", 2, "split_data.py: error: --data_path: no such folder: gone/images"),
    ("xml2coco.py --data_path gone/train/ --save_path gone/face_detection/annotations/instances_train2017.json", 2,
     "xml2coco.py: error: image_dir: no such folder: gone/train/images"),
], ids=lambda value: value.split()[0] if isinstance(value, str) else str(value))
@pytest.mark.parametrize("model", MODELS)
def test_documented_command_in_src(run_command, model, command, status, message):
    """The old READMEs call these by name from their folder. The faults here are in the files, not in the flags. The tests
    test_split_xml.py and test_convert_checkpoint.py pass files."""
    script, *flags = command.split()
    if not (ROOT / model / "src" / script).is_file():
        assert model == "mask_rcnn" and script != "convert_checkpoint.py"    # its data is in COCO format
        return
    done = run_command(["python", script, *flags], cwd=ROOT / model / "src")
    assert done.returncode == status, done.stderr
    assert message in done.stdout + done.stderr and len(done.stderr.splitlines()) == (status > 0)


@pytest.mark.parametrize("model", MODELS)
def test_commands_of_the_documentation(caller, model):
    """Their dry runs print programs with valid flags. test_cpp_infer.py runs those of the C++ program."""
    servers = [{"server_id": "10.0.0.1", "device": [{"device_id": str(n), "rank_id": str(n)} for n in range(8)]}]
    for name in ("rank_table.json", "hccl_rank_table_8p.json"):
        (caller.folder / name).write_text(json.dumps({"version": "1.0", "server_list": servers}), encoding="utf-8")
    for name in ("backbone_resnet50.ckpt", "train/checkpoint/best.ckpt", "LOG0/checkpoint/best.ckpt", "R-101.pkl",
                 "COCO/annotations/instances_val2017.json"):
        (caller.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (caller.folder / name).touch()
    parse_config = importlib.import_module(f"{model}.src.model_utils.config").parse_config
    text = (ROOT / "docs" / "scripts.md").read_text(encoding="utf-8").replace("/data/coco", "COCO")
    commands = re.findall(rf"^((?:\w+=\S+ )*)bash {model}/((?:scripts|test)/(?!run_infer_)\w+\.sh .*)$", text, re.M)
    assert len(commands) >= 7
    for environment, command in commands:
        environment = dict(item.split("=") for item in environment.split())
        done = caller.call(model, f"bash {command}", **{**environment, "DRY_RUN": "1"})
        assert done.returncode == 0, done.stderr
        for words in map(shlex.split, done.stdout.splitlines()):
            flags = split(words)[-1]
            config = ROOT / model / Path(flags.pop("--config_path", "default_config.yaml")).name
            if config.is_file() and not words[1].endswith("convert_checkpoint.py"):      # otherwise it is a run's config
                parse_config([f"--config_path={config}", *(f"{name}={value}" for name, value in flags.items())])
