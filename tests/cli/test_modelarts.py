"""Commands as ModelArts jobs against a local S3 server: what is downloaded, run and uploaded, and the exit status."""
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from tests import commands

ROOT = Path(__file__).resolve().parents[2]
COMMAND = ROOT / "tests" / "job_command.py"
TOY = ROOT / "tests" / "toy_train.py"
# Variables of another job, or of a launcher that runs these tests.
UNSET = ("RANK_TABLE_FILE", "RANK_ID", "RANK_SIZE", "DEVICE_ID", "ASCEND_DEVICE_ID", "MS_ROLE", "MS_WORKER_NUM", "MA_NUM_GPUS",
         "MA_NUM_HOSTS", "VC_WORKER_HOSTS", "VC_TASK_INDEX", "OMPI_COMM_WORLD_SIZE", "MODELARTS_JOB_COMMAND")


def zip_folder(folder: Path) -> bytes:
    with io.BytesIO() as stream:
        with zipfile.ZipFile(stream, "w") as archive:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    archive.write(path, Path("my set") / path.relative_to(folder))
        return stream.getvalue()


@pytest.fixture
def job(bucket, coco, tmp_path):
    """job(*flags, **environment) -> arguments of commands.run or Popen for a job; data and weights are in the bucket."""
    client, name = bucket
    content = zip_folder(coco)
    client.put_object(Bucket=name, Key="sets/data.zip", Body=content)
    client.put_object(Bucket=name, Key="weights/backbone.ckpt", Body=b"weights")

    def build(*flags, script=COMMAND, **environment):
        words = [sys.executable, script, "--enable_modelarts=True", f"--data_url=s3://{name}/sets", f"--train_url=s3://{name}/run",
                 f"--data_path={tmp_path / 'cache' / 'data'}", f"--load_path={tmp_path / 'cache' / 'weights'}",
                 f"--output_path={tmp_path / 'out put'}", *flags]
        inherited = {key: value for key, value in os.environ.items() if key not in UNSET}
        return {"args": [str(word) for word in words], "env": {**inherited, **environment}, "cwd": tmp_path,
                "stdin": subprocess.DEVNULL, "text": True}

    return build


@pytest.fixture
def sent(bucket):
    """sent() -> {name: bytes} of the files in train_url."""
    client, name = bucket

    def read():
        found = client.list_objects_v2(Bucket=name, Prefix="run/").get("Contents", ())
        return {item["Key"][len("run/"):]: client.get_object(Bucket=name, Key=item["Key"])["Body"].read() for item in found}

    return read


def run(job, status):
    done = commands.run_within(job["env"], job["args"], job["cwd"])
    assert done.returncode == status, done.stdout + done.stderr
    return done


def last_line(done, program="job_command.py"):
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith(f"{program}: error: "), done.stderr
    return line


# ------------------------------------------------------------------------------------------------ a stand-in command


def test_paths_of_the_downloads(job, sent, tmp_path, bucket):
    done = run(job(f"--checkpoint_url=s3://{bucket[1]}/weights"), 0)
    assert "data_url: 1 file, " in done.stderr
    files = sent()
    assert list(files) == ["loss_0.log"]       # the converted data is not a result
    seen = json.loads(files["loss_0.log"])
    assert seen["coco_root"] == str(tmp_path / "cache" / "data" / "my set")
    assert seen["pre_trained"] == str(tmp_path / "cache" / "weights" / "backbone.ckpt")
    assert (tmp_path / "cache" / "weights" / "backbone.ckpt").read_bytes() == b"weights"


@pytest.mark.parametrize(("end", "status"), [("3", 3), ("kill", 137)])
def test_results_are_sent_with_the_status_kept(job, sent, end, status):
    run(job(JOB_END=end), status)
    assert "loss_0.log" in sent()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted(job, sent, tmp_path, number):
    process = start_waiting(job, tmp_path)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert json.loads(sent()["signals"]) == [number]


