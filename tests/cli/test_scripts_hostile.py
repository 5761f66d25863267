"""The shell scripts: no value from a file, an argument or the environment becomes a command, a variable or an option."""
import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.script_calls import DISTRIBUTE, MODELS, ROOT, STAND_IN, STANDALONE, TABLE, copy_checkout, split
from utils.launch import rank_table

# A shell would run this in $(( )), (( )) or an array index.
INDEX = "a[$(touch ran)]"
TABLE_CALL = "bash run_distribute_train.sh table.json none"


def fault(caller, done) -> str:
    """Return the error line; check that nothing was started and no command ran."""
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert (done.stdout, caller.started()) == ("", [])
    assert not list(caller.folder.rglob("ran"))
    return line


def table_with(server_id="10.0.0.1", **device) -> str:
    table = json.loads(TABLE)
    table["server_list"][0]["server_id"] = server_id
    table["server_list"][0]["device"][1].update(device)
    return json.dumps(table)


# ------------------------------------------------------------------------------------------------ rank tables


@pytest.mark.parametrize("address", ["10.0.0.1\nLD_PRELOAD=x.so\ntouch\nran", "10.0.0.1\n--worker_num=ARGS[$(touch ran)]"])
def test_a_table_adds_nothing_to_the_command(caller, address):
    """This holds where the address is needed and where only the devices are counted."""
    (caller.folder / "table.json").write_text(table_with(address))
    for environment in ({"NODE_RANK": "0"}, {"DEVICE_TARGET": "CPU"}):
        line = fault(caller, caller.call("mask_rcnn", TABLE_CALL, **environment))
        assert line.startswith("rank_table.py: error: table.json: not a rank table of version 1.0: server_id: expected an IP")


def test_the_reader_of_a_table_adds_nothing_to_the_command(caller):
    """A fake Python prints its own values, for example a command as an index."""
    (caller.folder / "table.json").write_text(TABLE)
    python = caller.folder / "python"
    for printed, message in ((f"{INDEX} 2 0 - -", f"rank_table.py: number of devices: expected a number, got '{INDEX}'"),
                             (f"2 2 0 - {INDEX}", "rank_table.py: expected device numbers, got"),
                             (f"2 {INDEX} 0 10.0.0.1 -", "rank_table.py: devices of this machine: expected a number"),
                             ("2 1 0 --join -", "rank_table.py: server_id: expected an IP address or host name, got '--join'")):
        python.write_text(f"#!/bin/sh\nprintf '%s\\n' {shlex.quote(printed.replace(INDEX, 'a[$(touch${IFS}ran)]'))} /\n")
        python.chmod(0o755)
        line = fault(caller, caller.call("mask_rcnn", TABLE_CALL, PYTHON=str(python)))
        assert line.startswith(f"run_distribute_train.sh: error: {message.replace(INDEX, 'a[$(touch${IFS}ran)]')}")


