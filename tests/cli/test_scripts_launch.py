"""The shell scripts and what they start: rank tables, status, signals, conversion of weights."""
import json
import signal
import subprocess
import time

import pytest

from tests.script_calls import DISTRIBUTE, EVAL, MODELS, STANDALONE, TABLE, split

of_every_model = pytest.mark.parametrize("model", MODELS)


def rank_table(*servers) -> str:
    """Return a rank table of servers, given as (address, devices)."""
    ranks = iter(range(99))
    return json.dumps({"version": "1.0", "status": "completed", "server_list": [
        {"server_id": address, "device": [{"device_id": str(number), "device_ip": "192.1.0.6", "rank_id": str(next(ranks))}
                                          for number in devices]} for address, devices in servers]})


# ------------------------------------------------------------------------------------------------ rank tables


def table_of(caller, text, **environment):
    (caller.folder / "table.json").write_text(text)
    done = caller.call("mask_rcnn", "bash run_distribute_train.sh table.json none", **environment)
    return done, [split(words) for words in caller.started()]


def test_devices_of_a_table(caller):
    done, (started,) = table_of(caller, rank_table(("10.0.0.1", (4, 6))))
    assert done.returncode == 0, done.stderr
    assert started[0] == {"RANK_TABLE_FILE": str(caller.folder / "table.json"), "ASCEND_RT_VISIBLE_DEVICES": "4,6"}
    assert started[4] == {"--worker_num": "2", "--log_dir": "./train_parallel/log", "--device_target": "Ascend"}
    _, (started,) = table_of(caller, rank_table(("10.0.0.1", (4, 6))), ASCEND_RT_VISIBLE_DEVICES="0,1")
    assert started[0]["ASCEND_RT_VISIBLE_DEVICES"] == "0,1"


def test_this_machine_among_those_of_a_table(caller):
    """This machine is the server that has one of its addresses; otherwise NODE_RANK selects the server."""
    options = {"--worker_num": "4", "--local_worker_num": "2", "--node_rank": "1", "--master_addr": "203.0.113.7"}
    done, (started,) = table_of(caller, rank_table(("203.0.113.7", (0, 1)), ("127.0.0.1", (0, 1))))
    assert done.returncode == 0, done.stderr
    assert options.items() <= started[4].items()
    far = rank_table(("203.0.113.7", (0, 1)), ("203.0.113.8", (0, 1)))
    done, started = table_of(caller, far)
    assert (done.returncode, started) == (2, [])
    assert done.stderr.startswith("rank_table.py: error: table.json: none of its servers (203.0.113.7, 203.0.113.8) has an address")
    _, (started,) = table_of(caller, far, NODE_RANK="1")
    assert options.items() <= started[4].items()


@pytest.mark.parametrize("target", ["CPU", "GPU"])
def test_off_ascend_a_table_says_how_many(caller, target):
    """This machine need not be in the table."""
    far = rank_table(("203.0.113.7", (0, 1)), ("203.0.113.8", (0, 1)))
    for environment in ({}, {"NODE_RANK": "1"}):
        done, (started,) = table_of(caller, far, DEVICE_TARGET=target, **environment)
        assert done.returncode == 0, done.stderr
        assert started[0] == {}
        assert started[4] == {"--worker_num": "4", "--log_dir": "./train_parallel/log", "--device_target": target}


@pytest.mark.parametrize(("text", "message"), [
    ("", "table.json: not a rank table of version 1.0: Expecting value"),
    ("{}", "table.json: not a rank table of version 1.0: no 'server_list'"),
    ("[]", "table.json: not a rank table of version 1.0: "),
    (TABLE.replace('"rank_id": "1"', '"rank_id": "5"'), "table.json: rank_id: expected 0, 1, ... over server_list, got [0, 5]"),
    (rank_table(("203.0.113.7", (0, 1)), ("203.0.113.8", (0,))), "table.json: the servers have different numbers of devices"),
])
def test_invalid_tables_are_refused(caller, text, message):
    done, started = table_of(caller, text)
    assert (done.returncode, started) == (2, [])
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"rank_table.py: error: {message}")


# -------------------------------------------------------------------------------------------- status, signals


@of_every_model
def test_the_status_is_passed_on(caller, model):
    for command, environment in ((STANDALONE[model], {}), (EVAL[model], {}), (DISTRIBUTE[model], {}),
                                 (DISTRIBUTE[model], {"LAUNCHER": "mpirun"})):
        done = caller.call(model, f"bash {command}", STAND_IN_STATUS="7", **environment)
        assert done.returncode == 7
        assert len(caller.started()) == 1


def test_nothing_runs_after_a_failure(caller):
    """This holds for a failed conversion and for a failed training."""
    (caller.folder / "R-101.pkl").touch()
    for flags, program in (("", "convert_checkpoint.py"), (" --pre_trained=none", "run.py")):
        command = f"bash test/train_faster_rcnn_full_8p.sh --data_path={{DATA}}{flags}"
        done = caller.call("faster_rcnn", command, STAND_IN_STATUS="7")
        assert done.returncode == 7
        assert [words[1].rpartition("/")[2] for words in caller.started()] == [program]


def test_weights_are_converted_once(caller):
    (caller.folder / "R-101.pkl").touch()
    (caller.folder / "train_faster_rcnn_full_1p").mkdir()
    (caller.folder / "train_faster_rcnn_full_1p" / "backbone_R-101.ckpt").touch()
    assert caller.call("faster_rcnn", "bash test/train_faster_rcnn_full_1p.sh --data_path={DATA}").returncode == 0
    train, score = caller.started()
    assert split(train)[-1]["--pre_trained"] == "./train_faster_rcnn_full_1p/backbone_R-101.ckpt"
    assert score[1].endswith("eval.py")