def test_killed(job, tmp_path):
    """The command does not outlive its job."""
    process = start_waiting(job, tmp_path)
    process.kill()
    process.communicate(timeout=60)
    path = tmp_path / "out put" / "signals"
    wait_for(path.is_file, process=None)
    assert json.loads(path.read_text()) == [signal.SIGTERM]


def start_waiting(job, tmp_path, *flags):
    process = subprocess.Popen(**job(*flags, JOB_END="wait"), stderr=subprocess.PIPE)
    wait_for((tmp_path / "out put" / "pid").is_file, process)
    return process


def wait_for(condition, process):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None
        time.sleep(0.05)
    time.sleep(0.1)


def test_addresses_are_checked_first(job, tmp_path, bucket):
    line = last_line(run(job("--train_url=s3://no-such-bucket/x"), 2))
    assert "train_url: s3://no-such-bucket/x: " in line
    assert not (tmp_path / "cache").exists()
    line = last_line(run(job(f"--data_url=s3://{bucket[1]}/set"), 2))
    assert line.endswith(f"data_url: s3://{bucket[1]}/set holds no files")


def test_train_url_that_goes_away(bucket, job, tmp_path):
    """The exit status is still the command's."""
    client, name = bucket
    client.create_bucket(Bucket=f"{name}-out")
    process = start_waiting(job, tmp_path, f"--train_url=s3://{name}-out/x")
    client.delete_bucket(Bucket=f"{name}-out")
    process.terminate()
    assert f"train_url: s3://{name}-out/x: " in process.communicate(timeout=60)[1]
    assert process.returncode == 143


@pytest.mark.parametrize("rank", [0, 1])
def test_rank_table(job, sent, rank):
    """One process per card: rank 0 sends all results, the others only their logs."""
    environment = {"RANK_TABLE_FILE": "table.json", "RANK_SIZE": "2", "RANK_ID": str(rank), "ASCEND_DEVICE_ID": str(rank + 4)}
    words = job("--distribute=True", **environment)
    Path(words["cwd"], "out put").mkdir()
    Path(words["cwd"], "out put", "metrics.jsonl").write_text("{}")
    run(words, 0)
    files = sent()
    assert sorted(files) == ([f"loss_{rank}.log", "metrics.jsonl"] if rank == 0 else [f"loss_{rank}.log"])
    seen = json.loads(files[f"loss_{rank}.log"])
    assert (seen["RANK_ID"], seen["DEVICE_ID"]) == (str(rank), str(rank + 4))
    assert last_line(run(job(**environment), 2)).endswith("set distribute=True, or use one card")


def test_msrun_is_started(job, sent):
    done = run(job("--distribute=True", MA_NUM_HOSTS="1", MA_NUM_GPUS="2"), 0)
    assert "--worker_num=2" in done.stderr
    files = sent()
    seen = [json.loads(files[f"loss_{rank}.log"]) for rank in (0, 1)]
    assert [(item["RANK_ID"], item["DEVICE_ID"], item["MS_ROLE"], item["MS_WORKER_NUM"]) for item in seen] == [
        ("0", "0", "MS_WORKER", "2"), ("1", "1", "MS_WORKER", "2")]
    assert {"msrun_log/scheduler.log", "msrun_log/worker_0.log", "msrun_log/worker_1.log"} <= set(files)
    run(job("--distribute=True", MA_NUM_HOSTS="1", MA_NUM_GPUS="2", JOB_END="3"), 3)


# ------------------------------------------------------------------------------------------------ Faster R-CNN's commands

FLAGS = ("--num_classes=4", "--coco_classes=[background, thing 1, thing 2, thing 3]", "--img_width=64", "--img_height=64",
         "--num_gts=4", "--batch_size=2", "--test_batch_size=2", "--epoch_size=1", "--log_interval=1", "--warmup_step=0",
         "--num_parallel_workers=1", "--device_target=CPU", "--calibrate_norm=never", "--run_eval=False")