def test_the_path_of_a_table_is_one_value(caller):
    folder = caller.folder / "a\nLD_PRELOAD=x.so"
    folder.mkdir()
    for name in ("--worker_num=5\n", "t.json"):
        (folder / name).write_text(TABLE)
        words = ["bash", str(caller.checkout / "mask_rcnn/scripts/run_distribute_train.sh"), str(folder / name), "none"]
        caller.forget()
        done = subprocess.run(words, cwd=caller.folder, env=caller.environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        (started,) = caller.started()
        assert started[:2] == [f"RANK_TABLE_FILE={folder / name}", "python"]
        assert split(started)[4]["--worker_num"] == "2"


@pytest.mark.parametrize("text", [
    table_with(rank_id=0.5), table_with(rank_id=True), table_with(device_id="1_0"), table_with(device_id="²"),
    table_with(device_id="9" * 5000), table_with(device_id="0"), table_with(device_id=None), table_with(rank_id="0"),
    table_with(device_id="@").replace('"@"', "1e999"), table_with(device_id="@").replace('"@"', "9" * 5000),
    table_with("fe80::1%\nPATH=."), table_with("-x"), table_with("a b"), table_with(""), table_with(7),
    table_with(["1.0.0.1"] * 9999),
    "[" * 100_000, "[" * 100_000 + "]" * 100_000, '{"server_list": ' * 50_000, '{"server_list": 1e999}', "7", "\0",
    '{"server_list": [[]]}', '{"server_list": [{"server_id": "a", "device": 5}]}',
    json.dumps({"server_list": json.loads(TABLE)["server_list"] * 2})], ids=lambda text: text[-40:])
def test_hostile_tables_are_refused_in_one_line(tmp_path, capsys, text):
    path = tmp_path / "table.json"
    path.write_text(text)
    for option in ([], ["--count"]):
        assert rank_table.main([*option, str(path)]) == 2
        out, error = capsys.readouterr()
        assert out == "" and len(error) < 400 + len(str(path))
        (line,) = error.splitlines()
        assert line.startswith(f"rank_table.py: error: {path}: ") and line.isprintable()


def test_files_that_are_no_table(tmp_path, capsys):
    """A file of 1 GB is not read, and a FIFO does not block."""
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 30)
    os.mkfifo(tmp_path / "fifo")
    for name, end in (("large", "larger than 8 MB"), ("fifo", "not a regular file"), ("a\nb\x1b[2J", "No such file or directory")):
        assert rank_table.main([str(tmp_path / name)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.endswith(end) and line.isprintable()


@pytest.mark.parametrize("number", ["²", "9" * 5000, "-1", "1_0", "1"])
def test_node_rank_is_a_number_of_a_server(tmp_path, capsys, monkeypatch, number):
    monkeypatch.setenv("NODE_RANK", number)
    (tmp_path / "table.json").write_text(TABLE)
    assert rank_table.main([str(tmp_path / "table.json")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("rank_table.py: error: NODE_RANK: expected 0 to 0, the servers of")


def test_names_of_machines(tmp_path, capsys, monkeypatch):
    """A server_id may be a name; this machine's name is known without a name server."""
    table = json.loads(TABLE)
    first, = table["server_list"]
    second = {"server_id": "node-2", "device": [{**device, "rank_id": str(rank)} for rank, device in enumerate(first["device"], 2)]}
    table["server_list"] = [{**first, "server_id": "node-1"}, second]
    path = tmp_path / "table.json"
    path.write_text(json.dumps(table))
    monkeypatch.delenv("NODE_RANK", raising=False)
    monkeypatch.setattr(rank_table.socket, "gethostname", lambda: "node-2.cluster")
    assert rank_table.main([str(path)]) == 0
    assert capsys.readouterr().out == f"4 2 1 node-1 -\n{path}/\n"


# ------------------------------------------------------------------------------------- arguments, environment


@pytest.mark.parametrize("model", MODELS)
def test_a_python_with_an_equals_sign_in_its_path(caller, model):
    """The script starts it, and so does the output of a dry run."""
    python = caller.folder / "lr=0.1" / "python"
    python.parent.mkdir()
    python.write_text(STAND_IN)
    python.chmod(0o755)
    command = f"bash {DISTRIBUTE[model]}"
    assert caller.call(model, command, PYTHON="lr=0.1/python").returncode == 0
    (started,) = caller.started()
    printed = caller.call(model, command, PYTHON="lr=0.1/python", DRY_RUN="1").stdout
    assert subprocess.run(["bash", "-c", printed], cwd=caller.folder, env=caller.environment(), check=False).returncode == 0
    assert caller.started() == [started]


@pytest.mark.parametrize(("python", "message"), [
    ("eval", "eval is not on the PATH"), ("LD_PRELOAD=x.so", "LD_PRELOAD=x.so is not on the PATH"),
    ("-S", "PYTHON: expected a program")])
def test_a_python_that_is_no_program(caller, python, message):
    line = fault(caller, caller.call("mask_rcnn", "bash run_distribute_train_gpu.sh 2 none", PYTHON=python))
    assert line.startswith(f"run_distribute_train_gpu.sh: error: {message}")


FULL = "test/train_faster_rcnn_full_8p.sh --data_path={DATA} --pre_trained=none"


@pytest.mark.parametrize(("command", "environment", "message"), [
    (STANDALONE["faster_rcnn"], {"DEVICE_ID": INDEX}, f"DEVICE_ID: expected a number, got '{INDEX}'"),
    (STANDALONE["faster_rcnn"], {"DEVICE_ID": "0 --resume"}, "DEVICE_ID: expected a number"),
    (DISTRIBUTE["faster_rcnn"].replace(" 2 ", " 'x\n--y' "), {},
     "expected a rank table or a number of devices; no such file: x --y"),
    (FULL, {"DEVICE_NUM": INDEX}, "DEVICE_NUM: expected a number"),
    (f"{FULL} --device_target=TPU", {}, "--device_target: expected Ascend, GPU or CPU, got 'TPU'"),
    (f"{FULL} --device_id='{INDEX}'", {}, "--device_id: expected a number"),
    (f"{FULL} --accumulate_steps='{INDEX}'", {}, "--accumulate_steps: expected a number"),
    (f"{FULL} --batch_size='{INDEX}'", {}, "--batch_size: expected a number"),
    (f"{FULL} --nnodes='{INDEX}'", {}, "--nnodes: expected a number"),
    (f"{FULL} --nnodes=2 --master_addr='a --join'", {}, "--master_addr: expected an IP address or host name, got 'a --join'"),
    (f"{FULL} --nnodes=2 --master_addr=a --local_addr='-x'", {}, "--local_addr: expected an IP address or host name"),
    (f"{FULL} --nnodes=2 --master_addr=a --master_port='{INDEX}'", {}, "--master_port: expected a number"),
    (f"{FULL} --nnodes=999999999", {}, "--master_addr is required"),
    (f"{FULL} --nnodes=999999999 --master_addr=a", {}, "DEVICE_NUM on all machines of --nnodes: expected a number below"),
    (f"{DISTRIBUTE['faster_rcnn']} --epoch_size=1 : touch ran", {"LAUNCHER": "mpirun"},
     "LAUNCHER: mpirun would run the arguments after ':' as another program"),
])
def test_values_are_checked_before_arithmetic(caller, command, environment, message):
    done = caller.call("faster_rcnn", f"bash {command}", **environment)
    name = Path(command.split()[0]).name
    assert fault(caller, done).startswith(f"{name}: error: {message}")


def test_a_data_set_is_one_name(caller):
    done = caller.call("refinedet", "bash run_eval.sh 'coco|voc' {CKPT}")
    assert fault(caller, done).startswith("run_eval.sh: error: DATASET: expected coco, ")


@pytest.mark.parametrize("key", ["lr_reference_batch", "batch_size", "max_steps"])
def test_numbers_of_the_configuration_are_checked(caller, tmp_path, key):
    caller.checkout = copy_checkout(tmp_path / "own checkout")
    path = caller.checkout / "faster_rcnn" / "detectron2_config_101.yaml"
    lines = [f"{key}: {INDEX}" if line.startswith(f"{key}:") else line for line in path.read_text().splitlines()]
    path.write_text("\n".join(lines))
    line = fault(caller, caller.call("faster_rcnn", f"bash {FULL}", DEVICE_NUM="4"))
    assert line == f"train_faster_rcnn_full_8p.sh: error: {path}: {key}: expected a number, got '{INDEX}'"
    path.write_text("\n".join(lines).replace(INDEX, "8   # a comment"))
    assert caller.call("faster_rcnn", f"bash {FULL}", DEVICE_NUM="4").returncode == 0


def test_no_program_runs_as_root_unasked(caller):
    """Open MPI itself says how to allow root. A log folder is not taken for an option of mpirun."""
    done = caller.call("mask_rcnn", f"bash {DISTRIBUTE['mask_rcnn']} --output_path=--mca", LAUNCHER="mpirun")
    assert done.returncode == 0, done.stderr
    (words,) = caller.started()
    assert words[:6] == ["RANK_SIZE=2", "mpirun", "-n", "2", "--output-filename", "./--mca/log"]
    assert "--allow-run-as-root" not in words


def test_a_build_folder_is_no_option(caller, tmp_path):
    (caller.folder / "a.mindir").touch()
    command = "bash run_infer_310.sh a.mindir {COCO} {JSON}"
    done = caller.call("faster_rcnn", command, DRY_RUN="1", BUILD_DIR="-x", TO="ran")
    assert done.returncode == 0, done.stderr
    lines = [shlex.split(line) for line in done.stdout.splitlines()]
    assert [words[words.index("-B") + 1] for words in lines if "-B" in words] == ["./-x"]
    assert ["cmake", "--build", "./-x", "--parallel"] in lines
    line = fault(caller, caller.call("faster_rcnn", command, DRY_RUN="1", DEVICE_ID=INDEX))
    assert "DEVICE_ID: expected a number" in line


def test_continuous_integration_runs_in_its_checkout(tmp_path):
    """CDPATH may hold a folder with the same name."""
    (tmp_path / "elsewhere" / ".ci").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    for name in ("make", "apt-get"):
        (tmp_path / "bin" / name).write_text('#!/bin/sh\n[ "${0##*/}" != make ] || pwd\n')
        (tmp_path / "bin" / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "CDPATH": str(tmp_path / "elsewhere")}
    done = subprocess.run(["bash", ".ci/run"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{ROOT}\n")
