"""The Dockerfiles, checked without building them, and the docker command of docker_start.sh."""
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
FILES = sorted(DOCKER.glob("Dockerfile.*"))
HADOLINT = Path(sys.executable).parent / "hadolint"
# The base image decides the versions of Debian's packages.
LINT = [str(HADOLINT), "--no-color", "--failure-threshold=style", "--ignore=DL3008", "--ignore=DL3059", "--ignore=DL3066"]

of_each = pytest.mark.parametrize("path", FILES, ids=lambda path: path.suffix[1:])


def instructions(path) -> list:
    """Return [(name, rest)] without comments; continued lines are joined."""
    text = re.sub(r"^#.*\n", "", path.read_text(encoding="utf-8"), flags=re.M).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def test_there_is_one_for_each_device():
    assert [path.name for path in FILES] == ["Dockerfile.ascend", "Dockerfile.cpu", "Dockerfile.gpu"]


@of_each
def test_linter_finds_nothing(path):
    """hadolint parses the file and checks its shell commands."""
    done = subprocess.run([*LINT, str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("line", ["RUNN true", "RUN echo $x*[", "COPY --form=python a b"])
def test_linter_finds_faults(tmp_path, line):
    (tmp_path / "Dockerfile").write_text((DOCKER / "Dockerfile.cpu").read_text() + f"{line}\n")
    assert subprocess.run([*LINT, str(tmp_path / "Dockerfile")], capture_output=True, check=False).returncode == 1


@of_each
def test_what_an_image_holds(path):
    found = instructions(path)
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [rest.split()[0] for name, rest in found if name == "COPY" and not rest.startswith("--from")]
    assert copied == ["requirements.txt"]
    assert rules[-2:] == ["*", "!requirements.txt"] and (ROOT / "requirements.txt").is_file()
    commands = [rest for name, rest in found if name == "RUN"]
    assert [command for command in commands if "pip install" in command] == [
        "python3 -m pip install --no-cache-dir -r /tmp/requirements.txt"]
    for command in commands:
        assert "apt-get install" not in command or "rm -rf /var/lib/apt/lists/*" in command
    assert [rest for name, rest in found if name == "USER"][-1] == "detector"
    assert found[0][0] == "ARG" and found[0][1].startswith("FROM_IMAGE_NAME")
    assert [rest for name, rest in found if name == "FROM"][-1] == "${FROM_IMAGE_NAME}"
    stages = re.findall(r"\bAS (\w+)$", path.read_text(encoding="utf-8"), re.M)
    assert {rest.split()[0] for name, rest in found if name == "COPY" and rest.startswith("--")} == {
        f"--from={stage}" for stage in stages}


# ------------------------------------------------------------------------------------------------ docker_start.sh


@pytest.fixture
def start(tmp_path, run_command):
    """Return start(*arguments, cards, gpus, lite) -> CompletedProcess. A stand-in docker prints one argument per line."""
    tools, devices = tmp_path / "bin", tmp_path / "dev"
    tools.mkdir()
    devices.mkdir()
    for folder in ("data set", "zoo/faster_rcnn", "zoo/utils/mindrecord", "zoo/ascend310_infer/src", "lite"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "zoo" / "faster_rcnn" / "train.py").write_text("")

    def run(*arguments, cards=(), gpus=False, lite=None):
        for name, text in (("docker", "printf '%s\\n' \"$@\"; exit 5"), ("nvidia-smi", f"exit {int(not gpus)}")):
            (tools / name).write_text(f"#!/bin/sh\n{text}\n")
            (tools / name).chmod(0o755)
        for name in cards:
            (devices / name).write_text("")
        return run_command(["bash", DOCKER / "docker_start.sh", *arguments], cwd=tmp_path,
                           env={"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "DEVICE_DIR": devices, "SHM_SIZE": None,
                                "MS_LITE_HOME": lite})

    return run


def bind(path, *more):
    return ["--mount", ",".join([f"type=bind,source={path},target={path}", *more])]


def test_container(start, tmp_path):
    done = start("detection:cpu", "data set", "zoo/faster_rcnn", "python", "train.py", "--coco_root=a b")
    model = tmp_path / "zoo" / "faster_rcnn"
    assert done.returncode == 5     # docker's status
    assert done.stdout.splitlines() == [
        "run", "--rm", "--init", "--shm-size", "8g", "--user", f"{os.getuid()}:{os.getgid()}", "--env", "HOME=/tmp",
        "--workdir", str(model), *bind(tmp_path / "data set"), *bind(model), *bind(tmp_path / "zoo" / "utils", "readonly"),
        *bind(tmp_path / "zoo" / "ascend310_infer", "readonly"), "detection:cpu", "python", "train.py", "--coco_root=a b"]


def test_dry_run_prints_the_command(tmp_path, run_command):
    """Docker need not be installed."""
    for name in ("data set", "zoo"):
        (tmp_path / name).mkdir()
    done = run_command(["bash", DOCKER / "docker_start.sh", "i", "data set", "zoo", "python", "a b.py"], cwd=tmp_path,
                       env={"DRY_RUN": "1", "DEVICE_DIR": tmp_path, "SHM_SIZE": None, "MS_LITE_HOME": None})
    words = shlex.split(done.stdout)
    assert (done.returncode, done.stderr, words[:6], words[-3:]) == (
        0, "", ["docker", "run", "--rm", "--init", "--shm-size", "8g"], ["i", "python", "a b.py"])
    assert " ".join(bind(tmp_path / "data set")) in " ".join(words)


def test_whole_checkout_includes_its_utils(start, tmp_path):
    done = start("i", "data set", "zoo")
    assert "readonly" not in done.stdout
    assert done.stdout.splitlines()[-2:] == ["i", "bash"]


@pytest.mark.parametrize(("data", "model", "mounted"), [
    ("zoo", "zoo", ["zoo"]), ("data set", "data set", ["data set"]), ("zoo/utils", "zoo/faster_rcnn", [
        "zoo/utils", "zoo/faster_rcnn", "zoo/ascend310_infer"])])
def test_a_folder_is_mounted_once(start, tmp_path, data, model, mounted):
    found = start("i", data, model).stdout.splitlines()
    assert [value.split(",target=")[1].split(",readonly")[0] for flag, value in zip(found, found[1:]) if flag == "--mount"] == [
        str(tmp_path / name) for name in mounted]


def test_lite_is_mounted(start, tmp_path):
    done = start("i", "data set", "zoo", lite="lite")
    assert " ".join(["--env", f"MS_LITE_HOME={tmp_path / 'lite'}", *bind(tmp_path / "lite", "readonly")]) in " ".join(
        done.stdout.splitlines())


@pytest.mark.parametrize("device", ["cpu", "ascend"])
def test_the_cpp_program_can_be_built(device):
    """The packages that ascend310_infer/README.md requires, by their Debian and Ubuntu names."""
    packages = {word for name, rest in instructions(DOCKER / f"Dockerfile.{device}") if name == "RUN" for word in rest.split()}
    assert {"cmake", "g++", "make", "libjpeg-dev", "libpng-dev"} <= packages


def test_cards(start, tmp_path):
    done = start("i", "data set", "zoo", cards=("davinci0", "davinci11", "davinci_manager", "hisi_hdc"), gpus=True)
    found = done.stdout.splitlines()
    assert [value for flag, value in zip(found, found[1:]) if flag == "--device"] == [
        str(tmp_path / "dev" / name) for name in ("davinci0", "davinci11", "davinci_manager", "hisi_hdc")]
    assert found[found.index("--group-add") + 1] == str(os.getgid())
    assert found[found.index("--network") + 1] == "host"
    assert found[found.index("--gpus") + 1] == "all"


@pytest.mark.parametrize(("arguments", "expected"), [
    (("i", "data set"), "usage: bash docker_start.sh IMAGE DATA_DIR MODEL_DIR [COMMAND...]"),
    (("i", "none", "zoo"), "docker_start.sh: error: DATA_DIR: no such folder: none"),
    (("i", "data set", "none"), "docker_start.sh: error: MODEL_DIR: no such folder: none"),
    (("i", "a,b", "zoo"), "docker_start.sh: error: DATA_DIR: docker does not accept a path with a comma or a quote: "),
    (("i", "a\n", "zoo"), "docker_start.sh: error: DATA_DIR: docker does not accept a path with a line break"),
    (("i", "a\nb", "zoo"), "docker_start.sh: error: DATA_DIR: docker does not accept a path with a line break"),
    (("--privileged", "data set", "zoo"), "docker_start.sh: error: IMAGE: expected the name of an image, got '--privileged'"),
    (("", "data set", "zoo"), "docker_start.sh: error: IMAGE: expected the name of an image, got ''")])
def test_faults(start, tmp_path, arguments, expected):
    for name in ("a,b", "a\n", "a\nb", "a"):
        (tmp_path / name).mkdir()
    done = start(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(expected)


def test_folders_are_relative_to_the_working_directory(tmp_path, run_command):
    """This includes a folder called - and one whose name CDPATH also holds."""
    for name in ("-", "zoo", "elsewhere/zoo", "before"):
        (tmp_path / name).mkdir(parents=True)
    done = run_command(["bash", DOCKER / "docker_start.sh", "i", "-", "zoo"], cwd=tmp_path,
                       env={"DRY_RUN": "1", "DEVICE_DIR": tmp_path, "SHM_SIZE": "16.5 GiB", "MS_LITE_HOME": None,
                            "CDPATH": tmp_path / "elsewhere", "OLDPWD": tmp_path / "before"})
    words = shlex.split(done.stdout)
    assert [word for word in words if word.startswith("type=")] == [*bind(tmp_path / "-")[1:], *bind(tmp_path / "zoo")[1:]]
    assert words[words.index("--shm-size") + 1] == "16.5 GiB"


@pytest.mark.parametrize(("name", "value", "expected"), [
    ("SHM_SIZE", "--privileged", "SHM_SIZE: expected a size such as 8g, got '--privileged'"),
    ("DEVICE_DIR", "/dev:/x", "DEVICE_DIR: docker does not accept a path with a colon")])
def test_faults_of_the_environment(tmp_path, run_command, name, value, expected):
    done = run_command(["bash", DOCKER / "docker_start.sh", "i", ".", "."], cwd=tmp_path, env={"DRY_RUN": "1", name: value})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"docker_start.sh: error: {expected}")


def test_cards_have_numbers(start, tmp_path):
    """docker would take text after a colon for the card's path in the container."""
    done = start("i", "data set", "zoo", cards=("davinci0", "davinci1:x"))
    assert str(tmp_path / "dev" / "davinci0") in done.stdout and "davinci1" not in done.stdout