def test_training(job, sent):
    """A zip file in the bucket becomes results in the bucket, also if training fails; the data is downloaded once."""
    done = run(job(*FLAGS, "--base_lr=0.002", script=TOY), 0)
    assert "last.ckpt" in done.stderr
    files = sent()
    assert {"checkpoint/last.ckpt", "checkpoint/state.ckpt", "config.yaml", "loss_0.log", "metrics.jsonl"} <= set(files)
    assert files["loss_0.log"].count(b"epoch: 1 step: ") == 3
    assert not [name for name in files if name.startswith("mindrecord")]

    failed = run(job(*FLAGS, "--base_lr=1e30", script=TOY), 1)
    assert "is not finite" in failed.stderr
    assert "data_url: 1 file" not in failed.stderr
    assert sent()["loss_0.log"].count(b"epoch: 1 step: ") < 3


def test_evaluation(job, sent, coco, bucket):
    """A file of detections is scored without a network."""
    ground_truth = json.loads((coco / "annotations" / "instances_val2017.json").read_text())
    found = [{"image_id": item["image_id"], "category_id": item["category_id"], "bbox": item["bbox"], "score": 1.0}
             for item in ground_truth["annotations"]]
    bucket[0].put_object(Bucket=bucket[1], Key="sets/found.json", Body=json.dumps(found).encode())
    run(job("--detections=found.json", *FLAGS[:2], script=ROOT / "faster_rcnn" / "eval.py"), 0)
    files = sent()
    assert sorted(files) == ["eval.log", "metrics.json", "pr_curves.png", "report.html"]
    assert json.loads(files["metrics.json"])["bbox"]["AP"] == pytest.approx(1.0)


@pytest.mark.parametrize(("model", "script"), [
    ("faster_rcnn", "train"), ("faster_rcnn", "eval"), ("faster_rcnn", "export"), ("faster_rcnn", "infer"), ("mask_rcnn", "train"),
    ("refinedet", "train")])
def test_every_command_is_a_job(bucket, tmp_path, run_command, model, script):
    """The job stops at the weights: the bucket holds two, and the message names this command's key."""
    for name in ("a", "b"):
        bucket[0].put_object(Bucket=bucket[1], Key=f"weights/{name}.ckpt", Body=b"w")
    done = run_command(["python", ROOT / model / f"{script}.py", "--enable_modelarts=True", f"--load_path={tmp_path / 'w'}",
                        f"--checkpoint_url=s3://{bucket[1]}/weights"], cwd=tmp_path, env=dict.fromkeys(UNSET))
    key = {"train": "pre_trained", "export": "ckpt_file"}.get(script, "checkpoint_path")
    assert done.returncode == 2
    assert last_line(done, f"{script}.py").endswith(
        f"{key}: checkpoint_url s3://{bucket[1]}/weights holds a.ckpt, b.ckpt; set --{key} to the name of one file")


def test_code_directory_without_utils(tmp_path, run_command, one_line):
    """The command reports this before any download; with a copy of utils/ inside, it continues."""
    shutil.copytree(ROOT / "faster_rcnn", tmp_path / "faster_rcnn", ignore=shutil.ignore_patterns("output", "__pycache__"))
    words = ["python", tmp_path / "faster_rcnn" / "train.py", "--enable_modelarts=True", f"--data_url={tmp_path / 'none'}",
             f"--data_path={tmp_path / 'cache'}"]
    environment = dict.fromkeys((*UNSET, "PYTHONPATH"))
    line = one_line(run_command(words, cwd=tmp_path, env=environment), "train.py")
    assert line.endswith("utils/mindrecord is not in the code directory; upload utils/ too, inside faster_rcnn/ or beside it")
    shutil.copytree(ROOT / "utils", tmp_path / "faster_rcnn" / "utils")
    line = one_line(run_command(words, cwd=tmp_path, env=environment), "train.py")
    assert line.endswith(f"data_url: no such file or folder: {tmp_path / 'none'}")