@pytest.mark.parametrize(("flags", "device", "target"), [
    ("--device_id=3", "3", "Ascend"), ("--device_id 3 --device_target=CPU", "3", "CPU"), ("", "0", "Ascend")])
def test_scored_where_it_was_trained(caller, flags, device, target):
    command = f"bash test/train_faster_rcnn_full_1p.sh --data_path={{DATA}} --pre_trained=none {flags}"
    assert caller.call("faster_rcnn", command).returncode == 0
    train, score = caller.started()
    assert score[1].endswith("eval.py")
    for words in (train, score):
        assert {"--device_id": device, "--device_target": target}.items() <= named(words).items()


@pytest.mark.parametrize("model, script, devices, more, length", [
    ("faster_rcnn", "test/train_faster_rcnn_full_8p.sh", 8, "", None),
    ("faster_rcnn", "test/train_faster_rcnn_full_8p.sh", 4, "", (22500, "(15000, 20000)")),
    ("mask_rcnn", "test/train_full_8p.sh", 8, "--batch_size=16", (41000, "(27333, 36444)")),
    ("mask_rcnn", "test/train_full_1p.sh", 1, "SOLVER.IMS_PER_BATCH 64", None),
    ("faster_rcnn", "test/train_faster_rcnn_full_1p.sh", 1, "--accumulate_steps=8", None),
    ("faster_rcnn", "test/train_faster_rcnn_full_1p.sh", 1, "--config_path=mine.yaml", None),     # another config keeps its length
    ("faster_rcnn", "test/train_faster_rcnn_full_1p.sh", 1, "--accumulate_steps=2 --batch_size=4", (90000, "(60000, 80000)"))])
def test_the_recipe_sees_as_many_images_with_any_batch(caller, model, script, devices, more, length):
    """detectron2_config_101.yaml counts iterations of 64 images."""
    command = f"bash {script} --data_path={{DATA}} --pre_trained=none {more}"
    assert caller.call(model, command, DEVICE_NUM=str(devices)).returncode == 0
    words = caller.started()[0]
    found = {name: words[words.index(name) + 1] for name in ("SOLVER.MAX_ITER", "SOLVER.STEPS") if name in words}
    assert found == ({} if length is None else {"SOLVER.MAX_ITER": str(length[0]), "SOLVER.STEPS": length[1]})


def test_names_of_detectron2_override_the_scripts_choices(caller):
    names = "MODEL.DEVICE npu:3 OUTPUT_DIR {DATA}/out MODEL.WEIGHTS none SOLVER.MAX_ITER 30 SOLVER.IMS_PER_BATCH 4 SEED 7"
    assert caller.call("faster_rcnn", f"bash test/train_faster_rcnn_performance_1p.sh --data_path={{DATA}} {names}").returncode == 0
    flags = named(words := caller.started()[0])
    assert (flags["--device_target"], flags["--device_id"], flags["--pre_trained"]) == ("Ascend", "3", "")
    assert (flags["--perf_steps"], flags["--batch_size"], words[-2:]) == ("30", "4", ["SEED", "7"])
    assert flags["--output_path"].endswith("/out")


@pytest.mark.parametrize("folder", ["coco", "coco2017"])
def test_the_data_may_lie_in_a_folder_below(caller, folder):
    """The weights lie beside that folder, as in the Ascend version."""
    outer = caller.folder / "all data"
    (outer / folder / "annotations").mkdir(parents=True)
    (outer / "R-101.pkl").touch()
    assert caller.call("mask_rcnn", f"bash test/train_full_1p.sh --data_path='{outer}'").returncode == 0
    convert, train, score = caller.started()
    assert f"--ckpt_file={outer}/R-101.pkl" in convert
    assert named(train)["--coco_root"] == f"{outer}/{folder}" and score[1].endswith("eval.py")


def named(words) -> dict:
    """Return a program's flags, also those whose value is a separate word."""
    pairs = [tuple(word.split("=", 1)) if "=" in word else (word, following) for word, following in zip(words, [*words[1:], ""])
             if word.startswith("--")]
    return dict(pairs)


def test_performance_needs_no_weights(caller):
    command = "bash test/train_faster_rcnn_performance_8p.sh --data_path={DATA} --perf_steps=20 --batch_size=4"
    done = caller.call("faster_rcnn", command, DEVICE_NUM="2", DEVICE_TARGET="CPU")
    assert done.returncode == 0
    assert "no R-101.pkl beside a coco/" in done.stderr
    _, _, _, _, options, _, *_, flags = split(caller.started()[0])
    assert (options["--worker_num"], options["--device_target"]) == ("2", "CPU")
    assert (flags["--pre_trained"], flags["--perf_steps"], flags["--batch_size"]) == ("", "20", "2")
    assert flags["--amp_level"] == "O0"     # detectron2_config_101.yaml sets float16, which the CPU does not support


@pytest.mark.parametrize("command", [
    STANDALONE["faster_rcnn"], "test/train_faster_rcnn_full_1p.sh --data_path={DATA} --pre_trained=none"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_reach_the_program(caller, command, number, status):
    """The program ends by itself, then the script with the same status; nothing else is started."""
    process = subprocess.Popen(caller.words("faster_rcnn", f"bash {command}"), cwd=caller.folder, text=True,
                               env=caller.environment(STAND_IN_WAITS="1"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    started = caller.calls.with_name("calls.started")
    deadline = time.monotonic() + 30
    while not started.exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == status, out + err
    assert len(caller.started()) == 1
