"""Environment, device and rank of a run."""
import json

import pytest

from faster_rcnn.src.model_utils import local_adapter

CODE = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from faster_rcnn.src.model_utils.config import load_config, run_main
from faster_rcnn.src.model_utils.local_adapter import prepare_environment, setup_device

def main():
    prepare_environment()
    target = setup_device(load_config(overrides=json.loads(sys.argv[2])))
    import mindspore as ms, numpy as np
    graph = ms.get_context("mode") == ms.GRAPH_MODE
    print(json.dumps({"target": target, "graph": graph, "seed": ms.get_seed(), "draw": int(np.random.randint(1 << 30)),
                      "isa": os.environ.get("ONEDNN_MAX_CPU_ISA")}))

run_main(main)
"""


@pytest.fixture
def run_setup(run_command, repo_dir, tmp_path):
    def run(overrides, **env):
        return run_command(["python", "-c", CODE, repo_dir, json.dumps(overrides)], cwd=tmp_path, env=env)

    return run


@pytest.mark.parametrize(("machine", "user", "expected"), [
    ("x86_64", None, "AVX2"), ("AMD64", None, "AVX2"), ("x86_64", "SSE41", "SSE41"), ("aarch64", None, None)])
def test_prepare_environment_keeps_what_the_user_set(monkeypatch, machine, user, expected):
    environ = {} if user is None else {"ONEDNN_MAX_CPU_ISA": user}
    monkeypatch.setattr(local_adapter.os, "environ", environ)
    monkeypatch.setattr(local_adapter.platform, "machine", lambda: machine)
    local_adapter.prepare_environment()
    assert environ.get("ONEDNN_MAX_CPU_ISA") == expected
    assert environ["GLOG_v"] == "3"
    assert "OMP_NUM_THREADS" not in environ
    local_adapter.prepare_environment(threads=3)
    assert environ["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize(("user", "expected"), [("1", "0"), ("0", "0"), (None, None)])
def test_the_compile_cache_is_switched_off_with_a_warning(monkeypatch, caplog, user, expected):
    monkeypatch.setattr(local_adapter.os, "environ", {} if user is None else {"MS_COMPILER_CACHE_ENABLE": user})
    local_adapter.prepare_environment()
    assert local_adapter.os.environ.get("MS_COMPILER_CACHE_ENABLE") == expected
    assert ("MS_COMPILER_CACHE_ENABLE=1 is ignored" in caplog.text) == (user == "1")


@pytest.mark.parametrize(("environ", "rank", "count"), [
    ({}, 0, 1), ({"RANK_ID": "3", "RANK_SIZE": "8"}, 3, 8), ({"MS_WORKER_NUM": "2"}, 0, 2), ({"RANK_SIZE": ""}, 0, 1)])
def test_rank_comes_from_the_launcher(monkeypatch, environ, rank, count):
    monkeypatch.setattr(local_adapter.os, "environ", environ)
    assert (local_adapter.get_rank_id(), local_adapter.get_device_num()) == (rank, count)


def test_setup_device(run_setup):
    first, again = (run_setup({"device_target": "CPU", "seed": 7}, ONEDNN_MAX_CPU_ISA="SSE41") for _ in range(2))
    assert first.returncode == 0, first.stderr
    report = json.loads(first.stdout)
    assert (report["target"], report["graph"], report["seed"], report["isa"]) == ("CPU", True, 7, "SSE41")
    assert first.stdout == again.stdout


def test_distribute_needs_a_launcher(run_setup):
    unset = dict.fromkeys(("RANK_SIZE", "MS_WORKER_NUM", "RANK_TABLE_FILE"))
    done = run_setup({"device_target": "CPU", "distribute": True}, **unset)
    assert done.returncode == 2
    assert "error: distribute: True, but RANK_SIZE and MS_WORKER_NUM are not set" in done.stderr


def test_unavailable_device(run_setup):
    done = run_setup({"device_target": "Ascend"})
    if done.returncode == 0:
        pytest.skip("an Ascend device is here")
    assert done.returncode == 2
    assert "error: device_target: MindSpore finds no Ascend; available: " in done.stderr
