"""A speed run of detectron2's recipe on two CPU machines, with a toy network: it prints its speed.

test_scripts_launch.py checks what the scripts start on one machine; test_scripts_run.py trains with two processes.

The machines are two network namespaces joined by a virtual cable, if the system allows them.
"""
import os
import re
import shutil
import subprocess
import sys
import uuid

import pytest
import yaml

from utils.launch.cli import free_port

pytestmark = pytest.mark.ranks

SPEED = re.compile(r"FPS: (\d+\.\d+), step time median (\d+\.\d+) s, 90th percentile (\d+\.\d+) s, over 3 steps "
                   r"after 2 of warm-up, 2 devices, batch 2")
ADDRESSES = ("10.213.7.1", "10.213.7.2")
TOY = {"img_height": 64, "img_width": 64, "num_gts": 4, "num_classes": 4, "num_parallel_workers": 1, "run_eval": False,
       "coco_classes": ["background", "thing 1", "thing 2", "thing 3"]}


@pytest.fixture
def start(tmp_path, coco, repo_dir):
    """start(model, script, more flags, devices, before=()) -> the running script, called from tmp_path, of five steps.

    before: words in front of the command.
    """
    running = []

    def call(model, script, more, devices, before=()):
        toy = {"__BASE__": str(repo_dir / model / "detectron2_config_101.yaml"), **TOY}
        (tmp_path / "toy config.yaml").write_text(yaml.safe_dump(toy), encoding="utf-8")
        environment = {**os.environ, "DEVICE_TARGET": "CPU", "DEVICE_NUM": str(devices),
                       "PYTHON": str(repo_dir / "tests" / "toy_python"), "TOY_PYTHON": sys.executable}
        words = [*before, "bash", str(repo_dir / model / "test" / script), f"--data_path={coco}", "--batch_size=2",
                 "--perf_steps=3", "--perf_warmup=2", "--config_path=toy config.yaml", "--output_path=an out", *more]
        running.append(subprocess.Popen(words, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True))
        return running[-1]

    yield call
    for process in running:
        if process.poll() is None:
            process.terminate()
            process.wait(30)
            for path in sorted(tmp_path.glob("an out/log/*.log")):      # shows why it did not end
                print(path, path.read_text(), sep="\n")


def assert_speed(outputs):
    """Rank 0 prints the speed over the images of all ranks, whatever the times of the three steps were."""
    found = SPEED.search(outputs[0])
    assert found, "\n".join(outputs)
    fps, median, slow = map(float, found.groups())
    longest = median + (slow - median) / 0.8        # 90 % of the way from the first to the third
    assert 2 / 3 * median - 1e-3 < 2 / fps < (2 * median + longest) / 3 + 1e-3


@pytest.fixture
def machines():
    """Names of two network namespaces whose ends have ADDRESSES; empty without root and iproute2."""
    if not shutil.which("ip") or os.geteuid() != 0:
        yield []
        return
    key = uuid.uuid4().hex[:6]
    names, made = [f"zoo{key}{end}" for end in "ab"], True
    ends = [f"v{key}{end}" for end in "ab"]
    commands = [*(f"netns add {name}" for name in names), f"link add {ends[0]} type veth peer name {ends[1]}"]
    for name, end, address in zip(names, ends, ADDRESSES):
        commands += [f"link set {end} netns {name}", f"-n {name} addr add {address}/24 dev {end}", f"-n {name} link set {end} up",
                     f"-n {name} link set lo up"]
    try:
        for command in commands:
            made = made and not subprocess.run(["ip", *command.split()], capture_output=True, check=False).returncode
        yield names if made else []
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def speed_of_two_nodes(start, addresses, befores):
    port = free_port()      # another process may use msrun's default
    nodes = [start("faster_rcnn", "train_faster_rcnn_performance_multinodes.sh", [
        "--nnodes=2", f"--node_rank={i}", f"--local_addr={address}", f"--master_addr={addresses[0]}", f"--master_port={port}"], 1,
        before) for i, (address, before) in enumerate(zip(addresses, befores))]
    outputs = [node.communicate(timeout=400)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], "\n".join(outputs)
    assert_speed(outputs)


def test_speed_of_two_nodes(start, machines):
    """The machines have separate networks and reach each other by address; if that is impossible, both nodes are this machine."""
    if not machines:
        speed_of_two_nodes(start, ("127.0.0.1", "127.0.0.1"), ((), ()))
        return
    befores = [("ip", "netns", "exec", name) for name in machines]
    output = subprocess.run([*befores[0], "ip", "-brief", "addr"], capture_output=True, text=True, check=True).stdout
    assert ADDRESSES[0] in output and ADDRESSES[1] not in output
    speed_of_two_nodes(start, ADDRESSES, befores)
